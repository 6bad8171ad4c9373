// The report of a run: one HTML file that needs nothing else, to read, to print and to send around.
//
// It fetches nothing (its content policy forbids it), follows the reader's light or dark setting, and fits narrow
// screens and paper. Everything that comes in is escaped.
#ifndef SLUICE_LEARNER_REPORT_REPORT_H_
#define SLUICE_LEARNER_REPORT_REPORT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "learner/report/chart.h"

namespace sluice::learner {

// A line of a table. A value that is not there, or not finite, shows as a dash: nothing measured is not zero.
struct ReportRow {
  std::string name;
  std::map<std::string, double> values;           // by column key
  std::map<std::string, std::string> texts = {};  // the same, for cells that are no single number
};

struct ReportColumn {
  std::string key;  // of ReportRow::values
  std::string header;
  enum class Format {
    kMetric,   // four decimals: 0.0597
    kPercent,  // a share as a percentage: 0.03 %
    kNumber,   // FormatNumber
  } format = Format::kMetric;
  // Which values are marked as the best of the column.
  enum class Best { kHigh, kLow, kNone } best = Best::kNone;
};

struct ReportTable {
  std::string title;
  std::string note;  // a sentence below; may be empty
  std::vector<ReportColumn> columns;
  std::vector<ReportRow> rows;
};

// The table that closes a run. Rows are, for example, the co-occurrence rule, the policy after SFT and after RL, with
// values named as RankingMetrics::ToMap does ("hr@1", "ndcg@10", "hallucination") and "admission", the share of groups
// whose gate was open. Columns that no row has are left out.
ReportTable ClosingTable(const std::string& note, const std::vector<ReportRow>& rows);

// What became of every group. issued = trained + dropped + failed + cancelled + open, or the report says that it is
// not so.
struct ReportLedger {
  uint64_t issued = 0, trained = 0, dropped = 0, failed = 0, cancelled = 0, open = 0, frontier = 0;

  bool Balances() const { return issued == trained + dropped + failed + cancelled + open; }
};

// What one user was offered: a list for each of several policies, side by side.
struct ReportExample {
  std::string title;                 // of the user
  std::vector<std::string> history;  // items, oldest first
  std::string target;
  struct Item {
    std::string name;
    std::string score;  // beside it; may be empty
  };
  struct List {
    std::string name;         // of the policy
    std::string note;         // for example where the target stands; may be empty
    std::vector<Item> items;  // best first; the target is marked
  };
  std::vector<List> lists;
};

struct ReportFact {
  std::string name;
  std::string value;
};

struct ReportData {
  std::string title;                // of the run
  std::string summary;              // the outcome in a sentence
  std::vector<ReportTable> tables;  // the closing table first
  std::vector<ReportChart> charts;
  std::string examples_note;  // a sentence above the examples
  std::vector<ReportExample> examples;
  std::optional<ReportLedger> ledger;   // rl only
  std::vector<ReportFact> data;         // name, order of ties, items, collisions of semantic IDs
  std::vector<ReportFact> environment;  // versions, machine, threads, wall time
  std::vector<std::string> commands;    // to repeat the run, one a line
  std::string spec_yaml;                // effective
};

// The whole page. Well-formed XML after the doctype. Parts without content are left out.
std::string RenderReport(const ReportData& data);

// RenderReport, written atomically. Errors of common/file.
absl::Status WriteReport(const std::string& path, const ReportData& data);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_REPORT_REPORT_H_
