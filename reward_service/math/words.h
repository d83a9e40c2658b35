// Answers in words: "\text{two lines}", "no solution", "A, B and D".
#ifndef E3_REWARD_SERVICE_MATH_WORDS_H_
#define E3_REWARD_SERVICE_MATH_WORDS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "reward_service/math/expression.h"
#include "reward_service/math/lexer.h"
#include "reward_service/math/limits.h"

namespace e3::math {

// `text` without styling, spaces, punctuation at its ends and case: how words are compared.
std::string NormalizeText(absl::string_view text);

// The answer as words when it has nothing but words; nullopt otherwise.
std::optional<std::string> OnlyWords(const std::vector<Token>& tokens);

// What a text says: kText, or what it names ("four", "twenty-one", "no solution", "infinity").
const Node* TextNode(absl::string_view text, Arena* arena);

// As TextNode for one text; a list of such for several between commas, "and" and "or".
const Node* WordsNode(const std::string& text, const Limits& limits, Arena* arena);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_WORDS_H_
