// Stands between actors and a reward server, and makes it ill on demand.
//
// Useful for: what a ranker's bad days do to a job of real processes. The sickness is the one word in a file that the
// test rewrites; each call looks anew:
//   well      the server's answers as they are
//   down      UNAVAILABLE
//   slow      as they are, after SLOW milliseconds
//   nan       every score is NaN
//   constant  every score of a group is the same
//   short     one score of each group is missing
//   version   another ranker version
//   shuffled  each group's scores turned by one place: ids, lengths and versions as they should be
//   swapped   two groups' ordinals in each other's place
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "sluice/v1/reward.grpc.pb.h"

namespace sluice {
namespace {

class SickReward : public v1::RewardService::Service {
 public:
  SickReward(const std::string& server, std::string mood_file, absl::Duration slow)
      : stub_(v1::RewardService::NewStub(MakeChannel(server))), mood_file_(std::move(mood_file)), slow_(slow) {}

  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override {
    const std::string mood = Mood();
    if (mood == "down") return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the ranker is down, as the test wants it");
    const std::unique_ptr<grpc::ClientContext> onward = grpc::ClientContext::FromServerContext(*context);
    const grpc::Status status = stub_->Score(onward.get(), *request, response);
    if (!status.ok()) return status;
    if (mood == "slow") absl::SleepFor(slow_);
    if (mood == "version") response->set_ranker_version("another one");
    if (mood == "swapped" && response->groups_size() > 1) {
      const uint64_t first = response->groups(0).ordinal();
      response->mutable_groups(0)->set_ordinal(response->groups(1).ordinal());
      response->mutable_groups(1)->set_ordinal(first);
    }
    for (v1::GroupScores& group : *response->mutable_groups()) {
      for (v1::CandidateScores& head : *group.mutable_heads()) Damage(mood, &head);
    }
    return status;
  }

 private:
  std::string Mood() const {
    std::ifstream file(mood_file_);
    std::string mood = "well";
    file >> mood;
    return mood;
  }

  static void Damage(const std::string& mood, v1::CandidateScores* head) {
    auto& scores = *head->mutable_scores();
    if (scores.empty()) return;
    if (mood == "short") scores.RemoveLast();
    if (mood == "shuffled") std::rotate(scores.begin(), scores.begin() + 1, scores.end());
    if (mood != "nan" && mood != "constant") return;
    const float value = mood == "nan" ? std::numeric_limits<float>::quiet_NaN() : 0.5f;
    std::fill(scores.begin(), scores.end(), value);
    std::fill(head->mutable_left_out()->begin(), head->mutable_left_out()->end(), value);
    head->set_target(value);
  }

  const std::unique_ptr<v1::RewardService::Stub> stub_;
  const std::string mood_file_;
  const absl::Duration slow_;
};

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  int slow_ms = 0;
  if (argc != 5 || !absl::SimpleAtoi(argv[4], &slow_ms)) {
    std::fprintf(stderr, "usage: sick-reward ADDRESS SERVER MOOD_FILE SLOW_MS\n");
    return 2;
  }
  sluice::InitLogging("sick-reward", sluice::LogFormat::kText, sluice::LogLevel::kInfo);
  sluice::SickReward service(argv[2], argv[3], absl::Milliseconds(slow_ms));
  const auto server = sluice::RpcServer::Start(argv[1], {&service});
  if (!server.ok()) {
    std::fprintf(stderr, "sick-reward: %s\n", std::string(server.status().message()).c_str());
    return 11;
  }
  sluice::LogInfo("serving", {{"address", (*server)->address()}});
  while (true) absl::SleepFor(absl::Hours(1));  // until it is killed
}
