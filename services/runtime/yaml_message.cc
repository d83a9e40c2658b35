#include "services/runtime/yaml_message.h"

#include <google/protobuf/descriptor.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t next =
          std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row[b.size()];
}

// "; did you mean 'x'?", or the list of what is allowed.
std::string Suggestion(absl::string_view got, const std::vector<std::string>& allowed) {
  std::string best;
  size_t best_distance = got.size() / 2 + 1;
  for (const std::string& name : allowed) {
    size_t distance = EditDistance(got, name);
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  if (!best.empty()) return absl::StrCat("; did you mean '", best, "'?");
  return absl::StrCat("; expected one of: ", absl::StrJoin(allowed, ", "));
}

// ADVANTAGE_MASK_NEGATIVE of enum AdvantageMask is written "negative".
std::string EnumText(const EnumValueDescriptor* value) {
  std::string prefix;
  for (char c : value->type()->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !prefix.empty())
      prefix.push_back('_');
    prefix.push_back(absl::ascii_toupper(static_cast<unsigned char>(c)));
  }
  prefix.push_back('_');
  std::string name = value->name();
  if (absl::StartsWith(name, prefix)) name = name.substr(prefix.size());
  return absl::AsciiStrToLower(name);
}

const char* Expected(const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      return "a whole number";
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return "a whole number that is not negative";
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    case FieldDescriptor::CPPTYPE_ENUM:
      return "a name";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "keys and values";
  }
  return "a value";
}

class Binder {
 public:
  explicit Binder(YamlPositions* positions) : positions_(positions) {}

  absl::Status BindMessage(const YAML::Node& node, const std::string& path, Message* message) {
    if (node.IsNull()) return absl::OkStatus();
    if (!node.IsMap()) return positions_->Error(path, "expected keys and values");
    const Descriptor* descriptor = message->GetDescriptor();
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const std::string& key = entry.first.Scalar();
      std::string key_path = path.empty() ? key : absl::StrCat(path, ".", key);
      Mark(entry.first, key_path);
      const FieldDescriptor* field = descriptor->FindFieldByName(key);
      if (field == nullptr) {
        std::vector<std::string> names;
        for (int i = 0; i < descriptor->field_count(); ++i)
          names.push_back(descriptor->field(i)->name());
        return positions_->Error(key_path,
                                 absl::StrCat("unknown key '", key, "'", Suggestion(key, names)));
      }
      if (!seen.insert(key).second)
        return positions_->Error(key_path, absl::StrCat("key '", key, "' appears twice"));
      E3_RETURN_IF_ERROR(BindField(entry.second, key_path, message, field));
    }
    return absl::OkStatus();
  }

 private:
  void Mark(const YAML::Node& node, const std::string& path) {
    positions_->Set(path, {node.Mark().line + 1, node.Mark().column + 1});
  }

  absl::Status BindField(const YAML::Node& node, const std::string& path, Message* message,
                         const FieldDescriptor* field) {
    if (node.IsNull())
      return positions_->Error(path, absl::StrCat("has no value; expected ", Expected(field)));
    const Reflection* reflection = message->GetReflection();
    if (field->is_map()) {
      if (!node.IsMap()) return positions_->Error(path, "expected names and values");
      std::set<std::string> seen;
      for (const auto& entry : node) {
        const std::string& key = entry.first.Scalar();
        std::string entry_path = absl::StrCat(path, ".", key);
        Mark(entry.first, entry_path);
        if (!seen.insert(key).second)
          return positions_->Error(entry_path, absl::StrCat("key '", key, "' appears twice"));
        Message* map_entry = reflection->AddMessage(message, field);
        map_entry->GetReflection()->SetString(map_entry, field->message_type()->map_key(), key);
        const FieldDescriptor* value = field->message_type()->map_value();
        E3_RETURN_IF_ERROR(
            BindMessage(entry.second, entry_path,
                        map_entry->GetReflection()->MutableMessage(map_entry, value)));
      }
      return absl::OkStatus();
    }
    if (!field->is_repeated()) {
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        return BindMessage(node, path, reflection->MutableMessage(message, field));
      }
      return BindScalar(node, path, message, field);
    }
    if (!node.IsSequence())
      return positions_->Error(path, absl::StrCat("expected a list, each item ", Expected(field)));
    for (size_t i = 0; i < node.size(); ++i) {
      std::string item_path = absl::StrCat(path, "[", i, "]");
      Mark(node[i], item_path);
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        E3_RETURN_IF_ERROR(BindMessage(node[i], item_path, reflection->AddMessage(message, field)));
      } else {
        E3_RETURN_IF_ERROR(BindScalar(node[i], item_path, message, field));
      }
    }
    return absl::OkStatus();
  }

  absl::Status BindScalar(const YAML::Node& node, const std::string& path, Message* message,
                          const FieldDescriptor* field) {
    if (!node.IsScalar())
      return positions_->Error(path, absl::StrCat("expected ", Expected(field)));
    const std::string& text = node.Scalar();
    auto wrong = [&] {
      return positions_->Error(path,
                               absl::StrCat("expected ", Expected(field), ", got '", text, "'"));
    };
    const Reflection* reflection = message->GetReflection();
#define E3_SET(Type, value)                       \
  if (field->is_repeated()) {                     \
    reflection->Add##Type(message, field, value); \
  } else {                                        \
    reflection->Set##Type(message, field, value); \
  }                                               \
  return absl::OkStatus()
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: {
        int32_t value;
        if (!absl::SimpleAtoi(text, &value)) return wrong();
        E3_SET(Int32, value);
      }
      case FieldDescriptor::CPPTYPE_INT64: {
        int64_t value;
        if (!absl::SimpleAtoi(text, &value)) return wrong();
        E3_SET(Int64, value);
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        uint64_t value;
        if (!absl::SimpleAtoi(text, &value)) return wrong();
        E3_SET(UInt64, value);
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        double value;
        if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) return wrong();
        E3_SET(Double, value);
      }
      case FieldDescriptor::CPPTYPE_BOOL: {
        if (text != "true" && text != "false") return wrong();
        E3_SET(Bool, text == "true");
      }
      case FieldDescriptor::CPPTYPE_STRING: {
        E3_SET(String, text);
      }
      case FieldDescriptor::CPPTYPE_ENUM: {
        const EnumDescriptor* type = field->enum_type();
        std::vector<std::string> names;
        for (int i = 0; i < type->value_count(); ++i) {
          names.push_back(EnumText(type->value(i)));
          if (names.back() == text) {
            reflection->SetEnum(message, field, type->value(i));
            return absl::OkStatus();
          }
        }
        return positions_->Error(path, absl::StrCat("unknown value '", text, "'; expected one of: ",
                                                    absl::StrJoin(names, ", ")));
      }
      default:
        return wrong();
    }
#undef E3_SET
  }

  YamlPositions* positions_;
};

}  // namespace

absl::Status YamlPositions::Error(const std::string& path, absl::string_view message) const {
  std::string at = path;
  while (true) {
    auto it = positions_.find(at);
    if (it != positions_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_, ":", it->second.line, ":", it->second.column, ": ",
                       path.empty() ? "" : absl::StrCat(path, ": "), message));
    }
    size_t cut = at.find_last_of(".[");
    if (cut == std::string::npos) break;
    at.resize(cut);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(file_, ":1:1: ", path.empty() ? "" : absl::StrCat(path, ": "), message));
}

absl::StatusOr<YamlPositions> ParseYamlMessage(absl::string_view yaml, const std::string& file,
                                               Message* message) {
  YamlPositions positions(file);
  try {
    std::vector<YAML::Node> documents = YAML::LoadAll(std::string(yaml));
    if (documents.size() > 1) {
      const YAML::Mark mark = documents[1].Mark();
      return absl::InvalidArgumentError(
          absl::StrCat(file, ":", mark.line + 1, ":", mark.column + 1,
                       ": a second document begins here; expected one"));
    }
    YAML::Node root = documents.empty() ? YAML::Node() : documents[0];
    E3_RETURN_IF_ERROR(Binder(&positions).BindMessage(root, "", message));
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(file, ":", e.mark.line + 1, ":",
                                                   e.mark.column + 1, ": not valid YAML: ", e.msg));
  }
  return positions;
}

}  // namespace e3
