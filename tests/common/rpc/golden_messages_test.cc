// The bytes of golden_messages.jsonl, by this program's own messages: tests/deploy/wire_test.py does the same in
// Python, and sees to it that every field of every message has a line.

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file/file.h"
#include "sluice/v1/data.pb.h"
#include "sluice/v1/group.pb.h"
#include "sluice/v1/job.pb.h"
#include "sluice/v1/member.pb.h"
#include "sluice/v1/policy.pb.h"
#include "sluice/v1/rendezvous.pb.h"
#include "sluice/v1/reward.pb.h"
#include "sluice/v1/rollout.pb.h"
#include "sluice/v1/spec.pb.h"

namespace sluice {
namespace {

using nlohmann::json;

// One message of each file, so that the linker keeps them all.
std::vector<const google::protobuf::Descriptor*> OneOfEachFile() {
  return {v1::DataFile::descriptor(),     v1::ScoredGroup::descriptor(),        v1::SubmitRequest::descriptor(),
          v1::JoinRequest::descriptor(),  v1::FetchPolicyRequest::descriptor(), v1::RendezvousGetRequest::descriptor(),
          v1::ScoreRequest::descriptor(), v1::ActorMessage::descriptor(),       v1::JobSpec::descriptor()};
}

std::string Deterministic(const google::protobuf::Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&out);
  }
  return bytes;
}

TEST(GoldenMessagesTest, BytesOfEveryReleaseSayWhatTheySaidAndAreWrittenAgain) {
  ASSERT_FALSE(OneOfEachFile().empty());
  const std::string text = ReadFile(absl::StrCat(SLUICE_SOURCE_DIR, "/tests/common/rpc/golden_messages.jsonl")).value();
  google::protobuf::util::JsonPrintOptions names;
  names.preserve_proto_field_names = true;
  int lines = 0;
  for (const absl::string_view row : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const json line = json::parse(row.begin(), row.end());
    const std::string name = absl::StrCat("sluice.v1.", line["message"].get<std::string>());
    SCOPED_TRACE(absl::StrCat(name, " ", line["kind"].get<std::string>(), " of ", line["release"].get<std::string>()));
    const google::protobuf::Descriptor* described =
        google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(name);
    ASSERT_NE(described, nullptr);
    const std::unique_ptr<google::protobuf::Message> message(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(described)->New());
    const std::string bytes = absl::HexStringToBytes(line["hex"].get<std::string>());
    ASSERT_TRUE(message->ParseFromString(bytes));
    std::string said;
    ASSERT_TRUE(google::protobuf::util::MessageToJsonString(*message, &said, names).ok());
    EXPECT_EQ(json::parse(said), line["json"]);
    EXPECT_EQ(absl::BytesToHexString(Deterministic(*message)), line["hex"].get<std::string>());
    ++lines;
  }
  EXPECT_GT(lines, 150);
}

}  // namespace
}  // namespace sluice
