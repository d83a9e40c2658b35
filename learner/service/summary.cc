#include "learner/service/summary.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

Json VersionJson(const v1::WeightVersion& v) {
  return {{"job", v.job()}, {"epoch", v.epoch()}, {"step", v.step()}};
}

Json MetricsJson(const v1::StepRecord& record) {
  // Maps of a message have no order.
  std::map<std::string, double> sorted(record.metrics().begin(), record.metrics().end());
  return sorted;
}

template <typename T>
Json ListJson(const google::protobuf::RepeatedField<T>& values) {
  return std::vector<T>(values.begin(), values.end());
}

Json SummaryJson(const std::string& model_folder, const v1::FinishJobRequest& request,
                 const std::vector<v1::StepRecord>& records) {
  Json stages = Json::array();
  for (const v1::StageState& stage : request.curriculum().stages()) {
    Json evaluations = Json::array();
    for (const v1::Evaluation& e : stage.evaluations()) {
      evaluations.push_back({{"stage_step", e.stage_step()},
                             {"budgets", ListJson(e.budgets())},
                             {"j", ListJson(e.j())},
                             {"mean_length", e.mean_length()},
                             {"verifications", e.verifications()}});
    }
    Json choice;
    if (stage.has_choice()) {
      choice = {{"budgets", ListJson(stage.choice().budgets())},
                {"j", ListJson(stage.choice().j())},
                {"mean_length", stage.choice().mean_length()},
                {"kappa", stage.choice().kappa()},
                {"fallback", stage.choice().fallback()},
                {"explanation", stage.choice().explanation()}};
    }
    stages.push_back({{"name", stage.name()},
                      {"budget", stage.budget()},
                      {"steps", stage.steps_done()},
                      {"done_reason", stage.done_reason()},
                      {"budget_choice", choice},
                      {"evaluations", evaluations}});
  }
  return {{"job", request.job_id()},
          {"name", request.spec().name()},
          {"outcome", request.outcome()},
          {"model", model_folder},
          {"steps", records.size()},
          {"stages", stages},
          {"last_step", records.empty() ? Json() : MetricsJson(records.back())}};
}

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// A line chart of one metric over the steps; stages are told apart by colour.
std::string Plot(const std::vector<v1::StepRecord>& records, const std::string& title,
                 const std::string& metric) {
  constexpr double kWidth = 420, kHeight = 170, kLeft = 48, kRight = 10, kTop = 10, kBottom = 24;
  static const char* kColors[] = {"#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626"};
  double low = INFINITY, high = -INFINITY;
  for (const v1::StepRecord& r : records) {
    auto it = r.metrics().find(metric);
    if (it == r.metrics().end() || !std::isfinite(it->second)) continue;
    low = std::min(low, it->second);
    high = std::max(high, it->second);
  }
  if (!std::isfinite(low)) return "";
  if (high - low < 1e-12) high = low + (low == 0 ? 1 : std::fabs(low) * 0.1);
  const double first = static_cast<double>(records.front().step()),
               last = std::max(first + 1, static_cast<double>(records.back().step()));
  auto x = [&](double step) {
    return kLeft + (step - first) / (last - first) * (kWidth - kLeft - kRight);
  };
  auto y = [&](double value) {
    return kTop + (high - value) / (high - low) * (kHeight - kTop - kBottom);
  };
  std::string svg = absl::StrFormat(
      "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s "
      "over steps\">",
      Escape(title), kWidth, kHeight, Escape(title));
  for (int i = 0; i <= 3; ++i) {
    double value = low + (high - low) * i / 3;
    absl::StrAppendFormat(&svg,
                          "<line x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\" class=\"grid\"/><text "
                          "x=\"%g\" y=\"%.1f\" class=\"tick end\">%.3g</text>",
                          kLeft, kWidth - kRight, y(value), y(value), kLeft - 5, y(value) + 3,
                          value);
  }
  absl::StrAppendFormat(&svg,
                        "<text x=\"%g\" y=\"%g\" class=\"tick\">step %g</text><text x=\"%g\" "
                        "y=\"%g\" class=\"tick end\">%g</text>",
                        kLeft, kHeight - 6, first, kWidth - kRight, kHeight - 6, last);
  for (size_t i = 0; i < records.size();) {
    const uint32_t stage = records[i].stage();
    std::string points;
    for (; i < records.size() && records[i].stage() == stage; ++i) {
      auto it = records[i].metrics().find(metric);
      if (it != records[i].metrics().end())
        absl::StrAppendFormat(&points, "%.1f,%.1f ", x(static_cast<double>(records[i].step())),
                              y(it->second));
    }
    absl::StrAppendFormat(&svg, "<polyline points=\"%s\" style=\"stroke:%s\"/>", points,
                          kColors[stage % 5]);
  }
  return svg + "</svg></figure>\n";
}

std::string EvaluationTable(const v1::StageState& stage) {
  if (stage.evaluations().empty()) return "";
  std::string html = "<table><tr><th>after step</th>";
  for (int64_t budget : stage.evaluations(0).budgets())
    absl::StrAppend(&html, "<th>J(", budget, ")</th>");
  html += "<th>mean length</th><th>verifications</th></tr>\n";
  for (const v1::Evaluation& e : stage.evaluations()) {
    absl::StrAppend(&html, "<tr><td>", e.stage_step(), "</td>");
    for (double j : e.j()) absl::StrAppendFormat(&html, "<td>%.3f</td>", j);
    absl::StrAppendFormat(&html, "<td>%.1f</td><td>%.2f</td></tr>\n", e.mean_length(),
                          e.verifications());
  }
  return html + "</table>\n";
}

std::string SummaryHtml(const std::string& model_folder, const v1::FinishJobRequest& request,
                        const std::vector<v1::StepRecord>& records) {
  std::string html = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>",
      Escape(request.job_id()),
      "</title>\n<style>\n"
      "body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;max-width:960px;margin:2rem "
      "auto;padding:0 1rem}\n"
      "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}code{background:#f3f4f6;padding:."
      "1em .3em;border-radius:4px}\n"
      "table{border-collapse:collapse;margin:.5rem 0}th,td{border-bottom:1px solid "
      "#e5e7eb;padding:.25rem .8rem;text-align:right}\n"
      ".plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(400px,1fr));gap:1rem}"
      "figure{margin:0}figcaption{font-weight:600}\n"
      "svg{width:100%}polyline{fill:none;stroke-width:2}.grid{stroke:#e5e7eb}.tick{font-size:10px;"
      "fill:#6b7280}.end{text-anchor:end}\n"
      "</style></head><body>\n<h1>",
      Escape(request.job_id()), "</h1>\n<p>", Escape(request.outcome()), " after ", records.size(),
      " steps. Model: <code>", Escape(model_folder), "</code></p>\n");
  for (const v1::StageState& stage : request.curriculum().stages()) {
    absl::StrAppend(&html, "<h2>", Escape(stage.name()), "</h2>\n<p>budget ", stage.budget(),
                    " tokens, ", stage.steps_done(), " steps",
                    stage.done_reason().empty() ? "" : ": ", Escape(stage.done_reason()), "</p>\n");
    if (stage.has_choice())
      absl::StrAppend(&html, "<p>", Escape(stage.choice().explanation()), "</p>\n");
    html += EvaluationTable(stage);
  }
  html += "<h2>Steps</h2>\n<div class=\"plots\">\n";
  if (!records.empty()) {
    for (auto [title, metric] :
         {std::pair("Mean reward", "reward"),
          std::pair("Response length (tokens)", "response_length"),
          std::pair("Token entropy (nats)", "entropy"),
          std::pair("Verifications in a response", "verifications"),
          std::pair("Attempts in a response", "attempts"),
          std::pair("Cut off at the budget (share)", "truncated_share"),
          std::pair("Gradient norm", "gradient_norm"),
          std::pair("Tokens a second", "tokens_per_second"),
          std::pair("Largest rollout-learner difference of log-probabilities", "mismatch_max")}) {
      html += Plot(records, title, metric);
    }
  }
  return html + "</div>\n</body></html>\n";
}

}  // namespace

absl::Status WriteSummary(const std::string& output, const std::string& model_folder,
                          const v1::FinishJobRequest& request,
                          const std::vector<v1::StepRecord>& records) {
  std::string ledger;
  for (const v1::StepRecord& r : records) {
    Json line = {{"step", r.step()},
                 {"stage", r.stage()},
                 {"budget", r.budget()},
                 {"data", ListJson(r.data())},
                 {"generated_by", VersionJson(r.generated_by())},
                 {"produced", VersionJson(r.produced())},
                 {"finished_at_ms", r.finished_at_ms()},
                 {"metrics", MetricsJson(r)}};
    ledger += line.dump() + "\n";
  }
  E3_RETURN_IF_ERROR(WriteFileDurably(output + "/ledger.jsonl", ledger));
  E3_RETURN_IF_ERROR(WriteFileDurably(output + "/summary.json",
                                      SummaryJson(model_folder, request, records).dump(2) + "\n"));
  return WriteFileDurably(output + "/summary.html", SummaryHtml(model_folder, request, records));
}

}  // namespace e3
