// YAML files as protobuf messages: the message's fields are the keys that the file may have.
#ifndef E3_SERVICES_RUNTIME_YAML_MESSAGE_H_
#define E3_SERVICES_RUNTIME_YAML_MESSAGE_H_

#include <google/protobuf/message.h>

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace e3 {

// Where the keys of a parsed file stood, so that a later check can name line and column.
class YamlPositions {
 public:
  explicit YamlPositions(std::string file) : file_(std::move(file)) {}
  struct Position {
    int line;    // from 1
    int column;  // from 1
  };
  void Set(const std::string& path, Position position) { positions_[path] = position; }
  bool Has(const std::string& path) const { return positions_.count(path) > 0; }
  // InvalidArgument "FILE:LINE:COLUMN: PATH: MESSAGE", at `path` ("curriculum.stages[1].budget") or
  // its nearest parent in the file.
  absl::Status Error(const std::string& path, absl::string_view message) const;

 private:
  std::string file_;
  std::map<std::string, Position> positions_;
};

// Sets the fields of `message` that `yaml` names. `file` is for errors. Strict: an unknown or
// repeated key, a wrong type, or an unknown enum value (enums are written in lower case without
// their prefix) is an InvalidArgument with file, line, column and what was expected.
absl::StatusOr<YamlPositions> ParseYamlMessage(absl::string_view yaml, const std::string& file,
                                               google::protobuf::Message* message);

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_YAML_MESSAGE_H_
