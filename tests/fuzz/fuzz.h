// What a fuzz target is made of: one function that must survive every input. Built twice (CMakeLists.txt): with
// libFuzzer by the preset fuzz, which searches; and everywhere with replay_main.cc, which repeats the corpus and a
// fixed set of its mutations, so that a plain test run and the sanitizers see the same code.
#ifndef SLUICE_TESTS_FUZZ_FUZZ_H_
#define SLUICE_TESTS_FUZZ_FUZZ_H_

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace sluice::fuzz {

inline absl::string_view Text(const uint8_t* data, size_t size) {
  return absl::string_view(reinterpret_cast<const char*>(data), size);
}

// Ends the process, as a sanitizer would.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

// The path of this process's file with this content, for readers that take paths. In memory; the next call replaces it.
inline std::string FileWith(absl::string_view content, absl::string_view ending = "") {
  const std::string path = absl::StrCat("/dev/shm/sluice-fuzz-", getpid(), ending);
  std::FILE* file = std::fopen(path.c_str(), "wb");
  Require(file != nullptr && std::fwrite(content.data(), 1, content.size(), file) == content.size(),
          "cannot write into /dev/shm");
  std::fclose(file);
  return path;
}

}  // namespace sluice::fuzz

#endif  // SLUICE_TESTS_FUZZ_FUZZ_H_
