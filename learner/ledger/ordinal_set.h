// A set of ordinals kept as disjoint half-open ranges: the terminal ordinals of a job are a few ranges however many
// there are. Not thread-safe.
#ifndef SLUICE_LEARNER_LEDGER_ORDINAL_SET_H_
#define SLUICE_LEARNER_LEDGER_ORDINAL_SET_H_

#include <cstdint>
#include <iterator>
#include <map>

namespace sluice::learner {

class OrdinalSet {
 public:
  bool Contains(uint64_t ordinal) const {
    auto after = ranges_.upper_bound(ordinal);
    return after != ranges_.begin() && ordinal < std::prev(after)->second;
  }

  // Adds [first, end). False, and no change, if any of it is in the set or it is empty.
  bool Add(uint64_t first, uint64_t end) {
    if (first >= end) return false;
    auto after = ranges_.lower_bound(first);
    if (after != ranges_.end() && after->first < end) return false;
    if (after != ranges_.begin() && std::prev(after)->second > first) return false;
    size_ += end - first;
    if (after != ranges_.end() && after->first == end) {
      end = after->second;
      after = ranges_.erase(after);
    }
    if (after != ranges_.begin() && std::prev(after)->second == first) {
      std::prev(after)->second = end;
    } else {
      ranges_.emplace_hint(after, first, end);
    }
    return true;
  }

  // Members above `ordinal`.
  uint64_t CountAbove(uint64_t ordinal) const {
    uint64_t count = 0;
    for (auto range = ranges_.rbegin(); range != ranges_.rend() && range->second > ordinal + 1; ++range) {
      count += range->second - (range->first > ordinal ? range->first : ordinal + 1);
    }
    return count;
  }

  uint64_t size() const { return size_; }
  // One past the largest member; 0 if empty.
  uint64_t end() const { return ranges_.empty() ? 0 : ranges_.rbegin()->second; }
  // Begin to end of each range, ascending; neighbours never touch.
  const std::map<uint64_t, uint64_t>& ranges() const { return ranges_; }

 private:
  std::map<uint64_t, uint64_t> ranges_;
  uint64_t size_ = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_ORDINAL_SET_H_
