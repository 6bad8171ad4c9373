#include "learner/tensorboard/event_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <limits>

#include "common/file/file.h"
#include "learner/tensorboard/crc32c.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

uint64_t LittleEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// The whole records of a file; their checksums are compared on the way.
std::vector<std::string> Records(absl::string_view file) {
  std::vector<std::string> events;
  while (file.size() >= 12) {
    const uint64_t length = LittleEndian(file.substr(0, 8));
    EXPECT_EQ(LittleEndian(file.substr(8, 4)), MaskedCrc32c(file.substr(0, 8)));
    if (file.size() < 16 + length) break;
    events.emplace_back(file.substr(12, length));
    EXPECT_EQ(LittleEndian(file.substr(12 + length, 4)), MaskedCrc32c(events.back()));
    file.remove_prefix(16 + length);
  }
  return events;
}

// Field 2 of an event behind its time.
int StepOf(const std::string& event) { return static_cast<uint8_t>(event[10]); }

class EventWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = JoinPath(testing::TempDir(), testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(folder_).ok());
  }
  std::string Contents(const std::string& name) const { return ReadFile(JoinPath(folder_, name)).value(); }
  NowFunction Clock() {
    return [this] { return now_; };
  }

  std::string folder_;
  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
};

TEST_F(EventWriterTest, TheChecksumIsCastagnolis) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aa);    // RFC 3720, B.4
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43);  // RFC 3720, B.4
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST_F(EventWriterTest, NothingIsMadeBeforeThereIsAPoint) {
  EventWriter writer(folder_, Clock());
  ASSERT_TRUE(writer.Restart(7).ok());
  ASSERT_TRUE(writer.Append(1, {}).ok());
  ASSERT_TRUE(writer.Append(1, {{"x", std::numeric_limits<double>::quiet_NaN()}}).ok());
  ASSERT_TRUE(writer.Sync().ok());
  EXPECT_FALSE(PathExists(folder_));
}

TEST_F(EventWriterTest, AFileIsItsVersionAndAnEventARow) {
  EventWriter writer(folder_, Clock());
  ASSERT_TRUE(writer.Append(3, {{"loss", 0.5}, {"inf", std::numeric_limits<double>::infinity()}}).ok());
  ASSERT_TRUE(writer.Sync().ok());
  const std::vector<std::string> events = Records(Contents("events.out.tfevents.1700000000.sluice"));
  ASSERT_EQ(events.size(), 2u);
  // Seen as what protoc --decode_raw would read: 1: time, 2: step, 3: version.
  const std::string time("\x09\x00\x00\x00\x40\xfc\x54\xd9\x41", 9);  // 1.7e9 as a double
  EXPECT_EQ(events[0], time + std::string("\x10\x00", 2) + "\x1a\x0d" + "brain.Event:2");
  // 5: {1: {1: "loss" 2: 0x3f000000}}
  EXPECT_EQ(events[1],
            time + "\x10\x03" + "\x2a\x0d\x0a\x0b\x0a\x04" + "loss" + std::string("\x15\x00\x00\x00\x3f", 5));
}

TEST_F(EventWriterTest, AResumedJobBeginsAFileWithARestartRecord) {
  {
    EventWriter first(folder_, Clock());
    for (uint64_t step = 1; step <= 5; ++step) ASSERT_TRUE(first.Append(step, {{"x", 1}}).ok());
  }
  now_ -= absl::Hours(1);  // a clock that was set back does not put the new file before the old one
  EventWriter second(folder_, Clock());
  ASSERT_TRUE(second.Restart(3).ok());
  EXPECT_THAT(ListDirectory(folder_).value(),
              ElementsAre("events.out.tfevents.1700000000.sluice", "events.out.tfevents.1700000001.sluice"));
  ASSERT_TRUE(second.Append(4, {{"x", 2}}).ok());
  const std::vector<std::string> events = Records(Contents("events.out.tfevents.1700000001.sluice"));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(StepOf(events[1]), 4);
  EXPECT_EQ(events[1].substr(11), "\x3a\x02\x08\x01");  // 7: {1: 1}, the start of a session
  EXPECT_EQ(StepOf(events[2]), 4);

  EventWriter third(folder_, Clock());
  ASSERT_TRUE(third.Restart(std::nullopt).ok());
  EXPECT_EQ(StepOf(Records(Contents("events.out.tfevents.1700000002.sluice"))[1]), 0);
}

TEST_F(EventWriterTest, ATornRecordIsNeverWrittenBehind) {
  const std::string name = "events.out.tfevents.1700000000.sluice";
  {
    EventWriter first(folder_, Clock());
    ASSERT_TRUE(first.Append(1, {{"x", 1}}).ok());
    ASSERT_TRUE(first.Append(2, {{"x", 1}}).ok());
  }
  const std::string whole = Contents(name);
  ASSERT_TRUE(WriteFileAtomically(JoinPath(folder_, name), whole.substr(0, whole.size() - 7)).ok());
  EventWriter second(folder_, Clock());
  ASSERT_TRUE(second.Restart(1).ok());
  ASSERT_TRUE(second.Append(2, {{"x", 1}}).ok());
  EXPECT_EQ(Records(Contents(name)).size(), 2u);  // its version and step 1, as it was left
  EXPECT_EQ(Contents(name).size(), whole.size() - 7);
  EXPECT_EQ(Records(Contents("events.out.tfevents.1700000001.sluice")).size(), 3u);
}

TEST_F(EventWriterTest, ANumberBeyondFloat32IsInfinite) {
  EventWriter writer(folder_, Clock());
  ASSERT_TRUE(writer.Append(1, {{"x", -1e300}}).ok());
  const std::string event = Records(Contents("events.out.tfevents.1700000000.sluice"))[1];
  EXPECT_EQ(LittleEndian(absl::string_view(event).substr(event.size() - 4)), 0xff800000);
}

TEST_F(EventWriterTest, AFileHasABoundAndKeepsWhatItHas) {
  EventWriter writer(folder_, Clock(), 200);
  absl::Status status;
  uint64_t written = 0;
  for (uint64_t step = 1; step <= 100 && status.ok(); ++step) {
    status = writer.Append(step, {{"x", 1}});
    written += status.ok() ? 1 : 0;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const std::string file = Contents("events.out.tfevents.1700000000.sluice");
  EXPECT_LE(file.size(), 200u);
  EXPECT_EQ(Records(file).size(), 1 + written);
}

TEST_F(EventWriterTest, AFolderThatCannotBeMadeIsAnError) {
  ASSERT_TRUE(WriteFileAtomically(folder_, "a file").ok());
  EventWriter writer(folder_, Clock());
  EXPECT_THAT(writer.Append(1, {{"x", 1}}).message(), HasSubstr("is a file, want a folder"));
}

TEST_F(EventWriterTest, AFullDiskIsSaidWithThePath) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {.rlim_cur = 100, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EventWriter writer(folder_, Clock());
  absl::Status status;
  for (uint64_t step = 1; step <= 9 && status.ok(); ++step) status = writer.Append(step, {{"x", 1}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(status.message(), HasSubstr("cannot write '" + folder_));
}

}  // namespace
}  // namespace sluice::learner
