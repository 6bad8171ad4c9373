#include "learner/run/job_checkpoint.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "common/sync/mutex.h"
#include "common/sync/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/run/checkpoint_mark.h"
#include "tests/common/model/model_testing.h"
#include "tests/learner/train/train_testing.h"

namespace sluice::learner {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kCodes = 4;

class Listener : public JobMonitor {
 public:
  void SetPhase(const std::string&) override {}
  void ReportMetrics(uint64_t, uint64_t, const std::map<std::string, double>&) override {}
  void ReportLog(const std::string& text) override {
    MutexLock lock(&mutex_);
    logs_.push_back(text);
  }
  void ReportResult(const std::string&, const std::string&) override {}
  void ReportCheckpoint(const std::string&, uint64_t step, uint64_t, const LedgerBalance&) override {
    MutexLock lock(&mutex_);
    steps_.push_back(step);
  }
  StopRequest stop() const override { return StopRequest::kNone; }

  std::vector<std::string> logs() const {
    MutexLock lock(&mutex_);
    return logs_;
  }
  std::vector<uint64_t> steps() const {
    MutexLock lock(&mutex_);
    return steps_;
  }

 private:
  mutable Mutex mutex_;
  std::vector<std::string> logs_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> steps_ ABSL_GUARDED_BY(mutex_);
};

// A group of one in an epoch of the test's choice.
class LoneRank : public Collective {
 public:
  explicit LoneRank(uint64_t epoch) : epoch_(epoch) {}
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  uint64_t epoch() const override { return epoch_; }
  absl::Status AllReduceSum(at::Tensor) override { return absl::OkStatus(); }
  absl::Status Broadcast(at::Tensor, int) override { return absl::OkStatus(); }
  absl::Status Barrier() override { return absl::OkStatus(); }
  void Abort() override {}

 private:
  const uint64_t epoch_;
};

class BookOf : public GroupSource {
 public:
  absl::Status Issue(uint64_t, std::vector<Prompt>) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<TakenGroup>> Wait(uint64_t, absl::Duration) override { return std::vector<TakenGroup>(); }
  absl::Status Commit(uint64_t, absl::Span<const Verdict>) override { return absl::OkStatus(); }
  void CancelOpen() override {}
  void Publish(std::shared_ptr<const PolicySnapshot>) override {}
  LedgerBalance Balance() const override { return {}; }
  std::string Snapshot() const override { return R"({"issued": 0})"; }
  absl::Status Restore(const std::string&) override { return absl::OkStatus(); }
  int num_actors() const override { return 0; }
  void Stop() override {}
};

// One incarnation of a job: a rank that takes the folder in its epoch.
struct Incarnation {
  Incarnation(const std::string& path, uint64_t epoch, std::shared_ptr<const Trie> trie)
      : Incarnation(path, nullptr, std::move(trie), std::make_unique<LoneRank>(epoch)) {}
  // One rank of a group.
  Incarnation(const std::string& path, Collective* group, std::shared_ptr<const Trie> trie,
              std::unique_ptr<LoneRank> lone = nullptr)
      : collective(std::move(lone)) {
    context.collective = group != nullptr ? group : collective.get();
    context.monitor = &monitor;
    context.spec_yaml = "name: a\n";
    context.resume_digest = "spec-1";
    context.options.checkpoint.keep = 2;
    context.now = [] { return absl::UnixEpoch(); };
    folder = RunFolder::Open(path).value();
    policy = testing::RandomPolicy(testing::SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie), trie, 1,
                                   at::kFloat);
    optimizer =
        std::make_unique<AdamW>(policy->parameters(), policy->gradients(), policy->decay_mask(), OptimizerOptions());
    checkpoints = std::make_unique<JobCheckpoints>(context, *folder, "data-1");
  }

  absl::StatusOr<std::optional<CheckpointState>> Resume() { return checkpoints->Resume(policy.get(), optimizer.get()); }
  absl::Status Save(uint64_t step, const std::string& ended = "",
                    JobCheckpoints::Writing writing = JobCheckpoints::Writing::kNow) {
    CheckpointState state;
    state.step = step;
    return checkpoints->Save(std::move(state), *policy, *optimizer, {&book, {}, ended}, writing);
  }

  std::unique_ptr<LoneRank> collective;  // null: the test has one
  Listener monitor;
  RunContext context;
  BookOf book;
  std::unique_ptr<RunFolder> folder;
  std::unique_ptr<Policy> policy;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<JobCheckpoints> checkpoints;
};

class JobCheckpointsTest : public ::testing::Test {
 protected:
  JobCheckpointsTest() {
    std::string pattern = ::testing::TempDir() + "/job_checkpoints.XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~JobCheckpointsTest() override { EXPECT_TRUE(RemoveAll(path_).ok()); }

  Incarnation Start(uint64_t epoch) { return Incarnation(path_, epoch, trie_); }
  std::vector<std::string> Names() const { return ListDirectory(path_ + "/checkpoints").value(); }
  void Damage(uint64_t step, const std::string& file = "state.json") const {
    ASSERT_TRUE(WriteFileAtomically(path_ + "/checkpoints/" + CheckpointName(step) + "/" + file, "x").ok());
  }

  std::string path_;
  std::shared_ptr<const Trie> trie_ = testing::RandomTrie(15, kCodes, 1);
};

TEST_F(JobCheckpointsTest, AFreshFolderHasNone) {
  Incarnation one = Start(1);
  EXPECT_EQ(one.Resume().value(), std::nullopt);
  EXPECT_THAT(one.monitor.logs(), IsEmpty());
}

TEST_F(JobCheckpointsTest, WhatIsWrittenBehindStandsAtTheEnd) {
  Incarnation one = Start(1);
  ASSERT_TRUE(one.Resume().ok());
  ASSERT_TRUE(one.Save(10, "0,x\n", JobCheckpoints::Writing::kBehind).ok());
  one.policy->parameters().mul_(2);  // training goes on
  ASSERT_TRUE(one.Save(20, "1,x\n", JobCheckpoints::Writing::kBehind).ok());
  one.checkpoints.reset();  // waits for the second
  EXPECT_THAT(one.monitor.steps(), ElementsAre(10, 20));
  EXPECT_THAT(Names(), ElementsAre("step-00000010", "step-00000020"));

  Incarnation two = Start(2);
  const std::optional<CheckpointState> state = two.Resume().value();
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->step, 20u);
  EXPECT_TRUE(two.policy->parameters().equal(one.policy->parameters()));
  const std::string weights = "/model/model.safetensors";
  EXPECT_NE(FileSha256(path_ + "/checkpoints/step-00000010" + weights).value(),
            FileSha256(path_ + "/checkpoints/step-00000020" + weights).value());
  EXPECT_THAT(ReadFile(path_ + "/ledger.csv").value(), ::testing::EndsWith("0,x\n1,x\n"));
}

TEST_F(JobCheckpointsTest, AWriteBehindThatFailedIsToldAtTheNextCall) {
  Incarnation one = Start(1);
  ASSERT_TRUE(one.Resume().ok());
  ASSERT_TRUE(RemoveAll(path_ + "/checkpoints").ok());
  ASSERT_TRUE(WriteFileAtomically(path_ + "/checkpoints", "a file is in the way").ok());
  ASSERT_TRUE(one.Save(10, "", JobCheckpoints::Writing::kBehind).ok());
  EXPECT_FALSE(one.Save(20).ok());
  ASSERT_TRUE(RemoveAll(path_ + "/checkpoints").ok());
  EXPECT_TRUE(one.Save(20).ok()) << "told once; the place is free again";
}

TEST_F(JobCheckpointsTest, ADamagedOneIsSetAsideAndTheOneBeforeItIsTaken) {
  {
    Incarnation one = Start(1);
    ASSERT_TRUE(one.Resume().ok());
    ASSERT_TRUE(one.Save(10, "0,x\n").ok());
    ASSERT_TRUE(one.Save(20, "1,x\n").ok());
  }
  Damage(20);
  Incarnation two = Start(2);
  const std::optional<CheckpointState> state = two.Resume().value();
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->step, 10u);
  EXPECT_THAT(Names(), ElementsAre("damaged-step-00000020", "step-00000010"));
  EXPECT_THAT(two.monitor.logs(), Contains(HasSubstr("going on from that of step 10")));
  EXPECT_THAT(ReadFile(path_ + "/ledger.csv").value(), ::testing::EndsWith("\n0,x\n"));
  ASSERT_TRUE(two.Save(20, "1,y\n").ok());
  EXPECT_THAT(ReadFile(path_ + "/ledger.csv").value(), ::testing::EndsWith("\n0,x\n1,y\n"));
}

TEST_F(JobCheckpointsTest, NothingIsStartedFromNothingInSilence) {
  {
    Incarnation one = Start(1);
    ASSERT_TRUE(one.Resume().ok());
    ASSERT_TRUE(one.Save(10).ok());
    ASSERT_TRUE(one.Save(20).ok());
  }
  for (const char* step : {"10", "20"}) {
    ASSERT_TRUE(RemoveAll(path_ + "/checkpoints/step-000000" + step + "/manifest.json").ok());
  }
  const absl::Status damaged = Start(2).Resume().status();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("has no manifest.json"));
  EXPECT_THAT(Names(), ElementsAre("step-00000010", "step-00000020")) << "for whoever mends them";

  ASSERT_TRUE(RemoveAll(path_ + "/checkpoints").ok());
  const absl::Status gone = Start(3).Resume().status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("had a checkpoint of step 20"));

  ASSERT_TRUE(RemoveAll(path_ + "/checkpoint.json").ok());  // the remedy that the message gives
  EXPECT_EQ(Start(4).Resume().value(), std::nullopt);
}

TEST_F(JobCheckpointsTest, ATableThatIsDamagedCountsAgainstTheCheckpointsThatReachThere) {
  {
    Incarnation one = Start(1);
    ASSERT_TRUE(one.Resume().ok());
    ASSERT_TRUE(one.Save(10, "0,x\n").ok());
    ASSERT_TRUE(one.Save(20, "1,x\n").ok());
  }
  const std::string table = path_ + "/ledger.csv";
  std::string text = ReadFile(table).value();
  text[text.size() - 2] = 'y';
  ASSERT_TRUE(WriteFileAtomically(table, text).ok());
  Incarnation two = Start(2);
  EXPECT_EQ(two.Resume().value()->step, 10u);
}

TEST_F(JobCheckpointsTest, ARankOfAnOldEpochWritesNothingMore) {
  Incarnation old = Start(1);
  ASSERT_TRUE(old.Resume().ok());
  ASSERT_TRUE(old.Save(10, "0,x\n").ok());
  Incarnation taken_over = Start(2);
  EXPECT_EQ(taken_over.Resume().value()->step, 10u);

  const absl::Status status = old.Save(20, "1,of the dead\n");
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("epoch 2"));
  EXPECT_THAT(Names(), ElementsAre("step-00000010"));
  EXPECT_EQ(old.Resume().status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(ReadFile(path_ + "/ledger.csv").value(), ::testing::EndsWith("\n0,x\n"));
  EXPECT_TRUE(taken_over.Save(20, "1,x\n").ok());
}

TEST_F(JobCheckpointsTest, WhoTakesTheFolderLeavesNoTableAsideThatCouldTakeItsName) {
  Incarnation old = Start(1);
  ASSERT_TRUE(old.Resume().ok());
  // As the old one has it behind its look at the epoch.
  ASSERT_TRUE(WriteFileAtomically(path_ + "/ledger.csv.1.tmp", "of the dead").ok());
  Incarnation taken_over = Start(2);
  ASSERT_TRUE(taken_over.Resume().ok());
  EXPECT_FALSE(PathExists(path_ + "/ledger.csv.1.tmp"));
}

TEST_F(JobCheckpointsTest, ALostRunFolderGoesOnFromItsMirror) {
  const std::string mirror = path_ + "-mirror";
  const auto start = [&](uint64_t epoch) {
    auto job = std::make_unique<Incarnation>(path_, epoch, trie_);
    job->context.options.checkpoint.mirror = mirror;
    return job;
  };
  {
    const auto one = start(1);
    ASSERT_TRUE(one->folder->AppendMetrics({5, 1.0, {{"loss", 2.0}}}).ok());
    ASSERT_TRUE(one->Resume().ok());
    ASSERT_TRUE(one->Save(10, "0,x\n").ok());
    ASSERT_TRUE(one->Save(20, "1,x\n").ok());
    EXPECT_THAT(one->monitor.logs(), IsEmpty());
  }
  Damage(20);
  EXPECT_EQ(start(2)->Resume().value()->step, 20u) << "the copy is whole";

  ASSERT_TRUE(RemoveAll(path_).ok());
  const auto elsewhere = start(3);
  EXPECT_EQ(elsewhere->Resume().value()->step, 20u);
  EXPECT_THAT(elsewhere->monitor.logs(), Contains(HasSubstr("fetched checkpoint step-00000020")));
  EXPECT_EQ(elsewhere->folder->ReadMetrics().value().size(), 1u);
  EXPECT_THAT(ReadFile(path_ + "/ledger.csv").value(), ::testing::EndsWith("\n0,x\n1,x\n"));

  // A run that went back abandons the newer one in the mirror too.
  ASSERT_TRUE(elsewhere->Save(15, "2,y\n").ok());
  ASSERT_TRUE(RemoveAll(path_).ok());
  EXPECT_EQ(start(4)->Resume().value()->step, 15u);

  // And without both there is no silent start from nothing.
  ASSERT_TRUE(RemoveAll(mirror).ok());
  ASSERT_TRUE(RemoveAll(path_ + "/checkpoints").ok());
  EXPECT_EQ(start(5)->Resume().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(JobCheckpointsTest, ALostRunFolderGetsTheBestPolicyOfItsCheckpointBack) {
  const std::string mirror = path_ + "-mirror";
  const std::string model = path_ + "/export/best/model.safetensors";
  const auto start = [&](uint64_t epoch) {
    auto job = std::make_unique<Incarnation>(path_, epoch, trie_);
    job->context.options.checkpoint.mirror = mirror;
    return job;
  };
  const auto validate = [&](Incarnation& job, uint64_t step) {
    return job.folder->ReplaceBest(step, [&]() -> absl::Status {
      SLUICE_RETURN_IF_ERROR(MakeDirectories(path_ + "/export/best"));
      SLUICE_RETURN_IF_ERROR(RemoveAll(model));
      return WriteFileAtomically(model, absl::StrCat("policy of step ", step));
    });
  };
  const auto save = [&](Incarnation& job, uint64_t step, double best) {
    CheckpointState state;
    state.step = step;
    state.numbers = {{"best/step", best}, {"best/validation/hr@10", 0.5}};
    return job.checkpoints->Save(std::move(state), *job.policy, *job.optimizer, {&job.book, {}, ""},
                                 JobCheckpoints::Writing::kNow);
  };
  {
    const auto one = start(1);
    ASSERT_TRUE(one->Resume().ok());
    for (const uint64_t step : {10, 20}) {
      ASSERT_TRUE(validate(*one, step).ok());
      ASSERT_TRUE(save(*one, step, static_cast<double>(step)).ok());
    }
    ASSERT_TRUE(save(*one, 30, 20).ok());
    EXPECT_THAT(one->monitor.logs(), IsEmpty());
    EXPECT_THAT(ListDirectory(path_ + "/export").value(), ElementsAre("best", "best.json"));
    EXPECT_THAT(ListDirectory(absl::StrCat(mirror, path_.substr(path_.rfind('/')), "/export/best")).value(),
                ElementsAre("step-00000020"));
  }
  ASSERT_TRUE(RemoveAll(path_).ok());
  {
    const auto two = start(2);
    EXPECT_EQ(two->Resume().value()->step, 30u);
    EXPECT_THAT(two->monitor.logs(), Contains(HasSubstr("and export/best of step 20")));
    EXPECT_EQ(ReadFile(model).value(), "policy of step 20");
    EXPECT_EQ(two->folder->BestStep(), 20u);
    EXPECT_THAT(ListDirectory(path_ + "/export/best").value(), ElementsAre("model.safetensors"));
    ASSERT_TRUE(validate(*two, 40).ok());
    ASSERT_TRUE(save(*two, 40, 40).ok());
    // Back to before that: what lies in export/best is not the best that this checkpoint knows of.
    ASSERT_TRUE(save(*two, 35, 20).ok());
  }
  ASSERT_TRUE(RemoveAll(path_).ok());
  const auto three = start(3);
  EXPECT_EQ(three->Resume().value()->step, 35u);
  EXPECT_THAT(three->monitor.logs(), Contains(HasSubstr("the best policy, of step 20, could not be fetched")));
  EXPECT_FALSE(PathExists(model));
  ASSERT_TRUE(RemoveAll(mirror).ok());
}

TEST_F(JobCheckpointsTest, ARankThatNeverHeldTheFolderTakesItsStateFromTheFirst) {
  CheckpointState saved;
  at::Tensor parameters, first_moments, second_moments;
  {
    Incarnation one = Start(1);
    ASSERT_TRUE(one.Resume().ok());
    one.policy->gradients().normal_(0, 1);
    ASSERT_TRUE(one.optimizer->Step(0.1).ok());
    CheckpointState state;
    state.step = 10;
    state.policy_version = 7;
    state.numbers = {{"gate/open", 0.1}, {"drawn", 1e17 / 3}};
    state.reference = one.policy->parameters() * 0.5;
    ASSERT_TRUE(one.checkpoints
                    ->Save(state, *one.policy, *one.optimizer, {&one.book, {}, "0,1,trained,,1\n"},
                           JobCheckpoints::Writing::kNow)
                    .ok());
    first_moments = one.optimizer->first_moments().clone();
    second_moments = one.optimizer->second_moments().clone();
    saved = ReadCheckpointState(path_ + "/checkpoints/" + CheckpointName(10)).value();
    Incarnation alone = Start(1);  // padding of the arena is not in the file
    ASSERT_TRUE(alone.Resume().ok());
    parameters = alone.policy->parameters().clone();
  }
  const std::string elsewhere = path_ + "/elsewhere";
  RunCollective(3, [&](Collective& group) {
    const bool first = group.rank() == 0;
    Incarnation two(first ? path_ : absl::StrCat(elsewhere, group.rank()), &group, trie_);
    const torch::NoGradGuard no_grad;
    if (!first) two.policy->parameters().fill_(7);
    const absl::StatusOr<std::optional<CheckpointState>> state = two.Resume();
    ASSERT_TRUE(state.ok()) << state.status();
    ASSERT_TRUE(state->has_value());
    EXPECT_TRUE(two.policy->parameters().equal(parameters));
    EXPECT_TRUE(two.optimizer->first_moments().equal(first_moments));
    EXPECT_TRUE(two.optimizer->second_moments().equal(second_moments));
    EXPECT_EQ(two.optimizer->steps(), 1);
    EXPECT_EQ(CheckpointFactsText(**state), CheckpointFactsText(saved));
    EXPECT_EQ((*state)->ledgers, saved.ledgers);
    EXPECT_TRUE((*state)->reference.equal(saved.reference));
    if (!first) {
      EXPECT_THAT(ListDirectory(two.folder->checkpoints()).value_or(std::vector<std::string>()), IsEmpty());
    }
  });
}

TEST_F(JobCheckpointsTest, AnErrorOfTheFirstRankEndsTheOthersToo) {
  {
    Incarnation one = Start(1);
    ASSERT_TRUE(one.Resume().ok());
    ASSERT_TRUE(one.Save(10).ok());
  }
  Damage(10);
  RunCollective(2, [&](Collective& group) {
    Incarnation two(group.rank() == 0 ? path_ : path_ + "/elsewhere", &group, trie_);
    EXPECT_EQ(two.Resume().status().code(),
              group.rank() == 0 ? absl::StatusCode::kDataLoss : absl::StatusCode::kAborted);
  });
}

TEST_F(JobCheckpointsTest, ARankWithAnotherDataSetIsRefused) {
  {
    Incarnation one = Start(1);
    ASSERT_TRUE(one.Resume().ok());
    ASSERT_TRUE(one.Save(10).ok());
  }
  RunCollective(2, [&](Collective& group) {
    const bool first = group.rank() == 0;
    Incarnation two(first ? path_ : path_ + "/elsewhere", &group, trie_);
    if (!first) two.checkpoints = std::make_unique<JobCheckpoints>(two.context, *two.folder, "data-2");
    EXPECT_EQ(two.Resume().status().code(), first ? absl::StatusCode::kOk : absl::StatusCode::kFailedPrecondition);
  });
}

TEST_F(JobCheckpointsTest, AMirrorThatFailsIsToldAndFailsNothing) {
  Incarnation one = Start(1);
  const std::string mirror = path_ + "-mirror";
  one.context.options.checkpoint.mirror = mirror;
  ASSERT_TRUE(one.Resume().ok());
  ASSERT_TRUE(RemoveAll(mirror).ok());
  ASSERT_TRUE(WriteFileAtomically(mirror, "a file is in the way").ok());
  EXPECT_TRUE(one.Save(10).ok());
  EXPECT_THAT(one.monitor.logs(), Contains(HasSubstr("step 10 was not copied")));
  ASSERT_TRUE(RemoveAll(mirror).ok());
}

// A rank that stopped after it had renamed its checkpoint used to write its own epoch over the next one's.
TEST(CheckpointMarkTest, WhoeverTakesItKeepsItHoweverLateOthersGoOn) {
  const std::string folder = ::testing::TempDir() + "/checkpoint_mark_taken";
  ASSERT_TRUE(RemoveAll(folder).ok());
  ASSERT_TRUE(MakeDirectories(folder).ok());
  const std::string path = folder + "/checkpoint.json";
  ASSERT_TRUE(TakeCheckpointMark(path, 1).ok());
  ASSERT_TRUE(AdvanceCheckpointMark(path, 1, 10).ok());
  // What epoch 1 has written and not renamed yet, as it stops behind its look.
  ASSERT_TRUE(WriteFileAtomically(path + ".1.tmp", R"({"epoch": 1, "step": 20})").ok());

  EXPECT_EQ(TakeCheckpointMark(path, 2).value().step, 10u);
  EXPECT_THAT(ListDirectory(folder).value(), ElementsAre("checkpoint.json")) << "nothing is left to rename";
  EXPECT_EQ(AdvanceCheckpointMark(path, 1, 20).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(TakeCheckpointMark(path, 1).status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(AdvanceCheckpointMark(path, 2, 20).ok());
  EXPECT_EQ(ReadCheckpointMark(path).value()->epoch, 2u);
  EXPECT_EQ(TakeCheckpointMark(path, 0).value().step, 20u) << "a run by itself";
  ASSERT_TRUE(RemoveAll(folder).ok());
}

TEST(CheckpointMarkTest, ComesBackAndWhatIsNotAMarkIsDataLoss) {
  const std::string path = ::testing::TempDir() + "/checkpoint_mark_test.json";
  ASSERT_TRUE(RemoveAll(path).ok());
  EXPECT_FALSE(ReadCheckpointMark(path).value().has_value());
  EXPECT_EQ(TakeCheckpointMark(path, 3).value().step, std::nullopt);
  EXPECT_EQ(ReadCheckpointMark(path).value()->step, std::nullopt);
  ASSERT_TRUE(AdvanceCheckpointMark(path, 3, 120).ok());
  EXPECT_EQ(ReadCheckpointMark(path).value()->epoch, 3u);
  EXPECT_EQ(ReadCheckpointMark(path).value()->step, 120u);
  for (const char* text : {"", "[]", "{}", "{\"epoch\": -1}", "{\"epoch\": 1, \"step\": \"2\"}"}) {
    ASSERT_TRUE(WriteFileAtomically(path, text).ok());
    EXPECT_EQ(ReadCheckpointMark(path).status().code(), absl::StatusCode::kDataLoss) << text;
  }
  ASSERT_TRUE(RemoveAll(path).ok());
}

}  // namespace
}  // namespace sluice::learner
