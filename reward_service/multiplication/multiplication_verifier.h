// Products of long integers.
#ifndef E3_REWARD_SERVICE_MULTIPLICATION_MULTIPLICATION_VERIFIER_H_
#define E3_REWARD_SERVICE_MULTIPLICATION_MULTIPLICATION_VERIFIER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "reward_service/verdict.h"

namespace e3 {

// Judges the last box of a response against a × b. The box must hold the integer itself: "a × b"
// written out is the question, not the answer.
class MultiplicationVerifier final : public TaskVerifier {
 public:
  // InvalidArgument when a or b is not a whole number of at most 1,000 digits.
  static absl::StatusOr<std::unique_ptr<MultiplicationVerifier>> Create(absl::string_view a,
                                                                        absl::string_view b);
  std::optional<Answer> FindAnswer(absl::string_view text) const override;
  absl::StatusOr<Verdict> Judge(const Answer& answer) const override;
  std::string Key() const override;

 private:
  explicit MultiplicationVerifier(std::string product) : product_(std::move(product)) {}
  const std::string product_;  // in decimal
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_MULTIPLICATION_MULTIPLICATION_VERIFIER_H_
