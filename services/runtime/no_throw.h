// Where exceptions stop.
#ifndef E3_SERVICES_RUNTIME_NO_THROW_H_
#define E3_SERVICES_RUNTIME_NO_THROW_H_

#include <exception>
#include <string>
#include <type_traits>

#include "absl/status/status.h"

namespace e3 {

// f(), which returns a Status or StatusOr; what it throws (LibTorch: out of GPU memory, say) as
// Internal, with the first line of the message.
template <typename F>
std::invoke_result_t<F> NoThrow(F f) {
  try {
    return f();
  } catch (const std::exception& e) {
    const std::string what = e.what();
    return absl::InternalError(what.substr(0, what.find('\n')));
  }
}

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_NO_THROW_H_
