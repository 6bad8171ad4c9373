// What a fuzz target is made of: one function that must survive every input. Built twice (CMakeLists.txt): with
// libFuzzer by the preset fuzz, which searches; and everywhere with replay_main.cc, which repeats the corpus and a
// fixed set of its mutations, so that a plain test run and the sanitizers see the same code.
#ifndef SLUICE_TESTS_FUZZ_FUZZ_H_
#define SLUICE_TESTS_FUZZ_FUZZ_H_

#include <sys/mman.h>
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

// The path of a file with this content, for readers that take paths. In memory, gone with the process; the next call
// replaces the content.
inline std::string FileWith(absl::string_view content) {
  static const int file = memfd_create("fuzz", MFD_CLOEXEC);
  Require(file >= 0 && ftruncate(file, 0) == 0 &&
              pwrite(file, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()),
          "cannot write a file in memory");
  return absl::StrCat("/proc/self/fd/", file);
}

}  // namespace sluice::fuzz

#endif  // SLUICE_TESTS_FUZZ_FUZZ_H_
