#include "reward_service/verifier.h"

#include <catch2/catch.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace e3 {
namespace {

v1::ScoreRequest Math(const std::string& response, const std::string& gold) {
  v1::ScoreRequest request;
  request.set_id(7);
  request.set_response(response);
  request.mutable_math()->set_gold(gold);
  return request;
}

// Tokens of four bytes.
void Tokenize(v1::ScoreRequest* request) {
  const auto size = static_cast<uint32_t>(request->response().size());
  for (uint32_t end = 4; end < size + 4; end += 4) request->add_token_ends(std::min(end, size));
}

TEST_CASE("one request scores a response at every budget, as cuts of it would be scored") {
  const std::vector<std::string> responses = {
      "I think it is \\boxed{5}. Wait, let me check. It is \\boxed{7} and not "
      "\\boxed{\\frac{10}{2}} or \\boxed{8",
      "no answer at all", "\\boxed{5}", ""};
  for (const std::string& response : responses) {
    v1::ScoreRequest request = Math(response, "5");
    Tokenize(&request);
    for (uint32_t budget = 0; budget <= 40; ++budget) request.add_budgets(budget);
    if (response.empty()) request.clear_budgets();
    v1::ScoreReply reply = Scorer().Score(request);
    REQUIRE(reply.error_code() == 0);
    CHECK(reply.trace().tokens() == (response.size() + 3) / 4);
    CHECK(reply.trace().characters() == response.size());
    for (int i = 0; i < reply.budget_scores_size(); ++i) {
      v1::ScoreReply cut = Scorer().Score(Math(response.substr(0, request.budgets(i) * 4), "5"));
      INFO(response << " cut after " << request.budgets(i) << " tokens");
      CHECK(reply.budget_scores(i) == cut.score());
    }
  }
  v1::ScoreRequest request = Math("abc \\boxed{5} and more", "5");
  Tokenize(&request);
  CHECK(Scorer().Score(request).answer_tokens() == 4);  // the box ends at byte 13
  CHECK(Scorer().Score(Math("\\boxed{5}", "5")).answer_tokens() == 0);
}

TEST_CASE("requests that cannot be judged get an error and no score") {
  Scorer scorer;
  auto error = [&](const v1::ScoreRequest& request) {
    v1::ScoreReply reply = scorer.Score(request);
    CHECK(reply.error_code() != 0);
    CHECK(reply.score() == 0);
    CHECK(reply.rule().empty());
    return reply.error();
  };
  CHECK(absl::StrContains(error(Math("\\boxed{1}", "")), "gold"));
  CHECK(absl::StrContains(error(Math("\\boxed{1}", "  ")), "gold"));
  v1::ScoreRequest none;
  CHECK(absl::StrContains(error(none), "no task"));
  v1::ScoreRequest countdown;
  countdown.mutable_countdown()->set_target(3);
  CHECK(absl::StrContains(error(countdown), "numbers"));
  v1::ScoreRequest product;
  product.mutable_multiplication()->set_a("two");
  CHECK(absl::StrContains(error(product), "whole number"));
  v1::ScoreRequest ends = Math("ab", "1");
  ends.add_token_ends(5);
  CHECK(absl::StrContains(error(ends), "token_ends"));
  v1::ScoreRequest budgets = Math("ab", "1");
  budgets.add_budgets(5);
  CHECK(absl::StrContains(error(budgets), "token_ends"));
  v1::ScoreRequest plugin;
  plugin.mutable_plugin()->set_name("chess");
  CHECK(absl::StrContains(error(plugin), "no plug-in task"));
}

TEST_CASE("what is not UTF-8 is judged, and replies are UTF-8") {
  v1::ScoreReply reply = Scorer().Score(Math("\xff\xfe \\boxed{5\xff}", "5"));
  CHECK(reply.error_code() == 0);
  CHECK(reply.score() == 0);
  CHECK(reply.extracted() == "5\xEF\xBF\xBD");
  std::string bytes;
  CHECK(reply.SerializeToString(&bytes));
  CHECK(v1::ScoreReply().ParseFromString(bytes));
}

TEST_CASE("limits of a request are kept, and only lower the server's") {
  v1::ScoreRequest request =
      Math("\\boxed{" + std::string(300, '9') + "}", std::string(300, '9') + ".0");
  CHECK(Scorer().Score(request).score() == 1);
  request.mutable_limits()->set_digits(100);
  CHECK(Scorer().Score(request).score() == 0);
  request.mutable_limits()->set_digits(1000000);
  math::Limits limits;
  limits.digits = 200;
  CHECK(Scorer(limits).Score(request).score() == 0);
  v1::ScoreRequest deep = Math("\\boxed{((((((5+0))))))}", "5");
  CHECK(Scorer().Score(deep).score() == 1);
  deep.mutable_limits()->set_depth(3);
  CHECK(Scorer().Score(deep).rule() == "limit");
}

class ParityTask final : public TaskVerifier {
 public:
  std::optional<Answer> FindAnswer(absl::string_view text) const override {
    if (text.empty()) return std::nullopt;
    return Answer{{std::string(text)}, text.size()};
  }
  absl::StatusOr<Verdict> Judge(const Answer& answer) const override {
    const bool even = (answer.readings[0].back() - '0') % 2 == 0;
    return Verdict{even ? 1.0 : 0.0, answer.readings[0], "parity", "the last digit"};
  }
  std::string Key() const override { return "parity"; }
};

TEST_CASE("a task of one's own plugs in") {
  RegisterTask("parity",
               [](absl::string_view problem) -> absl::StatusOr<std::unique_ptr<TaskVerifier>> {
                 if (problem != "even")
                   return absl::InvalidArgumentError("the problem must be \"even\"");
                 return std::make_unique<ParityTask>();
               });
  v1::ScoreRequest request;
  request.set_response("1234");
  request.mutable_plugin()->set_name("parity");
  request.mutable_plugin()->set_problem("even");
  CHECK(Scorer().Score(request).score() == 1);
  CHECK(TaskName(request) == "parity");
  request.mutable_plugin()->set_problem("odd");
  CHECK(absl::StrContains(Scorer().Score(request).error(), "must be"));
}

TEST_CASE("the cache gives the verdicts that would be made, from many threads, and stays bounded") {
  Scorer cached({}, 64), plain;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const int n = (i * 7 + t) % 150;
        v1::ScoreReply reply = cached.Score(Math(
            absl::StrCat("\\boxed{\\frac{", n, "}{", 150 - n, "}}"), absl::StrCat(n % 3, "/1")));
        const bool right = n % 3 == 0 ? n == 0 : n == (n % 3) * (150 - n);
        wrong += reply.score() != (right ? 1 : 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(cached.cache_counts().hits + cached.cache_counts().misses == 8000);
  // The same answer to another problem, or under another rule, is another verdict.
  CHECK(cached.Score(Math("\\boxed{5}", "5")).score() == 1);
  CHECK(cached.Score(Math("\\boxed{5}", "6")).score() == 0);
  v1::ScoreRequest rounded = Math("\\boxed{3.1}", "3.14159");
  CHECK(cached.Score(rounded).score() == 0);
  rounded.mutable_math()->set_precision(1);
  CHECK(cached.Score(rounded).score() == 1);
}

}  // namespace
}  // namespace e3
