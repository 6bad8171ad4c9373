// Chosen log-probabilities against chains of tensor operations and against finite differences.
#include "common/model/token_log_probs.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <utility>
#include <vector>

#include "common/random/random.h"

namespace sluice {
namespace {

constexpr int64_t kRows = 37;
constexpr int64_t kVocabulary = 203;  // no multiple of a register

// Rows asked for never, once and often; legal lists from 1 token to most of the vocabulary.
c10::intrusive_ptr<TokenChoice> RandomChoice(bool with_legal) {
  Random random(5);
  auto choice = c10::make_intrusive<TokenChoice>();
  choice->legal_first.push_back(0);
  for (int64_t row = 0; row < kRows; ++row) {
    std::vector<int32_t> legal;
    const double share = random.Uniform() * random.Uniform();
    for (int32_t token = 0; token < kVocabulary; ++token) {
      if (random.Uniform() < share) legal.push_back(token);
    }
    if (legal.empty()) legal.push_back(static_cast<int32_t>(random.Below(kVocabulary)));
    const int asked = static_cast<int>(random.Below(4));
    for (int i = 0; i < asked; ++i) {
      choice->rows.push_back(row);
      choice->tokens.push_back(legal[random.Below(legal.size())]);
    }
    if (asked > 0) choice->legal.insert(choice->legal.end(), legal.begin(), legal.end());
    choice->legal_first.push_back(static_cast<int64_t>(choice->legal.size()));
  }
  if (!with_legal) {
    choice->legal_first.clear();
    choice->legal.clear();
  }
  return choice;
}

at::Tensor RandomLogits(at::ScalarType dtype, double spread) {
  torch::manual_seed(3);
  return (spread * torch::randn({kRows, kVocabulary}, torch::kDouble)).to(dtype).requires_grad_(true);
}

// Any smooth function of both outputs will do.
at::Tensor LossOf(const TokenLogProbs& log_probs) {
  at::Tensor loss = log_probs.full.pow(2).sum();
  if (log_probs.in_legal.defined()) loss = loss + (log_probs.in_legal * log_probs.full).sum();
  return loss;
}

void ExpectEqualToTensors(at::ScalarType dtype, double spread, bool with_legal, double tolerance) {
  const auto choice = RandomChoice(with_legal);
  const at::Tensor logits = RandomLogits(dtype, spread), same = RandomLogits(at::kDouble, spread);
  const TokenLogProbs found = ChosenLogProbs(logits, choice), wanted = TokenLogProbsByTensors(same, *choice);
  EXPECT_LT((found.full - wanted.full).abs().max().item<double>(), tolerance);
  ASSERT_EQ(found.in_legal.defined(), with_legal);
  if (with_legal) {
    EXPECT_LT((found.in_legal - wanted.in_legal).abs().max().item<double>(), tolerance);
  }
  LossOf(found).backward();
  LossOf(wanted).backward();
  const double scale = same.grad().abs().max().item<double>();
  EXPECT_LT((logits.grad() - same.grad()).abs().max().item<double>(), tolerance * scale);
}

TEST(ChosenLogProbsTest, EqualTensorOperationsInValuesAndGradients) {
  ExpectEqualToTensors(at::kDouble, 1, true, 1e-12);
  ExpectEqualToTensors(at::kDouble, 1, false, 1e-12);
  ExpectEqualToTensors(at::kFloat, 1, true, 1e-5);
  ExpectEqualToTensors(at::kFloat, 1, false, 1e-5);
}

TEST(ChosenLogProbsTest, LogitsFarApartStayFinite) {
  ExpectEqualToTensors(at::kDouble, 300, true, 1e-9);
  ExpectEqualToTensors(at::kFloat, 30, true, 1e-4);
  const auto choice = c10::make_intrusive<TokenChoice>();
  choice->rows = {0};
  choice->tokens = {1};
  const at::Tensor logits = torch::tensor({{1e4f, -1e4f, 0.f}});
  EXPECT_FLOAT_EQ(ChosenLogProbs(logits, choice).full.item<float>(), -2e4f);
}

TEST(ChosenLogProbsTest, OneLegalTokenIsCertainAndPushesNothing) {
  const auto choice = c10::make_intrusive<TokenChoice>();
  choice->rows = {0};
  choice->tokens = {7};
  choice->legal_first = {0, 1};
  choice->legal = {7};
  const at::Tensor logits = torch::randn({1, 33}, torch::kDouble).requires_grad_(true);
  const TokenLogProbs found = ChosenLogProbs(logits, choice);
  EXPECT_EQ(found.in_legal.item<double>(), 0);
  found.in_legal.sum().backward();
  EXPECT_LT(logits.grad().abs().max().item<double>(), 1e-15);
}

TEST(ChosenLogProbsTest, ALogitThatIsNoNumberMakesNoNumber) {
  const auto choice = c10::make_intrusive<TokenChoice>();
  choice->rows = {0};
  choice->tokens = {1};
  choice->legal_first = {0, 2};
  choice->legal = {1, 40};
  for (const int64_t place : {0, 40, 99}) {
    const at::Tensor logits = torch::zeros({1, 100});
    logits[0][place] = std::nanf("");
    const TokenLogProbs found = ChosenLogProbs(logits, choice);
    EXPECT_TRUE(std::isnan(found.full.item<float>())) << place;
    EXPECT_EQ(std::isnan(found.in_legal.item<float>()), place == 40) << place;
  }
}

}  // namespace
}  // namespace sluice
