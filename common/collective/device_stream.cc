#include "common/collective/device_stream.h"

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/types.h>

#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

class TorchStream : public DeviceStream {
 public:
  explicit TorchStream(const at::Device& device)
      : guard_(device.type()), stream_(guard_.getStreamFromGlobalPool(device)), asked_(device.type()) {}

  at::Device device() const override { return stream_.device(); }
  void* handle() override { return stream_.native_handle(); }
  void WaitForCaller() override {
    asked_.record(guard_.getStream(device()));
    asked_.block(stream_);
  }
  bool Done() override { return stream_.query(); }

 private:
  const c10::impl::VirtualGuardImpl guard_;
  const c10::Stream stream_;
  c10::Event asked_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceStream>> MakeTorchStream(const at::Device& device) {
  return CatchTorch("making a stream",
                    [&]() -> std::unique_ptr<DeviceStream> { return std::make_unique<TorchStream>(device); });
}

}  // namespace sluice
