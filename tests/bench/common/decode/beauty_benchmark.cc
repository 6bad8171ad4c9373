// The decoding that ../shared/bench/bench_hf.py times with Hugging Face, with the same sizes, prompts and semantic IDs:
// S = 1.25 M and M = 6.43 M parameters (Qwen3, untied), codes as tokens, prompts of 81 (20 items) and 201 (50 items)
// positions on Beauty's inter.json, one thread. Where the data set is not beside the source, users and semantic IDs of
// its shape are drawn; time does not depend on which.
//
// items_per_second counts prompts or users. `sgemm` is torch's own 1024-cubed product, to compare machines by.
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/catalog/readers.h"
#include "common/catalog/sid_index.h"
#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"
#include "common/decode/decode.h"
#include "common/file/file.h"
#include "common/model/policy.h"
#include "common/random/random.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr SidVocabulary kVocabulary{4, 256};
constexpr int kPrompts = 8;

struct Catalog {
  std::shared_ptr<const Trie> trie;
  std::vector<std::vector<int32_t>> users;  // events, oldest first
};

// Lists of items with lengths like Beauty's: at least 5, 9 in the mean, few beyond 50.
Catalog Drawn() {
  Random random(1);
  const int32_t items = 12101;
  std::vector<int32_t> tokens;
  for (int32_t item = 0; item < items; ++item) {
    const int32_t first = static_cast<int32_t>(256 * random.Uniform() * random.Uniform());
    const int32_t codes[] = {first, static_cast<int32_t>((first * 7 + random.Below(40)) % 256),
                             static_cast<int32_t>(random.Below(256)), static_cast<int32_t>(random.Below(4))};
    for (int level = 0; level < 4; ++level) tokens.push_back(kVocabulary.Token(level, codes[level]));
  }
  Catalog catalog;
  catalog.trie = std::make_shared<const Trie>(Trie::Build(4, tokens).value());
  for (int user = 0; user < 22363; ++user) {
    const double spread = 4 / (0.02 + random.Uniform());
    catalog.users.emplace_back(static_cast<size_t>(5 + spread / 4));
    for (int32_t& item : catalog.users.back()) item = static_cast<int32_t>(random.Below(items));
  }
  return catalog;
}

Catalog Read(const char* events_file) {
  std::string folder = absl::StrCat(SLUICE_SOURCE_DIR, "/../shared/data/beauty/");
  if (!PathExists(folder)) folder = absl::StrCat(SLUICE_SOURCE_DIR, "/../../shared/data/beauty/");
  if (!PathExists(folder)) return Drawn();
  const EventLog log = ReadEvents(folder + events_file).value();
  const SidTable table = ReadSidIndex(folder + "index_rqvae.json", log.item_names, kVocabulary.codes).value();
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < table.item_codes.size(); ++i) {
    tokens.push_back(kVocabulary.Token(static_cast<int>(i % 4), table.item_codes[i]));
  }
  Catalog catalog;
  catalog.trie = std::make_shared<const Trie>(Trie::Build(4, tokens).value());
  catalog.users.resize(log.user_names.size());
  for (const Event& event : log.events) catalog.users[event.user].push_back(event.item);
  return catalog;
}

const Catalog& Beauty() {
  static const Catalog& catalog = *new Catalog(Read("inter.json"));
  return catalog;
}

PolicyConfig Size(bool medium) {
  PolicyConfig config;
  config.vocab_size = kVocabulary.size();
  config.begin_token = SidVocabulary::kBegin;
  config.hidden_size = medium ? 256 : 128;
  config.num_layers = medium ? 6 : 4;
  config.num_heads = medium ? 8 : 4;
  config.num_kv_heads = medium ? 4 : 2;
  config.intermediate_size = medium ? 1024 : 512;
  config.tie_embeddings = false;
  config.rope_theta = 1e6;
  return config;
}

std::vector<DecodePrompt> FullHistories(const Policy& policy, const Catalog& catalog, size_t items) {
  std::vector<DecodePrompt> prompts;
  for (const std::vector<int32_t>& user : catalog.users) {
    if (user.size() <= items) continue;
    DecodePrompt prompt;
    prompt.input = policy.EncodePrompt(absl::MakeConstSpan(user).subspan(user.size() - 1 - items, items)).value();
    prompt.seed = prompts.size();
    prompts.push_back(std::move(prompt));
    if (prompts.size() == kPrompts) break;
  }
  return prompts;
}

void CountWork(benchmark::State& state, const PolicyWork& before, const PolicyWork& after, int64_t prompts) {
  const double all = static_cast<double>(state.iterations() * prompts);
  state.counters["prefill_rows"] = static_cast<double>(after.prefilled - before.prefilled) / all;
  state.counters["step_rows"] = static_cast<double>(after.appended - before.appended) / all;
  state.SetItemsProcessed(state.iterations() * prompts);
}

void Run(benchmark::State& state, bool medium, int history, const DecodePlan& plan) {
  at::set_num_threads(1);
  const Catalog& catalog = Beauty();
  const std::unique_ptr<Policy> policy = Policy::Create(Size(medium), catalog.trie, 1).value();
  const std::vector<DecodePrompt> prompts = FullHistories(*policy, catalog, static_cast<size_t>(history));
  const PolicyWork before = policy->work();
  for (auto _ : state) {
    const auto results = Decode(*policy, *catalog.trie, prompts, plan);
    SLUICE_CHECK(results.ok(), results.status().ToString());
    benchmark::DoNotOptimize(results);
  }
  CountWork(state, before, policy->work(), kPrompts);
}

void Beams(benchmark::State& state, bool medium) {
  DecodePlan plan;
  plan.beams = static_cast<int>(state.range(1));
  Run(state, medium, static_cast<int>(state.range(0)), plan);
}
void Samples(benchmark::State& state, bool medium) {
  DecodePlan plan;
  plan.samples = static_cast<int>(state.range(1));
  Run(state, medium, static_cast<int>(state.range(0)), plan);
}
BENCHMARK_CAPTURE(Beams, S, false)->ArgNames({"history", "width"})->ArgsProduct({{20, 50}, {16, 50}});
BENCHMARK_CAPTURE(Beams, M, true)->ArgNames({"history", "width"})->ArgsProduct({{20, 50}, {16, 50}});
BENCHMARK_CAPTURE(Samples, S, false)->ArgNames({"history", "width"})->ArgsProduct({{20, 50}, {16}});
BENCHMARK_CAPTURE(Samples, M, true)->ArgNames({"history", "width"})->ArgsProduct({{20, 50}, {16}});

// Users as they come, the last item predicted from the 20 before it, 50 beams, batches of similar lengths.
void Evaluate(benchmark::State& state, const Catalog& catalog, const PolicyConfig& config, size_t every) {
  constexpr size_t kBatch = 64;
  at::set_num_threads(1);
  const std::unique_ptr<Policy> policy = Policy::Create(config, catalog.trie, 1).value();
  std::vector<DecodePrompt> prompts;
  for (size_t user = 0; user < catalog.users.size(); user += every) {
    const std::vector<int32_t>& events = catalog.users[user];
    const size_t length = std::min<size_t>(20, events.size() - 1);
    DecodePrompt prompt;
    prompt.input =
        policy->EncodePrompt(absl::MakeConstSpan(events).subspan(events.size() - 1 - length, length)).value();
    prompts.push_back(std::move(prompt));
  }
  std::stable_sort(prompts.begin(), prompts.end(),
                   [](const DecodePrompt& a, const DecodePrompt& b) { return a.input.size() < b.input.size(); });
  DecodePlan plan;
  plan.beams = 50;
  const PolicyWork before = policy->work();
  for (auto _ : state) {
    for (size_t first = 0; first < prompts.size(); first += kBatch) {
      const auto results = Decode(*policy, *catalog.trie, absl::MakeConstSpan(prompts).subspan(first, kBatch), plan);
      SLUICE_CHECK(results.ok(), results.status().ToString());
      benchmark::DoNotOptimize(results);
    }
  }
  CountWork(state, before, policy->work(), static_cast<int64_t>(prompts.size()));
}

void EvaluateCodes(benchmark::State& state, bool medium) { Evaluate(state, Beauty(), Size(medium), 64); }
BENCHMARK_CAPTURE(EvaluateCodes, S, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(EvaluateCodes, M, true)->Unit(benchmark::kMillisecond);

// The policy of examples/beauty: one position an item, its defaults. The argument: one user in so many.
void EvaluateMerged(benchmark::State& state) {
  static const Catalog& catalog = *new Catalog(Read("inter_std.json"));
  PolicyConfig config;
  config.vocab_size = kVocabulary.size();
  config.begin_token = SidVocabulary::kBegin;
  config.encoder = PromptEncoderKind::kMerged;
  config.item_embedding = true;
  config.num_leaves = catalog.trie->num_leaves();
  config.catalog_version = catalog.trie->version();
  Evaluate(state, catalog, config, static_cast<size_t>(state.range(0)));
}
BENCHMARK(EvaluateMerged)->ArgName("one_user_in")->Arg(64)->Unit(benchmark::kMillisecond);

void Sgemm(benchmark::State& state) {
  at::set_num_threads(1);
  const at::Tensor a = at::randn({1024, 1024}), b = at::randn({1024, 1024});
  for (auto _ : state) benchmark::DoNotOptimize(at::mm(a, b).data_ptr());
  state.counters["GFLOP/s"] = benchmark::Counter(
      2.0 * 1024 * 1024 * 1024 * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(Sgemm)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice
