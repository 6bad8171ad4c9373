// fuzz_NAME CORPUS [MUTATIONS]: every file of the corpus, then so many inputs made of them by cutting, flipping and
// splicing. The same inputs on every run: chance is a counter.

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

constexpr int kMutations = 1000;
constexpr size_t kMaxBytes = 1 << 16;

// SplitMix64.
class Chance {
 public:
  uint64_t Below(uint64_t bound) {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % bound;
  }

 private:
  uint64_t state_ = 1;
};

const char* const kWords[] = {"-1", "1e999", "18446744073709551616", "2147483648", "nan",   "null", "\"",
                              "{}", "[]",    "\xff\xff\xff\xff",     "\\u0000",    "<a_1>", ",",    "\n"};

std::string Mutate(const std::vector<std::string>& corpus, Chance* chance) {
  std::string input = corpus[chance->Below(corpus.size())];
  const uint64_t changes = 1 + chance->Below(4);
  for (uint64_t i = 0; i < changes; ++i) {
    const size_t at = chance->Below(input.size() + 1);
    const size_t length = std::min<size_t>(1 + chance->Below(16), input.size() - at);
    switch (chance->Below(6)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(chance->Below(256));
        break;
      case 1:
        input.erase(at, length);
        break;
      case 2:
        input.insert(at, input.substr(at, length));
        break;
      case 3:
        input.insert(at, kWords[chance->Below(std::size(kWords))]);
        break;
      case 4:
        input.resize(at);
        break;
      default: {
        const std::string& other = corpus[chance->Below(corpus.size())];
        input = input.substr(0, at) + other.substr(chance->Below(other.size() + 1));
      }
    }
    if (input.size() > kMaxBytes) input.resize(kMaxBytes);
  }
  return input;
}

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  int mutations = kMutations;
  if (argc < 2 || argc > 3 ||
      (argc == 3 && std::from_chars(argv[2], argv[2] + std::strlen(argv[2]), mutations).ec != std::errc())) {
    std::fprintf(stderr, "usage: %s CORPUS [MUTATIONS]\n", argv[0]);
    return 2;
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "there is no input in %s\n", argv[1]);
    return 2;
  }
  Run("");
  for (const std::string& input : corpus) Run(input);
  Chance chance;
  for (int i = 0; i < mutations; ++i) Run(Mutate(corpus, &chance));
  std::printf("%zu inputs of the corpus and %d mutations: no finding\n", corpus.size(), mutations);
  return 0;
}
