#include "common/catalog/readers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ReadersTest : public ::testing::Test {
 protected:
  ReadersTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/readers_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name(), "_", getpid());
    EXPECT_TRUE(RemoveAll(folder_).ok());
    EXPECT_TRUE(MakeDirectories(folder_).ok());
  }
  ~ReadersTest() override { EXPECT_TRUE(RemoveAll(folder_).ok()); }

  absl::StatusOr<EventLog> Read(const std::string& name, const std::string& text,
                                const ReadEventsOptions& options = {}) {
    const std::string path = JoinPath(folder_, name);
    EXPECT_TRUE(RemoveAll(path).ok());
    std::ofstream(path, std::ios::binary) << text;  // a new file, without fsync: some tests write many
    return ReadEvents(JoinPath(folder_, name), options);
  }
  // "user item time", by name.
  static std::vector<std::string> Lines(const absl::StatusOr<EventLog>& log) {
    std::vector<std::string> lines;
    EXPECT_TRUE(log.ok()) << log.status();
    if (!log.ok()) return lines;
    for (const Event& event : log->events) {
      lines.push_back(absl::StrCat(log->user_names[event.user], " ", log->item_names[event.item], " ",
                                   static_cast<int64_t>(event.time)));
    }
    return lines;
  }
  void ExpectRefused(const std::string& name, const std::string& text, const std::string& message,
                     const ReadEventsOptions& options = {}) {
    const auto log = Read(name, text, options);
    EXPECT_EQ(log.status().code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(log.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(log.status().message()), HasSubstr(name));
  }

  std::string folder_;
};

TEST_F(ReadersTest, AnInterFileIsReadByItsHeader) {
  const auto log = Read("e.inter",
                        "user_id:token\titem_id:token\trating:float\ttimestamp:float\r\n"
                        "10\t242\t3\t881250949\r\n"
                        "9\t302\t4.5\t891717742\r\n"
                        "\n"
                        "10\t302\t1\t7");
  EXPECT_THAT(Lines(log), ElementsAre("10 242 881250949", "9 302 891717742", "10 302 7"));
  EXPECT_THAT(log->user_names, ElementsAre("9", "10")) << "in the order of their values";
  EXPECT_EQ(log->events[1].rating, 4.5f);
  EXPECT_TRUE(log->has_times);
  EXPECT_TRUE(log->has_ratings);
}

TEST_F(ReadersTest, AnInterFileNeedsNeitherRatingNorTimeNorOrder) {
  const auto log = Read("e.inter", "extra:float_seq\titem_id:token\tuser_id:token\n1 2\tb\tu\n\ta\tu\n");
  EXPECT_THAT(Lines(log), ElementsAre("u b 0", "u a 1"));
  EXPECT_FALSE(log->has_times);
  EXPECT_FALSE(log->has_ratings);
}

TEST_F(ReadersTest, BadInterFilesAreRefusedWithTheLine) {
  const std::string header = "user_id:token\titem_id:token\ttimestamp:float\n";
  ExpectRefused("e.inter", "", "e.inter:1: the file is empty");
  ExpectRefused("e.inter", header, "has no events");
  ExpectRefused("e.inter", "user_id\titem_id\n", ":1: want a header of name:type fields");
  ExpectRefused("e.inter", "user_id:token\titem_id:float\n", ":1: want item_id:token, got 'item_id:float'");
  ExpectRefused("e.inter", "user_id:token\ttimestamp:float\n", ":1: no column 'item_id'");
  ExpectRefused("e.inter", "user_id:token\titem_id:token\titem_id:token\n", ":1: two columns are named 'item_id'");
  ExpectRefused("e.inter", header + "1\t2\t3\n1\t2\n", "e.inter:3: want 3 fields, got 2");
  ExpectRefused("e.inter", header + "1\t2\t3\n\n\t2\t3\n", "e.inter:4: the user is empty");
  ExpectRefused("e.inter", header + "1\t\t3\n", "e.inter:2: the item is empty");
  ExpectRefused("e.inter", header + "1\t2\tsoon\n", "e.inter:2: the time 'soon' is not a finite number");
  ExpectRefused("e.inter", header + "1\t2\tnan\n", "not a finite number");
  ExpectRefused("e.inter", header + "1\t2\tinf\n", "not a finite number");
  ExpectRefused("e.inter", header + "1\t2\t\n", "not a finite number");
}

TEST_F(ReadersTest, ACsvFileIsReadByNamedColumns) {
  ReadEventsOptions options;
  options.user_column = "who";
  options.item_column = "what, exactly";
  options.rating_column = "stars";
  options.timestamp_column = "when";
  const auto log = Read("e.csv",
                        "\xef\xbb\xbfwhen,\"what, exactly\",note,who,stars\r\n"
                        "5,\"a \"\"b\"\", c\",,u1,2\r\n"
                        "6,\"two\nlines\",\"\",\"u2\",3.5\r\n"
                        "7,x,y,u1,-1",
                        options);
  EXPECT_THAT(Lines(log), ElementsAre("u1 a \"b\", c 5", "u2 two\nlines 6", "u1 x 7"));
  EXPECT_EQ(log->events[2].rating, -1);
  // The third record starts on line 5: the second one spans two.
  const std::string broken = "when,\"what, exactly\",note,who,stars\n5,a,b,c,1\n6,\"two\nlines\",\"\",u,1\n7,x,y\n";
  ExpectRefused("f.csv", broken, "f.csv:5: want 5 fields, got 3", options);
}

TEST_F(ReadersTest, BadCsvFilesAreRefusedWithTheLine) {
  ExpectRefused("e.csv", "user,item,timestamp\nu,\"open,1\n", "e.csv:2: a quoted field is not closed");
  ExpectRefused("e.csv", "user,item,timestamp\nu,\"a\"b,1\n", "e.csv:2: a quoted field goes on");
  ExpectRefused("e.csv", "user,item\nu,a\n", "e.csv:1: no column 'timestamp'; there are 'user, item'");
  ExpectRefused("e.csv", "\"user", "e.csv:1: a quoted field is not closed");
  ReadEventsOptions no_time;
  no_time.timestamp_column = "";
  EXPECT_THAT(Lines(Read("e.csv", "user,item\nu,b\nu,a\n", no_time)), ElementsAre("u b 0", "u a 1"));
}

TEST_F(ReadersTest, AJsonMapKeepsListOrder) {
  const auto log = Read("e.json", R"({"7": [3, "1", 2], "10": [], "9": [1]})");
  EXPECT_THAT(Lines(log), ElementsAre("7 3 0", "7 1 1", "7 2 2", "9 1 3"));
  EXPECT_THAT(log->user_names, ElementsAre("7", "9", "10"));
  EXPECT_THAT(log->item_names, ElementsAre("1", "2", "3"));
  EXPECT_EQ(log->events[0].item, 2) << "names 1 to n: number = name - 1";
  EXPECT_FALSE(log->has_times);
}

TEST_F(ReadersTest, NumbersFollowNamesAndNotLines) {
  EXPECT_EQ(Read("a.json", R"({"u": [2, 0, 1]})")->events[0].item, 2) << "names 0 to n - 1: number = name";
  EXPECT_THAT(Read("b.json", R"({"u": [10, 9, "x"]})")->item_names, ElementsAre("10", "9", "x"));
  EXPECT_THAT(Read("c.json", R"({"u": ["10", "09"]})")->item_names, ElementsAre("09", "10")) << "byte order";
  EXPECT_THAT(Read("d.json", R"({"u": [-1, 10, 9]})")->item_names, ElementsAre("-1", "10", "9")) << "byte order";
}

TEST_F(ReadersTest, BadJsonFilesAreRefusedWithThePlace) {
  ExpectRefused("e.json", R"({"a": [1], "b": [2], "a": [3]})", "user 'a' comes twice");
  ExpectRefused("e.json", "{\"a\": [1],\n\"b\": [2\n}", "e.json:3: not valid JSON");
  ExpectRefused("e.json", "", "not valid JSON");
  ExpectRefused("e.json", "[1, 2]", "want a JSON object of users, got a list");
  ExpectRefused("e.json", "{}", "has no events");
  ExpectRefused("e.json", R"({"a": []})", "has no events");
  ExpectRefused("e.json", R"({"a": 1})", "user 'a': want a list of items (text or integers), got a single value");
  ExpectRefused("e.json", R"({"a": {"b": 1}})", "user 'a': want a list of items (text or integers), got an object");
  ExpectRefused("e.json", R"({"a": [1, [2]]})", "got a list in it");
  ExpectRefused("e.json", R"({"a": [null]})", "got null in it");
  ExpectRefused("e.json", R"({"a": [1.5]})", "no integer");
  ExpectRefused("e.json", R"({"a": [""]})", "empty name");
  ExpectRefused("e.json", R"({"": [1]})", "a user's name is empty");
  ExpectRefused("e.json", "{\"a\": " + std::string(100000, '['), "got a list in it");
}

TEST_F(ReadersTest, TheFormatComesFromTheNameOrTheOption) {
  EXPECT_THAT(std::string(Read("events.txt", "{}").status().message()), HasSubstr("set format to inter, json or csv"));
  ReadEventsOptions options;
  options.format = *ParseEventFormat("json");
  EXPECT_THAT(Lines(Read("events.txt", R"({"u": [1]})", options)), ElementsAre("u 1 0"));
  EXPECT_EQ(ParseEventFormat("xml").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadEvents(JoinPath(folder_, "none.csv")).status().code(), absl::StatusCode::kNotFound);
  options.max_bytes = 5;
  EXPECT_THAT(std::string(Read("events.txt", R"({"u": [1]})", options).status().message()),
              HasSubstr("more than the limit of 5"));
}

TEST_F(ReadersTest, MutatedFilesAreReadOrRefused) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"m.csv", "user,item,timestamp\nu,\"a\"\"\",1\r\nv,b,2\n"},
      {"m.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\nv\tb\t2\n"},
      {"m.json", R"({"u": [1, "a"], "v": [2]})"}};
  const std::string alphabet = "{}[]\",:\t\r\n0123456789abu\\ -.\xff";
  Random random(9);
  for (const auto& [name, whole] : files) {
    for (int round = 0; round < 500; ++round) {
      std::string text = whole;
      for (uint64_t edits = 1 + random.Below(3); edits > 0; --edits) {
        const size_t at = random.Below(text.size());
        const char c = alphabet[random.Below(alphabet.size())];
        if (random.Below(2) == 0) {
          text[at] = c;
        } else {
          text.insert(at, 1, c);
        }
      }
      const auto log = Read(name, text);
      if (!log.ok()) {
        EXPECT_EQ(log.status().code(), absl::StatusCode::kDataLoss) << log.status();
        continue;
      }
      for (const Event& event : log->events) {
        ASSERT_LT(event.user, static_cast<int32_t>(log->user_names.size()));
        ASSERT_LT(event.item, static_cast<int32_t>(log->item_names.size()));
      }
    }
  }
}

}  // namespace
}  // namespace sluice
