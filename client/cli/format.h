// What sluicectl prints, as pure functions from messages to text and JSON.
#ifndef SLUICE_CLIENT_CLI_FORMAT_H_
#define SLUICE_CLIENT_CLI_FORMAT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/rpc/timestamp.h"
#include "common/spec/spec.h"
#include "sluice/v1/job.pb.h"

namespace sluice::client {

std::string StateText(v1::JobState state);  // "running"
std::string KindText(v1::JobKind kind);     // "rl"
bool IsTerminal(v1::JobState state);

std::string CheckText(v1::PlanCheck::Result result);  // "ok", "warning", "failed", "skipped"

// `wide`: with names, starts, exit codes.
std::string JobTable(const v1::ListResponse& jobs, absl::Time now, bool wide = false, bool color = false);
// The running job in a few lines: progress, rate, time left, the ledger's balance.
std::string RunningText(const v1::DescribeResponse& job, absl::Time now);
std::string DescribeText(const v1::DescribeResponse& job, absl::Time now);
// "loss/nll 1.234, gate/open_rate 0.056": the few that a line of progress shows; if there is none of them, all in the
// order of names.
std::string MetricsText(const v1::MetricsPoint& point);

// Lines of a story, each with its local time: "12:30:01 rank 1: warning: ...".
std::string StateLine(const v1::JobEvent& event);
std::string LogText(const v1::JobEvent& event);
std::string EventText(const v1::JobEvent& event);  // any of them

std::string LocalTime(const google::protobuf::Timestamp& time);  // "2026-01-31 12:30:01"
// UTC; null unless `present`.
nlohmann::ordered_json TimeJson(bool present, const google::protobuf::Timestamp& time);
std::string NumberShown(double value);
// JSON has no NaN and no infinity; null says "there is none".
nlohmann::ordered_json NumberJson(double value);
nlohmann::ordered_json ServerJson(const v1::ServerInfoResponse& info);
nlohmann::ordered_json SummaryJson(const v1::JobSummary& summary);
nlohmann::ordered_json DescribeJson(const v1::DescribeResponse& job);
nlohmann::ordered_json EventJson(const v1::JobEvent& event);
nlohmann::ordered_json KeyJson(const SpecKey& key);

// Keys of the spec at or below `path` ("": all): aligned lines, or a Markdown page with a table a section.
std::string ExplainText(const std::vector<SpecKey>& keys);
std::string ExplainMarkdown(const std::vector<SpecKey>& keys);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_FORMAT_H_
