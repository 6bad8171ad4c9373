#include "common/transfer/transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/random/random.h"

namespace sluice {
namespace {

using testing::HasSubstr;

std::string Payload(size_t bytes) {
  Random random(5);
  std::string payload(bytes, '\0');
  for (char& byte : payload) byte = static_cast<char>(random());
  return payload;
}

Assembler::Expected Expect(const std::string& payload) {
  Assembler::Expected expected;
  expected.total_bytes = payload.size();
  expected.checksum = PayloadChecksum(payload);
  return expected;
}

TEST(TransferTest, ChecksumsAreThePublishedOnesOfXxh3) {
  // xxhsum 0.8: `printf '' | xxhsum -H2` and -H3 of the empty input.
  EXPECT_EQ(PayloadChecksum(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(ChunkChecksum(""), 0x2d06800538d394c2u);
}

TEST(TransferTest, APayloadArrivesWholeWhateverTheChunkSize) {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{99}, size_t{100}, size_t{101}, size_t{1000}}) {
    const std::string payload = Payload(bytes);
    Assembler assembler(Expect(payload));
    do {
      ASSERT_TRUE(assembler.Add(ChunkAt(payload, assembler.next_offset(), 100)).ok());
    } while (!assembler.complete());
    const auto finished = assembler.Finish();
    ASSERT_TRUE(finished.ok()) << finished.status();
    EXPECT_EQ(*finished, payload);
  }
}

TEST(TransferTest, ADamagedChunkIsRefusedAndAskedForAgain) {
  const std::string payload = Payload(250);
  Assembler assembler(Expect(payload));
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 0, 100)).ok());
  std::string damaged(ChunkAt(payload, 100, 100).data);
  damaged[42] ^= 1;
  ChunkView chunk = ChunkAt(payload, 100, 100);
  chunk.data = damaged;
  EXPECT_EQ(assembler.Add(chunk).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(assembler.next_offset(), 100u);
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 100, 100)).ok());
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 200, 100)).ok());
  EXPECT_EQ(assembler.Finish().value(), payload);
}

TEST(TransferTest, OnlyTheNextChunkIsTaken) {
  const std::string payload = Payload(300);
  Assembler assembler(Expect(payload));
  EXPECT_EQ(assembler.Add(ChunkAt(payload, 100, 100)).code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 0, 100)).ok());
  EXPECT_EQ(assembler.Add(ChunkAt(payload, 0, 100)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(assembler.Finish().status().code(), absl::StatusCode::kDataLoss);  // incomplete
}

TEST(TransferTest, LengthsMustBeWhatWasAnnounced) {
  const std::string payload = Payload(300);
  Assembler::Expected expected = Expect(payload);
  expected.total_bytes = 301;
  EXPECT_EQ(Assembler(expected).Add(ChunkAt(payload, 0, 100)).code(), absl::StatusCode::kInvalidArgument);
  expected.total_bytes = 0;
  expected.max_bytes = 299;
  EXPECT_EQ(Assembler(expected).Add(ChunkAt(payload, 0, 100)).code(), absl::StatusCode::kInvalidArgument);

  ChunkView long_one = ChunkAt(payload, 0, 300);
  long_one.total_bytes = 200;
  EXPECT_EQ(Assembler(Assembler::Expected()).Add(long_one).code(), absl::StatusCode::kInvalidArgument);
}

TEST(TransferTest, AnotherPayloadOfTheSameLengthIsRefusedAtTheEnd) {
  const std::string payload = Payload(100);
  Assembler::Expected expected = Expect(payload);
  expected.checksum = PayloadChecksum("other weights");
  Assembler assembler(expected);
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 0, 100)).ok());
  const absl::Status status = assembler.Finish().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(PayloadChecksum(payload)));
  EXPECT_EQ(assembler.next_offset(), 0u);  // starts over
}

}  // namespace
}  // namespace sluice
