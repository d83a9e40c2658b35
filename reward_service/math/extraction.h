// Answers in the free text of a response.
#ifndef E3_REWARD_SERVICE_MATH_EXTRACTION_H_
#define E3_REWARD_SERVICE_MATH_EXTRACTION_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "reward_service/verdict.h"

namespace e3 {

// The content of the last \boxed{…} or \fbox{…} with balanced braces, the outermost of nested ones.
// When the last box is not closed (a truncated response) there is no answer. Where
// several boxes stand side by side ("\boxed{1} and \boxed{2}"), a second reading joins them.
// nullopt without a box. Linear in `text`.
std::optional<Answer> FindBoxed(absl::string_view text);

// Where an answer may stand besides a box, in the order in which they are looked for: "the answer
// is …", "#### …", the last of $…$, \[…\] and \(…\), the whole of a short text, the last number.
// Each is a reading of its own, for the first that is mathematics to be taken. A box goes before
// all.
std::optional<Answer> FindAnywhere(absl::string_view text);

// Whether words stand in `text` that are no mathematics: "The area is $5$".
bool ReadsAsProse(absl::string_view text);

}  // namespace e3

#endif  // E3_REWARD_SERVICE_MATH_EXTRACTION_H_
