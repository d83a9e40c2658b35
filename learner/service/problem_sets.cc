#include "learner/service/problem_sets.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "learner/prompting.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/philox.h"
#include "services/runtime/status_macros.h"
#include "tasks/dataset.h"

namespace e3 {
namespace {

constexpr size_t kToldIndices = 20;

}  // namespace

absl::StatusOr<const std::vector<EncodedProblem>*> ProblemSets::Get(const std::string& dataset) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = sets_.find(dataset);
  if (it != sets_.end()) return &it->second;
  E3_ASSIGN_OR_RETURN(std::vector<Problem> problems, LoadDataset(*spec_, dataset));
  // What a prompt may take so that it fits together with twice the largest budget.
  int64_t largest = 0;
  for (int64_t budget : spec_->curriculum().grid()) largest = std::max(largest, budget);
  for (const v1::Stage& stage : spec_->curriculum().stages()) {
    int64_t budget = 0;
    if (absl::SimpleAtoi(stage.budget(), &budget)) largest = std::max(largest, budget);
  }
  const int64_t longest =
      std::min(spec_->prompting().max_prompt_tokens(), context_length_ - 2 * largest);
  std::vector<EncodedProblem> encoded;
  nlohmann::ordered_json too_long = nlohmann::ordered_json::array();  // indices of the first
  for (size_t i = 0; i < problems.size(); ++i) {
    E3_ASSIGN_OR_RETURN(std::vector<uint32_t> prompt,
                        EncodePrompt(*encoder_, spec_->prompting(), problems[i]));
    if (static_cast<int64_t>(prompt.size()) > longest) {
      if (too_long.size() < kToldIndices) too_long.push_back(i);
      continue;
    }
    encoded.push_back({i, std::move(prompt), std::move(problems[i].grading)});
  }
  const size_t left_out = problems.size() - encoded.size();
  GaugeMetric("e3_learner_prompts_left_out", "Prompts of a data set that are too long",
              {{"training_job", spec_->name()}, {"dataset", dataset}})
      .Set(static_cast<double>(left_out));
  Log(left_out > 0 ? "warning" : "info", "data set ready",
      {{"job", spec_->name()},
       {"dataset", dataset},
       {"problems", encoded.size()},
       {"prompts_left_out", left_out},
       {"longest_prompt", longest},
       {"data_indices", too_long}});
  if (encoded.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "every prompt of data set '", dataset, "' is longer than ", longest,
        " tokens: prompting.max_prompt_tokens is ", spec_->prompting().max_prompt_tokens(),
        ", and the model's context of ", context_length_,
        " must hold the prompt and twice the largest budget (", 2 * largest, ")"));
  }
  return &(sets_[dataset] = std::move(encoded));
}

std::vector<const EncodedProblem*> SelectProblems(const std::vector<EncodedProblem>& problems,
                                                  uint64_t seed, uint64_t position, int64_t count) {
  std::vector<const EncodedProblem*> selected;
  std::vector<size_t> order;
  uint64_t shuffled_epoch = UINT64_MAX;
  for (int64_t i = 0; i < count; ++i, ++position) {
    const uint64_t epoch = position / problems.size();
    if (epoch != shuffled_epoch) {
      order.resize(problems.size());
      for (size_t k = 0; k < order.size(); ++k) order[k] = k;
      PhiloxStream(seed, epoch).Shuffle(order);
      shuffled_epoch = epoch;
    }
    selected.push_back(&problems[order[position % problems.size()]]);
  }
  return selected;
}

}  // namespace e3
