// UTF-8, read strictly.
#ifndef E3_REWARD_SERVICE_MATH_UTF8_H_
#define E3_REWARD_SERVICE_MATH_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace e3::math {

// The code point at byte `at` < text.size() and its length in bytes; false for what is not UTF-8
// (also overlong forms and surrogates).
bool DecodeUtf8(absl::string_view text, size_t at, uint32_t* code_point, size_t* length);

// `text` with U+FFFD for every byte that is not part of a character.
std::string ValidUtf8(absl::string_view text);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_UTF8_H_
