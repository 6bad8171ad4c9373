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

TEST(TransferTest, OneWalkCopiesAndMakesTheChecksumsOfTheWholeAndOfEveryChunk) {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{300}, size_t{301}, size_t{999}}) {
    const std::string payload = Payload(bytes);
    std::string copy(bytes, '?');
    ChunkTable table;
    EXPECT_EQ(CopyAndHash(payload, copy.data(), 100, &table), PayloadChecksum(payload));
    EXPECT_EQ(copy, payload);
    ASSERT_EQ(table.checksums.size(), (bytes + 99) / 100);
    for (size_t i = 0; i < table.checksums.size(); ++i) {
      EXPECT_EQ(table.checksums[i], ChunkChecksum(absl::string_view(payload).substr(100 * i, 100)));
    }
  }
}

TEST(TransferTest, ChecksumsOfATableAreSentAsTheyAreAndOthersMade) {
  const std::string payload = Payload(250);
  const ChunkTable table = {100, {11, 22, 33}};
  bool hashed = true;
  EXPECT_EQ(ChunkAt(payload, table, 100, 100, &hashed).checksum, 22u);
  EXPECT_FALSE(hashed);
  EXPECT_EQ(ChunkAt(payload, table, 200, 100, &hashed).data.size(), 50u);
  // Another size of chunks than the table's, and the empty chunk at the end.
  EXPECT_EQ(ChunkAt(payload, table, 100, 50, &hashed).checksum, ChunkChecksum(payload.substr(100, 50)));
  EXPECT_TRUE(hashed);
  EXPECT_EQ(ChunkAt(payload, table, 250, 100, &hashed).checksum, ChunkChecksum(""));
  // Off its grid: up to the next boundary, so that the rest is on it.
  const ChunkView odd = ChunkAt(payload, table, 130, 100, &hashed);
  EXPECT_TRUE(hashed);
  EXPECT_EQ(odd.data, payload.substr(130, 70));
  EXPECT_EQ(odd.checksum, ChunkChecksum(payload.substr(130, 70)));
}

TEST(TransferTest, APayloadIsPutTogetherInTheCallersMemory) {
  const std::string payload = Payload(250);
  std::string place(250, '?');
  Assembler assembler(Expect(payload), absl::MakeSpan(place.data(), place.size()));
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 0, 100)).ok());
  EXPECT_EQ(assembler.Verify().code(), absl::StatusCode::kDataLoss);  // incomplete, and still in progress
  const auto at = assembler.Begin(100, 250, 100);
  ASSERT_TRUE(at.ok());
  EXPECT_EQ(*at, place.data() + 100);
  EXPECT_EQ(assembler.End(1).code(), absl::StatusCode::kDataLoss);  // written nothing
  EXPECT_EQ(assembler.next_offset(), 100u);
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 100, 100)).ok());
  ASSERT_TRUE(assembler.Add(ChunkAt(payload, 200, 100)).ok());
  EXPECT_TRUE(assembler.Verify().ok());
  EXPECT_EQ(place, payload);

  std::string small(249, '?');
  Assembler another(Expect(payload), absl::MakeSpan(small.data(), small.size()));
  EXPECT_EQ(another.Add(ChunkAt(payload, 0, 100)).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
