#include "rollout_server/http/completion.h"

#include <ctime>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/weight_version.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::milliseconds kPoll{200};
constexpr int64_t kWindowTokens = 4096;  // on their way to a client before it pauses

std::string RandomId() {
  thread_local std::random_device device;
  return absl::StrCat(absl::Hex(device(), absl::kZeroPad8), absl::Hex(device(), absl::kZeroPad8));
}

// Text cut at a stop string, and the like, need not be UTF-8.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string VersionName(const v1::WeightVersion& v) {
  return absl::StrCat(v.job(), "/epoch-", v.epoch(), "/step-", v.step());
}

uint64_t DoorAccount() {
  static const uint64_t account = RolloutSink::NewAccount();
  return account;
}

}  // namespace

// --- inbox ---

Inbox::Inbox() : RolloutSink(DoorAccount()), window_(kWindowTokens) {}

void Inbox::OnOutput(uint64_t request_id, SampleOutput output, const v1::WeightVersion& version) {
  std::lock_guard<std::mutex> lock(mutex_);
  window_.Add(static_cast<int64_t>(output.tokens.size()));
  events_.push_back({request_id, std::move(output), version, absl::OkStatus()});
  ready_.notify_one();
}

void Inbox::OnFailure(uint64_t request_id, const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  events_.push_back({request_id, {}, {}, status});
  ready_.notify_one();
}

bool Inbox::full() {
  std::lock_guard<std::mutex> lock(mutex_);
  return window_.PauseIfFull();
}

const Inbox::Event* Inbox::Wait(std::chrono::milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!ready_.wait_for(lock, timeout, [&] { return !events_.empty(); })) return nullptr;
  return &events_.front();  // stays where it is while others are added behind it
}

Inbox::Event Inbox::Pop(EngineThread* engine) {
  std::lock_guard<std::mutex> lock(mutex_);
  Event event = std::move(events_.front());
  events_.pop_front();
  if (window_.Remove(static_cast<int64_t>(event.output.tokens.size()))) engine->Resume(this);
  return event;
}

// --- completion ---

int Completion::HttpCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    default:
      return 503;
  }
}

std::string Completion::ErrorJson(const absl::Status& status) {
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  const bool names_field =
      absl::IsInvalidArgument(status) && colon != std::string::npos && message.find(' ') > colon;
  const int code = HttpCode(status);
  const char* type = code == 429   ? "rate_limit_error"
                     : code >= 500 ? "server_error"
                                   : "invalid_request_error";
  return Dump({{"error",
                {{"message", message},
                 {"type", type},
                 {"param", names_field ? Json(message.substr(0, colon)) : Json()},
                 {"code", absl::StatusCodeToString(status.code())}}}});
}

Completion::Completion(CompletionRequest request, std::shared_ptr<const PromptEncoder> encoder,
                       EngineThread* engine, std::function<absl::Status()> give_up)
    : request_(std::move(request)),
      encoder_(std::move(encoder)),
      engine_(engine),
      give_up_(std::move(give_up)),
      inbox_(std::make_shared<Inbox>()) {
  header_ = {
      {"id", absl::StrCat(request_.chat ? "chatcmpl-" : "cmpl-", RandomId())},
      {"object", request_.chat ? request_.stream ? "chat.completion.chunk" : "chat.completion"
                               : "text_completion"},
      {"created", std::time(nullptr)},
      {"model", request_.model.empty() ? engine->Status().model() : request_.model},
      {"system_fingerprint", Json()}};
  for (const RolloutRequest& r : request_.requests) {
    usage_prompt_ += static_cast<int64_t>(r.prompt.size());
    for (int64_t i = 0; i < r.n; ++i) choices_.emplace_back(&encoder_->tokenizer(), request_);
  }
  unfinished_ = choices_.size();
  n_ = static_cast<size_t>(request_.requests[0].n);
  engine_->Submit(inbox_, request_.requests);
}

Completion::~Completion() { engine_->Detach(inbox_.get()); }

absl::Status Completion::WaitForFirst() {
  while (true) {
    E3_RETURN_IF_ERROR(give_up_());
    if (const Inbox::Event* event = inbox_->Wait(kPoll)) return event->failure;
  }
}

absl::StatusOr<Completion::Piece> Completion::Take() {
  E3_RETURN_IF_ERROR(WaitForFirst());
  Inbox::Event event = inbox_->Pop(engine_);
  const SampleOutput& output = event.output;
  if (output.finish == Finish::kCut)
    return absl::UnavailableError("the weights changed, which cut the answer; ask again");
  // Which policy this is: the weights that the tokens were generated with.
  if (!first_version_) first_version_ = event.version;
  std::string fingerprint = VersionName(event.version);
  if (!request_.stream && !SameVersion(*first_version_, event.version))
    fingerprint = absl::StrCat(VersionName(*first_version_), "..", fingerprint);
  header_["system_fingerprint"] = std::move(fingerprint);

  Piece piece{event.request * n_ + output.sample, "", false, output.finish != Finish::kNone};
  Choice& choice = choices_[piece.index];
  piece.begins = !std::exchange(choice.begun, true);
  if (piece.begins && request_.echo) piece.text += Echo(event.request, output, &choice);
  if (!request_.no_tokens) {
    for (const OutputToken& token : output.tokens) {
      piece.text += choice.text.Push(token.token);
      if (request_.logprobs) choice.logprobs.Add(token, true);
      ++usage_completion_;
    }
  }
  if (piece.ends) {
    piece.text += choice.text.Finish();
    choice.finish_reason =
        output.finish == Finish::kStop && !request_.no_tokens ? "stop" : "length";
    --unfinished_;
  }
  return piece;
}

// The prompt in front of a choice, with its log-probabilities.
std::string Completion::Echo(uint64_t request, const SampleOutput& output, Choice* choice) {
  const std::vector<uint32_t>& prompt = request_.requests[request].prompt;
  if (request_.logprobs) {
    if (output.sample == 0) prompt_tokens_[request] = output.prompt_tokens;
    OutputToken first;
    first.token = prompt[0];
    choice->logprobs.Add(first, false);
    for (const OutputToken& token : prompt_tokens_[request]) choice->logprobs.Add(token, true);
  }
  return encoder_->tokenizer().Decode(prompt, /*skip_special_tokens=*/true).value_or("");
}

absl::StatusOr<std::string> Completion::Whole() {
  while (unfinished_ > 0) {
    E3_ASSIGN_OR_RETURN(Piece piece, Take());
    choices_[piece.index].whole += piece.text;
  }
  Json reply = header_;
  reply["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    Json json = {{"index", i}};
    if (request_.chat) {
      json["message"] = {{"role", "assistant"}, {"content", choice.whole}};
    } else {
      json["text"] = choice.whole;
    }
    json["logprobs"] = request_.logprobs ? choice.logprobs.Take() : Json();
    json["finish_reason"] = choice.finish_reason;
    reply["choices"].push_back(std::move(json));
  }
  reply["usage"] = Usage();
  return Dump(reply);
}

void Completion::Next(std::string* out, bool* over) {
  auto say = [&](const std::string& data) { absl::StrAppend(out, "data: ", data, "\n\n"); };
  absl::StatusOr<Piece> piece = Take();
  *over = !piece.ok() || unfinished_ == 0;
  // Behind the header there is no status code left to say it with.
  if (!piece.ok()) return say(ErrorJson(piece.status()));
  Choice& choice = choices_[piece->index];
  if (!piece->text.empty() || piece->begins || piece->ends) {
    Json part = {{"index", piece->index}};
    if (request_.chat) {
      part["delta"] = Json::object();
      if (piece->begins) part["delta"]["role"] = "assistant";
      part["delta"]["content"] = piece->text;
    } else {
      part["text"] = piece->text;
    }
    part["logprobs"] = request_.logprobs ? choice.logprobs.Take() : Json();
    part["finish_reason"] = choice.finish_reason;
    Json chunk = header_;
    chunk["choices"] = Json::array({part});
    say(Dump(chunk));
  }
  if (!*over) return;
  if (request_.include_usage) {
    Json last = header_;
    last["choices"] = Json::array();
    last["usage"] = Usage();
    say(Dump(last));
  }
  say("[DONE]");
}

Json Completion::Usage() const {
  return {{"prompt_tokens", usage_prompt_},
          {"completion_tokens", usage_completion_},
          {"total_tokens", usage_prompt_ + usage_completion_}};
}

}  // namespace e3
