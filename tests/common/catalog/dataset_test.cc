#include "common/catalog/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/file/file.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr SplitLabel kT = SplitLabel::kTrain;

// Three users with 4, 3 and 1 events over four items; items "b" and "d" share a semantic ID.
Dataset::Contents SmallContents() {
  Dataset::Contents contents;
  contents.name = "small";
  contents.notes = {"equal times keep line order"};
  contents.item_names = {"a", "b", "c", "d \"quoted\"\nä"};
  contents.user_names = {"u", "v", "w"};
  contents.first_event = {0, 4, 7, 8};
  contents.event_item = {0, 1, 2, 3, 2, 1, 0, 3};
  contents.event_split = {
      kT, kT, SplitLabel::kValidation, SplitLabel::kTest, kT, SplitLabel::kValidation, SplitLabel::kTest, kT};
  contents.item_codes = {0, 0, 1, 4, 1, 0, 1, 4};
  contents.levels = 2;
  contents.codes = 5;
  contents.max_history = 2;
  return contents;
}

class DatasetTest : public ::testing::Test {
 protected:
  DatasetTest()
      : parent_(absl::StrCat(::testing::TempDir(), "/dataset_",
                             ::testing::UnitTest::GetInstance()->current_test_info()->name(), "_", getpid())),
        folder_(JoinPath(parent_, "data")) {
    EXPECT_TRUE(RemoveAll(parent_).ok());
    EXPECT_TRUE(MakeDirectories(parent_).ok());
  }
  ~DatasetTest() override { EXPECT_TRUE(RemoveAll(parent_).ok()); }

  std::string File(const std::string& name) const { return JoinPath(folder_, name); }

  // Without the fsyncs of WriteFileAtomically. A new file: some file systems sync one that is truncated.
  static void Overwrite(const std::string& path, const std::string& bytes) {
    ASSERT_TRUE(RemoveAll(path).ok());
    std::ofstream(path, std::ios::binary) << bytes;
  }

  const std::string parent_;
  const std::string folder_;
};

TEST_F(DatasetTest, SemanticIdsMayStandBehindTheTokensOfALanguageModel) {
  Dataset::Contents contents = SmallContents();
  contents.first_token = 1000;
  ASSERT_TRUE(Dataset::Write(folder_, contents).ok());
  const auto dataset = Dataset::Load(folder_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->vocabulary().first, 1000);
  EXPECT_EQ((*dataset)->vocabulary().size(), 1000 + 3 + 2 * 5);
  const Trie& trie = (*dataset)->trie();
  EXPECT_THAT(trie.TokensOfLeaf(trie.LeafOfItem(1)), ElementsAre(1003 + 1, 1003 + 5 + 4));
  EXPECT_NE(trie.version(), (*Dataset::FromContents(SmallContents()))->trie().version());
  for (const int32_t wrong : {-1, 1 << 24}) {
    contents.first_token = wrong;
    EXPECT_THAT(Dataset::FromContents(contents).status().message(), HasSubstr("a vocabulary of at most"));
  }
}

TEST_F(DatasetTest, ExamplesAreTheEventsOfALabelThatHaveAHistory) {
  const auto dataset = Dataset::FromContents(SmallContents());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const std::vector<Example> train = (*dataset)->Examples(kT);
  ASSERT_EQ(train.size(), 1);  // first events and the only event of "w" have none
  EXPECT_EQ(train[0].user, 0);
  EXPECT_EQ(train[0].position, 1);
  const std::vector<Example> test = (*dataset)->Examples(SplitLabel::kTest);
  ASSERT_EQ(test.size(), 2);
  EXPECT_EQ((*dataset)->Target(test[0]), 3);
  EXPECT_THAT((*dataset)->History(test[0]), ElementsAre(1, 2));  // 0 is more than max_history back
  EXPECT_EQ((*dataset)->Target(test[1]), 0);
  EXPECT_THAT((*dataset)->History(test[1]), ElementsAre(2, 1));
  EXPECT_THAT((*dataset)->TrainingEvents(0), ElementsAre(0, 1));
  EXPECT_THAT((*dataset)->Events(2), ElementsAre(3));
}

TEST_F(DatasetTest, TheTrieHoldsVocabularyTokens) {
  const auto dataset = Dataset::FromContents(SmallContents());
  ASSERT_TRUE(dataset.ok());
  // Code 4 of level 1 is token 3 + 1 * 5 + 4 = 12.
  const int32_t leaf = (*dataset)->trie().FindLeaf({4, 12});
  ASSERT_NE(leaf, Trie::kNone);
  EXPECT_THAT((*dataset)->trie().ItemsOfLeaf(leaf), ElementsAre(1, 3));
  EXPECT_EQ((*dataset)->trie().num_colliding_items(), 2);
  EXPECT_EQ((*dataset)->vocabulary().size(), 13);
}

TEST_F(DatasetTest, WhatIsWrittenIsLoaded) {
  const Dataset::Contents want = SmallContents();
  ASSERT_TRUE(Dataset::Write(folder_, want).ok());
  const auto dataset = Dataset::Load(folder_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->name(), "small");
  EXPECT_EQ((*dataset)->notes(), want.notes);
  EXPECT_EQ((*dataset)->num_users(), 3);
  EXPECT_EQ((*dataset)->num_items(), 4);
  EXPECT_EQ((*dataset)->num_events(), 8);
  EXPECT_EQ((*dataset)->max_history(), 2);
  EXPECT_EQ((*dataset)->item_name(3), want.item_names[3]);
  EXPECT_EQ((*dataset)->user_name(2), "w");
  for (int32_t user = 0; user < 3; ++user) {
    for (size_t i = 0; i < (*dataset)->Events(user).size(); ++i) {
      EXPECT_EQ((*dataset)->Events(user)[i], want.event_item[want.first_event[user] + i]);
      EXPECT_EQ((*dataset)->Labels(user)[i], want.event_split[want.first_event[user] + i]);
    }
  }
  EXPECT_EQ((*dataset)->trie().version(), (*Dataset::FromContents(want))->trie().version());
  EXPECT_EQ((*dataset)->digest(), *FileSha256(File("manifest.json")));
  EXPECT_EQ((*dataset)->folder(), folder_);
  EXPECT_THAT(*ListDirectory(parent_), ElementsAre("data")) << "no staging folder is left";
}

TEST_F(DatasetTest, TheSameContentsGiveTheSameDigest) {
  ASSERT_TRUE(Dataset::Write(folder_, SmallContents()).ok());
  ASSERT_TRUE(Dataset::Write(folder_ + "2/", SmallContents()).ok());
  EXPECT_EQ((*Dataset::Load(folder_))->digest(), (*Dataset::Load(folder_ + "2"))->digest());
}

TEST_F(DatasetTest, AnExistingFolderIsNotTouched) {
  ASSERT_TRUE(MakeDirectories(folder_).ok());
  EXPECT_EQ(Dataset::Write(folder_, SmallContents()).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(ListDirectory(folder_)->empty());
}

TEST_F(DatasetTest, FilesThatAWriterAddedAreChecked) {
  {
    auto writer = DatasetWriter::Create(folder_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    const std::string ranker = JoinPath((*writer)->staging(), "ranker");
    ASSERT_TRUE(MakeDirectories(ranker).ok());
    ASSERT_TRUE(WriteFileAtomically(JoinPath(ranker, "weights"), "12345").ok());
    ASSERT_TRUE((*writer)->Finish(SmallContents()).ok());
  }
  ASSERT_TRUE(Dataset::Load(folder_).ok()) << Dataset::Load(folder_).status();
  ASSERT_TRUE(WriteFileAtomically(File("ranker/weights"), "12346").ok());
  EXPECT_EQ(Dataset::Load(folder_).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(Dataset::Load(folder_).status().message()), HasSubstr("ranker/weights"));
}

TEST_F(DatasetTest, AnAbandonedWriterLeavesNothing) {
  {
    auto writer = DatasetWriter::Create(folder_);
    ASSERT_TRUE(WriteFileAtomically(JoinPath((*writer)->staging(), "x"), "1").ok());
    Dataset::Contents bad = SmallContents();
    bad.event_item[0] = 4;
    EXPECT_EQ((*writer)->Finish(bad).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(ListDirectory(parent_)->empty());
  // What a killed writer left is removed by the next one.
  ASSERT_TRUE(MakeDirectories(folder_ + ".partial/old").ok());
  ASSERT_TRUE(Dataset::Write(folder_, SmallContents()).ok());
  EXPECT_FALSE(PathExists(File("old")));
}

TEST_F(DatasetTest, EveryFlippedByteAndEveryCutIsNoticed) {
  ASSERT_TRUE(Dataset::Write(folder_, SmallContents()).ok());
  const auto names = ListDirectory(folder_);
  ASSERT_THAT(*names, UnorderedElementsAre("manifest.json", "first_event.npy", "event_item.npy", "event_split.npy",
                                           "item_codes.npy", "item_names.json", "user_names.json"));
  for (const std::string& name : *names) {
    if (name == "manifest.json") continue;
    const std::string whole = *ReadFile(File(name));
    for (size_t at = 0; at < whole.size(); at += 1 + whole.size() / 50) {
      std::string bytes = whole;
      bytes[at] ^= 1;
      Overwrite(File(name), bytes);
      const absl::Status flipped = Dataset::Load(folder_).status();
      EXPECT_EQ(flipped.code(), absl::StatusCode::kDataLoss) << name << " " << at;
      EXPECT_THAT(std::string(flipped.message()), HasSubstr(name));
      EXPECT_THAT(std::string(flipped.message()), HasSubstr("run prepare again"));
      Overwrite(File(name), whole.substr(0, at));
      EXPECT_EQ(Dataset::Load(folder_).status().code(), absl::StatusCode::kDataLoss) << name << " " << at;
    }
    ASSERT_TRUE(RemoveAll(File(name)).ok());
    EXPECT_EQ(Dataset::Load(folder_).status().code(), absl::StatusCode::kNotFound) << name;
    Overwrite(File(name), whole);
  }
  EXPECT_TRUE(Dataset::Load(folder_).ok());
}

TEST_F(DatasetTest, ManifestsThatAreNotOneAreRefused) {
  EXPECT_EQ(Dataset::Load(folder_).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(MakeDirectories(folder_).ok());
  EXPECT_EQ(Dataset::Load(folder_).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(RemoveAll(folder_).ok());
  ASSERT_TRUE(Dataset::Write(folder_, SmallContents()).ok());
  const std::string manifest = *ReadFile(File("manifest.json"));
  const auto load = [&](const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(File("manifest.json"), text).ok());
    return Dataset::Load(folder_).status();
  };
  EXPECT_EQ(load("").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(load("[1]").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(load("{}").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(load(manifest.substr(0, manifest.size() / 2)).code(), absl::StatusCode::kDataLoss);
  const auto replaced = [&](const std::string& from, const std::string& to) {
    EXPECT_THAT(manifest, HasSubstr(from));
    return load(absl::StrReplaceAll(manifest, {{from, to}}));
  };
  EXPECT_EQ(replaced("\"format_version\": 1", "\"format_version\": 2").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(replaced("sluice-dataset", "other").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(replaced("\"users\": 3", "\"users\": 4").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(replaced("\"users\": 3", "\"users\": \"3\"").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(replaced("\"users\": 3", "\"users\": 1e300").code(), absl::StatusCode::kDataLoss);
  // Beyond 32 bits; it used to be cut to 5.
  EXPECT_THAT(std::string(replaced("\"codes\": 5", "\"codes\": 4294967301").message()),
              HasSubstr("codes: want a whole number from 0 to 2147483647, got 4294967301"));
  EXPECT_EQ(replaced("\"codes\": 5", "\"codes\": 6").code(), absl::StatusCode::kInvalidArgument) << "other tokens";
  EXPECT_EQ(replaced("\"user_names.json\"", "\"../user_names.json\"").code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(load(manifest).ok());
}

TEST_F(DatasetTest, ContentsThatContradictEachOtherAreRefused) {
  const auto message = [this](void (*change)(Dataset::Contents&)) {
    Dataset::Contents contents = SmallContents();
    change(contents);
    const absl::Status status = Dataset::FromContents(contents).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Dataset::Write(folder_, contents).message(), status.message());
    EXPECT_FALSE(PathExists(folder_));
    return std::string(status.message());
  };
  using C = Dataset::Contents;
  EXPECT_THAT(message([](C& c) { c.user_names[2] = "u"; }), HasSubstr("user 'u' comes twice"));
  EXPECT_THAT(message([](C& c) { c.item_names[2] = "b"; }), HasSubstr("item 'b' comes twice"));
  EXPECT_THAT(message([](C& c) { c.event_item[5] = 4; }), HasSubstr("event 1 of user 'v' has the unknown item 4"));
  EXPECT_THAT(message([](C& c) { c.event_item[5] = -1; }), HasSubstr("unknown item -1"));
  EXPECT_THAT(message([](C& c) { c.event_split[5] = static_cast<SplitLabel>(5); }), HasSubstr("unknown split 5"));
  EXPECT_THAT(message([](C& c) { c.event_split.pop_back(); }), HasSubstr("want event_split [8], got [7]"));
  EXPECT_THAT(message([](C& c) { c.first_event.pop_back(); }), HasSubstr("want first_event [4]"));
  EXPECT_THAT(message([](C& c) { c.first_event = {0, 5, 4, 8}; }), HasSubstr("rise from 0"));
  EXPECT_THAT(message([](C& c) { c.first_event = {0, 4, 7, 9}; }), HasSubstr("rise from 0"));
  EXPECT_THAT(message([](C& c) { c.item_codes[3] = 5; }), HasSubstr("item 'b', level 1: code 5 is outside [0, 5)"));
  EXPECT_THAT(message([](C& c) { c.item_codes.pop_back(); }), HasSubstr("want item_codes [4, 2]"));
  EXPECT_THAT(message([](C& c) { c.levels = 0; }), HasSubstr("levels"));
  EXPECT_THAT(message([](C& c) { c.codes = 1 << 24; }), HasSubstr("vocabulary"));
  EXPECT_THAT(message([](C& c) { c.max_history = 0; }), HasSubstr("max_history"));
  EXPECT_THAT(message([](C& c) { c.item_names.clear(); }), HasSubstr("at least one user and one item"));
}

}  // namespace
}  // namespace sluice
