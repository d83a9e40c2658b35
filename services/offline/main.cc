// e3-offline: the commands of `e3` that run models without services. `e3 generate …` runs
// `e3-offline generate …`.
#include <ATen/Parallel.h>

#include <iostream>
#include <thread>

#include "CLI/CLI.hpp"
#include "services/offline/commands.h"
#include "services/runtime/no_throw.h"

namespace e3 {

void SetThreads(int threads) {
  at::set_num_threads(
      threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
}

}  // namespace e3

int main(int argc, char** argv) {
  CLI::App app{"Offline commands of e3", "e3"};
  app.require_subcommand(1);
  absl::Status status;

  auto in_out = [](CLI::App* command, std::string& in, std::string& out) {
    command->add_option("--in", in, "JSONL to read; - for standard input")->capture_default_str();
    command->add_option("--out", out, "JSONL to write; - for standard output")
        ->capture_default_str();
  };

  e3::GenerateOptions generate;
  CLI::App* generate_command =
      app.add_subcommand("generate", "Sample responses to prompts, within a token budget");
  generate_command->footer(
      "A line has \"prompt\" (text), \"messages\" (a chat) or \"token_ids\", and optionally "
      "\"id\". Out, a line a sample, in order:\n"
      "id, sample, token_ids, text, logprobs, finish_reason (stop, length).\n\n"
      "  echo '{\"prompt\": \"Numbers 3 7 12 Target 33 <think>\"}' | e3 generate --model "
      "deploy/models/countdown-starter --budget 64");
  generate_command->add_option("--model", generate.model, "Hugging Face folder")->required();
  in_out(generate_command, generate.in, generate.out);
  generate_command->add_option("--budget", generate.budget, "New tokens at most")
      ->required()
      ->check(CLI::PositiveNumber);
  generate_command->add_option("--samples", generate.samples, "Samples a prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  generate_command->add_option("--temperature", generate.temperature, "0 is greedy")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  generate_command->add_option("--top-p", generate.top_p, "Nucleus sampling; 1 is off")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  generate_command->add_option("--min-p", generate.min_p, "Relative probability floor; 0 is off")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  generate_command->add_option("--top-k", generate.top_k, "Most likely tokens kept; 0 is off")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  generate_command->add_option("--seed", generate.seed, "Same seed, same samples")
      ->capture_default_str();
  generate_command->add_option("--device", generate.device, "cpu, cuda or cuda:N")
      ->capture_default_str();
  generate_command->add_option("--threads", generate.threads, "0: one a core")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  generate_command->add_option("--kv-cache-mib", generate.kv_cache_mib, "Memory of the KV cache")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  generate_command->add_option("--max-sequences", generate.max_sequences, "Samples running at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  generate_command->callback(
      [&] { status = e3::NoThrow([&] { return e3::RunGenerate(generate); }); });

  e3::ScoreOptions score;
  CLI::App* score_command = app.add_subcommand("score", "Log-probabilities of given tokens");
  score_command->footer(
      "A line has \"token_ids\" or \"text\". Out: id, token_ids, logprobs (natural, temperature 1; "
      "the first is null).");
  score_command->add_option("--model", score.model, "Hugging Face folder")->required();
  in_out(score_command, score.in, score.out);
  score_command->add_option("--device", score.device, "cpu, cuda or cuda:N")->capture_default_str();
  score_command->add_option("--threads", score.threads, "0: one a core")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  score_command->callback([&] { status = e3::NoThrow([&] { return e3::RunScore(score); }); });

  e3::TokenizeOptions tokenize;
  CLI::App* encode_command =
      app.add_subcommand("encode", "Token ids of prompts and chats, as generation sees them");
  encode_command->footer(
      "A line has \"prompt\" or \"messages\" (and optionally \"chat_template_arguments\"). Out: "
      "id, token_ids.");
  CLI::App* decode_command = app.add_subcommand("decode", "Text of token ids");
  decode_command->footer("A line has \"token_ids\". Out: id, text.");
  for (CLI::App* command : {encode_command, decode_command}) {
    command->add_option("--model", tokenize.model, "Hugging Face folder")->required();
    in_out(command, tokenize.in, tokenize.out);
  }
  encode_command->callback([&] { status = e3::RunEncode(tokenize); });
  decode_command->callback([&] { status = e3::RunDecode(tokenize); });

  e3::VerifyOptions verify;
  CLI::App* verify_command =
      app.add_subcommand("verify", "Judge responses as the reward service does");
  verify_command->footer(
      "math: a line has \"response\" and \"gold\". countdown: \"response\", \"numbers\", "
      "\"target\". multiplication: \"response\", \"a\", \"b\".\n"
      "Out, a line for every line in, in order: id, score, extracted, rule, reason; or id, "
      "error.\n\n"
      "  echo '{\"response\": \"so \\\\boxed{\\\\frac12}\", \"gold\": \"0.5\"}' | e3 verify math");
  verify_command->add_option("task", verify.task, "math, countdown or multiplication")
      ->required()
      ->check(CLI::IsMember({"math", "countdown", "multiplication"}));
  in_out(verify_command, verify.in, verify.out);
  verify_command
      ->add_option("--extract", verify.extract,
                   "Math: where an answer may stand. boxed: in \\boxed{} only, as in training; "
                   "any: also after \"the "
                   "answer is\", in the last mathematics, or the last number")
      ->check(CLI::IsMember({"boxed", "any"}))
      ->capture_default_str();
  verify_command
      ->add_option("--precision", verify.precision,
                   "Math: digits after the point to agree with a gold answer that is a decimal "
                   "(default: as many as "
                   "it has, where it is rounded)")
      ->check(CLI::Range(0, 1000));
  verify_command
      ->add_option("--rule", verify.rule,
                   "Countdown: strict, or TinyZero's (any complete answer earns the format score)")
      ->check(CLI::IsMember({"strict", "tinyzero"}))
      ->capture_default_str();
  verify_command
      ->add_option(
          "--format-score", verify.format_score,
          "Countdown: score of a well-formed answer that misses (default: 0; 0.1 for tinyzero)")
      ->check(CLI::Range(0.0, 1.0));
  verify_command->callback([&] { status = e3::RunVerify(verify); });

  e3::SftOptions sft;
  CLI::App* sft_command = app.add_subcommand("sft", "Supervised fine-tuning");
  sft_command->footer(
      "The file's keys are the fields of proto/e3/v1/sft_spec.proto, with what each is by default; "
      "deploy/models/countdown-starter/sft.yaml is an example. Interrupted or killed, the same "
      "command goes on from its last checkpoint (training.checkpoint_every), which lies in "
      "OUTPUT.checkpoints until the model is written.");
  sft_command->add_option("file", sft.file, "SFT job (YAML)")->required();
  sft_command->add_flag("--overwrite", sft.overwrite, "Replace an output that exists already");
  sft_command->add_option("--device", sft.device, "cpu, cuda or cuda:N")->capture_default_str();
  sft_command->add_option("--threads", sft.threads, "0: one a core")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  sft_command->callback([&] { status = e3::NoThrow([&] { return e3::RunSftFile(sft); }); });

  CLI11_PARSE(app, argc, argv);
  if (!status.ok()) {
    std::cerr << "e3: " << status.message() << "\n";
    return 1;
  }
  return 0;
}
