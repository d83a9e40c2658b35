// Keeps every rollout server at the weights that were published last.
#ifndef E3_LEARNER_SERVICE_WEIGHT_PUBLISHER_H_
#define E3_LEARNER_SERVICE_WEIGHT_PUBLISHER_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "e3/v1/rollouts.grpc.pb.h"
#include "e3/v1/weights.grpc.pb.h"
#include "model/parameters.h"

namespace e3 {

// A version of the policy, to be served.
struct PublishedWeights {
  v1::WeightVersion version;
  std::string model_path;  // the folder whose architecture and tokenizer the servers load first
  const ParameterLayout* layout;            // used while Publish runs
  std::shared_ptr<const float> parameters;  // in `layout`; not written before Recall returns
  v1::RunningPolicy running = v1::RUNNING_POLICY_CONTINUE;
};

// Thread-safe. Each server has a thread of its own, so one that is slow, loads a model or is gone
// holds up nobody.
class WeightPublisher {
 public:
  struct Address {
    std::string name;
    std::shared_ptr<grpc::Channel> channel;
  };
  explicit WeightPublisher(const std::vector<Address>& servers);
  // Gives up what is being uploaded.
  ~WeightPublisher();

  WeightPublisher(const WeightPublisher&) = delete;
  WeightPublisher& operator=(const WeightPublisher&) = delete;

  // Offers the weights to all servers, also while rollouts run, which go on as `weights.running`
  // says; uploads of weights before the last ones are given up. OK as soon as one server has them;
  // else a server's failure, when all have failed or one has and the others take longer: whoever
  // generates waits for them. Cancelled when `stop` says so first.
  absl::Status Publish(const PublishedWeights& weights, const std::function<bool()>& stop);
  // Of the weights that were published last; without a job before the first.
  v1::WeightVersion version() const;
  // OK when the server (by its place in the list) has the weights that are published now: it is
  // asked, and gets what it lacks. Else its failure; Cancelled when `stop` says so first, while the
  // server goes on getting them.
  absl::Status Bring(size_t server, const std::function<bool()>& stop);
  // When this returns nobody reads the parameters any more. Servers that do not have them yet get
  // the ones that are published next.
  void Recall();

 private:
  // The weights and what the servers are told of them.
  struct Offer {
    PublishedWeights weights;
    v1::Manifest manifest;
    int64_t parameters;  // floats
  };
  struct Server {
    std::string name;
    std::unique_ptr<v1::Rollouts::Stub> rollouts;
    std::unique_ptr<v1::Weights::Stub> weights;
    std::thread thread;
    // The rest with the mutex. How often it was to be brought up to date, and was.
    uint64_t asked = 0, answered = 0;
    absl::Status answer;  // of the last time
    grpc::ClientContext* call = nullptr;
    std::shared_ptr<const Offer> uploading;
  };

  // Waits, with the mutex held, until `done` (true) or `stop` (false) says so.
  bool WaitUnless(std::unique_lock<std::mutex>& lock, const std::function<bool()>& stop,
                  const std::function<bool()>& done);
  void Run(Server& server);
  absl::Status BringUpToDate(Server& server);
  // The weights of `job`, whose model the server has.
  absl::Status Upload(Server& server, const std::string& job);
  // With the mutex held.
  void CancelUploads(const std::function<bool(const Server&)>& which);
  // Makes a call that others can cancel.
  absl::Status Call(Server& server, std::chrono::seconds deadline,
                    const std::function<grpc::Status(grpc::ClientContext*)>& call);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  v1::WeightVersion version_;
  std::shared_ptr<const Offer> offer_;  // null: recalled
  std::vector<std::unique_ptr<Server>> servers_;
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_WEIGHT_PUBLISHER_H_
