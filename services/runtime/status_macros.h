// RETURN_IF_ERROR and ASSIGN_OR_RETURN, as used with absl::Status everywhere.
#ifndef E3_SERVICES_RUNTIME_STATUS_MACROS_H_
#define E3_SERVICES_RUNTIME_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define E3_RETURN_IF_ERROR(expr)                                            \
  do {                                                                      \
    if (absl::Status e3_status = (expr); !e3_status.ok()) return e3_status; \
  } while (false)

#define E3_CONCAT_(a, b) a##b
#define E3_CONCAT(a, b) E3_CONCAT_(a, b)
#define E3_ASSIGN_OR_RETURN_(tmp, lhs, expr)     \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = *std::move(tmp)
#define E3_ASSIGN_OR_RETURN(lhs, expr) E3_ASSIGN_OR_RETURN_(E3_CONCAT(e3_or_, __LINE__), lhs, expr)

#endif  // E3_SERVICES_RUNTIME_STATUS_MACROS_H_
