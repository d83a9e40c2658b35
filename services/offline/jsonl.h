// Lines of JSON in, lines of JSON out.
#ifndef E3_SERVICES_OFFLINE_JSONL_H_
#define E3_SERVICES_OFFLINE_JSONL_H_

#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace e3 {

using Json = nlohmann::ordered_json;

// Reads objects from a file, or from standard input for "-". Empty lines are passed over.
class JsonlReader {
 public:
  static absl::StatusOr<std::unique_ptr<JsonlReader>> Open(const std::string& path);
  // nullopt at the end; InvalidArgument "FILE:LINE: …" for a line that is not an object.
  absl::StatusOr<std::optional<Json>> Next();
  // InvalidArgument that names the line read last.
  absl::Status Error(absl::string_view message) const;
  int64_t line() const { return line_; }

 private:
  std::string path_;
  std::ifstream file_;
  std::istream* in_ = nullptr;
  int64_t line_ = 0;
};

// Writes to a file, or to standard output for "-".
class JsonlWriter {
 public:
  // InvalidArgument when `path` is the file that `input` names.
  static absl::StatusOr<std::unique_ptr<JsonlWriter>> Open(const std::string& path,
                                                           const std::string& input);
  absl::Status Write(const Json& line);
  absl::Status Close();

 private:
  std::string path_;
  std::ofstream file_;
  std::ostream* out_ = nullptr;
};

// "name  12/100  rate" on one line of standard error that rewrites itself, when that is a terminal;
// nothing otherwise.
class ProgressLine {
 public:
  explicit ProgressLine(std::string name);
  ~ProgressLine();
  void Show(const std::string& text);

 private:
  std::string name_;
  bool terminal_;
  bool shown_ = false;
};

}  // namespace e3

#endif  // E3_SERVICES_OFFLINE_JSONL_H_
