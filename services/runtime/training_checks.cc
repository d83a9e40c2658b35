#include "services/runtime/training_checks.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace e3 {

std::optional<BadSetting> CheckTraining(const v1::Training& t) {
  // The negations refuse NaN too, which fails every comparison.
  auto positive = [](double value) { return value > 0 ? "" : "must be above 0"; };
  auto not_negative = [](double value) { return value >= 0 ? "" : "must not be negative"; };
  auto decay = [](double value) { return value >= 0 && value < 1 ? "" : "must be in [0, 1)"; };
  auto count = [](int64_t value) { return value > 0 ? "" : "must be above 0"; };
  const std::string many_rollouts =
      t.group_size() <= 1000000 / std::max<int64_t>(1, t.prompts_per_step())
          ? ""
          : absl::StrCat("times prompts_per_step (", t.prompts_per_step(),
                         ") is above 1,000,000 rollouts a step");
  const std::string uneven =
      t.mini_batches() < 1 || t.prompts_per_step() % t.mini_batches() == 0
          ? ""
          : absl::StrCat("must divide prompts_per_step (", t.prompts_per_step(), ")");
  const std::pair<const char*, std::string> checks[] = {
      {"prompts_per_step", count(t.prompts_per_step())},
      {"group_size",
       t.group_size() >= 2 ? "" : "must be at least 2: an advantage compares a group's rollouts"},
      {"group_size", many_rollouts},
      {"mini_batches", count(t.mini_batches())},
      {"mini_batches", uneven},
      {"micro_batch_tokens", count(t.micro_batch_tokens())},
      {"learning_rate", not_negative(t.learning_rate())},
      {"weight_decay", not_negative(t.weight_decay())},
      {"epsilon", positive(t.epsilon())},
      {"beta1", decay(t.beta1())},
      {"beta2", decay(t.beta2())},
      {"warmup_updates", t.warmup_updates() >= 0 ? "" : "must not be negative"},
      {"max_grad_norm", not_negative(t.max_grad_norm())},
      {"clip_low", t.clip_low() >= 0 && t.clip_low() <= 1 ? "" : "must be in [0, 1]"},
      {"clip_high", not_negative(t.clip_high())},
      {"dual_clip", t.dual_clip() > 1 ? "" : "must be above 1"},
      {"kl_coef", not_negative(t.kl_coef())},
      {"entropy_coef", not_negative(t.entropy_coef())},
      {"checkpoint_every", count(t.checkpoint_every())},
      {"soft_overlong_tokens", t.soft_overlong_tokens() >= 0 ? "" : "must not be negative"},
      {"soft_overlong_penalty", not_negative(t.soft_overlong_penalty())},
      {"decay_updates", t.learning_rate_decay() == v1::LEARNING_RATE_DECAY_CONSTANT ||
                                t.decay_updates() > t.warmup_updates()
                            ? ""
                            : "must be above warmup_updates for a rate that falls"},
      {"min_learning_rate_ratio",
       t.min_learning_rate_ratio() >= 0 && t.min_learning_rate_ratio() <= 1 ? ""
                                                                            : "must be in [0, 1]"},
      {"max_skipped_updates", count(t.max_skipped_updates())},
      {"max_staleness",
       t.max_staleness() >= 0 && t.max_staleness() <= 16 ? "" : "must be in [0, 16]"},
      {"keep_checkpoints", t.keep_checkpoints() >= 0 ? "" : "must not be negative"},
  };
  for (const auto& [field, why] : checks) {
    if (!why.empty()) return BadSetting{field, why};
  }
  return std::nullopt;
}

std::optional<BadSetting> CheckTrainingSampling(const v1::Sampling& s) {
  if (!(s.temperature() > 0) || !std::isfinite(s.temperature()))
    return BadSetting{"temperature", "must be above 0: training needs draws from the policy"};
  for (auto [field, set] :
       {std::pair("top_p", s.top_p() != 0 && s.top_p() != 1), std::pair("min_p", s.min_p() != 0),
        std::pair("top_k", s.top_k() != 0)}) {
    if (set) {
      return BadSetting{field,
                        "is refused for training: the log-probabilities of truncated sampling are "
                        "not the policy's"};
    }
  }
  return std::nullopt;
}

}  // namespace e3
