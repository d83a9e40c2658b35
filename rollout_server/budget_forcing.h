// Budget forcing as a state machine over the tokens of one response.
//
// The model thinks until it draws an end token (</think>, or the end of the sequence). While
// extensions are left, the drawn token is thrown away and the next prefix ("Wait", "But wait", …)
// stands in its place; an extension that reaches its limit gets the next prefix behind its last
// token. After the last extension the model finishes freely.
#ifndef E3_ROLLOUT_SERVER_BUDGET_FORCING_H_
#define E3_ROLLOUT_SERVER_BUDGET_FORCING_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "rollout_server/request.h"

namespace e3 {

class ForcingState {
 public:
  // What becomes of a drawn token.
  struct Decision {
    bool keep = true;                               // the token is part of the response
    const std::vector<uint32_t>* append = nullptr;  // these follow (in its place if not kept)
  };
  Decision OnDraw(const BudgetForcing& forcing, uint32_t token);

  // The state after `tokens`, of which `forced` says which were appended (same size, or empty:
  // none). `missing` takes the rest of a prefix that `tokens` break off in. InvalidArgument when
  // the forced tokens are not what `forcing` appends.
  static absl::StatusOr<ForcingState> Replay(const BudgetForcing& forcing,
                                             const std::vector<uint32_t>& tokens,
                                             const std::vector<bool>& forced,
                                             std::vector<uint32_t>* missing);

  int64_t extensions() const { return extensions_; }

 private:
  int64_t extensions_ = 0;  // begun
  int64_t since_ = 0;       // tokens of the extension, its prefix included
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_BUDGET_FORCING_H_
