#include "learner/ranks/rank_worker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "learner/device_memory.h"
#include "learner/ranks/process_group.h"
#include "learner/ranks/rank_state.h"
#include "services/runtime/log.h"
#include "services/runtime/no_throw.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::Status RankWorker::CheckGroup(const std::string& group, bool needs_state) const {
  if (collectives_ != nullptr && group == group_ && (trainer_ != nullptr || !needs_state))
    return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this rank is not in group '", group, "'",
                   group_.empty() ? "" : absl::StrCat(" but in '", group_, "'"),
                   "; the leader must let it join again"));
}

void RankWorker::Leave() {
  trainer_.reset();
  group_.clear();
  std::lock_guard<std::mutex> lock(collectives_mutex_);
  collectives_.reset();
}

grpc::Status RankWorker::Done(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  Log("warning", "the group is left",
      {{"group", group_}, {"error", std::string(status.message())}});
  Leave();
  return ToGrpc(status);
}

void RankWorker::Drain() {
  std::lock_guard<std::mutex> lock(collectives_mutex_);
  if (collectives_ != nullptr) collectives_->Abandon();
}

grpc::Status RankWorker::Join(grpc::ServerContext*, const v1::JoinRequest* r,
                              v1::JoinReply* reply) {
  reply->set_host(HostIdentity());
  Drain();
  std::lock_guard<std::mutex> lock(mutex_);
  Leave();
  group_ = r->group();
  absl::StatusOr<std::unique_ptr<Collectives>> joined = JoinGroup(
      {r->store_host(), r->store_port(), host_, r->rank(), r->size(), device_, r->timeout()});
  if (!joined.ok()) return Done(joined.status());
  Log("info", "joined", {{"group", group_}, {"rank", r->rank()}, {"size", r->size()}});
  std::lock_guard<std::mutex> pointer_lock(collectives_mutex_);
  collectives_ = *std::move(joined);
  return grpc::Status::OK;
}

absl::Status RankWorker::Receive(const v1::ReceiveStateRequest& r) {
  E3_ASSIGN_OR_RETURN(ModelConfig config, ModelConfig::Load(r.model()));
  trainer_ = std::make_unique<Trainer>(std::make_unique<Transformer>(config, device_),
                                       r.offload_optimizer());
  E3_ASSIGN_OR_RETURN(TrainerState state,
                      BroadcastState(*collectives_, trainer_->policy().layout().size(), nullptr));
  state.updates = r.updates();
  trainer_->Restore(state);
  trainer_->JoinRanks(collectives_.get(), r.shard_optimizer());
  return absl::OkStatus();
}

grpc::Status RankWorker::ReceiveState(grpc::ServerContext*, const v1::ReceiveStateRequest* request,
                                      v1::ReceiveStateReply*) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status in = CheckGroup(request->group(), /*needs_state=*/false); !in.ok())
    return ToGrpc(in);
  return Done(NoThrow([&] { return Receive(*request); }));
}

grpc::Status RankWorker::Update(grpc::ServerContext*,
                                grpc::ServerReader<v1::RankUpdateRequest>* reader,
                                v1::RankUpdateReply* reply) {
  std::lock_guard<std::mutex> lock(mutex_);
  v1::RankUpdateRequest first, more;
  std::vector<TrainingRollout> rollouts;
  auto add = [&](const v1::RankUpdateRequest& request) {
    for (const auto& r : request.rollouts()) {
      rollouts.push_back({{{r.prompt().begin(), r.prompt().end()},
                           {r.response().begin(), r.response().end()},
                           {r.forced().begin(), r.forced().end()}},
                          {r.old_logprobs().begin(), r.old_logprobs().end()},
                          r.advantage(),
                          r.ended()});
    }
  };
  if (!reader->Read(&first)) return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no request");
  if (absl::Status in = CheckGroup(first.group(), /*needs_state=*/true); !in.ok())
    return ToGrpc(in);
  add(first);
  while (reader->Read(&more)) add(more);
  MiniBatch part;
  for (const TrainingRollout& rollout : rollouts) part.rollouts.push_back(&rollout);
  part.counts = {first.counts().tokens(), first.counts().positive_tokens(),
                 first.counts().sequences(), first.counts().positive_sequences()};
  absl::StatusOr<UpdateStatistics> done =
      trainer_->Update(part, first.training(), first.temperature());
  if (!done.ok()) return Done(done.status());
  const TokenStatistics& t = done->tokens;
  reply->set_tokens(t.tokens);
  reply->set_kl(t.kl);
  reply->set_ratio(t.ratio);
  reply->set_ratio_max(t.ratio_max);
  reply->set_clip_low(t.clip_low_share);
  reply->set_clip_high(t.clip_high_share);
  reply->set_clip_dual(t.clip_dual_share);
  reply->set_mismatch_sum(t.mismatch_mean);
  reply->set_mismatch_max(t.mismatch_max);
  reply->set_incorrect_ends(t.incorrect_ends);
  reply->set_incorrect_end_shift(t.incorrect_end_shift);
  reply->set_loss(done->loss);
  reply->set_parameters(ParametersChecksum(trainer_->policy()));
  return grpc::Status::OK;
}

grpc::Status RankWorker::BeginStage(grpc::ServerContext*, const v1::RankStageRequest* request,
                                    v1::RankStageReply*) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status in = CheckGroup(request->group(), /*needs_state=*/true); !in.ok())
    return ToGrpc(in);
  const v1::Training& training = request->training();
  const Transformer& policy = trainer_->policy();
  const absl::Status fits = CheckMemory(policy.config(), training, request->longest(),
                                        policy.device(), trainer_->Shares(request->neighbours()));
  if (!fits.ok() && request->first()) return Done(fits);
  if (!fits.ok()) Log("warning", "may not fit", {{"need", std::string(fits.message())}});
  if (request->first()) trainer_->BeginStage(training);
  return grpc::Status::OK;
}

grpc::Status RankWorker::GatherState(grpc::ServerContext*, const v1::GatherStateRequest* request,
                                     v1::GatherStateReply*) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status in = CheckGroup(request->group(), /*needs_state=*/true); !in.ok())
    return ToGrpc(in);
  return Done(trainer_->State(/*copy=*/false).status());
}

}  // namespace e3
