#include "learner/ledger/reward_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int kUnlimited = std::numeric_limits<int>::max();

class RewardHealthTest : public testing::Test {
 protected:
  // One group a tenth of a second, for so long.
  void Score(absl::Duration time, absl::Duration delay = absl::Milliseconds(10)) {
    for (const absl::Time end = now_ + time; now_ < end; now_ += absl::Milliseconds(100)) health_.OnScored(delay, now_);
  }
  void Fail(absl::Duration time, const std::string& cause = "connection refused") {
    for (const absl::Time end = now_ + time; now_ < end; now_ += absl::Milliseconds(100)) health_.OnFailed(cause, now_);
  }
  void Wait(absl::Duration time) {
    now_ += time;
    health_.Tick(now_);
  }
  // From any state to OUTAGE, and to PROBING.
  void GoDown() {
    while (health_.state() != RewardState::kOutage) Fail(absl::Milliseconds(100));
  }
  void GoProbing() {
    GoDown();
    Wait(absl::Seconds(5));
    ASSERT_EQ(health_.state(), RewardState::kProbing);
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  RewardHealth health_{RewardHealthOptions(), now_};
};

TEST_F(RewardHealthTest, AHealthyRankerStaysHealthyAndAnIdleJobToo) {
  Score(absl::Seconds(60));
  Wait(absl::Hours(1));
  Score(absl::Seconds(1));
  EXPECT_EQ(health_.state(), RewardState::kHealthy);
  EXPECT_EQ(health_.MaxLeases(24), kUnlimited);
  EXPECT_THAT(health_.TakeTransitions(), IsEmpty());
}

TEST_F(RewardHealthTest, OneFailureIsNothing) {
  Score(absl::Seconds(10));
  Fail(absl::Milliseconds(100));
  Score(absl::Seconds(60));
  health_.OnFailed("once more, alone", now_);
  Wait(absl::Hours(1));
  EXPECT_THAT(health_.TakeTransitions(), IsEmpty());
}

TEST_F(RewardHealthTest, FailuresOfAFewInTheHundredForAWindowAreABrownoutAndCutTheLeases) {
  for (int second = 0; second < 12; ++second) {
    Score(absl::Milliseconds(1900));
    Fail(absl::Milliseconds(100), "the ranker failed: out of memory");
  }
  EXPECT_EQ(health_.state(), RewardState::kBrownout);
  const std::vector<RewardTransition> seen = health_.TakeTransitions();
  ASSERT_THAT(seen, SizeIs(1));
  EXPECT_EQ(seen[0].from, RewardState::kHealthy);
  EXPECT_THAT(seen[0].cause, HasSubstr("were not scored; the last failure: the ranker failed: out of memory"));
  EXPECT_LT(health_.MaxLeases(24), 24);
  EXPECT_GE(health_.MaxLeases(24), 1);
  EXPECT_FALSE(health_.outage_since().has_value());
}

TEST_F(RewardHealthTest, SlowAnswersAreABrownoutAndNoOutage) {
  Score(absl::Seconds(60), absl::Seconds(3));
  EXPECT_EQ(health_.state(), RewardState::kBrownout);
  EXPECT_THAT(health_.cause(), HasSubstr("waited for their scores for more than 2.5s"));
  EXPECT_EQ(health_.MaxLeases(24), 3);  // halved for each window that stays slow, not below a tenth
}

TEST_F(RewardHealthTest, ABrownoutEndsAfterAGoodWindowAndTheLeasesComeBackStepByStep) {
  Score(absl::Seconds(15), absl::Seconds(3));
  ASSERT_EQ(health_.state(), RewardState::kBrownout);
  Score(absl::Seconds(19));  // the window forgets for one time its length, and must stay good for another
  EXPECT_EQ(health_.state(), RewardState::kBrownout);
  Score(absl::Seconds(3));
  EXPECT_EQ(health_.state(), RewardState::kHealthy);
  const int before = health_.MaxLeases(100);
  health_.OnStep();
  EXPECT_EQ(health_.MaxLeases(100), before + 10);
  for (int step = 0; step < 10; ++step) health_.OnStep();
  EXPECT_EQ(health_.MaxLeases(100), kUnlimited);
}

TEST_F(RewardHealthTest, ABorderlineRankerDoesNotFlap) {
  // 1.5 % for ten minutes: over the limit, and never under half of it.
  for (int i = 0; i < 6000; ++i) {
    if (i % 66 == 0) {
      health_.OnFailed("now and then", now_);
    } else {
      health_.OnScored(absl::ZeroDuration(), now_);
    }
    now_ += absl::Milliseconds(100);
  }
  EXPECT_LE(health_.TakeTransitions().size(), 1u);
}

TEST_F(RewardHealthTest, MostFailuresForAWindowAreAnOutageEvenWithSuccessesBetween) {
  for (int i = 0; i < 30; ++i) {
    Fail(absl::Milliseconds(600));
    Score(absl::Milliseconds(400));
  }
  EXPECT_EQ(health_.state(), RewardState::kOutage);
  EXPECT_EQ(health_.MaxLeases(24), 0);
}

TEST_F(RewardHealthTest, NoSuccessForFifteenSecondsIsAnOutageHoweverFewTried) {
  health_.OnFailed("deadline", now_);
  Wait(absl::Seconds(14));
  health_.OnFailed("deadline", now_);
  EXPECT_EQ(health_.state(), RewardState::kHealthy);
  Wait(absl::Seconds(100));  // time alone is no evidence
  EXPECT_EQ(health_.state(), RewardState::kHealthy);
  health_.OnScored(absl::ZeroDuration(), now_);
  health_.OnFailed("deadline", now_);  // counted from here
  Wait(absl::Seconds(14));
  health_.OnFailed("deadline", now_);
  EXPECT_EQ(health_.state(), RewardState::kHealthy);
  Wait(absl::Seconds(1));
  health_.OnFailed("deadline exceeded", now_);
  EXPECT_EQ(health_.state(), RewardState::kOutage);
  EXPECT_THAT(health_.cause(), HasSubstr("no group was scored for 15s; the last failure: deadline exceeded"));
}

TEST_F(RewardHealthTest, AnOutageIsLeftByProbesAlone) {
  GoDown();
  Score(absl::Seconds(4));  // late answers
  EXPECT_EQ(health_.state(), RewardState::kOutage);
  Wait(absl::Seconds(5));
  EXPECT_EQ(health_.state(), RewardState::kProbing);
  EXPECT_EQ(health_.MaxLeases(24), 1);
  Wait(absl::Hours(1));  // nobody there to probe: no news
  EXPECT_EQ(health_.state(), RewardState::kProbing);
  Score(absl::Milliseconds(1900));
  EXPECT_EQ(health_.state(), RewardState::kProbing);  // 19 in a row
  EXPECT_TRUE(health_.outage_since().has_value());
  Score(absl::Milliseconds(100));
  EXPECT_EQ(health_.state(), RewardState::kHealthy);
  EXPECT_FALSE(health_.outage_since().has_value());
  EXPECT_EQ(health_.MaxLeases(100), 10);
  for (int step = 0; step < 9; ++step) health_.OnStep();
  EXPECT_EQ(health_.MaxLeases(100), kUnlimited);
}

TEST_F(RewardHealthTest, AFailedProbeDoublesTheBackOffUpToItsLimit) {
  GoProbing();
  for (const int seconds : {10, 20, 40, 60, 60}) {
    Score(absl::Milliseconds(1900));
    Fail(absl::Milliseconds(100), "still down");
    EXPECT_EQ(health_.state(), RewardState::kOutage);
    EXPECT_THAT(health_.cause(), HasSubstr("a probe failed: still down"));
    Wait(absl::Seconds(seconds) - absl::Milliseconds(200));
    EXPECT_EQ(health_.state(), RewardState::kOutage);
    Wait(absl::Milliseconds(200));
    EXPECT_EQ(health_.state(), RewardState::kProbing);
  }
}

TEST_F(RewardHealthTest, ARelapseBeforeTheLeasesAreBackWaitsLonger) {
  GoProbing();
  Score(absl::Seconds(2));
  ASSERT_EQ(health_.state(), RewardState::kHealthy);
  GoDown();
  Wait(absl::Seconds(8));
  EXPECT_EQ(health_.state(), RewardState::kOutage);
  Wait(absl::Seconds(2));
  EXPECT_EQ(health_.state(), RewardState::kProbing);
}

TEST_F(RewardHealthTest, ACanaryOutOfRangeIsAnOutageAtOnceAndNothingIsBelievedUntilOneIsInRange) {
  Score(absl::Seconds(1));
  health_.OnCanary(true, "", now_);
  EXPECT_TRUE(health_.trusted());
  health_.OnCanary(false, "rank correlation 0.1", now_);
  EXPECT_EQ(health_.state(), RewardState::kOutage);
  EXPECT_FALSE(health_.trusted());
  EXPECT_THAT(health_.cause(), HasSubstr("rank correlation 0.1"));
  Wait(absl::Seconds(5));
  ASSERT_EQ(health_.state(), RewardState::kProbing);
  EXPECT_TRUE(health_.awaits_canary());
  EXPECT_EQ(health_.MaxLeases(24), 0);
  Score(absl::Seconds(10));
  EXPECT_EQ(health_.state(), RewardState::kProbing);  // a row of successes is not enough
  health_.OnCanary(true, "", now_);
  EXPECT_TRUE(health_.trusted());
  EXPECT_EQ(health_.state(), RewardState::kHealthy);
}

TEST_F(RewardHealthTest, OptionsThatCannotWorkAreNamed) {
  RewardHealthOptions options;
  EXPECT_TRUE(options.Validate().ok());
  options.max_backoff = absl::Seconds(1);
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("max_backoff"));
  options = {};
  options.brownout_share = 0.6;
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("brownout_share"));
  options = {};
  options.window = absl::ZeroDuration();
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("window"));
}

// Every sequence of seven things that can happen, from each state that can be reached by them: the moves are those of
// the drawing and no others, each has its evidence, and all of them occur.
TEST(RewardHealthExploreTest, EverySequenceOfEventsMakesOnlyTheMovesOfTheDrawing) {
  RewardHealthOptions options;
  options.successes = 2;
  options.ramp_steps = 2;
  constexpr int kKinds = 8, kLength = 6;
  std::map<std::pair<RewardState, RewardState>, int> moves;
  int sequences = 1;
  for (int i = 0; i < kLength; ++i) sequences *= kKinds;
  for (int sequence = 0; sequence < sequences; ++sequence) {
    absl::Time now = absl::UnixEpoch();
    RewardHealth health(options, now);
    int row = 0;          // successes since PROBING began, or more
    bool canary = false;  // passed since PROBING began
    bool has_canary = false;
    absl::Time failed_at = absl::InfinitePast();
    for (int i = 0, rest = sequence; i < kLength; ++i, rest /= kKinds) {
      const RewardState before = health.state();
      // Ten seconds of one kind of answer, or one event.
      bool bad_canary = false;
      const int kind = rest % kKinds;
      for (int j = 0; kind < 4 && j < 11; ++j) {
        const bool fails = kind == 1 || (kind == 3 && j % 4 == 0);
        if (fails) {
          health.OnFailed("failed", failed_at = now);
        } else {
          health.OnScored(kind == 2 ? absl::Seconds(4) : absl::ZeroDuration(), now);
        }
        // Each move is looked at when it happens.
        if (!fails) ++row;
        for (const RewardTransition& move : health.TakeTransitions()) {
          ++moves[{move.from, move.to}];
          EXPECT_FALSE(move.cause.empty());
          if (move.to == RewardState::kBrownout) {
            EXPECT_EQ(move.from, RewardState::kHealthy);
          }
          if (move.from == RewardState::kOutage) {
            EXPECT_EQ(move.to, RewardState::kProbing);
          }
          if (move.to == RewardState::kProbing) {
            EXPECT_EQ(move.from, RewardState::kOutage);
            row = 0;
            canary = false;
          }
          if (move.from == RewardState::kProbing && move.to == RewardState::kHealthy) {
            EXPECT_GE(row, options.successes);
            EXPECT_TRUE(canary || !has_canary);
          }
          if (move.to == RewardState::kOutage) {
            EXPECT_LE(now - failed_at, options.window) << "an outage without a failure";
          }
        }
        now += absl::Seconds(1);
      }
      if (kind == 4) health.Tick(now += absl::Seconds(70));
      if (kind == 5) health.OnStep();
      if (kind == 6) health.OnCanary(true, "", now), has_canary = canary = true;
      if (kind == 7) health.OnCanary(false, "bad", now), has_canary = bad_canary = true, canary = false;
      for (const RewardTransition& move : health.TakeTransitions()) {
        ++moves[{move.from, move.to}];
        if (move.to == RewardState::kOutage) {
          EXPECT_TRUE(bad_canary);
        }
        if (move.from == RewardState::kOutage) {
          EXPECT_EQ(move.to, RewardState::kProbing);
        }
        if (move.to == RewardState::kProbing) row = 0, canary = false;
        if (move.from == RewardState::kProbing && move.to == RewardState::kHealthy) {
          EXPECT_TRUE(canary) << "no success came with this event";
          EXPECT_GE(row, options.successes);
        }
      }
      if (bad_canary) {
        EXPECT_EQ(health.state(), RewardState::kOutage);
        EXPECT_FALSE(health.trusted());
      }
      EXPECT_EQ(health.outage_since().has_value(),
                health.state() == RewardState::kOutage || health.state() == RewardState::kProbing);
      EXPECT_GT(health.pace(), 0);
      EXPECT_LE(health.pace(), 1);
      EXPECT_TRUE(kind != 5 || health.state() == before) << "a step is no evidence";
    }
  }
  std::set<std::string> seen;
  for (const auto& [move, count] : moves) {
    seen.insert(absl::StrCat(RewardStateName(move.first), " to ", RewardStateName(move.second)));
  }
  EXPECT_THAT(seen, ElementsAre("brownout to healthy", "brownout to outage", "healthy to brownout", "healthy to outage",
                                "outage to probing", "probing to healthy", "probing to outage"));
}

// Whatever mix of answers comes: a window lies between a recovery from a brown-out and the next one, and a back-off
// between an outage and the end of it.
TEST(RewardHealthExploreTest, ARandomRankerNeverFlaps) {
  const RewardHealthOptions options;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random draw(seed);
    absl::Time now = absl::UnixEpoch();
    RewardHealth health(options, now);
    double failing = 0, slow = 0;
    absl::Time moved = absl::InfinitePast();
    for (int i = 0; i < 5000; ++i) {
      if (draw.Uniform() < 0.005) failing = draw.Uniform() < 0.5 ? 0 : draw.Uniform();
      if (draw.Uniform() < 0.005) slow = draw.Uniform() < 0.7 ? 0 : draw.Uniform() / 5;
      now += absl::Milliseconds(200 * draw.Uniform());
      if (draw.Uniform() < failing) {
        health.OnFailed("failed", now);
      } else {
        health.OnScored(draw.Uniform() < slow ? absl::Seconds(3) : absl::ZeroDuration(), now);
      }
      if (draw.Uniform() < 0.02) health.OnStep();
      for (const RewardTransition& move : health.TakeTransitions()) {
        if (move.to == RewardState::kBrownout || move.from == RewardState::kBrownout) {
          // Into an outage the way may be short: failures of a brown-out already lasted.
          EXPECT_TRUE(now - moved >= options.window || move.to == RewardState::kOutage) << "seed " << seed;
        }
        if (move.to == RewardState::kProbing) {
          EXPECT_GE(now - moved, options.first_backoff);
        }
        moved = now;
      }
    }
  }
}

}  // namespace
}  // namespace sluice::learner
