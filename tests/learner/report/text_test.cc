#include "learner/report/text.h"

#include <limits>

#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

TEST(EscapeHtmlTest, MarkupBecomesText) {
  EXPECT_EQ(EscapeHtml("<a href=\"x\">'&'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(EscapeHtml("tab\tand\nline"), "tab\tand\nline");
}

TEST(EscapeHtmlTest, GoodUtf8StaysAndBadBytesAreReplaced) {
  const std::string good = "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x99\x82";
  EXPECT_EQ(EscapeHtml(good), good);
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(EscapeHtml("a\xFFz"), "a" + mark + "z");          // never valid
  EXPECT_EQ(EscapeHtml("a\xC3"), "a" + mark);                 // cut
  EXPECT_EQ(EscapeHtml("\xC0\xBC"), mark + mark);             // overlong '<'
  EXPECT_EQ(EscapeHtml("\xED\xA0\x80"), mark + mark + mark);  // surrogate
  EXPECT_EQ(EscapeHtml(std::string("a\0b", 3)), "a" + mark + "b");
}

TEST(FormatNumberTest, ShowsWhatPeopleRead) {
  EXPECT_EQ(FormatNumber(0), "0");
  EXPECT_EQ(FormatNumber(1234), "1234");
  EXPECT_EQ(FormatNumber(-1234567),
            "-1\xE2\x80\x89"
            "234\xE2\x80\x89"
            "567");
  EXPECT_EQ(FormatNumber(0.059712), "0.05971");
  EXPECT_EQ(FormatNumber(std::numeric_limits<double>::quiet_NaN()), "-");
}

}  // namespace
}  // namespace sluice::learner
