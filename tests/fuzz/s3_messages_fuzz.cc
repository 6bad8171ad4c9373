// What an S3-compatible service answers.
#include "common/object_store/s3_messages.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(sluice::fuzz::Text(data, size));
  if (const auto page = sluice::ParseListPage(text); page.ok()) {
    for (const sluice::ObjectInfo& object : page->objects) {
      sluice::fuzz::Require(!object.key.empty() && object.bytes >= 0, "an object without a key, or of negative size");
    }
  }
  if (const auto id = sluice::ParseUploadId(text); id.ok())
    sluice::fuzz::Require(!id->empty(), "an upload without an id");
  (void)sluice::ParseCompleted(text);
  sluice::fuzz::Require(!sluice::ErrorFromAnswer(400, text, "x").ok(), "an error that is none");
  sluice::fuzz::Require(sluice::ErrorFromAnswer(400, text, "x").message().size() < 4000, "an endless message");
  return 0;
}
