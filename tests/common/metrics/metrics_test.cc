#include "common/metrics/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

// The answer to one GET over loopback, headers included; empty if nobody listens.
std::string Get(int port, const std::string& path) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
    if (::write(descriptor, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
      char buffer[4096];
      for (ssize_t got; (got = ::read(descriptor, buffer, sizeof(buffer))) > 0;) answer.append(buffer, got);
    }
  }
  ::close(descriptor);
  return answer;
}

TEST(MetricsTest, ACounterShowsItsSumItsHelpAndItsLabels) {
  Metrics metrics;
  Counter* counter = metrics.AddCounter("sluice_test_groups_total", "Groups seen.", {{"state", "trained"}});
  counter->Increment();
  counter->Increment(2);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("# HELP sluice_test_groups_total Groups seen.\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE sluice_test_groups_total counter\n"));
  EXPECT_THAT(text, HasSubstr("sluice_test_groups_total{state=\"trained\"} 3\n"));
}

TEST(MetricsTest, TheSameNameAndLabelsAreOneSeries) {
  Metrics metrics;
  metrics.AddCounter("sluice_test_total", "Test.")->Increment();
  metrics.AddCounter("sluice_test_total", "Test.")->Increment();
  EXPECT_THAT(metrics.Text(), HasSubstr("\nsluice_test_total 2\n"));
}

TEST(MetricsTest, OtherLabelsAreAnotherSeries) {
  Metrics metrics;
  metrics.AddGauge("sluice_test_open", "Test.", {{"rank", "0"}})->Set(1);
  metrics.AddGauge("sluice_test_open", "Test.", {{"rank", "1"}})->Set(2.5);
  EXPECT_THAT(metrics.Text(), HasSubstr("sluice_test_open{rank=\"0\"} 1\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("sluice_test_open{rank=\"1\"} 2.5\n"));
}

TEST(MetricsTest, AHistogramCountsEachBucketAndAllBelowIt) {
  Metrics metrics;
  Histogram* histogram = metrics.AddHistogram("sluice_test_seconds", "Test.", {0.1, 1});
  for (const double value : {0.05, 0.5, 0.5, 20.0}) histogram->Observe(value);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("sluice_test_seconds_bucket{le=\"0.1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sluice_test_seconds_bucket{le=\"1\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("sluice_test_seconds_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("sluice_test_seconds_count 4\n"));
}

TEST(MetricsTest, GaugesOfForeignStateAreSetBeforeEachScrape) {
  Metrics metrics;
  Gauge* gauge = metrics.AddGauge("sluice_test_open", "Test.");
  int state = 1;
  metrics.OnScrape([&] { gauge->Set(state); });
  EXPECT_THAT(metrics.Text(), HasSubstr("\nsluice_test_open 1\n"));
  state = 7;
  EXPECT_THAT(metrics.Text(), HasSubstr("\nsluice_test_open 7\n"));
}

TEST(MetricsTest, ThePageIsServedOnAPortOfItsOwnChoice) {
  Metrics metrics;
  metrics.AddCounter("sluice_test_total", "Test.")->Increment();
  const absl::StatusOr<int> port = metrics.Serve("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  const std::string answer = Get(*port, "/metrics");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("sluice_test_total 1"));
}

TEST(MetricsTest, ATakenAddressIsUnavailableAndTheMessageSaysWhatToDo) {
  Metrics first;
  const std::string address = "127.0.0.1:" + std::to_string(first.Serve("127.0.0.1:0").value());
  Metrics second;
  const absl::Status status = second.Serve(address).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(address));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--metrics-address"));
}

TEST(MetricsTest, AnAddressWithoutAPortIsRefusedInWords) {
  for (const char* address : {"localhost", "9090", ":9090", "127.0.0.1:99999"}) {
    EXPECT_EQ(Metrics().Serve(address).status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

TEST(MetricsTest, ThePortIsFreeAgainAfterTheMetricsAreGone) {
  int port = 0;
  {
    Metrics metrics;
    port = metrics.Serve("127.0.0.1:0").value();
    ASSERT_THAT(Get(port, "/metrics"), HasSubstr("200 OK"));
  }
  EXPECT_EQ(Get(port, "/metrics"), "");
}

TEST(MetricsTest, CountsFromManyThreadsAddUp) {
  Metrics metrics;
  Counter* counter = metrics.AddCounter("sluice_test_total", "Test.");
  {
    std::vector<Thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.push_back(StartThread("counter", [&] {
        for (int i = 0; i < 1000; ++i) {
          counter->Increment();
          metrics.AddCounter("sluice_other_total", "Test.")->Increment();
        }
      }));
    }
  }
  EXPECT_THAT(metrics.Text(), HasSubstr("\nsluice_test_total 4000\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("\nsluice_other_total 4000\n"));
}

}  // namespace
}  // namespace sluice
