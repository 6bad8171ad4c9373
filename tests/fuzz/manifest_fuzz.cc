// The manifest of a checkpoint, which may come from a store that others write to.
#include "common/object_store/object_store.h"
#include "learner/mirror/checkpoint_manifest.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto files = sluice::learner::ParseCheckpointManifest(std::string(sluice::fuzz::Text(data, size)), "x", 1000);
  if (!files.ok()) return 0;
  sluice::fuzz::Require(!files->empty(), "a manifest of nothing was taken");
  for (const sluice::learner::ManifestFile& file : *files) {
    sluice::fuzz::Require(sluice::CheckKey(file.name).ok(), "a file that could be elsewhere was taken");
    sluice::fuzz::Require(*file.content.bytes >= 0 && *file.content.bytes <= 1000,
                          "a size out of its bounds was taken");
    sluice::fuzz::Require(file.content.sha256.size() == 64, "a digest that is none was taken");
  }
  return 0;
}
