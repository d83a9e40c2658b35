#include "reward_service/math/utf8.h"

namespace e3::math {

bool DecodeUtf8(absl::string_view text, size_t at, uint32_t* code_point, size_t* length) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  size_t n = first < 0x80         ? 1
             : (first >> 5) == 6  ? 2
             : (first >> 4) == 14 ? 3
             : (first >> 3) == 30 ? 4
                                  : 0;
  if (n == 0 || at + n > text.size()) return false;
  uint32_t value = n == 1 ? first : first & (0xFF >> (n + 1));
  for (size_t i = 1; i < n; ++i) {
    if ((byte(at + i) >> 6) != 2) return false;
    value = (value << 6) | (byte(at + i) & 0x3F);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kSmallest[n] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return false;
  *code_point = value;
  *length = n;
  return true;
}

std::string ValidUtf8(absl::string_view text) {
  std::string out;
  uint32_t code_point = 0;
  size_t length = 0;
  for (size_t i = 0; i < text.size(); i += length) {
    if (DecodeUtf8(text, i, &code_point, &length)) {
      out.append(text.data() + i, length);
    } else {
      out += "\xEF\xBF\xBD";
      length = 1;
    }
  }
  return out;
}

}  // namespace e3::math
