// Tokens of an answer, in LaTeX or plain text.
//
// Styling (\left, \displaystyle, \mathbf, thin spaces, …) is gone after this step, synonyms have
// one name (\dfrac is frac, ≤ and \leqslant are le), and numbers have their thousands separators
// taken out.
#ifndef E3_REWARD_SERVICE_MATH_LEXER_H_
#define E3_REWARD_SERVICE_MATH_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "reward_service/math/limits.h"

namespace e3::math {

enum class TokenKind : uint8_t {
  kNumber,   // `text` digits, `fraction` digits after the point, `exponent` of "1e5"
  kLetter,   // one letter
  kWord,     // letters that are a word or a unit rather than a product
  kCommand,  // a LaTeX command or a function's name, without the backslash
  kText,     // the content of \text{…}
  kSymbol,   // one ASCII character
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  std::string fraction;
  std::string exponent;
  bool point = false;   // a decimal point was written
  bool space = false;   // white space stands before it
  size_t position = 0;  // byte in the answer
};

struct LexerOptions {
  // Whether "1,234" outside brackets is one number. (Else two, in a list.)
  bool comma_groups = true;
};

// InvalidArgument "… at character N" for text that is not UTF-8, control characters, braces without
// end, and what is beyond `limits`. The last token is kEnd.
absl::StatusOr<std::vector<Token>> Lex(absl::string_view text, const LexerOptions& options,
                                       const Limits& limits);

// Whether plain commas in `text` could separate thousands: "1,234" or "12,345,678".
bool HasCommaGroups(absl::string_view text);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_LEXER_H_
