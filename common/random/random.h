// Reproducible randomness: counter-based, so a draw is a pure function of (seed, stream, counter) and needs no
// shared state. Nothing here reads an entropy source.
#ifndef SLUICE_COMMON_RANDOM_RANDOM_H_
#define SLUICE_COMMON_RANDOM_RANDOM_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>

namespace sluice {

// One block of Philox4x32-10. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key);

// Mixes a root seed with any number of labels into an independent seed, e.g.
// DeriveSeed(job_seed, {kSampling, ordinal, attempt}). Order matters; no label is the identity.
uint64_t DeriveSeed(uint64_t seed, std::initializer_list<uint64_t> labels);

// A stream of draws. Satisfies UniformRandomBitGenerator. Copyable: a copy repeats the same draws.
// Not thread-safe; give each thread or ordinal a stream of its own.
class Random {
 public:
  using result_type = uint64_t;
  explicit Random(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return std::numeric_limits<uint64_t>::max(); }
  uint64_t operator()();

  // Uniform in [0, 1) with 53 random bits.
  double Uniform();
  // Uniform in [0, bound), without modulo bias. bound > 0.
  uint64_t Below(uint64_t bound);
  // Standard normal (Box-Muller; uses two draws).
  double Normal();

 private:
  uint64_t seed_;
  uint64_t stream_;
  uint64_t counter_ = 0;
  std::array<uint32_t, 4> block_{};
};

// The image of `index` under a seeded permutation of [0, size): a four-round Feistel network with cycle
// walking, so the n-th draw of a pass costs no memory whatever the size. index < size.
uint64_t PermutedIndex(uint64_t seed, uint64_t size, uint64_t index);

}  // namespace sluice

#endif  // SLUICE_COMMON_RANDOM_RANDOM_H_
