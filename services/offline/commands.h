// The offline commands of e3: no service needed.
#ifndef E3_SERVICES_OFFLINE_COMMANDS_H_
#define E3_SERVICES_OFFLINE_COMMANDS_H_

#include <string>

#include "absl/status/status.h"

namespace e3 {

struct GenerateOptions {
  std::string model, in = "-", out = "-";
  int64_t budget = 0;
  int64_t samples = 1;
  double temperature = 1, top_p = 1, min_p = 0;
  int64_t top_k = 0;
  uint64_t seed = 0;
  std::string device = "cpu";
  int threads = 0;
  int64_t kv_cache_mib = 1024;
  int64_t max_sequences = 256;
};
absl::Status RunGenerate(const GenerateOptions& options);

struct ScoreOptions {
  std::string model, in = "-", out = "-";
  std::string device = "cpu";
  int threads = 0;
};
absl::Status RunScore(const ScoreOptions& options);

struct TokenizeOptions {
  std::string model, in = "-", out = "-";
};
absl::Status RunEncode(const TokenizeOptions& options);
absl::Status RunDecode(const TokenizeOptions& options);

struct VerifyOptions {
  std::string task, in = "-", out = "-";
  std::string extract = "boxed";  // or "any"
  int precision = -1;             // digits after the point; -1: see docs/reward.md
  std::string rule = "strict";    // or "tinyzero"
  double format_score = -1;       // -1: the rule's own
};
// One line out for every line in, in order; one that cannot be judged has "error". InvalidArgument
// at the end when there were such lines.
absl::Status RunVerify(const VerifyOptions& options);

struct SftOptions {
  std::string file;
  bool overwrite = false;
  std::string device = "cpu";
  int threads = 0;
};
absl::Status RunSftFile(const SftOptions& options);

// 0: one a core.
void SetThreads(int threads);

}  // namespace e3

#endif  // E3_SERVICES_OFFLINE_COMMANDS_H_
