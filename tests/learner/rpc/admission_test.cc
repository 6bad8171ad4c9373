#include "learner/rpc/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/spec/spec.h"

namespace sluice::learner {
namespace {

v1::JobSpec Spec(const std::string& changes) {
  return ResolveSpec("kind: sft\ndata: d\n" + changes, "spec").value().effective;
}

TEST(EstimateTimeTest, ASimilarJobsPaceGivesTheTime) {
  v1::JobSpec elsewhere = Spec("");
  elsewhere.set_data("e");
  const std::vector<PastJob> past = {{"elsewhere", elsewhere, 10, 10},
                                     {"same", Spec("name: other\nsft: {passes: 9}\n"), 50, 100}};
  const TimeEstimate estimate = EstimateTime(Spec(""), 300, past);
  EXPECT_DOUBLE_EQ(estimate.seconds, 150);  // half a second a step
  EXPECT_EQ(estimate.from, "same");
  EXPECT_THAT(estimate.how, testing::HasSubstr("same did the same work on 100 steps in 50 s"));
}

TEST(EstimateTimeTest, OtherDataOtherModelsAndOtherStepsSayNothing) {
  const v1::JobSpec spec = Spec("");
  for (const char* changes : {"model: {layers: 9}\n", "sft: {targets_per_step: 7}\n"}) {
    EXPECT_EQ(EstimateTime(spec, 300, {{"p", Spec(changes), 50, 100}}).seconds, 0) << changes;
  }
  EXPECT_EQ(EstimateTime(spec, 300, {}).from, "");
}

TEST(ResolvePushedDataTest, PathsStayAndDigestsNeedAPlace) {
  v1::JobSpec spec = Spec("");
  EXPECT_TRUE(ResolvePushedData(nullptr, &spec).ok());
  EXPECT_EQ(spec.data(), "d");
  spec.set_data("digest:0123456789");
  EXPECT_EQ(ResolvePushedData(nullptr, &spec).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::learner
