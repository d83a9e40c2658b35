#include "learner/packing.h"

#include <catch2/catch.hpp>

namespace e3 {
namespace {

TEST_CASE("every response token has the input that predicts it") {
  TrainingSequence a{{1, 2}, {3, 4}}, b{{5}, {6}}, c{{7, 8, 9}, {}};
  PackedBatch batch = Pack({&a, &b, &c});
  CHECK(batch.token_ids == std::vector<int64_t>{1, 2, 3, 5, 7, 8});
  CHECK(batch.positions == std::vector<int64_t>{0, 1, 2, 0, 0, 1});
  CHECK(batch.offsets == std::vector<int64_t>{0, 3, 4, 6});
  CHECK(batch.predicting_rows == std::vector<int64_t>{1, 2, 3});
  CHECK(batch.targets == std::vector<int64_t>{3, 4, 6});
}

TEST_CASE("micro-batches respect the limit and lose nothing") {
  CHECK(MicroBatches({3, 3, 3, 10, 1}, 6) == std::vector<size_t>{2, 3, 4, 5});
  CHECK(MicroBatches({}, 6).empty());
  CHECK(MicroBatches({100}, 6) == std::vector<size_t>{1});
}

TEST_CASE("forced tokens are inputs, but nothing is learned from them") {
  TrainingSequence s{{1, 2}, {3, 4, 5, 6}, {1, 2}};
  PackedBatch batch = Pack({&s});
  CHECK(batch.token_ids == std::vector<int64_t>{1, 2, 3, 4, 5});
  CHECK(batch.targets == std::vector<int64_t>{3, 6});
  CHECK(batch.predicting_rows == std::vector<int64_t>{1, 4});
  CHECK(s.trained_tokens() == 2);
}

}  // namespace
}  // namespace e3
