// Flat arenas: named tensors laid out in one buffer, so that an optimizer step, an all-reduce, a snapshot or a
// publication is one call over one buffer.
#ifndef SLUICE_COMMON_TENSOR_ARENA_H_
#define SLUICE_COMMON_TENSOR_ARENA_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// Where each tensor lies. Offsets are multiples of kAlignment elements, so that every view starts on a cache line;
// the gaps hold zeros for ever (their gradients are zero). Not thread-safe while entries are added.
class ArenaLayout {
 public:
  static constexpr int64_t kAlignment = 16;

  struct Entry {
    std::string name;
    std::vector<int64_t> shape;
    int64_t offset = 0;   // elements
    int64_t size = 0;     // elements
    bool decays = false;  // weight decay applies
  };

  // Appends a tensor and returns its index. Sizes must be positive, names distinct.
  int Add(std::string name, std::vector<int64_t> shape, bool decays);

  const std::vector<Entry>& entries() const { return entries_; }
  const Entry& entry(int index) const { return entries_[index]; }
  // Elements of an arena of this layout, gaps included.
  int64_t size() const { return size_; }

  // SHA-256 over names, shapes and offsets: arenas of equal digests can be exchanged.
  std::string Digest() const;

  // The entry's part of `arena` in its shape; shares memory.
  at::Tensor View(const at::Tensor& arena, int index) const;

  // A zeroed arena. dtype: float32 or float64.
  at::Tensor Allocate(at::ScalarType dtype) const;

  // 1 where weight decay applies, 0 elsewhere, gaps included; [size()].
  at::Tensor DecayMask(at::ScalarType dtype) const;

 private:
  std::vector<Entry> entries_;
  int64_t size_ = 0;
};

// A leaf tensor over `values` whose .grad is `gradients`: backward accumulates into that memory, in place.
// Both must be of one shape and outlive nothing: the tensors keep their storage alive.
at::Tensor TrainableView(const at::Tensor& values, const at::Tensor& gradients);

}  // namespace sluice

#endif  // SLUICE_COMMON_TENSOR_ARENA_H_
