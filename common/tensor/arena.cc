#include "common/tensor/arena.h"

#include <torch/types.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {

int ArenaLayout::Add(std::string name, std::vector<int64_t> shape, bool decays) {
  Entry entry;
  entry.name = std::move(name);
  entry.shape = std::move(shape);
  entry.decays = decays;
  entry.offset = size_;
  entry.size = 1;
  for (const int64_t size : entry.shape) {
    SLUICE_CHECK(size > 0, absl::StrCat("size of ", entry.name));
    entry.size *= size;
  }
  size_ += (entry.size + kAlignment - 1) / kAlignment * kAlignment;
  entries_.push_back(std::move(entry));
  return static_cast<int>(entries_.size()) - 1;
}

std::string ArenaLayout::Digest() const {
  std::string text;
  for (const Entry& entry : entries_) {
    absl::StrAppend(&text, entry.name, "[", absl::StrJoin(entry.shape, ","), "]@", entry.offset, "\n");
  }
  absl::StrAppend(&text, "size ", size_, "\n");
  return Sha256(text);
}

at::Tensor ArenaLayout::View(const at::Tensor& arena, int index) const {
  const Entry& entry = entries_[index];
  return arena.narrow(0, entry.offset, entry.size).view(entry.shape);
}

at::Tensor ArenaLayout::Allocate(at::ScalarType dtype) const {
  return at::zeros({size_}, at::TensorOptions().dtype(dtype));
}

at::Tensor ArenaLayout::DecayMask(at::ScalarType dtype) const {
  at::Tensor mask = Allocate(dtype);
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].decays) View(mask, static_cast<int>(i)).fill_(1);
  }
  return mask;
}

at::Tensor TrainableView(const at::Tensor& values, const at::Tensor& gradients) {
  at::Tensor leaf = values.detach();
  leaf.set_requires_grad(true);
  leaf.mutable_grad() = gradients.detach();
  return leaf;
}

}  // namespace sluice
