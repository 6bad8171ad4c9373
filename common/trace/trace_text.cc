#include "common/trace/trace_text.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/rpc/timestamp.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

std::string TimeText(const google::protobuf::Timestamp& time, const char* format, absl::TimeZone zone) {
  return absl::FormatTime(format, TimeOf(time), zone);
}

// What the columns do not show.
std::string DetailsOf(const v1::TraceEntry& entry) {
  std::vector<std::string> parts;
  if (entry.has_user()) parts.push_back(absl::StrCat("user ", entry.user()));
  if (entry.has_position()) parts.push_back(absl::StrCat("position ", entry.position()));
  if (entry.has_target()) parts.push_back(absl::StrCat("target item ", entry.target()));
  if (!entry.actor().empty()) parts.push_back(absl::StrCat("actor ", entry.actor()));
  if (!entry.scores().empty()) {
    parts.push_back(
        absl::StrCat("scores ", entry.scores(), entry.ranker().empty() ? "" : " of ranker ", entry.ranker()));
  }
  if (!entry.reason().empty()) parts.push_back(absl::StrCat("reason ", entry.reason()));
  if (!entry.text().empty()) parts.push_back(entry.text());
  return absl::StrJoin(parts, ", ");
}

// Columns padded to their widest cell, two spaces apart; the last one is not padded.
std::string Columns(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    absl::StrAppend(&text, "  ");
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      absl::StrAppend(&text, row[i], std::string(widths[i] - row[i].size() + 2, ' '));
    }
    absl::StrAppend(&text, row.back(), "\n");
  }
  return text;
}

}  // namespace

std::string TraceText(const v1::TraceResponse& trace, absl::TimeZone zone) {
  std::string text;
  for (const v1::GroupTrace& group : trace.groups()) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", "group ", group.ordinal(), ": ", group.summary(), "\n");
    std::vector<std::vector<std::string>> rows = {
        {"TIME", "EVENT", "ATTEMPT", "LEASE", "EPOCH", "VERSION", "WRITTEN IN", "WHAT"}};
    for (const v1::TraceEntry& entry : group.entries()) {
      const auto number = [](bool present, uint64_t value) { return present ? absl::StrCat(value) : "-"; };
      rows.push_back({entry.has_time() ? TimeText(entry.time(), "%Y-%m-%d %H:%M:%E3S", zone) : "-", entry.event(),
                      number(entry.has_attempt(), entry.attempt()), number(entry.has_lease(), entry.lease()),
                      number(entry.has_epoch(), entry.epoch()),
                      number(entry.has_policy_version(), entry.policy_version()), entry.source(), DetailsOf(entry)});
    }
    if (rows.size() > 1) absl::StrAppend(&text, Columns(rows));
    if (group.unknown_size() > 0) absl::StrAppend(&text, "not known\n");
    for (const v1::TraceGap& gap : group.unknown()) {
      absl::StrAppend(&text, "  ", gap.what(), ": ", gap.why(),
                      gap.remedy().empty() ? "" : "; to know it: ", gap.remedy(), "\n");
    }
  }
  return text;
}

ordered_json TraceJson(const v1::GroupTrace& group) {
  ordered_json entries = ordered_json::array(), unknown = ordered_json::array();
  for (const v1::TraceEntry& entry : group.entries()) {
    ordered_json one;
    if (entry.has_time()) one["time"] = TimeText(entry.time(), "%Y-%m-%dT%H:%M:%E3SZ", absl::UTCTimeZone());
    one["event"] = entry.event();
    one["source"] = entry.source();
    if (entry.has_attempt()) one["attempt"] = entry.attempt();
    if (entry.has_lease()) one["lease"] = entry.lease();
    if (entry.has_epoch()) one["epoch"] = entry.epoch();
    if (entry.has_policy_version()) one["policy_version"] = entry.policy_version();
    if (!entry.actor().empty()) one["actor"] = entry.actor();
    if (!entry.scores().empty()) one["scores"] = entry.scores();
    if (!entry.ranker().empty()) one["ranker"] = entry.ranker();
    if (!entry.reason().empty()) one["reason"] = entry.reason();
    if (entry.has_user()) one["user"] = entry.user();
    if (entry.has_position()) one["position"] = entry.position();
    if (entry.has_target()) one["target"] = entry.target();
    if (!entry.text().empty()) one["text"] = entry.text();
    entries.push_back(std::move(one));
  }
  for (const v1::TraceGap& gap : group.unknown()) {
    unknown.push_back({{"what", gap.what()}, {"why", gap.why()}, {"remedy", gap.remedy()}});
  }
  return {{"ordinal", group.ordinal()},
          {"state", group.state()},
          {"reason", group.reason().empty() ? ordered_json(nullptr) : ordered_json(group.reason())},
          {"step", group.step()},
          {"summary", group.summary()},
          {"entries", std::move(entries)},
          {"unknown", std::move(unknown)}};
}

}  // namespace sluice
