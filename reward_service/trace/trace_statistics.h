// What the paper measures on the text of a response: verifications, attempts, repetition.
#ifndef E3_REWARD_SERVICE_TRACE_TRACE_STATISTICS_H_
#define E3_REWARD_SERVICE_TRACE_TRACE_STATISTICS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "e3/v1/rewards.pb.h"

namespace e3 {

// "Wait", "But wait", "Alternatively", "Is there another way", "But let me double", "But hold on"
// (App. N).
const std::vector<std::string>& DefaultVerificationPhrases();

// Sentences start at the text's start, after a line break, and after '.', '!' or '?' with white
// space. A sentence counts once, when it starts with one of `phrases` (the default ones when empty)
// as whole words. Attempts are lines with at least one equation "… = number" (sentences, in a text
// of one line): Section 4. Linear in the text for all practical purposes. Thread-safe.
v1::TraceStatistics MeasureTrace(absl::string_view text, const std::vector<std::string>& phrases);

// Whether the text ends in a repeating stream: its last 64 or more characters repeat a unit of at
// most 256 characters at least four times.
bool EndsRepeating(absl::string_view text);

}  // namespace e3

#endif  // E3_REWARD_SERVICE_TRACE_TRACE_STATISTICS_H_
