#include "learner/service/summary.h"

#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "learner/service/line_chart.h"
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

// One metric over the steps, a series a stage.
std::string StepChart(const v1::CurriculumState& curriculum,
                      const std::vector<v1::StepRecord>& records, const std::string& title,
                      const std::string& metric) {
  std::vector<ChartSeries> series;
  for (const v1::StepRecord& r : records) {
    const size_t stage = r.stage();
    while (series.size() <= stage) {
      const int i = static_cast<int>(series.size());
      series.push_back({i < curriculum.stages_size() ? curriculum.stages(i).name() : "",
                        ChartColor(series.size()),
                        {}});
    }
    auto it = r.metrics().find(metric);
    if (it != r.metrics().end())
      series[stage].points.emplace_back(static_cast<double>(r.step()), it->second);
  }
  return LineChart(title, "step", series);
}

// J over the token budget, a series a measurement.
std::string CurveChart(const v1::StageState& stage) {
  std::vector<ChartSeries> series;
  for (const v1::Evaluation& e : stage.evaluations()) {
    ChartSeries s{absl::StrCat("after step ", e.stage_step()), ChartColor(series.size()), {}};
    for (int i = 0; i < e.budgets_size(); ++i)
      s.points.emplace_back(static_cast<double>(e.budgets(i)), e.j(i));
    series.push_back(std::move(s));
  }
  return LineChart("J over the token budget", "budget", series);
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
      EscapeHtml(request.job_id()),
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
      "fill:#6b7280}.end{text-anchor:end}.legend{font-size:.8rem}\n"
      "</style></head><body>\n<h1>",
      EscapeHtml(request.job_id()), "</h1>\n<p>", EscapeHtml(request.outcome()), " after ",
      records.size(), " steps. Model: <code>", EscapeHtml(model_folder), "</code></p>\n");
  for (const v1::StageState& stage : request.curriculum().stages()) {
    absl::StrAppend(&html, "<h2>", EscapeHtml(stage.name()), "</h2>\n<p>budget ", stage.budget(),
                    " tokens, ", stage.steps_done(), " steps",
                    stage.done_reason().empty() ? "" : ": ", EscapeHtml(stage.done_reason()),
                    "</p>\n");
    if (stage.has_choice())
      absl::StrAppend(&html, "<p>", EscapeHtml(stage.choice().explanation()), "</p>\n");
    html += EvaluationTable(stage);
    absl::StrAppend(&html, "<div class=\"plots\">", CurveChart(stage), "</div>\n");
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
      html += StepChart(request.curriculum(), records, title, metric);
    }
  }
  return html + "</div>\n</body></html>\n";
}

std::string LedgerLine(const v1::StepRecord& r) {
  const Json line = {{"step", r.step()},
                     {"stage", r.stage()},
                     {"budget", r.budget()},
                     {"data", ListJson(r.data())},
                     {"generated_by", VersionJson(r.generated_by())},
                     {"produced", VersionJson(r.produced())},
                     {"finished_at_ms", r.finished_at_ms()},
                     {"metrics", MetricsJson(r)}};
  return line.dump() + "\n";
}

}  // namespace

absl::Status WriteLedger(const std::string& output, const std::vector<v1::StepRecord>& records) {
  std::string ledger;
  for (const v1::StepRecord& record : records) ledger += LedgerLine(record);
  return WriteFileDurably(output + "/ledger.jsonl", ledger);
}

absl::Status AppendToLedger(const std::string& output, const v1::StepRecord& record) {
  const std::string path = output + "/ledger.jsonl";
  std::ofstream file(path, std::ios::app);
  file << LedgerLine(record) << std::flush;
  return file ? absl::OkStatus() : absl::UnavailableError("cannot write " + path);
}

absl::Status WriteSummary(const std::string& output, const std::string& model_folder,
                          const v1::FinishJobRequest& request,
                          const std::vector<v1::StepRecord>& records) {
  E3_RETURN_IF_ERROR(WriteFileDurably(output + "/summary.json",
                                      SummaryJson(model_folder, request, records).dump(2) + "\n"));
  return WriteFileDurably(output + "/summary.html", SummaryHtml(model_folder, request, records));
}

}  // namespace e3
