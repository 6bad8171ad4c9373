// fuzz_NAME CORPUS [MUTATIONS]: every file of the corpus, then so many inputs made of them by cutting, flipping and
// splicing. The same inputs on every run.

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "common/random/random.h"
#include "tests/fuzz/fuzz.h"

namespace {

using sluice::Random;

constexpr int kMutations = 1000;
constexpr size_t kMaxBytes = 1 << 16;

const char* const kWords[] = {"-1", "1e999", "18446744073709551616", "2147483648", "nan",   "null", "\"",
                              "{}", "[]",    "\xff\xff\xff\xff",     "\\u0000",    "<a_1>", ",",    "\n"};

std::string Mutate(const std::vector<std::string>& corpus, Random* random) {
  std::string input = corpus[random->Below(corpus.size())];
  const uint64_t changes = 1 + random->Below(4);
  for (uint64_t i = 0; i < changes; ++i) {
    const size_t at = random->Below(input.size() + 1);
    const size_t length = std::min<size_t>(1 + random->Below(16), input.size() - at);
    switch (random->Below(6)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(random->Below(256));
        break;
      case 1:
        input.erase(at, length);
        break;
      case 2:
        input.insert(at, input.substr(at, length));
        break;
      case 3:
        input.insert(at, kWords[random->Below(std::size(kWords))]);
        break;
      case 4:
        input.resize(at);
        break;
      default: {
        const std::string& other = corpus[random->Below(corpus.size())];
        input = input.substr(0, at) + other.substr(random->Below(other.size() + 1));
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
  Random random(1);
  for (int i = 0; i < mutations; ++i) Run(Mutate(corpus, &random));
  std::printf("%zu inputs of the corpus and %d mutations: no finding\n", corpus.size(), mutations);
  return 0;
}
