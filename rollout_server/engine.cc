#include "rollout_server/engine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/attention_kernel.h"
#include "rollout_server/sampler.h"

namespace e3 {

Engine::Engine(const EngineLimits& limits, ModelRunner* runner)
    : limits_(limits), runner_(runner), scheduler_(limits.scheduler, limits.num_blocks) {}

absl::Status Engine::Add(const RolloutRequest& r) {
  if (r.prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
  if (r.budget < 1) return absl::InvalidArgumentError("the budget must be at least 1 token");
  if (r.n < 1 || r.n > limits_.scheduler.max_sequences) {
    return absl::InvalidArgumentError(
        absl::StrCat("n must be 1 to ", limits_.scheduler.max_sequences, ", not ", r.n));
  }
  if (!r.response_prefix.empty() && r.n != 1)
    return absl::InvalidArgumentError("a resumed request has n = 1");
  if (static_cast<int64_t>(r.response_prefix.size()) >= r.budget) {
    return absl::InvalidArgumentError("the response prefix uses up the budget");
  }
  // Below 1e-6 a division by the temperature overflows. NaN is in no range.
  auto in = [](double value, double low, double high) { return value >= low && value <= high; };
  if (!(r.sampling.temperature == 0 || in(r.sampling.temperature, 1e-6, 1e6)) ||
      !in(r.sampling.top_p, 0, 1) || !in(r.sampling.min_p, 0, 1) || r.sampling.top_k < 0) {
    return absl::InvalidArgumentError(
        "sampling needs temperature 0 or in [1e-6, 1e6], top_p and min_p in [0, 1], top_k >= 0");
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
  auto sequence = std::make_unique<Sequence>();
  sequence->request_id = r.id;
  sequence->seed = r.seed;
  sequence->draw = r.first_sample;
  sequence->sampling = r.sampling;
  sequence->stop_token_ids = r.stop_token_ids;
  sequence->budget = r.budget;
  sequence->tokens = r.prompt;
  sequence->prompt_length = static_cast<int64_t>(r.prompt.size());
  sequence->tokens.insert(sequence->tokens.end(), r.response_prefix.begin(),
                          r.response_prefix.end());
  for (uint32_t token : sequence->tokens) {
    if (token >= runner_->vocab_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token, " is not in the vocabulary of ", runner_->vocab_size()));
    }
  }
  for (int64_t i = 1; i < r.n; ++i) sequence->siblings.push_back(static_cast<uint32_t>(i));
  scheduler_.Add(std::move(sequence));
  return absl::OkStatus();
}

std::vector<uint32_t> Engine::Cancel(uint64_t request_id) { return scheduler_.Cancel(request_id); }

std::vector<TokenOutput> Engine::Step() {
  SchedulerStep step = scheduler_.Schedule();
  if (step.chunks.empty()) return {};
  Batch batch;
  batch.copies = step.copies;
  for (const ScheduledChunk& chunk : step.chunks) {
    const Sequence& s = *chunk.sequence;
    for (int64_t p = s.computed; p < s.computed + chunk.tokens; ++p) {
      batch.token_ids.push_back(s.tokens[static_cast<size_t>(p)]);
      batch.positions.push_back(p);
      batch.slots.push_back(s.block_table[static_cast<size_t>(p / kKvBlockRows)] * kKvBlockRows +
                            p % kKvBlockRows);
      batch.block_tables.push_back(s.block_table.data());
    }
    if (chunk.samples) batch.logit_rows.push_back(static_cast<int64_t>(batch.token_ids.size()) - 1);
    (chunk.tokens == 1 && s.response_length() > 0 ? counters_.decode_tokens
                                                  : counters_.prefill_tokens) +=
        static_cast<uint64_t>(chunk.tokens);
  }
  ++counters_.steps;
  const float* logits = runner_->Run(batch);

  // Every sequence that reached its last token draws the next; a prompt's samples all draw from its
  // one row.
  std::vector<Sequence*> drawing;
  std::vector<DrawRequest> draws;
  const int64_t vocab = runner_->vocab_size();
  for (const ScheduledChunk& chunk : step.chunks) {
    scheduler_.Computed(chunk);
    if (!chunk.samples) continue;
    std::vector<Sequence*> samples = {chunk.sequence};
    for (Sequence* sibling : scheduler_.Fork(chunk.sequence)) samples.push_back(sibling);
    for (Sequence* s : samples) {
      drawing.push_back(s);
      draws.push_back(
          {logits, s->sampling, s->seed, s->draw, static_cast<uint64_t>(s->response_length())});
    }
    logits += vocab;
  }
  std::vector<Draw> drawn = SampleTokens(draws, vocab);
  std::vector<TokenOutput> outputs;
  outputs.reserve(drawn.size());
  for (size_t i = 0; i < drawn.size(); ++i) outputs.push_back(Append(drawing[i], drawn[i]));
  return outputs;
}

TokenOutput Engine::Append(Sequence* s, const Draw& draw) {
  s->tokens.push_back(draw.token);
  TokenOutput output{s->request_id, s->sample,    draw.token,
                     draw.logprob,  draw.entropy, Finish::kNone};
  auto is_in = [&](const std::vector<uint32_t>& ids) {
    return std::find(ids.begin(), ids.end(), draw.token) != ids.end();
  };
  if (is_in(limits_.eos_token_ids) || is_in(s->stop_token_ids)) {
    output.finish = Finish::kStop;
  } else if (s->response_length() >= s->budget) {
    output.finish = Finish::kLength;
  }
  if (output.finish != Finish::kNone) scheduler_.Finish(s);
  return output;
}

}  // namespace e3
