#include "tasks/records.h"

#include <fstream>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/text.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Json = nlohmann::json;
using RecordFunction = std::function<absl::Status(const Json& record, int64_t number)>;

std::string Take(E3Bytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.len);
  e3_bytes_free(bytes);
  return text;
}

absl::Status ForEachRow(const std::string& path, const RecordFunction& f) {
  E3ParquetRows* opened = nullptr;
  E3Bytes error;
  if (e3_parquet_open(reinterpret_cast<const uint8_t*>(path.data()), path.size(), &opened,
                      &error) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not parquet: ", Take(error)));
  }
  std::unique_ptr<E3ParquetRows, void (*)(E3ParquetRows*)> rows(opened, e3_parquet_free);
  for (int64_t number = 1;; ++number) {
    E3Bytes row;
    if (e3_parquet_next(rows.get(), &row, &error) != 0)
      return absl::InvalidArgumentError(absl::StrCat(path, ": row ", number, ": ", Take(error)));
    const std::string text = Take(row);
    if (text.empty()) return absl::OkStatus();
    const Json record = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object())
      return absl::InvalidArgumentError(absl::StrCat(path, ": row ", number, ": not an object"));
    E3_RETURN_IF_ERROR(f(record, number));
  }
}

absl::Status ForEachLine(std::ifstream& in, const std::string& path, const RecordFunction& f) {
  std::string text;
  for (int64_t number = 1; std::getline(in, text); ++number) {
    if (absl::StripAsciiWhitespace(text).empty()) continue;
    const Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": not a JSON object"));
    }
    E3_RETURN_IF_ERROR(f(line, number));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ForEachRecord(const std::string& path, const RecordFunction& f) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot open data file ", path));
  return absl::EndsWith(path, ".parquet") ? ForEachRow(path, f) : ForEachLine(in, path, f);
}

}  // namespace e3
