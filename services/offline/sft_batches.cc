#include "services/offline/sft_batches.h"

#include <iostream>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "learner/prompting.h"
#include "re2/re2.h"
#include "services/offline/jsonl.h"
#include "services/runtime/philox.h"
#include "services/runtime/status_macros.h"
#include "tasks/countdown.h"
#include "tasks/dataset.h"

namespace e3 {
namespace {

// Prompt and response as token ids, with the end-of-sequence token last.
class SequenceEncoder {
 public:
  SequenceEncoder(const PromptEncoder* encoder, const v1::Prompting& prompting, uint32_t eos)
      : encoder_(encoder), prompting_(prompting), eos_(eos) {}

  absl::StatusOr<TrainingSequence> Encode(const std::string& prompt,
                                          const std::string& response) const {
    TrainingSequence sequence;
    E3_ASSIGN_OR_RETURN(sequence.prompt,
                        EncodePrompt(*encoder_, prompting_, Problem{prompt, {}, {}}));
    E3_ASSIGN_OR_RETURN(sequence.response,
                        encoder_->tokenizer().Encode(response, /*add_special_tokens=*/false));
    sequence.response.push_back(eos_);
    return sequence;
  }

 private:
  const PromptEncoder* encoder_;
  v1::Prompting prompting_;
  uint32_t eos_;
};

// Sequences of a file, shuffled anew each epoch; a step takes the next ones up to the token limit.
class FileBatches {
 public:
  static absl::StatusOr<std::unique_ptr<FileBatches>> Load(const v1::SftSpec& spec,
                                                           const SequenceEncoder& encoder) {
    auto batches = std::make_unique<FileBatches>();
    batches->seed_ = spec.seed();
    batches->batch_tokens_ = spec.training().batch_tokens();
    const v1::SftData& data = spec.data();
    E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlReader> reader, JsonlReader::Open(data.file()));
    std::vector<std::pair<std::unique_ptr<RE2>, std::string>> replacements;
    for (const v1::Replacement& r : data.replacements())
      replacements.emplace_back(std::make_unique<RE2>(r.pattern()), r.with());
    int64_t index = -1, left_out = 0;
    while (true) {
      E3_ASSIGN_OR_RETURN(std::optional<Json> line, reader->Next());
      if (!line) break;
      if (++index < data.offset()) continue;
      if (data.limit() > 0 && index >= data.offset() + data.limit()) break;
      for (const std::string& field : {data.prompt_field(), data.response_field()}) {
        if (!line->contains(field) || !(*line)[field].is_string())
          return reader->Error(absl::StrCat("no text field \"", field, "\""));
      }
      std::string prompt = absl::StrReplaceAll(
          data.template_(), {{"{prompt}", (*line)[data.prompt_field()].get<std::string>()}});
      std::string response = (*line)[data.response_field()].get<std::string>();
      for (const auto& [pattern, with] : replacements)
        RE2::GlobalReplace(&response, *pattern, with);
      E3_ASSIGN_OR_RETURN(TrainingSequence sequence, encoder.Encode(prompt, response));
      const int64_t max_prompt = data.prompting().max_prompt_tokens();
      if (sequence.length() > spec.training().max_tokens() ||
          (max_prompt > 0 && static_cast<int64_t>(sequence.prompt.size()) > max_prompt)) {
        ++left_out;
      } else {
        batches->sequences_.push_back(std::move(sequence));
      }
    }
    if (batches->sequences_.empty())
      return absl::InvalidArgumentError(absl::StrCat(
          data.file(), " gave no sequences: of ", index + 1, " lines, from data.offset on, ",
          left_out, " are longer than training.max_tokens or the prompt limit"));
    std::cerr << "sft: " << batches->sequences_.size() << " sequences, " << left_out
              << " longer than " << spec.training().max_tokens() << " tokens left out\n";
    return batches;
  }

  // Steps are asked for in order; those that are left out are passed over.
  std::vector<TrainingSequence> Next(int64_t step) {
    std::vector<TrainingSequence> batch;
    while (steps_ < step) {
      batch = Take();
      ++steps_;
    }
    return batch;
  }

 private:
  std::vector<TrainingSequence> Take() {
    std::vector<TrainingSequence> batch;
    for (int64_t tokens = 0; tokens < batch_tokens_;) {
      if (next_ == order_.size()) {
        order_.resize(sequences_.size());
        for (size_t i = 0; i < order_.size(); ++i) order_[i] = i;
        PhiloxStream(seed_, epoch_++).Shuffle(order_);
        next_ = 0;
      }
      batch.push_back(sequences_[order_[next_++]]);
      tokens += batch.back().length();
    }
    return batch;
  }

  std::vector<TrainingSequence> sequences_;
  int64_t steps_ = 0;
  std::vector<size_t> order_;
  size_t next_ = 0;
  uint64_t seed_ = 0, epoch_ = 0;
  int64_t batch_tokens_ = 0;
};

// Fresh search traces for every step.
class TraceBatches {
 public:
  static absl::StatusOr<std::unique_ptr<TraceBatches>> Make(const v1::SftSpec& spec) {
    auto batches = std::make_unique<TraceBatches>();
    batches->spec_ = spec;
    const v1::CountdownTraces& traces = spec.data().countdown_traces();
    for (const v1::Countdown& held_out : traces.held_out()) {
      E3_ASSIGN_OR_RETURN(std::vector<CountdownPuzzle> puzzles, GenerateCountdown(held_out, {}));
      for (const CountdownPuzzle& puzzle : puzzles) batches->held_out_.insert(puzzle.Key());
    }
    if (traces.kinds().empty())
      return absl::InvalidArgumentError("data.countdown_traces.kinds is empty");
    if (traces.has_right_attempt()) batches->options_.right_attempt = traces.right_attempt();
    if (traces.has_stop_after_wrong())
      batches->options_.stop_after_wrong = traces.stop_after_wrong();
    if (traces.has_say_wait()) batches->options_.say_wait = traces.say_wait();
    if (traces.max_attempts() > 0)
      batches->options_.max_attempts = static_cast<int>(traces.max_attempts());
    return batches;
  }

  absl::StatusOr<std::vector<TrainingSequence>> Next(int64_t step,
                                                     const SequenceEncoder& encoder) const {
    PhiloxStream random(spec_.seed(), static_cast<uint64_t>(step));
    const v1::CountdownTraces& traces = spec_.data().countdown_traces();
    double total = 0;
    for (const auto& kind : traces.kinds()) total += kind.weight();
    std::vector<TrainingSequence> batch;
    int64_t rejected = 0;  // draws in a row
    for (int64_t tokens = 0; tokens < spec_.training().batch_tokens();) {
      if (++rejected > 1000000) {
        return absl::InvalidArgumentError(
            "a million draws in a row gave no trace: no puzzle of data.countdown_traces.kinds is "
            "within its ranges, outside held_out and at most training.max_tokens long");
      }
      double u = random.Uniform() * total;
      int kind = 0;
      while (kind + 1 < traces.kinds_size() && (u -= traces.kinds(kind).weight()) >= 0) ++kind;
      v1::Countdown countdown = CountdownWithDefaults(traces.kinds(kind).countdown());
      CountdownPuzzle puzzle;
      for (int i = 0; i < countdown.numbers(); ++i)
        puzzle.numbers.push_back(random.Between(1, countdown.max_number()));
      std::optional<CountdownAttempt> solution = RandomAttempt(countdown, puzzle.numbers, random);
      if (!solution || solution->value < 1 || solution->value > countdown.max_target()) continue;
      puzzle.target = solution->value;
      if (held_out_.count(puzzle.Key()) > 0) continue;
      E3_ASSIGN_OR_RETURN(TrainingSequence sequence,
                          encoder.Encode(CountdownPrompt(countdown.template_(), puzzle),
                                         SearchTrace(countdown, puzzle, options_, random)));
      if (sequence.length() > spec_.training().max_tokens()) continue;
      tokens += sequence.length();
      rejected = 0;
      batch.push_back(std::move(sequence));
    }
    return batch;
  }

 private:
  v1::SftSpec spec_;
  std::set<std::string> held_out_;
  TraceOptions options_;
};

}  // namespace

absl::StatusOr<SftBatches> MakeSftBatches(const v1::SftSpec& spec, const PromptEncoder* prompts,
                                          uint32_t eos) {
  const SequenceEncoder encoder(prompts, spec.data().prompting(), eos);
  if (spec.data().has_countdown_traces()) {
    E3_ASSIGN_OR_RETURN(std::shared_ptr<TraceBatches> traces, TraceBatches::Make(spec));
    return SftBatches([traces, encoder](int64_t step) { return traces->Next(step, encoder); });
  }
  E3_ASSIGN_OR_RETURN(std::shared_ptr<FileBatches> files, FileBatches::Load(spec, encoder));
  return SftBatches([files](int64_t step) -> absl::StatusOr<std::vector<TrainingSequence>> {
    return files->Next(step);
  });
}

}  // namespace e3
