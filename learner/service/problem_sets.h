// The data sets of a job as token ids, and the order in which steps go through them.
#ifndef E3_LEARNER_SERVICE_PROBLEM_SETS_H_
#define E3_LEARNER_SERVICE_PROBLEM_SETS_H_

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"
#include "e3/v1/rewards.pb.h"
#include "model/prompt_encoder.h"

namespace e3 {

// A problem with its prompt as token ids.
struct EncodedProblem {
  uint64_t index;  // in the data set
  std::vector<uint32_t> prompt;
  v1::ScoreRequest grading;
};

// Thread-safe. What it returns stays where it is.
class ProblemSets {
 public:
  // `spec` and `encoder` outlive it; `context_length` is the model's.
  ProblemSets(const v1::JobSpec* spec, const PromptEncoder* encoder, int64_t context_length)
      : spec_(spec), encoder_(encoder), context_length_(context_length) {}

  // The data set of this name, read and encoded on first use. Prompts that are too long are left
  // out and told; InvalidArgument when all are.
  absl::StatusOr<const std::vector<EncodedProblem>*> Get(const std::string& dataset);

 private:
  const v1::JobSpec* spec_;
  const PromptEncoder* encoder_;
  int64_t context_length_;
  std::mutex mutex_;
  std::map<std::string, std::vector<EncodedProblem>> sets_;
};

// `count` problems from `position` on (from 0): the data set in a new random order, keyed by
// `seed`, each time through. Nothing but its arguments decides, so there is no cursor to lose.
std::vector<const EncodedProblem*> SelectProblems(const std::vector<EncodedProblem>& problems,
                                                  uint64_t seed, uint64_t position, int64_t count);

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_PROBLEM_SETS_H_
