#include "tests/testing/fake_device/fake_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/stack.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/DeviceType.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>
#include <torch/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace sluice {
namespace {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;

std::atomic<int> waits = 0;
// Set while an operation computes on the processor: its own copies are the device's business.
thread_local bool inside = false;

class Inside {
 public:
  Inside() : before_(std::exchange(inside, true)) {}
  ~Inside() { inside = before_; }

 private:
  const bool before_;
};

// One stretch of memory, mapped twice: where tensors are said to lie nobody may touch it, and where operations find it
// they may. Blocks are powers of two and come back to a list of their size.
class Memory {
 public:
  static Memory& Get() {
    static Memory& memory = *new Memory();
    return memory;
  }

  void* Take(size_t bytes) {
    if (bytes == 0) return nullptr;
    const size_t size = std::bit_ceil(std::max<size_t>(bytes, 64));
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<void*>& free = free_[size];
    if (free.empty()) {
      TORCH_CHECK(used_ + size <= kBytes, "the fake device's memory is full");
      free.push_back(shown_ + used_);
      used_ += size;
      // A block's size, to know its list when it comes back.
      sizes_[free.back()] = size;
    }
    void* const block = free.back();
    free.pop_back();
    return block;
  }

  void GiveBack(void* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_[sizes_.at(block)].push_back(block);
  }

  void* Real(const void* shown) const {
    return shown == nullptr ? nullptr : real_ + (static_cast<const char*>(shown) - shown_);
  }

 private:
  static constexpr size_t kBytes = size_t{4} << 30;  // of addresses; pages are made when they are written

  Memory() {
    const int file = memfd_create("fake-device", 0);
    TORCH_CHECK(file >= 0 && ftruncate(file, kBytes) == 0, "no memory for the fake device");
    shown_ = static_cast<char*>(mmap(nullptr, kBytes, PROT_NONE, MAP_SHARED, file, 0));
    real_ = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    close(file);
    TORCH_CHECK(shown_ != MAP_FAILED && real_ != MAP_FAILED, "no addresses for the fake device");
  }

  std::mutex mutex_;
  char* shown_ = nullptr;
  char* real_ = nullptr;
  size_t used_ = 0;
  std::map<size_t, std::vector<void*>> free_;
  std::map<void*, size_t> sizes_;
};

class FakeAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const block = Memory::Get().Take(bytes);
    return {block, block, &Delete, c10::Device(kType, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Delete; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(Memory::Get().Real(to), Memory::Get().Real(from), bytes);
  }

 private:
  static void Delete(void* block) {
    if (block != nullptr) Memory::Get().GiveBack(block);
  }
};

FakeAllocator& Allocator() {
  static FakeAllocator& allocator = *new FakeAllocator();
  return allocator;
}

struct FakeGuard : public c10::impl::NoOpDeviceGuardImpl<kType> {
  c10::Device exchangeDevice(c10::Device) const override { return c10::Device(kType, 0); }
  c10::Device getDevice() const override { return c10::Device(kType, 0); }
  c10::Stream getStream(c10::Device) const noexcept override { return Stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return Stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return Stream(); }
  // One queue: what is asked for later happens later.
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return Stream(); }
  void* getStreamNativeHandle(const c10::Stream) const override { return nullptr; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}

 private:
  static c10::Stream Stream() { return c10::Stream(c10::Stream::DEFAULT, c10::Device(kType, 0)); }
};

struct FakeHooks : public at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  // Seeding the process seeds every accelerator.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DataPtr grown = Allocator().allocate(bytes);
    if (storage.data() != nullptr && bytes > 0) {
      Allocator().copy_data(grown.get(), storage.data(), std::min(bytes, storage.nbytes()));
    }
    c10::StorageImpl* const impl = storage.unsafeGetStorageImpl();
    impl->set_data_ptr(std::move(grown));
    impl->set_nbytes(bytes);
  }
};

// The tensor's memory as the processor may use it.
at::Tensor OnProcessor(const at::Tensor& tensor) {
  if (tensor.device().is_cpu()) return tensor;
  return at::from_blob(Memory::Get().Real(tensor.data_ptr()), tensor.sizes(), tensor.strides(),
                       tensor.options().device(at::kCPU).requires_grad(false));
}

at::Tensor Empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  return at::detail::empty_generic(size, &Allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor EmptyStrided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                        std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      size, stride, &Allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  // To the host there is always a wait before the values are used; from it a copy may be left to itself.
  const bool within = from.device() == to.device();
  if (!inside && !within && (to.device().is_cpu() || !non_blocking)) ++waits;
  const Inside here;
  OnProcessor(to).copy_(OnProcessor(from));
  return to;
}

at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  at::native::resize_(to, from.sizes());
  return CopyFrom(from, to, true);
}

at::Scalar ReadScalar(const at::Tensor& tensor) {
  if (!inside) ++waits;
  return OnProcessor(tensor).item();
}

const at::Tensor& Resize(const at::Tensor& tensor, c10::IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  return at::native::resize_(tensor, size, format);
}

at::Tensor AsStrided(const at::Tensor& tensor, c10::IntArrayRef size, c10::IntArrayRef stride,
                     std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(tensor, size, stride, offset);
}

at::Tensor View(const at::Tensor& tensor, c10::IntArrayRef size) { return at::native::view(tensor, size); }

at::Tensor ReshapeAlias(const at::Tensor& tensor, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return at::native::_reshape_alias(tensor, size, stride);
}

// Attention in its plain form: the processor's fused kernels know no such device.
int64_t ChooseAttention(const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                        double, bool, std::optional<double>, bool) {
  return 0;
}

void CheckOneDevice(const c10::OperatorHandle& op, const at::Tensor& tensor) {
  TORCH_CHECK(!tensor.defined() || !tensor.device().is_cpu() || tensor.dim() == 0, op.schema().name(),
              " mixes tensors of the device with one of the host, ", tensor.sizes());
}

void Fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  // Sizes that depend on values: a device must tell the host before it can go on.
  static const std::set<std::string>& kReads = *new std::set<std::string>{
      "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::_unique2", "aten::unique_dim", "aten::masked_select"};
  if (kReads.contains(op.schema().name()) && !inside) ++waits;
  for (const c10::IValue& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (value.isTensor()) CheckOneDevice(op, value.toTensor());
    if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) CheckOneDevice(op, tensor);
    }
  }
  const Inside here;
  at::native::cpu_fallback(op, stack);
}

}  // namespace

C10_REGISTER_GUARD_IMPL(PrivateUse1, FakeGuard);

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", Empty);
  library.impl("empty_strided", EmptyStrided);
  library.impl("_copy_from", CopyFrom);
  library.impl("_copy_from_and_resize", CopyFromAndResize);
  library.impl("_local_scalar_dense", ReadScalar);
  library.impl("resize_", Resize);
  library.impl("as_strided", AsStrided);
  library.impl("view", View);
  library.impl("_reshape_alias", ReshapeAlias);
  library.impl("_fused_sdp_choice", ChooseAttention);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&Fallback>());
}

c10::Device FakeDevice() {
  // Not before somebody asks: from here on LibTorch takes it for the process's accelerator, a GPU or not.
  static const c10::Device device = [] {
    static FakeHooks& hooks = *new FakeHooks();
    c10::register_privateuse1_backend("fake");
    at::RegisterPrivateUse1HooksInterface(&hooks);
    c10::SetAllocator(kType, &Allocator());
    return c10::Device(kType, 0);
  }();
  return device;
}

void* FakeDeviceMemory(const void* address) { return Memory::Get().Real(address); }

FakeDeviceWaits::FakeDeviceWaits() : before_(waits) {}
int FakeDeviceWaits::count() const { return waits - before_; }

}  // namespace sluice
