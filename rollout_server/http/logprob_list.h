// The log-probabilities of a choice, in the shapes of /v1/completions and /v1/chat/completions.
#ifndef E3_ROLLOUT_SERVER_HTTP_LOGPROB_LIST_H_
#define E3_ROLLOUT_SERVER_HTTP_LOGPROB_LIST_H_

#include <cstdint>
#include <string>

#include "model/tokenizer.h"
#include "nlohmann/json.hpp"
#include "rollout_server/sequence.h"

namespace e3 {

// Reports raw log-probabilities: the model's own, whatever the temperature.
class LogprobList {
 public:
  // `tokenizer` outlives this object.
  LogprobList(const Tokenizer* tokenizer, bool chat)
      : tokenizer_(tokenizer), chat_(chat), visible_(tokenizer, /*skip_special_tokens=*/true) {}

  // `known`: false for the first token of a prompt, which nothing predicts.
  void Add(const OutputToken& token, bool known);
  // What was added since the last call.
  nlohmann::ordered_json Take();

 private:
  using Json = nlohmann::ordered_json;

  std::string Bytes(uint32_t token) const { return tokenizer_->TokenBytes(token).value_or(""); }
  Json Entry(uint32_t token, const Json& logprob) const;

  const Tokenizer* tokenizer_;
  const bool chat_;
  IncrementalDetokenizer visible_;
  int64_t offset_ = 0;  // characters of the visible text
  Json content_ = Json::array(), tokens_ = Json::array(), logprobs_ = Json::array(),
       top_ = Json::array(), offsets_ = Json::array();
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_HTTP_LOGPROB_LIST_H_
