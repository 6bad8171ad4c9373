#include "learner/record/group_record.h"

#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr absl::string_view kMagic = "SLUICEGR";
// Longer lists than any job can have: a damaged length must not ask for the impossible.
constexpr uint32_t kMaxList = 1 << 20;

// Writes fields one after the other; has the same face as Reader, so that one function is both directions.
class Writer {
 public:
  static constexpr bool kReads = false;
  template <typename T>
  void Number(const T& value) {
    static_assert(std::is_arithmetic_v<T>);
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    bytes_.append(bytes, sizeof(T));
  }
  bool ok() const { return true; }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  static constexpr bool kReads = true;
  explicit Reader(absl::string_view bytes) : left_(bytes) {}
  template <typename T>
  void Number(T& value) {
    static_assert(std::is_arithmetic_v<T>);
    if (!ok_ || left_.size() < sizeof(T)) {
      ok_ = false;
      value = T();
      return;
    }
    std::memcpy(&value, left_.data(), sizeof(T));
    left_.remove_prefix(sizeof(T));
  }
  void Fail() { ok_ = false; }
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && left_.empty(); }
  size_t left() const { return left_.size(); }

 private:
  absl::string_view left_;
  bool ok_ = true;
};

// The machine's own byte order is the file's: the only ones that Sluice runs on are little-endian.
static_assert(std::endian::native == std::endian::little);

template <typename Stream, typename Value>
void Field(Stream& stream, Value& value) {
  if constexpr (std::is_same_v<std::remove_const_t<Value>, bool>) {
    uint8_t byte = value ? 1 : 0;
    stream.Number(byte);
    if constexpr (Stream::kReads) {
      if (byte > 1) stream.Fail();
      value = byte == 1;
    }
  } else if constexpr (std::is_enum_v<Value>) {
    int32_t number = static_cast<int32_t>(value);
    stream.Number(number);
    if constexpr (Stream::kReads) value = static_cast<Value>(number);
  } else {
    stream.Number(value);
  }
}

// A list or a text; `element` handles one element.
template <typename Stream, typename List, typename Element>
void ListField(Stream& stream, List& list, const Element& element) {
  uint32_t size = static_cast<uint32_t>(list.size());
  stream.Number(size);
  if constexpr (Stream::kReads) {
    if (size > kMaxList || size > stream.left()) {
      stream.Fail();
      size = 0;
    }
    list.resize(size);
  }
  for (auto& one : list) element(one);
}

template <typename Stream, typename List>
void Numbers(Stream& stream, List& list) {
  ListField(stream, list, [&stream](auto& one) { stream.Number(one); });
}

template <typename Stream, typename Optional>
void OptionalField(Stream& stream, Optional& value) {
  bool present = value.has_value();
  Field(stream, present);
  if constexpr (Stream::kReads) {
    if (present) value.emplace();
  }
  if (present) Field(stream, *value);
}

template <typename Stream, typename Header>
void Fields(Stream& stream, Header& header, RecordHeader*) {
  Numbers(stream, header.catalog_version);
  Field(stream, header.levels);
  Field(stream, header.groups_per_step);
}

template <typename Stream, typename Group>
void GroupFields(Stream& stream, Group& group) {
  Field(stream, group.attempt);
  Field(stream, group.lease_id);
  Field(stream, group.behavior_version);
  Numbers(stream, group.catalog_version);
  ListField(stream, group.completions, [&stream](auto& completion) {
    Numbers(stream, completion.tokens);
    Field(stream, completion.leaf);
    Numbers(stream, completion.log_probs_full);
    Numbers(stream, completion.log_probs_trie);
  });
  Field(stream, group.score_status);
  Numbers(stream, group.score_error);
  Numbers(stream, group.ranker_version);
  ListField(stream, group.heads, [&stream](auto& head) {
    Numbers(stream, head.name);
    Numbers(stream, head.completion_scores);
    Field(stream, head.target_score);
    Numbers(stream, head.negative_scores);
    Numbers(stream, head.history_scores);
  });
  Numbers(stream, group.negative_leaves);
  Numbers(stream, group.history_items);
  Numbers(stream, group.target_log_probs_full);
  Numbers(stream, group.target_log_probs_trie);
}

template <typename Stream, typename Number>
void HeadFields(Stream& stream, Number& step, Number& learner_version, Number& ordinal) {
  Field(stream, step);
  Field(stream, learner_version);
  Field(stream, ordinal);
}

template <typename Stream, typename Record>
void Fields(Stream& stream, Record& record, GroupRecord*) {
  HeadFields(stream, record.step, record.learner_version, record.ordinal);
  Field(stream, record.user);
  Field(stream, record.target);
  Field(stream, record.target_leaf);
  Numbers(stream, record.target_tokens);
  Field(stream, record.region);
  OptionalField(stream, record.reliable);
  Field(stream, record.bad_data);
  bool sampled = record.group.has_value();
  Field(stream, sampled);
  if constexpr (Stream::kReads) {
    if (sampled) record.group.emplace();
  }
  if (sampled) GroupFields(stream, *record.group);
  Numbers(stream, record.history_leaves);
  Field(stream, record.gate_open);
  Field(stream, record.gate_reason);
  Field(stream, record.reason);
  Field(stream, record.admission);
  OptionalField(stream, record.reliability);
}

bool IsReason(GateReason reason) { return static_cast<int>(reason) >= 0 && static_cast<int>(reason) < kNumGateReasons; }

}  // namespace

JudgeInput InputOf(const GroupRecord& record) {
  JudgeInput input;
  input.ordinal = record.ordinal;
  input.group = record.group ? &*record.group : nullptr;
  input.target_leaf = record.target_leaf;
  input.target_tokens = record.target_tokens;
  input.history_leaves = record.history_leaves;
  input.region = record.region;
  input.reliable = record.reliable;
  // Why there is no group is in the record as the reason alone.
  input.reward_outage = !record.group && record.reason == GateReason::kRewardUnavailable;
  return input;
}

std::string Encode(const RecordHeader& header) {
  Writer writer;
  for (const char c : kMagic) writer.Number(c);
  writer.Number(kRecordVersion);
  Fields(writer, header, static_cast<RecordHeader*>(nullptr));
  return writer.Take();
}

std::string Encode(const GroupRecord& record) {
  Writer writer;
  Fields(writer, record, static_cast<GroupRecord*>(nullptr));
  return writer.Take();
}

absl::StatusOr<RecordHeader> DecodeHeader(absl::string_view bytes) {
  Reader reader(bytes);
  for (const char wanted : kMagic) {
    char c = 0;
    reader.Number(c);
    if (c != wanted) return absl::DataLossError("not a file of recorded groups");
  }
  uint32_t version = 0;
  reader.Number(version);
  if (version != kRecordVersion) {
    return absl::DataLossError(
        absl::StrCat("recorded groups of format version ", version, "; this release reads version ", kRecordVersion));
  }
  RecordHeader header;
  Fields(reader, header, static_cast<RecordHeader*>(nullptr));
  if (!reader.at_end() || header.groups_per_step == 0)
    return absl::DataLossError("the header of the record is damaged");
  return header;
}

absl::StatusOr<GroupRecord> DecodeRecord(absl::string_view bytes) {
  Reader reader(bytes);
  GroupRecord record;
  Fields(reader, record, static_cast<GroupRecord*>(nullptr));
  if (!reader.at_end()) return absl::DataLossError("a recorded group is shorter or longer than its fields");
  if (!IsReason(record.gate_reason) || !IsReason(record.reason)) {
    return absl::DataLossError(absl::StrCat("ordinal ", record.ordinal, ": unknown gate reason"));
  }
  if (record.group) {
    record.group->ordinal = record.ordinal;
    const int status = static_cast<int>(record.group->score_status);
    if (status < 0 || status > static_cast<int>(ScoreStatus::kNotAsked)) {
      return absl::DataLossError(absl::StrCat("ordinal ", record.ordinal, ": unknown score status ", status));
    }
    if (record.history_leaves.size() != record.group->history_items.size()) {
      return absl::DataLossError(absl::StrCat("ordinal ", record.ordinal, ": want ", record.group->history_items.size(),
                                              " leaves of the history, got ", record.history_leaves.size()));
    }
  }
  return record;
}

absl::StatusOr<RecordHead> DecodeHead(absl::string_view bytes) {
  Reader reader(bytes);
  RecordHead head;
  uint64_t learner_version = 0;
  HeadFields(reader, head.step, learner_version, head.ordinal);
  if (!reader.ok()) return absl::DataLossError("a recorded group is shorter than its first fields");
  return head;
}

}  // namespace sluice::learner
