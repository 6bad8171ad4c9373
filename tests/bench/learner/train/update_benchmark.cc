// The policy update at the sizes of the comparison with Hugging Face: 8 prompts of 20 or 50 items as codes (81 and 201
// tokens), 16 completions and the target each: forward, backward, clip and AdamW; and supervised steps.
//
// Seconds are CPU seconds of the process on one thread (other processes then count little) and wall seconds on more.
// Every iteration also times, beside the step, torch's matrix product of 1024 cubed, and each product of the pass at
// its own shape by torch's BLAS and by the policy's own Linear. Counters, of the medians:
//   steps/s, rows/s      of the step; a row is a position that goes through the layers
//   gflop                of a step: products and attention that are needed, backward twice forward, nothing recomputed
//   gflops               gflop / seconds of the whole step, AdamW included
//   sgemm1024            GFLOP/s of torch::mm, 1024 cubed
//   efficiency           gflops / sgemm1024
//   torch_shapes         GFLOP/s of torch::mm at the pass's own shapes, forward and both backward products
//   own_shapes           the same through common/model's Linear, forward alone
//   tensors              allocations of tensor memory a step
//   tensor_MiB, rss_MiB  most tensor memory held beyond what was held before the step; most resident memory
#include <benchmark/benchmark.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <malloc.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/collective/collective.h"
#include "common/model/operations.h"
#include "common/model/policy.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "common/tensor/keep_memory.h"
#include "learner/train/adamw.h"
#include "learner/train/rl_step.h"
#include "learner/train/sft_step.h"
#include "tests/bench/common/catalog/beauty_like_trie.h"

namespace sluice::learner {
namespace {

constexpr int32_t kItems = kBeautyItems;
constexpr const SidVocabulary& kVocabulary = kBeautyVocabulary;

constexpr int kPrompts = 8;
constexpr int kGroupSize = 16;

// S has 1.25 million parameters, M 6.43.
PolicyConfig SizedConfig(bool medium) {
  PolicyConfig config;
  config.vocab_size = kVocabulary.size();
  config.hidden_size = medium ? 256 : 128;
  config.intermediate_size = medium ? 1024 : 512;
  config.num_layers = medium ? 6 : 4;
  config.num_heads = medium ? 8 : 4;
  config.num_kv_heads = medium ? 4 : 2;
  config.head_dim = 32;
  config.tie_embeddings = false;
  config.begin_token = SidVocabulary::kBegin;
  return config;
}

double Clock(bool of_process) {
  timespec time{};
  clock_gettime(of_process ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Most resident memory since the last reset, in MiB.
void ResetPeakMemory() {
  malloc_trim(0);
  if (std::FILE* const file = std::fopen("/proc/self/clear_refs", "w")) {
    std::fputs("5", file);
    std::fclose(file);
  }
}
double PeakMemory() {
  std::FILE* const file = std::fopen("/proc/self/status", "r");
  if (file == nullptr) return 0;
  char line[256];
  double kilobytes = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "VmHWM: %lf", &kilobytes) == 1) break;
  }
  std::fclose(file);
  return kilobytes / 1024;
}

// Counts what torch's allocator hands out on this thread.
class TensorMemory : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    if (size > 0) ++allocations;
    held += size;
    most = std::max(most, held);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t allocations = 0, held = 0, most = 0;
};

// One matrix product of a pass: rows x in times in x out.
struct Product {
  int64_t rows, in, out;
  double flop() const { return 2.0 * static_cast<double>(rows * in * out); }
};

// The products of a forward pass, and the flop of a whole step.
struct Work {
  std::vector<Product> products;
  double flop = 0;
  double rows = 0;
};

// `needed` rows (with `needed_pairs` visible pairs) go through the last layer beyond its keys and values, and get
// logits.
Work WorkOf(const PolicyConfig& config, int64_t rows, int64_t visible_pairs, int64_t needed, int64_t needed_pairs) {
  const HeadShape heads{config.num_heads, config.num_kv_heads, config.head_dim};
  Work work;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const int64_t kept = i + 1 < config.num_layers ? rows : needed;
    work.products.push_back({rows, config.hidden_size, heads.fused_width()});
    work.products.push_back({kept, heads.query_width(), config.hidden_size});
    work.products.push_back({kept, config.hidden_size, 2 * config.intermediate_size});
    work.products.push_back({kept, config.intermediate_size, config.hidden_size});
  }
  work.products.push_back({needed, config.hidden_size, config.vocab_size});
  for (const Product& product : work.products) work.flop += 3 * product.flop();
  // Scores and sums: 2 flop a pair and value each.
  const int64_t pairs = (config.num_layers - 1) * visible_pairs + needed_pairs;
  work.flop += 3 * 4.0 * static_cast<double>(heads.query_width() * pairs);
  work.rows = static_cast<double>(rows);
  return work;
}

// Times `step` against the reference products, and sets the counters.
void Measure(benchmark::State& state, int threads, const Work& work, const std::function<void()>& step) {
  torch::set_num_threads(threads);
  KeepFreedMemory();  // as the learner does
  const bool cpu = threads == 1;
  const auto seconds_of = [cpu](const std::function<void()>& function) {
    const double start = Clock(cpu);
    function();
    return Clock(cpu) - start;
  };
  const at::Tensor a = torch::randn({1024, 1024}), b = torch::randn({1024, 1024});
  std::vector<std::pair<at::Tensor, at::Tensor>> operands;
  double product_flop = 0;
  for (const Product& product : work.products) {
    operands.emplace_back(torch::randn({product.rows, product.in}), torch::randn({product.out, product.in}));
    product_flop += product.flop();
  }
  step();
  ResetPeakMemory();
  auto memory = std::make_shared<TensorMemory>();
  double peak = 0;
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, memory);
    step();
    peak = PeakMemory();
  }
  std::vector<double> step_seconds, sgemm_seconds, torch_seconds, own_seconds;
  for (auto _ : state) {
    // Torch's own threads spin for milliseconds after a product, on cores that the step wants.
    if (threads > 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double seconds = seconds_of(step);
    state.SetIterationTime(seconds);
    step_seconds.push_back(seconds);
    sgemm_seconds.push_back(seconds_of([&] { benchmark::DoNotOptimize(torch::mm(a, b).data_ptr()); }));
    const at::NoGradGuard no_grad;
    torch_seconds.push_back(seconds_of([&] {
      for (const auto& [x, weight] : operands) {
        const at::Tensor y = torch::mm(x, weight.t());
        benchmark::DoNotOptimize(torch::mm(y, weight).data_ptr());
        benchmark::DoNotOptimize(torch::mm(y.t(), x).data_ptr());
      }
    }));
    own_seconds.push_back(seconds_of([&] {
      for (const auto& [x, weight] : operands) {
        benchmark::DoNotOptimize(Linear(x, weight, at::Tensor(), at::Tensor()).data_ptr());
      }
    }));
  }
  const double seconds = Median(step_seconds);
  const double sgemm = 2e-9 * 1024 * 1024 * 1024 / Median(sgemm_seconds);
  state.counters["steps/s"] = 1 / seconds;
  state.counters["rows/s"] = work.rows / seconds;
  state.counters["gflop"] = work.flop * 1e-9;
  state.counters["gflops"] = work.flop * 1e-9 / seconds;
  state.counters["sgemm1024"] = sgemm;
  state.counters["efficiency"] = work.flop * 1e-9 / seconds / sgemm;
  state.counters["torch_shapes"] = 3e-9 * product_flop / Median(torch_seconds);
  state.counters["own_shapes"] = 1e-9 * product_flop / Median(own_seconds);
  state.counters["tensors"] = static_cast<double>(memory->allocations);
  state.counters["tensor_MiB"] = static_cast<double>(memory->most) / (1 << 20);
  state.counters["rss_MiB"] = peak;
}

struct Setup {
  explicit Setup(bool medium)
      : trie(BeautyLikeTrie()), policy(std::move(Policy::Create(SizedConfig(medium), trie, 1)).value()) {
    optimizer =
        std::make_unique<AdamW>(policy->parameters(), policy->gradients(), policy->decay_mask(), OptimizerOptions{});
  }
  std::shared_ptr<const Trie> trie;
  std::unique_ptr<Policy> policy;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<Collective> collective = MakeSingleCollective();
};

std::unique_ptr<StepLanes> LanesOf(const Setup& setup, int threads) {
  return StepLanes::Create(setup.policy.get(), nullptr, LanesFor(*setup.policy, threads)).value();
}

std::vector<int32_t> RandomItems(Random& random, int64_t count) {
  std::vector<int32_t> items;
  for (int64_t i = 0; i < count; ++i) items.push_back(static_cast<int32_t>(random.Below(kItems)));
  return items;
}

void BM_Update(benchmark::State& state) {
  const int history = static_cast<int>(state.range(1));
  Setup setup(state.range(0) != 0);
  Random random(3);
  std::vector<ScoredGroup> scored(kPrompts);
  std::vector<RlGroup> groups(kPrompts);
  for (int g = 0; g < kPrompts; ++g) {
    RlGroup& group = groups[g];
    group.input = setup.policy->EncodePrompt(RandomItems(random, history)).value();
    group.target_leaf = static_cast<int32_t>(random.Below(setup.trie->num_leaves()));
    group.group = &scored[g];
    group.plan.nll_token_weight = 0.25;
    for (int i = 0; i < kGroupSize; ++i) {
      Completion completion;
      completion.leaf = static_cast<int32_t>(random.Below(setup.trie->num_leaves()));
      const absl::Span<const int32_t> tokens = setup.trie->TokensOfLeaf(completion.leaf);
      completion.tokens.assign(tokens.begin(), tokens.end());
      completion.log_probs_full.assign(tokens.size(), -1.0f);
      completion.log_probs_trie.assign(tokens.size(), -1.0f);
      scored[g].completions.push_back(std::move(completion));
      CompletionPlan plan;
      plan.source = i;
      plan.advantage = random.Normal();
      plan.token_weight = plan.advantage / (4 * kGroupSize);
      group.plan.completions.push_back(plan);
    }
  }
  RlStepSettings settings;
  settings.nll_groups = settings.grpo_groups = kPrompts;
  settings.learning_rate = 1e-5;

  const int64_t trunk = static_cast<int64_t>(groups[0].input.size()), own = (kGroupSize + 1) * 3;
  const int64_t branch_pairs = own * trunk + (kGroupSize + 1) * 6;
  const Work work =
      WorkOf(setup.policy->config(), kPrompts * (trunk + own), kPrompts * (trunk * (trunk + 1) / 2 + branch_pairs),
             kPrompts * (1 + own), kPrompts * (trunk + branch_pairs));
  const std::unique_ptr<StepLanes> lanes = LanesOf(setup, static_cast<int>(state.range(2)));
  Measure(state, static_cast<int>(state.range(2)), work, [&] {
    const absl::StatusOr<RlStepResult> result =
        RlStep(*lanes, *setup.trie, *setup.optimizer, *setup.collective, groups, settings);
    SLUICE_CHECK(result.ok(), result.status().ToString());
  });
}
BENCHMARK(BM_Update)
    ->ArgNames({"medium", "history", "threads"})
    ->ArgsProduct({{0, 1}, {20, 50}, {1, 2}})
    ->UseManualTime()
    ->MinTime(1)
    ->Unit(benchmark::kMillisecond);

// 64 users: of `history` + 1 items each, or (0) as they come, lengths of 5 to 20 with most of them short.
void BM_SupervisedStep(benchmark::State& state) {
  constexpr int kUsers = 64;
  const int64_t history = state.range(1);
  Setup setup(state.range(0) != 0);
  Random random(3);
  SftStepPlan plan;
  int64_t rows = 0, pairs = 0;
  for (int user = 0; user < kUsers; ++user) {
    // Beauty's median history has 6 items and one in twelve is longer than 20.
    const int64_t length =
        history > 0 ? history : std::min<int64_t>(20, 3 + static_cast<int64_t>(-5.0 * std::log(1 - random.Uniform())));
    SftWindow window;
    window.items = RandomItems(random, length);
    window.last_target = static_cast<int32_t>(random.Below(kItems));
    plan.targets += window.targets();
    plan.windows.push_back(std::move(window));
    const int64_t trunk = 1 + 4 * length;
    rows += trunk + 3;
    pairs += (trunk + 3) * (trunk + 4) / 2;
  }
  const std::unique_ptr<StepLanes> lanes = LanesOf(setup, static_cast<int>(state.range(2)));
  Measure(state, static_cast<int>(state.range(2)), WorkOf(setup.policy->config(), rows, pairs, rows, pairs), [&] {
    const absl::StatusOr<SftStepResult> result =
        SftStep(*lanes, *setup.trie, *setup.optimizer, *setup.collective, plan, {.learning_rate = 1e-5});
    SLUICE_CHECK(result.ok(), result.status().ToString());
  });
}
BENCHMARK(BM_SupervisedStep)
    ->ArgNames({"medium", "history", "threads"})
    ->ArgsProduct({{0, 1}, {0, 20}, {1, 2}})
    ->UseManualTime()
    ->MinTime(1)
    ->Unit(benchmark::kMillisecond);

// AdamW alone on 6.43 million parameters.
void BM_AdamW(benchmark::State& state) {
  torch::set_num_threads(1);
  Setup setup(true);
  setup.policy->gradients().fill_(1e-3);
  for (auto _ : state) SLUICE_CHECK(setup.optimizer->Step(1e-5).ok(), "a finite gradient");
  state.SetItemsProcessed(state.iterations() * setup.policy->parameters().numel());
}
BENCHMARK(BM_AdamW)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice::learner
