#include "learner/report/report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file/file.h"
#include "learner/report/text.h"

namespace sluice::learner {
namespace {

// Colours of series: Okabe and Ito's palette, told apart by people who do not see all colours; lines differ in their
// dashes too, for paper.
constexpr char kStyle[] = R"css(
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5d6670;--line:#d9dde1;--page:#fff;--card:#f6f7f8;--good:#0a7a4b;--bad:#b3261e;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b5569a;--c4:#b07f00;--c5:#3a9bd6;--c6:#6b6f76;--c7:#7a5c1e}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#9aa4ae;--line:#343a40;--page:#14171a;--card:#1d2125;--good:#57c793;--bad:#ff8a80;
--c0:#5ab4e8;--c1:#ff8a3d;--c2:#33c69b;--c3:#e08cc6;--c4:#f0b429;--c5:#9ad0f5;--c6:#a4a9b0;--c7:#cbb27c}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:76rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .25rem}
h2{font-size:1.15rem;margin:2.25rem 0 .75rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:0}
p{margin:.25rem 0;color:var(--soft)}
.lead{font-size:1.05rem;color:var(--ink)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{position:sticky;left:0;background:var(--page);text-align:left;white-space:normal;min-width:9rem}
td.text{white-space:normal;min-width:8.5rem}
thead th{color:var(--soft);font-weight:600;font-size:.85rem}
td.best{font-weight:700}
.facts th{width:14rem;font-weight:600;color:var(--soft);vertical-align:top}
.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1rem}
.chart{margin:0;padding:.9rem;background:var(--card);border-radius:.5rem}
.chart>svg{display:block;width:100%;height:auto;margin-top:.5rem}
.chart p{font-size:.85rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin:.3rem 0 0;padding:0;list-style:none;font-size:.85rem;color:var(--soft)}
.legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.key{width:1.5rem;height:.5rem;margin-right:.35rem}
svg text{font-size:13px;fill:var(--soft)}
svg text.y{text-anchor:end}
svg text.x{text-anchor:middle}
.grid{stroke:var(--line);stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.area{fill-opacity:.75;stroke:none}
.line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1);stroke-dasharray:7 3}.line.c2{stroke:var(--c2);stroke-dasharray:2 3}.line.c3{stroke:var(--c3);stroke-dasharray:9 3 2 3}
.line.c4{stroke:var(--c4)}.line.c5{stroke:var(--c5);stroke-dasharray:7 3}.line.c6{stroke:var(--c6);stroke-dasharray:2 3}.line.c7{stroke:var(--c7);stroke-dasharray:9 3 2 3}
.area.c0,.dot.c0{fill:var(--c0)}.area.c1,.dot.c1{fill:var(--c1)}.area.c2,.dot.c2{fill:var(--c2)}.area.c3,.dot.c3{fill:var(--c3)}
.area.c4,.dot.c4{fill:var(--c4)}.area.c5,.dot.c5{fill:var(--c5)}.area.c6,.dot.c6{fill:var(--c6)}.area.c7,.dot.c7{fill:var(--c7)}
.example{margin:0 0 1rem;padding:.9rem;background:var(--card);border-radius:.5rem}
.example p{font-size:.9rem;overflow-wrap:anywhere}
.item{display:inline-block;max-width:100%;padding:0 .4rem;border:1px solid var(--line);border-radius:.3rem;color:var(--ink)}
.item.hit,li.hit{color:var(--good);font-weight:700}.item.hit{border-color:var(--good)}
.lists{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr));gap:.75rem 1.5rem;margin-top:.5rem}
h4{font-size:.9rem;margin:0}
.lists ol{margin:.25rem 0 0;padding-left:1.9rem;font-size:.9rem}
.lists li{border-bottom:1px solid var(--line);overflow-wrap:anywhere}
.lists li b{float:right;margin-left:.5rem;color:var(--soft);font-weight:400;font-variant-numeric:tabular-nums}
@media screen and (max-width:40rem){th,td{padding:.3rem .4rem;font-size:.9rem}th:first-child,td:first-child{min-width:6.5rem}.facts th{width:7rem}svg text{font-size:16px}}
.good{color:var(--good)}.bad{color:var(--bad);font-weight:700}
pre{margin:0;padding:.9rem;overflow-x:auto;background:var(--card);border-radius:.5rem;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media print{html{font-size:10pt}body{max-width:none;padding:0;font-size:1rem}.scroll{overflow:visible}th,td,thead th{padding:.15rem .15rem;font-size:7pt;white-space:normal}td.text{min-width:0}th:first-child,td:first-child{position:static;min-width:0}.charts{grid-template-columns:1fr 1fr}.chart,.example,tr{break-inside:avoid}thead{display:table-header-group}.chart,.example{border:1px solid var(--line)}pre{white-space:pre-wrap}h2{break-after:avoid}}
)css";

std::string FormatValue(double value, ReportColumn::Format format) {
  switch (format) {
    case ReportColumn::Format::kMetric:
      return absl::StrFormat("%.4f", value);
    case ReportColumn::Format::kPercent:
      return absl::StrFormat("%.2f %%", 100 * value);
    case ReportColumn::Format::kNumber:
      return FormatNumber(value);
  }
  return FormatNumber(value);
}

std::optional<double> Value(const ReportRow& row, const std::string& key) {
  const auto found = row.values.find(key);
  if (found == row.values.end() || !std::isfinite(found->second)) return std::nullopt;
  return found->second;
}

std::optional<double> BestValue(const ReportTable& table, const ReportColumn& column) {
  std::optional<double> best;
  if (column.best == ReportColumn::Best::kNone || table.rows.size() < 2) return best;
  for (const ReportRow& row : table.rows) {
    const std::optional<double> value = Value(row, column.key);
    if (!value) continue;
    const bool better = !best || (column.best == ReportColumn::Best::kHigh ? *value > *best : *value < *best);
    if (better) best = value;
  }
  return best;
}

void AppendTable(const ReportTable& table, std::string* html) {
  absl::StrAppend(html, "<section><h2>", EscapeHtml(table.title),
                  "</h2><div class=\"scroll\"><table><thead><tr><th></th>");
  for (const ReportColumn& column : table.columns) absl::StrAppend(html, "<th>", EscapeHtml(column.header), "</th>");
  absl::StrAppend(html, "</tr></thead><tbody>");
  for (const ReportRow& row : table.rows) {
    absl::StrAppend(html, "<tr><td>", EscapeHtml(row.name), "</td>");
    for (const ReportColumn& column : table.columns) {
      const std::optional<double> value = Value(row, column.key);
      if (!value) {
        const auto text = row.texts.find(column.key);
        if (text == row.texts.end()) {
          absl::StrAppend(html, "<td>-</td>");
        } else {
          absl::StrAppend(html, "<td class=\"text\">", EscapeHtml(text->second), "</td>");
        }
        continue;
      }
      const bool best = value == BestValue(table, column);
      absl::StrAppend(html, best ? "<td class=\"best\">" : "<td>", FormatValue(*value, column.format), "</td>");
    }
    absl::StrAppend(html, "</tr>");
  }
  absl::StrAppend(html, "</tbody></table></div>");
  if (!table.note.empty()) absl::StrAppend(html, "<p>", EscapeHtml(table.note), "</p>");
  absl::StrAppend(html, "</section>");
}

void AppendLedger(const ReportLedger& ledger, std::string* html) {
  const std::pair<const char*, uint64_t> cells[] = {{"issued", ledger.issued},       {"trained", ledger.trained},
                                                    {"dropped", ledger.dropped},     {"failed", ledger.failed},
                                                    {"cancelled", ledger.cancelled}, {"open", ledger.open},
                                                    {"frontier", ledger.frontier}};
  absl::StrAppend(html, "<section><h2>Ledger of groups</h2><div class=\"scroll\"><table><thead><tr>");
  for (const auto& [name, count] : cells) absl::StrAppend(html, "<th>", name, "</th>");
  absl::StrAppend(html, "</tr></thead><tbody><tr>");
  for (const auto& [name, count] : cells)
    absl::StrAppend(html, "<td>", FormatNumber(static_cast<double>(count)), "</td>");
  absl::StrAppend(html, "</tr></tbody></table></div>");
  if (ledger.Balances()) {
    absl::StrAppend(html, "<p class=\"good\">Balanced: issued = trained + dropped + failed + cancelled + open.</p>");
  } else {
    absl::StrAppend(html, "<p class=\"bad\">Does not balance: ", ledger.issued, " issued, but ",
                    ledger.trained + ledger.dropped + ledger.failed + ledger.cancelled + ledger.open,
                    " accounted for.</p>");
  }
  absl::StrAppend(html, "</section>");
}

void AppendExamples(const ReportData& data, std::string* html) {
  if (data.examples.empty()) return;
  absl::StrAppend(html, "<section><h2>Examples</h2>");
  if (!data.examples_note.empty()) absl::StrAppend(html, "<p>", EscapeHtml(data.examples_note), "</p>");
  for (const ReportExample& example : data.examples) {
    absl::StrAppend(html, "<article class=\"example\"><h3>", EscapeHtml(example.title), "</h3><p>History: ");
    for (const std::string& item : example.history) {
      absl::StrAppend(html, "<span class=\"item\">", EscapeHtml(item), "</span> ");
    }
    absl::StrAppend(html, "&#8594; <span class=\"item hit\">", EscapeHtml(example.target),
                    "</span></p><div class=\"lists\">");
    for (const ReportExample::List& list : example.lists) {
      absl::StrAppend(html, "<div><h4>", EscapeHtml(list.name), "</h4>");
      if (!list.note.empty()) absl::StrAppend(html, "<p>", EscapeHtml(list.note), "</p>");
      absl::StrAppend(html, "<ol>");
      for (const ReportExample::Item& item : list.items) {
        absl::StrAppend(html, item.name == example.target ? "<li class=\"hit\">" : "<li>", "<span>",
                        EscapeHtml(item.name), "</span>");
        if (!item.score.empty()) absl::StrAppend(html, " <b>", EscapeHtml(item.score), "</b>");
        absl::StrAppend(html, "</li>");
      }
      absl::StrAppend(html, "</ol></div>");
    }
    absl::StrAppend(html, "</div></article>");
  }
  absl::StrAppend(html, "</section>");
}

void AppendFacts(const char* title, const std::vector<ReportFact>& facts, std::string* html) {
  if (facts.empty()) return;
  absl::StrAppend(html, "<section><h2>", title, "</h2><table class=\"facts\"><tbody>");
  for (const ReportFact& fact : facts) {
    absl::StrAppend(html, "<tr><th>", EscapeHtml(fact.name), "</th><td>", EscapeHtml(fact.value), "</td></tr>");
  }
  absl::StrAppend(html, "</tbody></table></section>");
}

}  // namespace

ReportTable ClosingTable(const std::string& note, const std::vector<ReportRow>& rows) {
  using Format = ReportColumn::Format;
  using Best = ReportColumn::Best;
  ReportTable table;
  table.title = "Results";
  table.note = note;
  table.rows = rows;
  const std::vector<ReportColumn> columns = {
      {"hr@1", "HR@1", Format::kMetric, Best::kHigh},
      {"hr@3", "HR@3", Format::kMetric, Best::kHigh},
      {"hr@5", "HR@5", Format::kMetric, Best::kHigh},
      {"hr@10", "HR@10", Format::kMetric, Best::kHigh},
      {"hr@20", "HR@20", Format::kMetric, Best::kHigh},
      {"hr@50", "HR@50", Format::kMetric, Best::kHigh},
      {"ndcg@10", "NDCG@10", Format::kMetric, Best::kHigh},
      {"mrr@10", "MRR@10", Format::kMetric, Best::kHigh},
      {"hallucination", "hallucination", Format::kPercent, Best::kNone},
      {"hallucination@50", "of 50 beams", Format::kPercent, Best::kNone},
      {"admission", "admission", Format::kPercent, Best::kNone},
  };
  for (const ReportColumn& column : columns) {
    if (std::any_of(rows.begin(), rows.end(),
                    [&](const ReportRow& row) { return Value(row, column.key).has_value(); })) {
      table.columns.push_back(column);
    }
  }
  return table;
}

std::string RenderReport(const ReportData& data) {
  std::string html = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
      "<title>",
      EscapeHtml(data.title), "</title><style>", kStyle, "</style></head><body>\n<header><h1>", EscapeHtml(data.title),
      "</h1>");
  if (!data.summary.empty()) absl::StrAppend(&html, "<p class=\"lead\">", EscapeHtml(data.summary), "</p>");
  absl::StrAppend(&html, "</header>\n<main>");
  for (const ReportTable& table : data.tables) AppendTable(table, &html);
  if (!data.charts.empty()) {
    absl::StrAppend(&html, "<section><h2>Course of the run</h2><div class=\"charts\">\n");
    for (const ReportChart& chart : data.charts) absl::StrAppend(&html, RenderChart(chart), "\n");
    absl::StrAppend(&html, "</div></section>");
  }
  AppendExamples(data, &html);
  if (data.ledger.has_value()) AppendLedger(*data.ledger, &html);
  AppendFacts("Data set", data.data, &html);
  AppendFacts("Environment", data.environment, &html);
  if (!data.commands.empty()) {
    absl::StrAppend(&html, "<section><h2>To repeat this run</h2><pre>");
    for (const std::string& command : data.commands) absl::StrAppend(&html, EscapeHtml(command), "\n");
    absl::StrAppend(&html, "</pre></section>");
  }
  if (!data.spec_yaml.empty()) {
    absl::StrAppend(&html, "<section><h2>Effective spec</h2><pre>", EscapeHtml(data.spec_yaml), "</pre></section>");
  }
  absl::StrAppend(&html, "</main></body></html>\n");
  return html;
}

absl::Status WriteReport(const std::string& path, const ReportData& data) {
  return WriteFileAtomically(path, absl::string_view(RenderReport(data)));
}

}  // namespace sluice::learner
