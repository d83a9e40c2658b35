#include "learner/ranks/rank_leader.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "learner/flops.h"
#include "learner/ranks/deal.h"
#include "learner/ranks/rank_state.h"
#include "services/runtime/log.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kWorkersWait = std::chrono::minutes(5);
constexpr auto kBrokenCall = std::chrono::seconds(3);
constexpr size_t kMessageBytes = 4 << 20;  // of rollouts

void SetRollout(const TrainingRollout& from, v1::RankUpdateRequest::Rollout* to) {
  to->mutable_prompt()->Add(from.sequence.prompt.begin(), from.sequence.prompt.end());
  to->mutable_response()->Add(from.sequence.response.begin(), from.sequence.response.end());
  to->mutable_forced()->Add(from.sequence.forced.begin(), from.sequence.forced.end());
  to->mutable_old_logprobs()->Add(from.old_logprobs.begin(), from.old_logprobs.end());
  to->set_advantage(from.advantage);
  to->set_ended(from.ended);
}

void AddReply(const v1::RankUpdateReply& r, UpdateStatistics* sum) {
  TokenStatistics t;
  t.tokens = r.tokens();
  t.kl = r.kl();
  t.ratio = r.ratio();
  t.ratio_max = r.ratio_max();
  t.clip_low_share = r.clip_low();
  t.clip_high_share = r.clip_high();
  t.clip_dual_share = r.clip_dual();
  t.mismatch_mean = r.mismatch_sum();
  t.mismatch_max = r.mismatch_max();
  t.incorrect_ends = r.incorrect_ends();
  t.incorrect_end_shift = r.incorrect_end_shift();
  sum->tokens.Add(t);
  sum->loss += r.loss();
}

// Where attention costs as much as the products of a layer: both count multiplications of a token.
double QuadraticLength(const ModelConfig& c) {
  // Causal: n / 2 keys, twice.
  return static_cast<double>(LayerProductWeights(c)) /
         static_cast<double>(c.num_heads * c.head_dim);
}

}  // namespace

absl::Status RankLeader::OnAll(
    const std::function<grpc::Status(size_t worker, grpc::ClientContext*)>& call,
    const std::function<absl::Status()>& own) {
  std::mutex mutex;
  std::condition_variable changed;
  absl::Status failed;
  bool cancelled = false;  // what was cancelled here has nothing to say
  size_t running = workers_.size();
  std::vector<grpc::ClientContext> contexts(workers_.size());
  auto cancel = [&] {
    cancelled = true;
    for (grpc::ClientContext& context : contexts) context.TryCancel();
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < workers_.size(); ++i) {
    threads.emplace_back([&, i] {
      const grpc::Status status = call(i, &contexts[i]);
      std::lock_guard<std::mutex> lock(mutex);
      --running;
      changed.notify_all();
      if (status.ok() || cancelled) return;
      failed = Named(i, status);
      cancel();
      std::lock_guard<std::mutex> pointer_lock(mutex_);
      if (collectives_ != nullptr) collectives_->Abandon();
    });
  }
  const absl::Status mine = own();
  if (!mine.ok()) {
    // The rank that was lost is about to be known by its broken call.
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait_for(lock, kBrokenCall, [&] { return running == 0 || !failed.ok(); });
    cancel();
  }
  for (std::thread& thread : threads) thread.join();
  return failed.ok() ? mine : failed;
}

absl::Status RankLeader::Named(size_t worker, const grpc::Status& status) const {
  const std::string message = absl::StrCat("rank ", worker + 1, " at ", workers_[worker].address,
                                           ": ", status.error_message());
  const absl::Status given = FromGrpc(status);
  if (absl::IsOutOfRange(given)) return absl::OutOfRangeError(message);
  if (IsTransient(given) || absl::IsFailedPrecondition(given))
    return absl::UnavailableError(message);
  return absl::InternalError(message);
}

absl::StatusOr<std::unique_ptr<RankLeader>> RankLeader::Form(const RankOptions& options,
                                                             c10::Device device,
                                                             const std::string& group,
                                                             const std::function<bool()>& stop) {
  std::unique_ptr<RankLeader> leader(new RankLeader);
  leader->options_ = options;
  leader->group_ = group;
  const auto deadline = Clock::now() + kWorkersWait;
  for (const std::string& address : options.workers) {
    std::shared_ptr<grpc::Channel> channel = Connect(address);
    while (!channel->WaitForConnected(std::chrono::system_clock::now() +
                                      std::chrono::milliseconds(200))) {
      if (stop()) return absl::CancelledError("stopped while waiting for ranks");
      if (Clock::now() > deadline) {
        return absl::UnavailableError(
            absl::StrCat("no rank serves at ", address, ", for five minutes; is it running?"));
      }
    }
    leader->workers_.push_back({address, v1::TrainerRank::NewStub(channel)});
  }
  E3_ASSIGN_OR_RETURN(leader->rendezvous_, Rendezvous::Create(options.host));
  const int size = static_cast<int>(options.workers.size()) + 1;
  E3_RETURN_IF_ERROR(leader->OnAll(
      [&](size_t i, grpc::ClientContext* context) {
        v1::JoinRequest request;
        request.set_group(group);
        request.set_rank(static_cast<int>(i) + 1);
        request.set_size(size);
        request.set_store_host(options.host);
        request.set_store_port(leader->rendezvous_->port());
        request.set_timeout(options.timeout_seconds);
        v1::JoinReply reply;
        const grpc::Status joined = leader->workers_[i].stub->Join(context, request, &reply);
        leader->workers_[i].host = reply.host();
        return joined;
      },
      [&]() -> absl::Status {
        E3_ASSIGN_OR_RETURN(std::unique_ptr<Collectives> joined,
                            JoinGroup({options.host, leader->rendezvous_->port(), options.host, 0,
                                       size, device, options.timeout_seconds}));
        std::lock_guard<std::mutex> lock(leader->mutex_);
        leader->collectives_ = std::move(joined);
        return absl::OkStatus();
      }));
  Log("info", "group of ranks formed", {{"group", group}, {"ranks", size}});
  return leader;
}

absl::Status RankLeader::SendState(const TrainerState& state, int64_t parameters,
                                   const std::string& model, bool offload_optimizer) {
  return OnAll(
      [&](size_t i, grpc::ClientContext* context) {
        v1::ReceiveStateRequest request;
        request.set_group(group_);
        request.set_model(model);
        request.set_shard_optimizer(options_.shard_optimizer);
        request.set_updates(state.updates);
        request.set_offload_optimizer(offload_optimizer);
        v1::ReceiveStateReply reply;
        return workers_[i].stub->ReceiveState(context, request, &reply);
      },
      [&] { return BroadcastState(*collectives_, parameters, &state).status(); });
}

absl::StatusOr<UpdateStatistics> RankLeader::Update(Trainer& trainer, const MiniBatch& mini_batch,
                                                    const v1::Training& training,
                                                    double temperature) {
  std::vector<int64_t> lengths;
  for (const TrainingRollout* rollout : mini_batch.rollouts)
    lengths.push_back(rollout->sequence.length());
  const std::vector<std::vector<size_t>> dealt =
      DealSequences(lengths, collectives_->size(), QuadraticLength(trainer.policy().config()));

  std::vector<v1::RankUpdateReply> replies(workers_.size());
  UpdateStatistics statistics;
  E3_RETURN_IF_ERROR(OnAll(
      [&](size_t i, grpc::ClientContext* context) {
        auto writer = workers_[i].stub->Update(context, &replies[i]);
        v1::RankUpdateRequest request;
        request.set_group(group_);
        request.mutable_counts()->set_tokens(mini_batch.counts.tokens);
        request.mutable_counts()->set_positive_tokens(mini_batch.counts.positive_tokens);
        request.mutable_counts()->set_sequences(mini_batch.counts.sequences);
        request.mutable_counts()->set_positive_sequences(mini_batch.counts.positive_sequences);
        *request.mutable_training() = training;
        request.set_temperature(temperature);
        size_t bytes = 0;
        for (size_t k : dealt[i + 1]) {
          SetRollout(*mini_batch.rollouts[k], request.add_rollouts());
          bytes += request.rollouts().rbegin()->ByteSizeLong();
          if (bytes < kMessageBytes) continue;
          writer->Write(request);
          request.Clear();
          bytes = 0;
        }
        writer->Write(request);
        writer->WritesDone();
        return writer->Finish();
      },
      [&]() -> absl::Status {
        MiniBatch part{{}, mini_batch.counts};
        for (size_t k : dealt[0]) part.rollouts.push_back(mini_batch.rollouts[k]);
        E3_ASSIGN_OR_RETURN(statistics, trainer.Update(part, training, temperature));
        return absl::OkStatus();
      }));
  const uint64_t checksum = ParametersChecksum(trainer.policy());
  for (size_t i = 0; i < replies.size(); ++i) {
    if (replies[i].parameters() != checksum) {
      return absl::InternalError(
          absl::StrCat("rank ", i + 1, " at ", workers_[i].address,
                       " has other parameters than the leader after an update; are both of the "
                       "same build, on processors of the same kind?"));
    }
    AddReply(replies[i], &statistics);
  }
  return statistics;
}

int RankLeader::NeighboursOf(const std::string& host_identity) const {
  int ranks = host_identity == HostIdentity() ? 1 : 0;
  for (const Worker& worker : workers_) ranks += worker.host == host_identity;
  return ranks;
}

absl::Status RankLeader::BeginStage(const v1::Training& training, bool first, int64_t longest) {
  return OnAll(
      [&](size_t i, grpc::ClientContext* context) {
        v1::RankStageRequest request;
        request.set_group(group_);
        *request.mutable_training() = training;
        request.set_first(first);
        request.set_longest(longest);
        request.set_neighbours(NeighboursOf(workers_[i].host));
        v1::RankStageReply reply;
        return workers_[i].stub->BeginStage(context, request, &reply);
      },
      [] { return absl::OkStatus(); });
}

absl::StatusOr<TrainerState> RankLeader::State(Trainer& trainer, bool copy) {
  if (!options_.shard_optimizer) return trainer.State(copy);
  TrainerState state;
  E3_RETURN_IF_ERROR(OnAll(
      [&](size_t i, grpc::ClientContext* context) {
        v1::GatherStateRequest request;
        request.set_group(group_);
        v1::GatherStateReply reply;
        return workers_[i].stub->GatherState(context, request, &reply);
      },
      [&]() -> absl::Status {
        E3_ASSIGN_OR_RETURN(state, trainer.State(copy));
        return absl::OkStatus();
      }));
  return state;
}

}  // namespace e3
