#include "rollout_server/service/step_trace.h"

#include <utility>

#include "nlohmann/json.hpp"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

double Microseconds(Clock::time_point t) {
  return std::chrono::duration<double, std::micro>(t.time_since_epoch()).count();
}

Json Slice(const std::string& name, double begin_us, double seconds, Json args = Json::object()) {
  return {{"name", name},
          {"ph", "X"},
          {"pid", 1},
          {"tid", 1},
          {"ts", begin_us},
          {"dur", seconds * 1e6},
          {"args", std::move(args)}};
}

Json Counter(const std::string& name, double at_us, Json values) {
  return {{"name", name}, {"ph", "C"}, {"pid", 1}, {"ts", at_us}, {"args", std::move(values)}};
}

}  // namespace

void StepTrace::Add(const StepReport& report) {
  std::lock_guard<std::mutex> lock(mutex_);
  events_.push_back({"", report});
  if (events_.size() > kKept) events_.pop_front();
}

void StepTrace::Mark(const std::string& name, Clock::time_point begin, double seconds) {
  StepReport report;
  report.begin = begin;
  report.schedule_seconds = seconds;
  std::lock_guard<std::mutex> lock(mutex_);
  events_.push_back({name, report});
  if (events_.size() > kKept) events_.pop_front();
}

std::string StepTrace::Json() const {
  std::deque<Event> events;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    events = events_;
  }
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const auto& [pid, name] :
       {std::pair("process_name", "e3 rollout server"), std::pair("thread_name", "engine")}) {
    out.push_back({{"name", pid}, {"ph", "M"}, {"pid", 1}, {"tid", 1}, {"args", {{"name", name}}}});
  }
  for (const Event& event : events) {
    const StepReport& s = event.step;
    double at = Microseconds(s.begin);
    if (!event.name.empty()) {
      out.push_back(Slice(event.name, at, s.schedule_seconds));
      continue;
    }
    out.push_back(Slice("step", at, s.schedule_seconds + s.forward_seconds + s.sample_seconds,
                        {{"prefill_tokens", s.prefill_tokens},
                         {"decode_tokens", s.decode_tokens},
                         {"sequences", s.sequences}}));
    out.push_back(
        Counter("tokens", at, {{"prefill", s.prefill_tokens}, {"decode", s.decode_tokens}}));
    out.push_back(Counter("sequences", at, {{"running", s.running}, {"waiting", s.waiting}}));
    out.push_back(Counter("kv blocks", at, {{"used", s.blocks_used}}));
    for (const auto& [phase, seconds] : {std::pair("schedule", s.schedule_seconds),
                                         {"forward", s.forward_seconds},
                                         {"sample", s.sample_seconds}}) {
      out.push_back(Slice(phase, at, seconds));
      at += seconds * 1e6;
    }
  }
  return nlohmann::ordered_json{{"traceEvents", out}, {"displayTimeUnit", "ms"}}.dump();
}

}  // namespace e3
