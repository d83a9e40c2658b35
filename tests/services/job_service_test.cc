#include "services/jobs/job_service.h"

#include <stdlib.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <mutex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"

namespace e3 {
namespace {

const std::string kYaml =
    "name: a\nmodel: ../models/countdown-starter\ndatasets:\n  d: {countdown: {numbers: 3, count: "
    "8}}\ncurriculum:\n  grid: [32]\n"
    "  stages: [{dataset: d, steps: 2}]\n";

struct Fixture {
  Fixture() {
    char name[] = "/tmp/e3-jobs-XXXXXX";
    folder = mkdtemp(name);
    Open();
  }
  void Open() {
    service.reset();
    store.reset();
    store = *Store::Open(folder);
    service = *JobService::Open(store.get());
  }
  std::string Submit(const std::string& key = "") {
    v1::SubmitJobRequest request;
    request.set_yaml(kYaml);
    request.set_path(std::string(E3_SOURCE_DIR) + "/deploy/jobs/x.yaml");
    request.set_idempotency_key(key);
    v1::SubmitJobReply reply;
    grpc::Status status = service->SubmitJob(nullptr, &request, &reply);
    INFO(status.error_message());
    REQUIRE(status.ok());
    return reply.job().id();
  }
  // The id of the job leased, or "".
  std::string Lease(const std::string& holder, double duration = 15) {
    v1::LeaseJobRequest request;
    request.set_holder(holder);
    request.set_duration(duration);
    v1::LeaseJobReply reply;
    REQUIRE(service->LeaseJob(nullptr, &request, &reply).ok());
    return reply.has_job() ? reply.job().id() : "";
  }
  grpc::Status Report(const std::string& id, const std::string& holder,
                      v1::JobState state = v1::JOB_STATE_UNSPECIFIED, bool* cancel = nullptr) {
    v1::ReportProgressRequest request;
    request.set_job_id(id);
    request.set_holder(holder);
    request.set_state(state);
    v1::ReportProgressReply reply;
    grpc::Status status = service->ReportProgress(nullptr, &request, &reply);
    if (cancel != nullptr) *cancel = reply.cancel_requested();
    return status;
  }
  v1::Job Get(const std::string& id) {
    v1::GetJobRequest request;
    request.set_id(id);
    v1::Job job;
    REQUIRE(service->GetJob(nullptr, &request, &job).ok());
    return job;
  }
  v1::Job Cancel(const std::string& id) {
    v1::CancelJobRequest request;
    request.set_id(id);
    v1::Job job;
    REQUIRE(service->CancelJob(nullptr, &request, &job).ok());
    return job;
  }

  std::string folder;
  std::unique_ptr<Store> store;
  std::unique_ptr<JobService> service;
};

TEST_CASE("one job holds the pool, the others wait in order") {
  Fixture f;
  std::string first = f.Submit();
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  std::string second = f.Submit();
  CHECK(f.Lease("a") == first);
  CHECK(f.Get(first).state() == v1::JOB_STATE_RUNNING);
  CHECK(f.Lease("b").empty());
  CHECK(f.Lease("a") == first);  // the holder came back
  CHECK_FALSE(f.Report(first, "b").ok());
  CHECK(f.Report(first, "a", v1::JOB_STATE_SUCCEEDED).ok());
  CHECK_FALSE(f.Report(first, "a").ok());
  CHECK(f.Lease("b") == second);
}

TEST_CASE("a lease that is not renewed is free again") {
  Fixture f;
  std::string id = f.Submit();
  CHECK(f.Lease("a", 0.05) == id);
  CHECK(f.Lease("b").empty());
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  CHECK(f.Lease("b") == id);
  CHECK(f.Report(id, "a").error_code() == grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_CASE("a submission that is sent again is not a second job") {
  Fixture f;
  std::string id = f.Submit("key");
  CHECK(f.Submit("key") == id);
  f.Open();
  CHECK(f.Submit("key") == id);
  CHECK(f.Submit("other") != id);
}

TEST_CASE("jobs outlive the service, and a running one stays with its holder") {
  Fixture f;
  std::string id = f.Submit();
  CHECK(f.Lease("a") == id);
  f.Open();
  CHECK(f.Get(id).state() == v1::JOB_STATE_RUNNING);
  CHECK(f.Lease("b").empty());  // the holder may still live
  CHECK(f.Report(id, "a").ok());
  CHECK(f.Lease("a") == id);
}

TEST_CASE("cancelling ends a queued job and asks a running one") {
  Fixture f;
  std::string first = f.Submit();
  CHECK(f.Cancel(first).state() == v1::JOB_STATE_CANCELLED);
  std::string second = f.Submit();
  CHECK(f.Lease("a") == second);
  CHECK(f.Cancel(second).state() == v1::JOB_STATE_RUNNING);
  bool cancel = false;
  CHECK(f.Report(second, "a", v1::JOB_STATE_UNSPECIFIED, &cancel).ok());
  CHECK(cancel);
  CHECK(f.Report(second, "a", v1::JOB_STATE_CANCELLED).ok());
}

TEST_CASE("a bad file is refused with its place, and nothing is stored") {
  Fixture f;
  v1::SubmitJobRequest request;
  request.set_yaml("name: a\nsteps: 3\n");
  request.set_path("/x/job.yaml");
  v1::SubmitJobReply reply;
  grpc::Status status = f.service->SubmitJob(nullptr, &request, &reply);
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(status.error_message().find("/x/job.yaml:2:1: steps: unknown key") == 0);
  v1::ListJobsReply list;
  f.service->ListJobs(nullptr, nullptr, &list);
  CHECK(list.jobs().empty());
}

TEST_CASE("from many threads: one job runs at a time, and a key is one job") {
  Fixture f;
  std::mutex mutex;
  std::set<std::string> ids;
  std::atomic<int> running{0}, finished{0};
  std::atomic<bool> broken{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {  // clients; two send each submission
    threads.emplace_back([&, t] {
      for (int i = 0; i < 6; ++i) {
        v1::SubmitJobRequest request;
        request.set_yaml(kYaml);
        request.set_path(std::string(E3_SOURCE_DIR) + "/deploy/jobs/x.yaml");
        request.set_idempotency_key(absl::StrCat("key-", t / 2, "-", i));
        v1::SubmitJobReply reply;
        if (!f.service->SubmitJob(nullptr, &request, &reply).ok()) broken = true;
        std::lock_guard<std::mutex> lock(mutex);
        ids.insert(reply.job().id());
      }
    });
  }
  for (int t = 0; t < 3; ++t) {  // controllers
    threads.emplace_back([&, t] {
      const std::string holder = absl::StrCat("controller-", t);
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      while (finished < 12 && !broken && std::chrono::steady_clock::now() < deadline) {
        v1::LeaseJobRequest lease;
        lease.set_holder(holder);
        v1::LeaseJobReply leased;
        if (!f.service->LeaseJob(nullptr, &lease, &leased).ok()) broken = true;
        if (!leased.has_job()) {
          std::this_thread::yield();
          continue;
        }
        if (++running > 1) broken = true;
        v1::ReportProgressRequest report;
        report.set_job_id(leased.job().id());
        report.set_holder(holder);
        report.mutable_step()->set_step(1);
        v1::ReportProgressReply reply;
        if (!f.service->ReportProgress(nullptr, &report, &reply).ok()) broken = true;
        --running;  // before the job ends, since another may run at once
        report.set_state(v1::JOB_STATE_SUCCEEDED);
        if (!f.service->ReportProgress(nullptr, &report, &reply).ok()) broken = true;
        ++finished;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(broken);
  CHECK(ids.size() == 12);
  CHECK(finished == 12);
  f.Open();  // and all of it is durable
  v1::ListJobsReply listed;
  REQUIRE(f.service->ListJobs(nullptr, nullptr, &listed).ok());
  CHECK(listed.jobs_size() == 12);
  for (const v1::Job& job : listed.jobs()) CHECK(job.state() == v1::JOB_STATE_SUCCEEDED);
}

}  // namespace
}  // namespace e3
