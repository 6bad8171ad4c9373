// Headers that lie about shapes, offsets and sizes; what opens must also be readable.
#include "common/safetensors/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = sluice::SafetensorsFile::Open(sluice::fuzz::FileWith(sluice::fuzz::Text(data, size)));
  if (!file.ok()) return 0;
  for (const auto& [name, info] : (*file)->tensors()) {
    const auto bytes = (*file)->Read(name);
    sluice::fuzz::Require(bytes.ok() && static_cast<int64_t>(bytes->size()) == info.bytes,
                          "a tensor of an accepted header cannot be read whole");
  }
  return 0;
}
