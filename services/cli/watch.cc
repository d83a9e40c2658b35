#include "services/cli/watch.h"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/runtime/rpc.h"

namespace e3 {
namespace {

double Metric(const v1::StepRecord& record, const char* name) {
  auto it = record.metrics().find(name);
  return it == record.metrics().end() ? 0 : it->second;
}

std::string ShortDuration(double seconds) {
  int64_t s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return absl::StrFormat("%dh%02dm", s / 3600, s / 60 % 60);
  if (s >= 60) return absl::StrFormat("%dm%02ds", s / 60, s % 60);
  return absl::StrFormat("%ds", s);
}

// Steps that all stages together may still take.
int64_t StepsLeft(const v1::Job& job) {
  int64_t left = 0;
  for (int i = 0; i < job.spec().curriculum().stages_size(); ++i) {
    if (i < job.curriculum().stages_size() && job.curriculum().stages(i).done()) continue;
    int64_t done = i < job.curriculum().stages_size()
                       ? static_cast<int64_t>(job.curriculum().stages(i).steps_done())
                       : 0;
    left += std::max<int64_t>(0, job.spec().curriculum().stages(i).steps() - done);
  }
  return left;
}

class Screen {
 public:
  Screen() : terminal_(isatty(STDOUT_FILENO) != 0) {}
  ~Screen() { Clear(); }
  void Line(const std::string& text) {
    Clear();
    std::cout << text << std::endl;
  }
  // The line at the bottom; printed as a line of its own, once, when this is no terminal.
  void Activity(const std::string& text) {
    if (text == shown_) return;
    shown_ = text;
    if (terminal_) {
      std::cout << "\r\033[K" << text << std::flush;
      dirty_ = true;
    } else {
      std::cout << text << std::endl;
    }
  }

 private:
  void Clear() {
    if (dirty_) std::cout << "\r\033[K" << std::flush;
    dirty_ = false;
    if (terminal_) shown_.clear();
  }
  bool terminal_, dirty_ = false;
  std::string shown_;
};

std::string StepLine(const v1::Job& job, const v1::StepRecord& record) {
  const v1::Stage& stage = job.spec().curriculum().stages(static_cast<int>(record.stage()));
  uint64_t first = static_cast<int>(record.stage()) < job.curriculum().stages_size()
                       ? job.curriculum().stages(static_cast<int>(record.stage())).first_step()
                       : 0;
  const double elapsed =
      static_cast<double>(absl::ToUnixMillis(absl::Now()) - job.started_at_ms()) / 1000;
  const double left = elapsed / static_cast<double>(std::max<uint64_t>(1, record.step())) *
                      static_cast<double>(StepsLeft(job));
  return absl::StrFormat("%-10s %6d  %3d/%-3d  %6.3f  %7.1f  %7.3f  %6.2f  %7.0f  %8s",
                         stage.name().substr(0, 10), record.budget(), record.step() - first,
                         stage.steps(), Metric(record, "reward"), Metric(record, "response_length"),
                         Metric(record, "entropy"), Metric(record, "verifications"),
                         Metric(record, "tokens_per_second"), ShortDuration(left));
}

}  // namespace

const char* StateName(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_QUEUED:
      return "queued";
    case v1::JOB_STATE_RUNNING:
      return "running";
    case v1::JOB_STATE_SUCCEEDED:
      return "succeeded";
    case v1::JOB_STATE_FAILED:
      return "failed";
    case v1::JOB_STATE_CANCELLED:
      return "cancelled";
    default:
      return "unknown";
  }
}

absl::StatusOr<v1::Job> WatchJob(v1::Jobs::Stub* jobs, const std::string& id) {
  Screen screen;
  v1::GetJobRequest request;
  request.set_id(id);
  uint64_t step_shown = 0;
  int choices_shown = 0;
  bool header = false;
  while (true) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    auto reader = jobs->WatchJob(&context, request);
    v1::Job job;
    while (reader->Read(&job)) {
      for (; choices_shown < job.curriculum().stages_size() &&
             job.curriculum().stages(choices_shown).budget() > 0;
           ++choices_shown) {
        const v1::StageState& stage = job.curriculum().stages(choices_shown);
        screen.Line(absl::StrCat("stage ", stage.name(), ": budget ", stage.budget(), " tokens",
                                 stage.has_choice() ? ". " + stage.choice().explanation() : ""));
        header = false;
      }
      if (job.has_last_step() && job.last_step().step() != step_shown) {
        if (!header)
          screen.Line(
              "stage      budget     step  reward   length  entropy  verif.  token/s  time left");
        header = true;
        screen.Line(StepLine(job, job.last_step()));
        step_shown = job.last_step().step();
      }
      if (job.state() == v1::JOB_STATE_QUEUED) {
        screen.Activity("queued");
      } else if (!job.activity().empty() && job.activity() != "done") {
        screen.Activity(absl::StrCat("… ", job.activity()));
      }
    }
    absl::Status status = FromGrpc(reader->Finish());
    if (status.ok()) return job;
    if (!IsTransient(status)) return status;
    screen.Activity("… the job service is away; waiting for it");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

std::string DescribeOutcome(const v1::Job& job) {
  std::string text = absl::StrFormat(
      "job %s %s after %s\n", job.id(), StateName(job.state()),
      ShortDuration(static_cast<double>(job.ended_at_ms() - job.started_at_ms()) / 1000));
  if (!job.error().empty()) absl::StrAppend(&text, "error: ", job.error(), "\n");
  for (const v1::StageState& stage : job.curriculum().stages()) {
    if (stage.evaluations_size() < 2) continue;
    const v1::Evaluation &before = stage.evaluations(0),
                         &after = stage.evaluations(stage.evaluations_size() - 1);
    absl::StrAppendFormat(&text, "stage %s, %d tokens:", stage.name(), stage.budget());
    for (int i = 0; i < after.budgets_size(); ++i)
      absl::StrAppendFormat(&text, "  J(%d) %.3f → %.3f", after.budgets(i), before.j(i),
                            after.j(i));
    absl::StrAppendFormat(&text, "  length %.1f → %.1f\n", before.mean_length(),
                          after.mean_length());
  }
  if (!job.checkpoint().empty()) {
    const std::filesystem::path path(job.checkpoint());
    absl::StrAppend(&text, "model:   ", job.checkpoint(), "\n");
    if (path.filename() == "model")  // of a job that came to its end, not of a step
      absl::StrAppend(&text, "summary: ", path.parent_path().string(), "/summary.html\n");
  }
  return text;
}

}  // namespace e3
