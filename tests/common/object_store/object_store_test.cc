#include "common/object_store/object_store.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(CheckKeyTest, PathsOfPlainPartsAreKeys) {
  for (const char* key :
       {"a", "a/b", "step-1/model/config.json", "a b", "ü", "日本/x", "x=1+2&3", "..a", "a..", ".x", "%2e%2e"}) {
    EXPECT_TRUE(CheckKey(key).ok()) << key;
  }
}

TEST(CheckKeyTest, WhatCouldLeaveTheRootOrConfuseAServiceIsNone) {
  for (const absl::string_view key :
       {absl::string_view(""), absl::string_view("/a"), absl::string_view("a/"), absl::string_view("a//b"),
        absl::string_view(".."), absl::string_view("a/../b"), absl::string_view("./a"), absl::string_view("a\\b"),
        absl::string_view("a\nb"), absl::string_view("a\0b", 3), absl::string_view("a\x7f"), absl::string_view("x.tmp"),
        absl::string_view("\xff"), absl::string_view("\xc0\xaf"), absl::string_view("\xed\xa0\x80"),
        absl::string_view("\xe2\x82"), absl::string_view("\xf4\x90\x80\x80")}) {
    EXPECT_EQ(CheckKey(key).code(), absl::StatusCode::kInvalidArgument) << key;
  }
  EXPECT_TRUE(CheckKey(std::string(900, 'x')).ok());
  EXPECT_FALSE(CheckKey(std::string(901, 'x')).ok());
}

TEST(CheckPrefixTest, TheStartOfAKeyIsAPrefix) {
  for (const char* prefix : {"", "a", "a/", "a/b", ".", "a/."}) EXPECT_TRUE(CheckPrefix(prefix).ok()) << prefix;
  for (const char* prefix : {"/", "a//", "../", "a/../", "a\n"}) EXPECT_FALSE(CheckPrefix(prefix).ok()) << prefix;
}

}  // namespace
}  // namespace sluice
