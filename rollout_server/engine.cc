#include "rollout_server/engine.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/attention_kernel.h"
#include "rollout_server/sampler.h"

namespace e3 {
namespace {

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// What one request may carry besides its prompt.
constexpr size_t kMaxStops = 64, kMaxStopBytes = 1024, kMaxStopTokens = 1024;

bool Contains(const std::vector<uint32_t>& ids, uint32_t token) {
  return std::find(ids.begin(), ids.end(), token) != ids.end();
}

// NaN is in no range.
bool In(double value, double low, double high) { return value >= low && value <= high; }

absl::Status CheckSampling(const SamplingParams& s, int64_t vocab_size) {
  // Below 1e-6 a division by the temperature overflows.
  if (!(s.temperature == 0 || In(s.temperature, 1e-6, 1e6)) || !In(s.top_p, 0, 1) ||
      !In(s.min_p, 0, 1) || s.top_k < 0) {
    return absl::InvalidArgumentError(
        "sampling needs temperature 0 or in [1e-6, 1e6], top_p and min_p in [0, 1], top_k >= 0");
  }
  if (!In(s.repetition_penalty, 0.01, 100) || s.min_tokens < 0 || !In(s.top_logprobs, 0, 100)) {
    return absl::InvalidArgumentError(
        "sampling needs repetition_penalty in [0.01, 100], min_tokens >= 0, top_logprobs up to "
        "100");
  }
  for (const auto& [token, bias] : s.logit_bias) {
    if (token >= vocab_size || !In(bias, -1e6, 1e6)) {
      return absl::InvalidArgumentError(absl::StrCat("logit_bias of token ", token, " is ", bias,
                                                     ": tokens are below ", vocab_size,
                                                     ", biases in [-1e6, 1e6]"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckForcing(const BudgetForcing& f, int64_t vocab_size) {
  if (f.extensions == 0) return absl::OkStatus();
  if (!In(static_cast<double>(f.extensions), 1, 64) || f.end_tokens.empty() || f.prefixes.empty())
    return absl::InvalidArgumentError(
        "budget forcing needs 1 to 64 extensions, an end token and prefixes");
  for (const std::vector<uint32_t>& prefix : f.prefixes) {
    if (prefix.empty() || static_cast<int64_t>(prefix.size()) >= f.extension_tokens) {
      return absl::InvalidArgumentError(
          "a prefix of budget forcing has at least one token, and fewer than an extension");
    }
    for (uint32_t token : prefix) {
      if (token >= vocab_size)
        return absl::InvalidArgumentError("a prefix of budget forcing is not in the vocabulary");
    }
  }
  return absl::OkStatus();
}

// Appends tokens that nobody drew, as far as the budget goes.
void AppendForced(const std::vector<uint32_t>& tokens, Sequence* sequence, SampleOutput* output) {
  for (uint32_t token : tokens) {
    if (sequence->response_length() >= sequence->request->budget) return;
    sequence->tokens.push_back(token);
    OutputToken& appended = output->tokens.emplace_back();
    appended.token = token;
    appended.forced = true;
  }
}

}  // namespace

Engine::Engine(const EngineLimits& limits, ModelRunner* runner)
    : limits_(limits), runner_(runner), scheduler_(limits.scheduler, limits.num_blocks) {
  // A configuration may name tokens that the model has no row for.
  std::erase_if(limits_.eos_token_ids, [&](uint32_t id) { return id >= runner->vocab_size(); });
}

absl::Status Engine::Check(const RolloutRequest& r) const {
  if (r.prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
  if (r.budget < 1) return absl::InvalidArgumentError("the budget must be at least 1 token");
  if (r.n < 1 || r.n > limits_.scheduler.max_sequences) {
    return absl::InvalidArgumentError(
        absl::StrCat("n must be 1 to ", limits_.scheduler.max_sequences, ", not ", r.n));
  }
  if (!r.response_prefix.empty() && r.n != 1)
    return absl::InvalidArgumentError("a resumed request has n = 1");
  if (static_cast<int64_t>(r.response_prefix.size()) >= r.budget)
    return absl::InvalidArgumentError("the response prefix uses up the budget");
  const int64_t vocab = runner_->vocab_size();
  if (absl::Status status = CheckSampling(r.sampling, vocab); !status.ok()) return status;
  if (absl::Status status = CheckForcing(r.forcing, vocab); !status.ok()) return status;
  if (!r.stop_strings.empty() && !limits_.decode)
    return absl::InvalidArgumentError("stop strings need a model with a tokenizer");
  if (r.stop_strings.size() > kMaxStops || r.stop_token_ids.size() > kMaxStopTokens) {
    return absl::InvalidArgumentError(absl::StrCat("at most ", kMaxStops, " stop strings and ",
                                                   kMaxStopTokens, " stop tokens, please"));
  }
  for (const std::string& stop : r.stop_strings) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("a stop string has 1 to ", kMaxStopBytes, " bytes"));
    }
  }
  const int64_t length = static_cast<int64_t>(r.prompt.size()) + r.budget;
  if (length > limits_.context_length) {
    return absl::OutOfRangeError(absl::StrCat("prompt (", r.prompt.size(), " tokens) + budget (",
                                              r.budget, ") exceed the model's context of ",
                                              limits_.context_length, " tokens"));
  }
  const int64_t blocks = length / kKvBlockRows + 1 + r.n;
  if (blocks > limits_.num_blocks) {
    return absl::OutOfRangeError(absl::StrCat("prompt + budget need ", blocks,
                                              " cache blocks, the server has ", limits_.num_blocks,
                                              " (--kv-cache-mib)"));
  }
  for (const auto* tokens : {&r.prompt, &r.response_prefix, &r.stop_token_ids}) {
    for (uint32_t token : *tokens) {
      if (token >= vocab) {
        return absl::InvalidArgumentError(
            absl::StrCat("token ", token, " is not in the vocabulary of ", vocab));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Engine::Add(RolloutRequest r) {
  if (absl::Status status = Check(r); !status.ok()) return status;
  if (static_cast<int64_t>(scheduler_.num_waiting()) >= limits_.max_waiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", limits_.max_waiting, " requests wait; ask again later"));
  }
  std::vector<uint32_t> missing;
  absl::StatusOr<ForcingState> forcing =
      ForcingState::Replay(r.forcing, r.response_prefix, r.prefix_forced, &missing);
  if (!forcing.ok()) return forcing.status();
  auto sequence = std::make_unique<Sequence>();
  sequence->request = std::make_shared<const RolloutRequest>(std::move(r));
  const RolloutRequest& request = *sequence->request;
  sequence->draw = request.first_sample;
  sequence->tokens = request.prompt;
  sequence->tokens.insert(sequence->tokens.end(), request.response_prefix.begin(),
                          request.response_prefix.end());
  sequence->forcing = *forcing;
  for (int64_t i = 1; i < request.n; ++i) sequence->siblings.push_back(static_cast<uint32_t>(i));
  if (!missing.empty()) {
    // The prefix broke off inside of forced tokens: the rest is appended at once.
    SampleOutput output;
    output.request_id = request.id;
    AppendForced(missing, sequence.get(), &output);
    const bool full = sequence->response_length() >= request.budget;
    output.finish = full ? Finish::kLength : Finish::kNone;
    pending_.push_back(std::move(output));
    if (full) return absl::OkStatus();
  }
  scheduler_.Add(std::move(sequence));
  return absl::OkStatus();
}

std::vector<uint32_t> Engine::Cancel(uint64_t request_id) {
  std::erase_if(pending_, [&](const SampleOutput& o) { return o.request_id == request_id; });
  return scheduler_.Cancel(request_id);
}

std::vector<SampleOutput> Engine::Cut() {
  std::vector<SampleOutput> outputs;
  for (const auto& [request, sample] : scheduler_.CancelStarted()) {
    SampleOutput& output = outputs.emplace_back();
    output.request_id = request;
    output.sample = sample;
    output.finish = Finish::kCut;
  }
  return outputs;
}

Batch Engine::MakeBatch(const SchedulerStep& step) {
  Batch batch;
  batch.copies = step.copies;
  for (const ScheduledChunk& chunk : step.chunks) {
    const Sequence& s = *chunk.sequence;
    for (int64_t p = s.computed; p < s.computed + chunk.tokens; ++p) {
      const bool last = p + 1 == s.length();
      // Of a prompt that is scored, every token's successor is looked up.
      if ((chunk.samples && last) || (s.scores_prompt() && p + 1 < s.prompt_length()))
        batch.logit_rows.push_back(static_cast<int64_t>(batch.token_ids.size()));
      batch.token_ids.push_back(s.tokens[static_cast<size_t>(p)]);
      batch.positions.push_back(p);
      batch.slots.push_back(s.block_table[static_cast<size_t>(p / kKvBlockRows)] * kKvBlockRows +
                            p % kKvBlockRows);
      batch.block_tables.push_back(s.block_table.data());
    }
    (chunk.tokens == 1 && s.response_length() > 0 ? report_.decode_tokens
                                                  : report_.prefill_tokens) += chunk.tokens;
  }
  return batch;
}

std::vector<SampleOutput> Engine::Step() {
  std::vector<SampleOutput> outputs = std::exchange(pending_, {});
  const Clock::time_point begin = Clock::now();
  report_ = {};
  SchedulerStep step = scheduler_.Schedule();
  if (step.chunks.empty()) return outputs;
  report_.begin = begin;
  Batch batch = MakeBatch(step);
  const Clock::time_point scheduled = Clock::now();
  const float* logits = runner_->Run(batch);
  const Clock::time_point computed = Clock::now();

  // Every sequence that reached its last token draws the next; a prompt's samples all draw from its
  // one row.
  std::vector<Sequence*> drawing;
  std::vector<DrawRequest> draws;
  const int64_t vocab = runner_->vocab_size();
  for (const ScheduledChunk& chunk : step.chunks) {
    Sequence* first = chunk.sequence;
    if (first->scores_prompt()) {
      const int64_t end = std::min(first->computed + chunk.tokens, first->prompt_length() - 1);
      std::vector<uint32_t> successors;
      for (int64_t p = first->computed; p < end; ++p)
        successors.push_back(first->tokens[static_cast<size_t>(p + 1)]);
      for (OutputToken& t : ScoreTokens(logits, vocab, first->request->sampling, successors))
        first->prompt_tokens.push_back(std::move(t));
      logits += static_cast<int64_t>(successors.size()) * vocab;
    }
    scheduler_.Computed(chunk);
    if (!chunk.samples) continue;
    std::vector<Sequence*> samples = {first};
    for (Sequence* sibling : scheduler_.Fork(first)) samples.push_back(sibling);
    for (Sequence* s : samples) {
      const RolloutRequest& r = *s->request;
      DrawRequest draw{
          logits,    &r.sampling, r.seed, s->draw, static_cast<uint64_t>(s->response_length()),
          &s->tokens};
      if (s->response_length() < r.sampling.min_tokens) {
        draw.forbidden[0] = &limits_.eos_token_ids;
        draw.forbidden[1] = &r.stop_token_ids;
      }
      drawing.push_back(s);
      draws.push_back(draw);
    }
    logits += vocab;
  }
  std::vector<OutputToken> drawn = SampleTokens(draws, vocab);
  outputs.reserve(outputs.size() + drawn.size());
  const Clock::time_point sampled = Clock::now();
  for (size_t i = 0; i < drawn.size(); ++i)
    outputs.push_back(Append(drawing[i], std::move(drawn[i]), sampled));

  report_.schedule_seconds = Seconds(begin, scheduled);
  report_.forward_seconds = Seconds(scheduled, computed);
  report_.sample_seconds = Seconds(computed, Clock::now());
  report_.sequences = static_cast<int64_t>(step.chunks.size());
  report_.running = static_cast<int64_t>(scheduler_.num_running());
  report_.waiting = static_cast<int64_t>(scheduler_.num_waiting());
  report_.blocks_used = scheduler_.blocks().num_blocks() - scheduler_.blocks().num_free();
  return outputs;
}

SampleOutput Engine::Append(Sequence* s, OutputToken drawn, Clock::time_point now) {
  const RolloutRequest& request = *s->request;
  SampleOutput output;
  output.request_id = request.id;
  output.sample = s->sample;
  Stamp(s, now, &output);

  if (!std::isfinite(drawn.logprob)) {
    output.finish = Finish::kBroken;
    scheduler_.Finish(s);
    return output;
  }
  const ForcingState::Decision decision = s->forcing.OnDraw(request.forcing, drawn.token);
  const uint32_t token = drawn.token;
  if (decision.keep) {
    s->tokens.push_back(token);
    output.tokens.push_back(std::move(drawn));
    if (decision.append == nullptr &&
        (Contains(limits_.eos_token_ids, token) || Contains(request.stop_token_ids, token) ||
         HitsStopString(*s))) {
      output.finish = Finish::kStop;
    }
  }
  if (decision.append != nullptr) AppendForced(*decision.append, s, &output);
  if (output.finish == Finish::kNone && s->response_length() >= request.budget)
    output.finish = Finish::kLength;
  if (output.finish != Finish::kNone) scheduler_.Finish(s);
  return output;
}

// Whether the last token completed a stop string.
bool Engine::HitsStopString(const Sequence& s) const {
  const std::vector<std::string>& stops = s.request->stop_strings;
  if (stops.empty() || s.response_length() < s.request->sampling.min_tokens) return false;
  // A token is at least a byte, so the last ones hold every string that the last one can end.
  size_t longest = 0;
  for (const std::string& stop : stops) longest = std::max(longest, stop.size());
  const size_t window = std::min(static_cast<size_t>(s.response_length()), longest + 16);
  std::vector<uint32_t> tokens(s.tokens.end() - static_cast<std::ptrdiff_t>(window),
                               s.tokens.end());
  const std::string text = limits_.decode(tokens);
  tokens.pop_back();
  std::string before = limits_.decode(tokens);
  // Characters that the last token completed.
  constexpr absl::string_view kUnfinished = "\uFFFD";
  while (absl::EndsWith(before, kUnfinished)) before.resize(before.size() - kUnfinished.size());
  return std::any_of(stops.begin(), stops.end(), [&](const std::string& stop) {
    const size_t first = before.size() < stop.size() ? 0 : before.size() - stop.size() + 1;
    return text.find(stop, first) != std::string::npos;
  });
}

void Engine::Stamp(Sequence* s, Clock::time_point now, SampleOutput* output) {
  output->first = !s->has_output;
  output->since_seconds = Seconds(s->has_output ? s->last_output : s->arrived, now);
  if (output->first) {
    output->queue_seconds = Seconds(s->arrived, s->admitted);
    output->prompt_tokens = std::move(s->prompt_tokens);
  }
  s->has_output = true;
  s->last_output = now;
}

}  // namespace e3
