#include "rollout_server/http/completion_request.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/runtime/philox.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxChoices = 4096;  // of one request

absl::Status Bad(const std::string& field, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", why));
}

// Reads the fields of a body by name and remembers which it was asked for; null counts as absent.
// The first error stays.
class Fields {
 public:
  explicit Fields(const Json& body) : body_(body) {}

  const Json* Find(const std::string& name) {
    known_.insert(name);
    auto it = body_.find(name);
    return it == body_.end() || it->is_null() ? nullptr : &*it;
  }
  bool Bool(const std::string& name, bool absent) {
    const Json* v = Find(name);
    if (v == nullptr) return absent;
    if (!v->is_boolean()) return Fail(name, "must be true or false"), absent;
    return v->get<bool>();
  }
  double Number(const std::string& name, double absent, double low, double high) {
    const Json* v = Find(name);
    if (v == nullptr) return absent;
    if (!v->is_number() || !(v->get<double>() >= low && v->get<double>() <= high))
      return Fail(name, absl::StrCat("must be a number from ", low, " to ", high)), absent;
    return v->get<double>();
  }
  int64_t Integer(const std::string& name, int64_t absent, int64_t low, int64_t high) {
    const Json* v = Find(name);
    if (v == nullptr) return absent;
    if (!v->is_number_integer() || v->get<int64_t>() < low || v->get<int64_t>() > high)
      return Fail(name, absl::StrCat("must be an integer from ", low, " to ", high)), absent;
    return v->get<int64_t>();
  }
  // Known, and without a use here.
  void Ignore(const std::string& name) { known_.insert(name); }
  // Known, but only with the value that changes nothing.
  void Only(const std::string& name, const Json& neutral) {
    const Json* v = Find(name);
    if (v != nullptr && *v != neutral)
      Fail(name, absl::StrCat("only ", neutral.dump(), " is supported"));
  }
  void Fail(const std::string& name, const std::string& why) {
    if (status_.ok()) status_ = Bad(name, why);
  }
  absl::Status Finish() {
    for (const auto& [name, value] : body_.items()) {
      if (status_.ok() && known_.count(name) == 0) Fail(name, "this field is not supported");
    }
    return status_;
  }
  bool ok() const { return status_.ok(); }

 private:
  const Json& body_;
  std::set<std::string> known_;
  absl::Status status_;
};

void ReadSampling(Fields& f, RolloutRequest* r) {
  SamplingParams& s = r->sampling;
  s.temperature = f.Number("temperature", 1, 0, 1000);
  s.top_p = f.Number("top_p", 1, 0, 1);
  if (s.top_p == 0) {  // its limit: the most likely token
    s.top_p = 1;
    s.temperature = 0;
  }
  s.min_p = f.Number("min_p", 0, 0, 1);
  s.top_k = f.Integer("top_k", 0, -1, 1 << 30);
  if (s.top_k == -1) s.top_k = 0;  // as other servers spell "off"
  s.repetition_penalty = f.Number("repetition_penalty", 1, 0.01, 100);
  s.min_tokens = f.Integer("min_tokens", 0, 0, 1 << 30);
  if (const Json* bias = f.Find("logit_bias")) {
    if (!bias->is_object()) return f.Fail("logit_bias", "must be an object of token id: bias");
    for (const auto& [key, value] : bias->items()) {
      uint32_t token;
      if (!absl::SimpleAtoi(key, &token) || !value.is_number())
        return f.Fail("logit_bias", "must be an object of token id: bias");
      s.logit_bias.emplace_back(token, value.get<float>());
    }
    std::sort(s.logit_bias.begin(), s.logit_bias.end());
  }
  if (const Json* ids = f.Find("stop_token_ids")) {
    for (const Json& id : *ids) {
      if (!id.is_number_unsigned()) return f.Fail("stop_token_ids", "must be token ids");
      r->stop_token_ids.push_back(id.get<uint32_t>());
    }
  }
  f.Only("presence_penalty", 0);
  f.Only("frequency_penalty", 0);
}

void ReadStops(Fields& f, std::vector<std::string>* stops) {
  const Json* stop = f.Find("stop");
  if (stop == nullptr) return;
  const Json list = stop->is_array() ? *stop : Json::array({*stop});
  for (const Json& s : list) {
    if (!s.is_string() || s.get<std::string>().empty())
      return f.Fail("stop", "must be a text, or an array of texts, that are not empty");
    stops->push_back(s.get<std::string>());
  }
}

absl::StatusOr<std::vector<uint32_t>> TokenIds(const Json& ids) {
  std::vector<uint32_t> tokens;
  for (const Json& id : ids) {
    if (!id.is_number_unsigned()) return Bad("prompt", "token ids are integers that are >= 0");
    tokens.push_back(id.get<uint32_t>());
  }
  return tokens;
}

// A text, token ids, or an array of either.
absl::StatusOr<std::vector<std::vector<uint32_t>>> ReadPrompts(const Json* prompt,
                                                               const PromptEncoder& encoder) {
  if (prompt == nullptr) return Bad("prompt", "is required");
  Json list = *prompt;
  const bool one = list.is_string() || (list.is_array() && !list.empty() && list[0].is_number());
  if (one) list = Json::array({*prompt});
  if (!list.is_array() || list.empty())
    return Bad("prompt", "must be a text, token ids, or an array of either");
  std::vector<std::vector<uint32_t>> prompts;
  for (const Json& item : list) {
    if (item.is_string()) {
      E3_ASSIGN_OR_RETURN(prompts.emplace_back(), encoder.EncodeText(item.get<std::string>()));
    } else if (item.is_array()) {
      E3_ASSIGN_OR_RETURN(prompts.emplace_back(), TokenIds(item));
    } else {
      return Bad("prompt", "must be a text, token ids, or an array of either");
    }
    if (prompts.back().empty()) return Bad("prompt", "has no tokens");
  }
  return prompts;
}

absl::StatusOr<std::vector<uint32_t>> ReadMessages(Fields& f, const PromptEncoder& encoder) {
  const Json* messages = f.Find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty())
    return Bad("messages", "an array of {\"role\", \"content\"} is required");
  Json plain = *messages;
  for (Json& message : plain) {
    if (!message.is_object() || !message.contains("role"))
      return Bad("messages", "each message is an object with a role");
    Json& content = message["content"];
    if (content.is_null() && message["role"] != "assistant")
      return Bad("messages", "content must be a text, or parts of text");
    if (!content.is_array()) continue;
    // Parts of text are one text to the template.
    std::string text;
    for (const Json& part : content) {
      if (part.value("type", "") != "text" || !part.contains("text"))
        return Bad("messages", "only parts of type text are supported");
      text += part["text"].get<std::string>();
    }
    content = text;
  }
  Json arguments = Json::object();
  if (const Json* more = f.Find("chat_template_kwargs")) {
    if (!more->is_object()) return Bad("chat_template_kwargs", "must be an object");
    arguments = *more;
  }
  if (const Json* tools = f.Find("tools")) arguments["tools"] = *tools;
  return encoder.EncodeMessages(plain, arguments);
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletionRequest(const Json& body, bool chat,
                                                         const PromptEncoder& encoder,
                                                         int64_t context_length,
                                                         uint64_t random_seed) {
  if (!body.is_object()) return absl::InvalidArgumentError("the body must be a JSON object");
  Fields f(body);
  CompletionRequest c;
  c.chat = chat;
  RolloutRequest common;
  common.priority = Priority::kEvaluation;
  if (const Json* model = f.Find("model"); model != nullptr && model->is_string())
    c.model = model->get<std::string>();
  c.stream = f.Bool("stream", false);
  if (const Json* options = f.Find("stream_options"); options != nullptr && options->is_object())
    c.include_usage = options->value("include_usage", false);
  common.n = f.Integer("n", 1, 1, kMaxChoices);
  f.Only("best_of", common.n);
  ReadSampling(f, &common);
  ReadStops(f, &c.stops);
  common.stop_strings = c.stops;
  const Json* seed = f.Find("seed");
  if (seed != nullptr && !seed->is_number_integer()) f.Fail("seed", "must be an integer");
  const uint64_t root = seed != nullptr && f.ok() ? seed->get<uint64_t>() : random_seed;
  // Harmless where they are sent: texts never show special tokens.
  for (const char* name : {"user", "metadata", "store", "service_tier", "skip_special_tokens",
                           "spaces_between_special_tokens", "parallel_tool_calls",
                           "safety_identifier", "prompt_cache_key"}) {
    f.Ignore(name);
  }
  std::vector<std::vector<uint32_t>> prompts;
  int64_t max_tokens;
  if (chat) {
    absl::StatusOr<std::vector<uint32_t>> prompt = ReadMessages(f, encoder);
    if (!prompt.ok()) return prompt.status();
    prompts.push_back(*std::move(prompt));
    c.logprobs = f.Bool("logprobs", false);
    common.sampling.top_logprobs = f.Integer("top_logprobs", 0, 0, 20);
    if (common.sampling.top_logprobs > 0 && !c.logprobs)
      f.Fail("top_logprobs", "needs logprobs: true");
    f.Only("tool_choice", "auto");
    f.Only("response_format", Json{{"type", "text"}});
    // What is left of the context.
    max_tokens = f.Integer("max_tokens", -1, 1, 1 << 30);
    max_tokens = f.Integer("max_completion_tokens", max_tokens, 1, 1 << 30);
  } else {
    absl::StatusOr<std::vector<std::vector<uint32_t>>> all = ReadPrompts(f.Find("prompt"), encoder);
    if (!all.ok()) return all.status();
    prompts = *std::move(all);
    const Json* logprobs = f.Find("logprobs");
    c.logprobs = logprobs != nullptr && *logprobs != Json(false);
    if (c.logprobs) common.sampling.top_logprobs = f.Integer("logprobs", 0, 0, 20);
    c.echo = f.Bool("echo", false);
    common.prompt_logprobs = c.echo && c.logprobs;
    f.Only("suffix", "");
    max_tokens = f.Integer("max_tokens", 16, 0, 1 << 30);
    c.no_tokens = max_tokens == 0;
    if (c.no_tokens && !c.echo) f.Fail("max_tokens", "0 makes sense with echo only");
  }
  if (max_tokens > 0 && common.sampling.min_tokens > max_tokens)
    f.Fail("min_tokens", absl::StrCat("must not be above the ", max_tokens, " tokens at most"));
  E3_RETURN_IF_ERROR(f.Finish());
  if (static_cast<int64_t>(prompts.size()) * common.n > kMaxChoices) {
    return Bad("prompt", absl::StrCat(prompts.size(), " prompts with n = ", common.n,
                                      " are more than ", kMaxChoices, " choices; ask in parts"));
  }
  c.min_tokens = common.sampling.min_tokens;
  // Log-probabilities are the model's own, whatever the temperature.
  common.sampling.raw_logprobs = c.logprobs;
  for (size_t i = 0; i < prompts.size(); ++i) {
    RolloutRequest& r = c.requests.emplace_back(common);
    r.id = i;
    r.prompt = std::move(prompts[i]);
    r.seed = root;  // a prompt's draws are those of a request with it alone
    r.budget = c.no_tokens      ? 1
               : max_tokens < 0 ? context_length - static_cast<int64_t>(r.prompt.size())
                                : max_tokens;
    if (r.budget < 1) {
      return Bad(chat ? "messages" : "prompt",
                 absl::StrCat("its ", r.prompt.size(), " tokens fill the model's context of ",
                              context_length));
    }
  }
  return c;
}

}  // namespace e3
