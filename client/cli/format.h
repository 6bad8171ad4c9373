// What sluicectl prints, as pure functions from messages to text and JSON.
#ifndef SLUICE_CLIENT_CLI_FORMAT_H_
#define SLUICE_CLIENT_CLI_FORMAT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/spec/spec.h"
#include "sluice/v1/job.pb.h"

namespace sluice::client {

std::string StateText(v1::JobState state);  // "running"
std::string KindText(v1::JobKind kind);     // "rl"
bool IsTerminal(v1::JobState state);

// Columns padded to their widest cell, two spaces apart; the last one is not padded.
std::string Table(const std::vector<std::vector<std::string>>& rows);

std::string JobTable(const v1::ListResponse& jobs, absl::Time now);
std::string DescribeText(const v1::DescribeResponse& job, absl::Time now);
// "loss/nll 1.234, gate/open_rate 0.056": the few that a line of progress shows; if there is none of them, all in the
// order of names.
std::string MetricsText(const v1::MetricsPoint& point);

nlohmann::ordered_json SummaryJson(const v1::JobSummary& summary);
nlohmann::ordered_json DescribeJson(const v1::DescribeResponse& job);
nlohmann::ordered_json EventJson(const v1::JobEvent& event);
nlohmann::ordered_json KeyJson(const SpecKey& key);

// Keys of the spec at or below `path` ("": all): aligned lines, or a Markdown page with a table a section.
std::string ExplainText(const std::vector<SpecKey>& keys);
std::string ExplainMarkdown(const std::vector<SpecKey>& keys);

absl::Time TimeOf(const google::protobuf::Timestamp& time);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_FORMAT_H_
