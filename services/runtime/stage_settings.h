// The settings of a stage: the job's, with what the stage overrides.
#ifndef E3_SERVICES_RUNTIME_STAGE_SETTINGS_H_
#define E3_SERVICES_RUNTIME_STAGE_SETTINGS_H_

#include "e3/v1/job_spec.pb.h"

namespace e3 {

inline v1::Training StageTraining(const v1::JobSpec& job, const v1::Stage& stage) {
  v1::Training training = job.training();
  training.MergeFrom(stage.training());
  return training;
}

inline v1::Sampling StageSampling(const v1::JobSpec& job, const v1::Stage& stage) {
  v1::Sampling sampling = job.sampling();
  sampling.MergeFrom(stage.sampling());
  return sampling;
}

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_STAGE_SETTINGS_H_
