// The file of people's tokens. What is taken means the same once it is written out.
#include "common/security/token.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto entries = sluice::ParseTokens(sluice::fuzz::Text(data, size), "input");
  if (!entries.ok()) return 0;
  std::string written;
  for (const sluice::TokenEntry& entry : *entries) written += sluice::TokenLine(entry) + "\n";
  const auto again = sluice::ParseTokens(written, "written");
  sluice::fuzz::Require(again.ok() && again->size() == entries->size(),
                        "good tokens are refused once they are written out");
  for (size_t i = 0; i < entries->size(); ++i) {
    sluice::fuzz::Require(sluice::TokenLine((*again)[i]) == sluice::TokenLine((*entries)[i]),
                          "a token is another once it is written out");
  }
  return 0;
}
