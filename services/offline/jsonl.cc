#include "services/offline/jsonl.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace e3 {

absl::StatusOr<std::unique_ptr<JsonlReader>> JsonlReader::Open(const std::string& path) {
  auto reader = std::make_unique<JsonlReader>();
  reader->path_ = path;
  reader->in_ = &std::cin;
  if (path != "-") {
    reader->file_.open(path);
    if (!reader->file_) return absl::NotFoundError(absl::StrCat("cannot open ", path));
    reader->in_ = &reader->file_;
  }
  return reader;
}

absl::StatusOr<std::optional<Json>> JsonlReader::Next() {
  std::string text;
  while (std::getline(*in_, text)) {
    ++line_;
    if (absl::StripAsciiWhitespace(text).empty()) continue;
    Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return Error("not a JSON object");
    return json;
  }
  return std::nullopt;
}

absl::Status JsonlReader::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(
      absl::StrCat(path_ == "-" ? "standard input" : path_, ":", line_, ": ", message));
}

absl::StatusOr<std::unique_ptr<JsonlWriter>> JsonlWriter::Open(const std::string& path,
                                                               const std::string& input) {
  std::error_code error;
  if (path != "-" && input != "-" && std::filesystem::equivalent(path, input, error))
    return absl::InvalidArgumentError(
        absl::StrCat("--out ", path, " is the input; writing it would destroy it"));
  auto writer = std::make_unique<JsonlWriter>();
  writer->path_ = path;
  writer->out_ = &std::cout;
  if (path != "-") {
    writer->file_.open(path);
    if (!writer->file_) return absl::PermissionDeniedError(absl::StrCat("cannot write ", path));
    writer->out_ = &writer->file_;
  }
  return writer;
}

absl::Status JsonlWriter::Write(const Json& line) {
  *out_ << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  if (path_ == "-") out_->flush();
  if (!*out_)
    return absl::UnavailableError(
        absl::StrCat("cannot write ", path_, " (disk full, or the reader is gone)"));
  return absl::OkStatus();
}

absl::Status JsonlWriter::Close() {
  out_->flush();
  if (!*out_)
    return absl::UnavailableError(
        absl::StrCat("cannot write ", path_, " (disk full, or the reader is gone)"));
  return absl::OkStatus();
}

ProgressLine::ProgressLine(std::string name)
    : name_(std::move(name)), terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() {
  if (shown_) std::cerr << "\n";
}

void ProgressLine::Show(const std::string& text) {
  if (!terminal_) return;
  shown_ = true;
  std::cerr << "\r\033[K" << name_ << "  " << text << std::flush;
}

}  // namespace e3
