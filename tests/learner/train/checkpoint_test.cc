#include "learner/train/checkpoint.h"

#include <signal.h>
#include <sys/resource.h>
#include <torch/types.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/file/file.h"
#include "common/status/exit_code.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/model/model_testing.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kCodes = 4;

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    std::string pattern = ::testing::TempDir() + "/checkpoint.XXXXXX";
    folder_ = mkdtemp(pattern.data());
    policy_ = MakePolicy(1);
    optimizer_ = MakeOptimizer(*policy_);
    Train(*policy_, *optimizer_, 3);
  }
  ~CheckpointTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Policy> MakePolicy(uint64_t seed) const {
    return testing::RandomPolicy(testing::SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_), trie_, seed,
                                 at::kFloat);
  }
  static std::unique_ptr<AdamW> MakeOptimizer(Policy& policy) {
    return std::make_unique<AdamW>(policy.parameters(), policy.gradients(), policy.decay_mask(), OptimizerOptions());
  }
  // Updates that depend on the step's number only.
  static void Train(Policy& policy, AdamW& optimizer, int steps) {
    for (int i = 0; i < steps; ++i) {
      policy.gradients().copy_(torch::sin(torch::arange(policy.gradients().numel()).to(at::kFloat) *
                                          static_cast<double>(optimizer.steps() + 1)) *
                               policy.parameters().to(at::kCPU).ne(0));
      ASSERT_TRUE(optimizer.Step(1e-2).ok());
    }
  }

  CheckpointState State(uint64_t step) const {
    CheckpointState state;
    state.step = step;
    state.policy_version = 12;
    state.seconds = 3.5;
    state.numbers = {{"best", 0.0625}, {"closed_steps", 4}};
    state.spec_yaml = "name: a\nseed: 1\n";
    state.spec_digest = "spec-1";
    state.data_digest = "data-1";
    state.ledgers = {R"({"issued": 64})", R"({"issued": 32})"};
    state.table = TableMark{40, "ab"};
    return state;
  }

  std::string Write(uint64_t step) {
    return WriteCheckpoint(folder_, State(step), *policy_, ArenasOf(*policy_, *optimizer_)).value();
  }

  std::vector<std::string> FilesOf(const std::string& path) const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path().string());
    }
    return files;
  }

  std::string folder_;
  std::shared_ptr<const Trie> trie_ = testing::RandomTrie(15, kCodes, 1);
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<AdamW> optimizer_;
};

TEST_F(CheckpointTest, AReferencePolicyThatMovedComesBack) {
  CheckpointState state = State(7);
  EXPECT_FALSE(ReadCheckpointState(Write(6)).value().reference.defined());
  state.reference = torch::sin(torch::arange(policy_->parameters().numel()).to(at::kFloat));
  const std::string path = WriteCheckpoint(folder_, state, *policy_, ArenasOf(*policy_, *optimizer_)).value();
  EXPECT_TRUE(ReadCheckpointState(path).value().reference.equal(state.reference));
}

TEST_F(CheckpointTest, GivesBackWhatWasWritten) {
  const std::string path = Write(120);
  EXPECT_THAT(path, HasSubstr("step-00000120"));
  const CheckpointState state = ReadCheckpointState(path).value();
  EXPECT_EQ(state.step, 120u);
  EXPECT_EQ(state.policy_version, 12u);
  EXPECT_EQ(state.seconds, 3.5);
  EXPECT_EQ(state.numbers, State(120).numbers);
  EXPECT_EQ(state.spec_yaml, State(120).spec_yaml);
  EXPECT_EQ(state.spec_digest, "spec-1");
  EXPECT_EQ(state.data_digest, "data-1");
  EXPECT_EQ(state.ledgers, State(120).ledgers);
  EXPECT_EQ(state.table, State(120).table);
  EXPECT_EQ(state.score, std::nullopt);
}

TEST_F(CheckpointTest, ARestoredJobContinuesWithTheSameBits) {
  const std::string path = Write(3);
  Train(*policy_, *optimizer_, 4);

  const std::unique_ptr<Policy> policy = MakePolicy(99);
  const std::unique_ptr<AdamW> optimizer = MakeOptimizer(*policy);
  const at::Tensor storage = policy->parameters();
  ASSERT_TRUE(RestoreCheckpoint(path, policy.get(), optimizer.get()).ok());
  EXPECT_EQ(optimizer->steps(), 3);
  EXPECT_TRUE(policy->parameters().is_alias_of(storage));  // the arena stays where it is
  Train(*policy, *optimizer, 4);
  EXPECT_TRUE(policy->parameters().equal(policy_->parameters()));
  EXPECT_TRUE(optimizer->second_moments().equal(optimizer_->second_moments()));
}

TEST_F(CheckpointTest, ACheckpointOfAnotherModelIsRefused) {
  const std::string path = Write(3);
  PolicyConfig config = testing::SmallMergedConfig(PolicyArchitecture::kQwen3, kCodes, *trie_);
  config.num_layers = 1;
  const std::unique_ptr<Policy> other = testing::RandomPolicy(config, trie_, 1, at::kFloat);
  const std::unique_ptr<AdamW> optimizer = MakeOptimizer(*other);
  const at::Tensor before = other->parameters().detach().clone();
  EXPECT_EQ(RestoreCheckpoint(path, other.get(), optimizer.get()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(other->parameters().equal(before));
}

TEST_F(CheckpointTest, EveryDamagedFileIsDataLossAndNamed) {
  const std::string path = Write(3);
  int checked = 0;
  for (const std::string& file : FilesOf(path)) {
    if (file.ends_with("manifest.json")) continue;
    const std::string whole = ReadFile(file).value();
    std::string flipped = whole;
    flipped[flipped.size() / 2] ^= 1;
    for (const std::string& damaged : {flipped, whole.substr(0, whole.size() - 1), std::string()}) {
      ASSERT_TRUE(WriteFileAtomically(file, damaged).ok());
      const absl::Status status = ReadCheckpointState(path).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << file;
      EXPECT_THAT(std::string(status.message()), HasSubstr(file));
    }
    ASSERT_TRUE(RemoveAll(file).ok());
    EXPECT_EQ(ReadCheckpointState(path).status().code(), absl::StatusCode::kDataLoss) << file;
    ASSERT_TRUE(WriteFileAtomically(file, whole).ok());
    EXPECT_TRUE(ReadCheckpointState(path).ok());
    ++checked;
  }
  EXPECT_GE(checked, 6);  // config, weights, encoder, moments, state, two ledgers
}

TEST_F(CheckpointTest, ADamagedManifestIsDataLoss) {
  const std::string path = Write(3);
  const std::string file = path + "/manifest.json";
  const std::string whole = ReadFile(file).value();
  for (const std::string& damaged : {whole.substr(0, whole.size() / 2), whole.substr(0, whole.size() - 1),
                                     whole + std::string(1, '\0'), std::string("[]"), std::string("{}")}) {
    ASSERT_TRUE(WriteFileAtomically(file, damaged).ok());
    EXPECT_EQ(ReadCheckpointState(path).status().code(), absl::StatusCode::kDataLoss) << damaged;
  }
}

TEST_F(CheckpointTest, AManifestThatForgotAFileIsDataLoss) {
  const std::string path = Write(3);
  const std::string file = path + "/manifest.json";
  std::string text = ReadFile(file).value();
  const size_t at = text.find("state.json");
  ASSERT_NE(at, std::string::npos);
  ASSERT_TRUE(WriteFileAtomically(file, text.replace(at, 5, "other")).ok());
  const absl::Status status = ReadCheckpointState(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not list 'state.json'"));
}

TEST_F(CheckpointTest, ListsThemInOrderAndIgnoresWhatAKilledWriterLeft) {
  EXPECT_THAT(ListCheckpoints(folder_ + "/absent").value(), IsEmpty());
  Write(20);
  Write(3);
  std::filesystem::create_directories(folder_ + "/step-00000030.tmp/model");
  EXPECT_THAT(ListCheckpoints(folder_).value(), ElementsAre(folder_ + "/step-00000003", folder_ + "/step-00000020"));
}

TEST_F(CheckpointTest, AWriterThatWasTakenForDeadDoesNotDisturbTheOneThatWritesTheSameStep) {
  const auto write = [this](const CheckpointFence& fence) {
    return WriteCheckpoint(folder_, State(4), *policy_, ArenasOf(*policy_, *optimizer_), fence);
  };
  const absl::StatusOr<std::string> path =
      write({2, [&write] {
               const CheckpointFence refuses = {1, [] { return absl::AbortedError("another epoch"); }};
               EXPECT_EQ(write(refuses).status().code(), absl::StatusCode::kAborted);
               return absl::OkStatus();
             }});
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_TRUE(ReadCheckpointState(*path).ok());
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step-00000004"));
}

// Between its fence and the rename it used to replace what the next epoch had written meanwhile.
TEST_F(CheckpointTest, AWriterThatStopsBehindItsFenceWhileOthersTakeOverWritesNothing) {
  const auto write = [this](uint64_t policy_version, const CheckpointFence& fence) {
    CheckpointState state = State(4);
    state.policy_version = policy_version;
    return WriteCheckpoint(folder_, state, *policy_, ArenasOf(*policy_, *optimizer_), fence);
  };
  bool taken_over = false;
  const absl::Status late = write(1, {1,
                                      [&] {
                                        if (std::exchange(taken_over, true))
                                          return absl::AbortedError("epoch 2 has it");
                                        // Its epoch was the latest when it looked; now it stops, and goes on when
                                        // others have the job.
                                        EXPECT_TRUE(RemoveUnfinishedCheckpoints(folder_).ok());
                                        EXPECT_TRUE(write(2, {2, nullptr}).ok());
                                        return absl::OkStatus();
                                      }})
                                .status();
  EXPECT_EQ(late, absl::AbortedError("epoch 2 has it"));
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step-00000004"));
  EXPECT_EQ(ReadCheckpointState(folder_ + "/step-00000004")->policy_version, 2u);
}

TEST_F(CheckpointTest, WhatIsUnfinishedGoesAlsoWhatWasAboutToGo) {
  Write(3);
  std::filesystem::create_directories(folder_ + "/step-00000030.1.0.tmp/model");
  std::filesystem::create_directories(folder_ + "/step-00000040.1.0.tmp.taken.tmp/model");
  ASSERT_TRUE(RemoveUnfinishedCheckpoints(folder_).ok());
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step-00000003"));
  EXPECT_TRUE(RemoveUnfinishedCheckpoints(folder_ + "/absent").ok());
}

TEST_F(CheckpointTest, OneThatLostItsManifestIsDamagedAndNotOverlooked) {
  const std::string path = Write(40);
  ASSERT_TRUE(RemoveAll(path + "/manifest.json").ok());
  EXPECT_THAT(ListCheckpoints(folder_).value(), ElementsAre(path));
  const absl::Status status = ReadCheckpointState(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has no manifest.json"));
}

TEST_F(CheckpointTest, TheLastDamagedOneIsSetAside) {
  Write(1);
  EXPECT_EQ(SetCheckpointAside(Write(2)).value(), folder_ + "/damaged-step-00000002");
  EXPECT_EQ(SetCheckpointAside(Write(3)).value(), folder_ + "/damaged-step-00000003");
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("damaged-step-00000003", "step-00000001"));
  EXPECT_THAT(ListCheckpoints(folder_).value(), ElementsAre(folder_ + "/step-00000001"));
}

TEST_F(CheckpointTest, AFenceThatRefusesLeavesNothing) {
  const CheckpointFence refuses = {6, [] { return absl::AbortedError("epoch 7 has it"); }};
  const absl::Status status =
      WriteCheckpoint(folder_, State(4), *policy_, ArenasOf(*policy_, *optimizer_), refuses).status();
  EXPECT_EQ(status, absl::AbortedError("epoch 7 has it"));
  EXPECT_THAT(ListDirectory(folder_).value(), IsEmpty());
}

TEST_F(CheckpointTest, ACopyStaysWhatItWasWhileTrainingGoesOn) {
  const std::string straight = Write(3);
  TrainedArenas copy;
  CopyArenas(ArenasOf(*policy_, *optimizer_), &copy);
  const void* const storage = copy.parameters.const_data_ptr();
  Train(*policy_, *optimizer_, 2);
  const std::string behind = WriteCheckpoint(folder_ + "/behind", State(3), *policy_, copy).value();
  for (const std::string& file : FilesOf(straight)) {
    EXPECT_EQ(FileSha256(file).value(), FileSha256(behind + file.substr(straight.size())).value()) << file;
  }
  CopyArenas(ArenasOf(*policy_, *optimizer_), &copy);
  EXPECT_EQ(copy.parameters.const_data_ptr(), storage);
  EXPECT_TRUE(copy.parameters.equal(policy_->parameters().to(at::kCPU)));
  EXPECT_EQ(copy.steps, 5);
}

TEST_F(CheckpointTest, PrunesAllButTheNewestAndTheLeftovers) {
  for (const uint64_t step : {1, 2, 3, 4}) Write(step);
  std::filesystem::create_directories(folder_ + "/step-00000009.tmp/model");
  std::filesystem::create_directories(folder_ + "/best");
  ASSERT_TRUE(PruneCheckpoints(folder_, 2, 0).ok());
  EXPECT_THAT(ListCheckpoints(folder_).value(), ElementsAre(folder_ + "/step-00000003", folder_ + "/step-00000004"));
  EXPECT_FALSE(PathExists(folder_ + "/step-00000009.tmp"));
  EXPECT_TRUE(PathExists(folder_ + "/best"));
}

TEST_F(CheckpointTest, PruningKeepsTheBestBesideTheNewest) {
  const std::vector<std::optional<double>> scores = {std::nullopt, 0.2, 0.4, 0.4, std::nullopt, 0.3, 0.1};
  for (uint64_t step = 0; step < scores.size(); ++step) {
    CheckpointState state = State(step);
    state.score = scores[step];
    ASSERT_TRUE(WriteCheckpoint(folder_, state, *policy_, ArenasOf(*policy_, *optimizer_)).ok());
  }
  EXPECT_EQ(ReadCheckpointState(folder_ + "/step-00000001").value().score, 0.2);
  ASSERT_TRUE(PruneCheckpoints(folder_, 2, 2).ok());
  EXPECT_THAT(ListDirectory(folder_).value(),
              ElementsAre("step-00000002", "step-00000003", "step-00000005", "step-00000006"));
  ASSERT_TRUE(PruneCheckpoints(folder_, 1, 1).ok());
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step-00000002", "step-00000006"));
}

TEST_F(CheckpointTest, ResumesOnlyWithTheSameSpecAndData) {
  const CheckpointState state = State(3);
  EXPECT_TRUE(CheckResumable(state, state.spec_yaml, "spec-1", "data-1").ok());
  const absl::Status spec = CheckResumable(state, "name: a\nseed: 2\n", "spec-2", "data-1");
  EXPECT_EQ(spec.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(spec.message()), HasSubstr("- seed: 1"));
  EXPECT_THAT(std::string(spec.message()), HasSubstr("+ seed: 2"));
  EXPECT_THAT(std::string(spec.message()), Not(HasSubstr("name: a")));
  const absl::Status data = CheckResumable(state, state.spec_yaml, "spec-1", "data-2");
  EXPECT_EQ(data.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(data.message()), HasSubstr("data-2"));
}

TEST_F(CheckpointTest, AFullDiskLeavesThePreviousOneAndNothingHalfWritten) {
  const std::string previous = Write(3);
  // A limit on file size stands in for the disk; the kernel would signal instead of failing the write.
  signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  int failures = 0;
  int64_t largest = 0;
  for (const std::string& file : FilesOf(previous)) largest = std::max(largest, FileBytes(file).value());
  for (int64_t bytes = 0; bytes < largest; bytes += 1 + largest / 23) {
    rlimit limit = old_limit;
    limit.rlim_cur = static_cast<rlim_t>(bytes);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const absl::Status status = WriteCheckpoint(folder_, State(4), *policy_, ArenasOf(*policy_, *optimizer_)).status();
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
    EXPECT_EQ(ExitCodeFor(status), ExitCode::kNoSpace) << status;
    ++failures;
    EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step-00000003"));
  }
  EXPECT_GT(failures, 10);
  EXPECT_TRUE(ReadCheckpointState(previous).ok());
  EXPECT_TRUE(WriteCheckpoint(folder_, State(4), *policy_, ArenasOf(*policy_, *optimizer_)).ok());  // space again
}

TEST_F(CheckpointTest, WritingTheSameStepAgainReplacesIt) {
  Write(3);
  CheckpointState again = State(3);
  again.policy_version = 77;
  ASSERT_TRUE(WriteCheckpoint(folder_, again, *policy_, ArenasOf(*policy_, *optimizer_)).ok());
  const std::vector<std::string> paths = ListCheckpoints(folder_).value();
  ASSERT_EQ(paths.size(), 1u);
  EXPECT_EQ(ReadCheckpointState(paths[0]).value().policy_version, 77u);
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step-00000003"));  // the replaced one is gone
}

}  // namespace
}  // namespace sluice::learner
