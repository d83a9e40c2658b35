#include "rollout_server/service/requests.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

constexpr int64_t kExtensionTokens = 2048;

absl::StatusOr<BudgetForcing> ToForcing(const v1::BudgetForcing& proto,
                                        const PromptEncoder* encoder,
                                        const std::vector<uint32_t>& eos_token_ids) {
  BudgetForcing forcing;
  if (proto.extensions() == 0) return forcing;
  if (encoder == nullptr)
    return absl::InvalidArgumentError("budget forcing needs a model with a tokenizer");
  const Tokenizer& tokenizer = encoder->tokenizer();
  forcing.extensions = proto.extensions();
  forcing.extension_tokens =
      proto.extension_tokens() == 0 ? kExtensionTokens : proto.extension_tokens();
  const std::string end = proto.end_of_thinking().empty() ? "</think>" : proto.end_of_thinking();
  E3_ASSIGN_OR_RETURN(std::vector<uint32_t> ends,
                      tokenizer.Encode(end, /*add_special_tokens=*/false));
  if (ends.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("'", end, "' is ", ends.size(),
                                                   " tokens of this model; budget forcing needs an "
                                                   "end_of_thinking of one"));
  }
  forcing.end_tokens = ends;
  for (uint32_t eos : eos_token_ids) forcing.end_tokens.push_back(eos);
  std::vector<std::string> prefixes(proto.prefixes().begin(), proto.prefixes().end());
  if (prefixes.empty()) prefixes = {"Wait", "But wait", "Alternatively", "But hold on"};
  for (const std::string& prefix : prefixes) {
    E3_ASSIGN_OR_RETURN(forcing.prefixes.emplace_back(),
                        tokenizer.Encode(prefix, /*add_special_tokens=*/false));
  }
  return forcing;
}

}  // namespace

absl::StatusOr<RolloutRequest> ToRequest(const v1::GenerateRequest::Start& start,
                                         const PromptEncoder* encoder,
                                         const std::vector<uint32_t>& eos_token_ids) {
  RolloutRequest request;
  request.id = start.request_id();
  request.priority = start.priority() == v1::ROLLOUT_PRIORITY_EVALUATION ? Priority::kEvaluation
                                                                         : Priority::kTraining;
  request.prompt.assign(start.prompt_token_ids().begin(), start.prompt_token_ids().end());
  request.n = start.n() == 0 ? 1 : start.n();
  request.budget = start.budget();
  const v1::SamplingParams& s = start.sampling();
  request.sampling.temperature = s.has_temperature() ? s.temperature() : 1;
  request.sampling.top_p = s.top_p() == 0 ? 1 : s.top_p();
  request.sampling.min_p = s.min_p();
  request.sampling.top_k = s.top_k();
  request.sampling.repetition_penalty = s.repetition_penalty() == 0 ? 1 : s.repetition_penalty();
  for (const auto& [token, bias] : s.logit_bias())
    request.sampling.logit_bias.emplace_back(token, bias);
  // The map's order is not defined; sums of biases would not be either.
  std::sort(request.sampling.logit_bias.begin(), request.sampling.logit_bias.end());
  request.sampling.min_tokens = s.min_tokens();
  request.sampling.top_logprobs = s.top_logprobs();
  request.sampling.raw_logprobs = s.raw_logprobs();
  request.seed = start.seed();
  request.first_sample = start.first_sample();
  request.response_prefix.assign(start.response_prefix().begin(), start.response_prefix().end());
  if (start.prefix_forced_size() > 0) request.prefix_forced.resize(request.response_prefix.size());
  for (uint32_t position : start.prefix_forced()) {
    if (position >= request.prefix_forced.size()) {
      return absl::InvalidArgumentError(absl::StrCat("prefix_forced names token ", position,
                                                     " of a prefix of ",
                                                     request.prefix_forced.size()));
    }
    request.prefix_forced[position] = true;
  }
  request.stop_token_ids.assign(start.stop_token_ids().begin(), start.stop_token_ids().end());
  request.stop_strings.assign(start.stop_strings().begin(), start.stop_strings().end());
  request.prompt_logprobs = start.prompt_logprobs();
  E3_ASSIGN_OR_RETURN(request.forcing, ToForcing(start.forcing(), encoder, eos_token_ids));
  return request;
}

}  // namespace e3
