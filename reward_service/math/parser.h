// From the text of an answer to what it means: recursive descent over
//
//   list      := relation ((',' | ';' | "and" | "or") relation)*
//   relation  := ratio (('=' | '<' | '≤' | … | '∈') ratio)*
//   ratio     := sets (':' sets)*
//   sets      := sum (('∪' | '∩' | '∖') sum)*
//   sum       := product (('+' | '-' | '±') product)*
//   product   := unary (('·' | '/' | nothing) unary)*
//   unary     := ('-' | '+' | '±')* power
//   power     := postfix ('^' unary)?
//   postfix   := primary ('!' | '%' | '°' | unit)*
//   primary   := number | mixed number | variable | group | function | matrix | text
//
// LaTeX and plain text are the same language here: \frac{1}{2}, \frac12 and 1/2 are one tree.
#ifndef E3_REWARD_SERVICE_MATH_PARSER_H_
#define E3_REWARD_SERVICE_MATH_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "reward_service/math/expression.h"
#include "reward_service/math/lexer.h"

namespace e3::math {

// Parses an answer. InvalidArgument "… at character N" when it is not mathematics,
// ResourceExhausted beyond `limits`. Nodes live in `arena`.
absl::StatusOr<const Node*> Parse(absl::string_view text, const LexerOptions& options,
                                  const Limits& limits, Arena* arena);

// As Parse, but what is not mathematics is text: "\text{two lines}", "(E)", "no solution". Lists of
// words are lists. Never fails for want of grammar; ResourceExhausted beyond `limits`.
absl::StatusOr<const Node*> ParseAnswer(absl::string_view text, const LexerOptions& options,
                                        const Limits& limits, Arena* arena);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_PARSER_H_
