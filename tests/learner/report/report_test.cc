#include "learner/report/report.h"

#include <cctype>
#include <limits>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/report/environment.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Names the first place where the page is not well-formed XML (tags nested and closed, attributes quoted, no bare
// ampersand); empty if it is.
std::string FirstFlaw(const std::string& page) {
  std::vector<std::string> open;
  size_t i = page.find('\n');  // after the doctype
  for (; i < page.size(); ++i) {
    if (page[i] == '&') {
      const size_t end = page.find(';', i);
      if (end == std::string::npos || end - i > 6) return "bare & at " + page.substr(i, 40);
    }
    if (page[i] == '>') return "bare > at " + page.substr(i, 40);
    if (page[i] != '<') continue;
    const bool closing = page[i + 1] == '/';
    size_t at = i + (closing ? 2 : 1);
    std::string name;
    while (at < page.size() && std::isalnum(static_cast<unsigned char>(page[at]))) name += page[at++];
    if (name.empty()) return "no tag at " + page.substr(i, 40);
    bool quoted = false;
    while (at < page.size() && (quoted || page[at] != '>')) {
      if (page[at] == '"') quoted = !quoted;
      if (page[at] == '<') return "< inside the tag " + page.substr(i, 40);
      ++at;
    }
    if (at >= page.size()) return "open tag at " + page.substr(i, 40);
    if (closing) {
      if (open.empty() || open.back() != name) return "wrong end " + page.substr(i, 40);
      open.pop_back();
    } else if (page[at - 1] != '/') {
      open.push_back(name);
    }
    if (name == "style" && !closing) {
      at = page.find("</style>", at) - 1;  // raw text in HTML
    }
    i = at;
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

ReportData FullReport() {
  ReportData data;
  data.title = "beauty <rl> & \"co\"";
  data.summary = "Done after 200 steps.";
  data.tables = {ClosingTable("Test split, 50 beams.",
                              {{"co-occurrence rule", {{"hr@10", 0.0789}, {"ndcg@10", 0.0497}}},
                               {"after SFT", {{"hr@10", 0.0597}, {"ndcg@10", 0.0347}, {"hallucination", 0.0002}}},
                               {"after RL", {{"hr@10", 0.0602}, {"hallucination", 0.0006}, {"admission", 0.1033}}}})};
  ReportChart loss;
  loss.title = "Loss </figure>";
  loss.series = {{.name = "NLL", .unit = "nats", .points = {{1, 4.5}, {2, 4.25}}}};
  ReportChart admission;
  admission.title = "Admission by reason";
  admission.stacked = true;
  admission.series = {{.name = "open", .unit = "", .points = {{1, 0.1}, {2, 0.2}}},
                      {.name = "difficulty", .unit = "", .points = {{1, 0.9}, {2, 0.8}}}};
  data.charts = {loss, admission};
  data.examples_note = "Users <by place>.";
  data.examples = {{.title = "User \"u\" & 1",
                    .history = {"a<b", "c"},
                    .target = "d&d",
                    .lists = {{"before", "Not in the list.", {{"x", "-1.25"}}}, {"after", "", {{"d&d", ""}}}}}};
  data.ledger = ReportLedger{.issued = 12800, .trained = 12795, .failed = 2, .cancelled = 3, .frontier = 12800};
  data.data = {{"Name", "beauty"}, {"Order", "ties keep line order"}, {"Semantic IDs", "12 101, 0 shared"}};
  data.environment = {{"Threads", "1 & only"}};
  data.commands = {"./sluice demo --data DIR && echo 'done'"};
  data.spec_yaml = "kind: rl # see https://example.org/?a=1&b=2\nname: '<script>alert(1)</script>'\n";
  return data;
}

TEST(ReportTest, PageIsWellFormedWhateverComesIn) {
  EXPECT_EQ(FirstFlaw(RenderReport(FullReport())), "");
  EXPECT_EQ(FirstFlaw(RenderReport({})), "");
  // The checker itself sees what is wrong.
  EXPECT_NE(FirstFlaw("<!DOCTYPE html>\n<p><b>x</p></b>"), "");
  EXPECT_NE(FirstFlaw("<!DOCTYPE html>\n<p>a & b</p>"), "");
  EXPECT_NE(FirstFlaw("<!DOCTYPE html>\n<p>"), "");
}

TEST(ReportTest, ContainsTheNumbersAndTexts) {
  const std::string page = RenderReport(FullReport());
  for (const char* text :
       {"0.0789", "0.0347", "0.0602", "0.02 %", "10.33 %", "4.25 nats", "difficulty", "ties keep line order",
        "Balanced", "kind: rl", "1 &amp; only", "&lt;script&gt;", "NDCG@10"}) {
    EXPECT_THAT(page, HasSubstr(text));
  }
}

TEST(ReportTest, FetchesNothingAndRunsNothing) {
  const std::string page = RenderReport(FullReport());
  for (const char* text : {"<script", "src=", "href=", "url(", "@import", "<link", "<iframe", "<img", "javascript:"}) {
    EXPECT_THAT(page, Not(HasSubstr(text)));
  }
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

TEST(ReportTest, WhatWasNotMeasuredIsADashAndNeverANumber) {
  ReportData data;
  data.tables = {ClosingTable(
      "", {{"a", {{"hr@10", 0.5}}}, {"b", {{"hr@1", 0.25}, {"hr@10", std::numeric_limits<double>::quiet_NaN()}}}})};
  const std::string page = RenderReport(data);
  EXPECT_THAT(page, HasSubstr("<tr><td>a</td><td>-</td><td class=\"best\">0.5000</td></tr>"));
  EXPECT_THAT(page, HasSubstr("<tr><td>b</td><td class=\"best\">0.2500</td><td>-</td></tr>"));
  EXPECT_THAT(page, Not(HasSubstr("HR@50")));  // nobody measured it
}

TEST(ReportTest, TextsStandWhereThereIsNoNumber) {
  ReportData data;
  ReportTable table;
  table.columns = {{"hr@10", "HR@10"}, {"hr@1", "HR@1"}};
  table.rows = {{"a", {{"hr@1", 0.5}}, {{"hr@10", "+0.1 [<0.2]"}, {"hr@1", "not this"}}}};
  data.tables = {table};
  EXPECT_THAT(RenderReport(data),
              HasSubstr("<tr><td>a</td><td class=\"text\">+0.1 [&lt;0.2]</td><td>0.5000</td></tr>"));
}

TEST(ReportTest, ALedgerThatDoesNotBalanceIsCalledOut) {
  ReportData data = FullReport();
  data.ledger->trained -= 1;
  const std::string page = RenderReport(data);
  EXPECT_THAT(page, HasSubstr("Does not balance: 12800 issued, but 12799 accounted for."));
  EXPECT_THAT(page, Not(HasSubstr("Balanced:")));
}

TEST(ReportTest, IsWrittenToItsPlaceOrSaysWhyNot) {
  const std::string path = JoinPath(::testing::TempDir(), "report_test.html");
  ASSERT_TRUE(WriteReport(path, FullReport()).ok());
  EXPECT_EQ(ReadFile(path).value(), RenderReport(FullReport()));
  EXPECT_FALSE(WriteReport(JoinPath(::testing::TempDir(), "no/such/folder/report.html"), FullReport()).ok());
}

TEST(ReportTest, ExamplesMarkTheTarget) {
  const std::string page = RenderReport(FullReport());
  EXPECT_THAT(page, HasSubstr("<li class=\"hit\"><span>d&amp;d</span></li>"));
  EXPECT_THAT(page, HasSubstr("<li><span>x</span> <b>-1.25</b></li>"));
  EXPECT_THAT(page, HasSubstr("<span class=\"item\">a&lt;b</span>"));
}

TEST(EnvironmentTest, SaysWhatItRunsOn) {
  EXPECT_EQ(ValueOfLine("processor\t: 0\nmodel name\t: Some CPU: fast\nmodel name : other\n", "model name"),
            "Some CPU: fast");
  EXPECT_EQ(ValueOfLine("", "model name"), "");
  std::vector<std::string> names;
  for (const ReportFact& fact : MachineFacts()) {
    names.push_back(fact.name);
    EXPECT_NE(fact.value, "") << fact.name;
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"Sluice", "system", "processors"}));
}

}  // namespace
}  // namespace sluice::learner
