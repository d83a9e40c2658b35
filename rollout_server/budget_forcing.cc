#include "rollout_server/budget_forcing.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace e3 {

ForcingState::Decision ForcingState::OnDraw(const BudgetForcing& forcing, uint32_t token) {
  if (extensions_ >= forcing.extensions) return {};
  const bool ends = std::find(forcing.end_tokens.begin(), forcing.end_tokens.end(), token) !=
                    forcing.end_tokens.end();
  const bool full = extensions_ > 0 && since_ + 1 >= forcing.extension_tokens;
  if (!ends && !full) {
    ++since_;
    return {};
  }
  const std::vector<uint32_t>& prefix =
      forcing.prefixes[static_cast<size_t>(extensions_) % forcing.prefixes.size()];
  ++extensions_;
  since_ = static_cast<int64_t>(prefix.size());
  return {!ends, &prefix};
}

absl::StatusOr<ForcingState> ForcingState::Replay(const BudgetForcing& forcing,
                                                  const std::vector<uint32_t>& tokens,
                                                  const std::vector<bool>& forced,
                                                  std::vector<uint32_t>* missing) {
  missing->clear();
  if (!forced.empty() && forced.size() != tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(forced.size(), " marks of forced tokens for ", tokens.size(), " tokens"));
  }
  ForcingState state;
  for (size_t i = 0; i < tokens.size();) {
    if (forced.empty() || !forced[i]) {
      // A token that was drawn and kept. That an extension became full shows in what follows.
      ++state.since_;
      ++i;
      continue;
    }
    if (state.extensions_ >= forcing.extensions)
      return absl::InvalidArgumentError("more forced tokens than the request's extensions");
    const std::vector<uint32_t>& prefix =
        forcing.prefixes[static_cast<size_t>(state.extensions_) % forcing.prefixes.size()];
    const size_t there = std::min(prefix.size(), tokens.size() - i);
    for (size_t k = 0; k < there; ++k) {
      if (!forced[i + k] || tokens[i + k] != prefix[k]) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", i + k, " of the response is not what forcing appends there"));
      }
    }
    missing->assign(prefix.begin() + static_cast<std::ptrdiff_t>(there), prefix.end());
    ++state.extensions_;
    state.since_ = static_cast<int64_t>(prefix.size());
    i += there;
  }
  // The last token filled its extension, and what it should be followed by is missing.
  if (missing->empty() && state.extensions_ > 0 && state.extensions_ < forcing.extensions &&
      state.since_ >= forcing.extension_tokens) {
    *missing = forcing.prefixes[static_cast<size_t>(state.extensions_) % forcing.prefixes.size()];
    ++state.extensions_;
    state.since_ = static_cast<int64_t>(missing->size());
  }
  return state;
}

}  // namespace e3
