// Which validation was the best one so far. HR@10 decides, between equal ones NDCG@10; the first of equals stays, so
// update 0 is only replaced by what is better.
#ifndef SLUICE_LEARNER_RUN_BEST_POLICY_H_
#define SLUICE_LEARNER_RUN_BEST_POLICY_H_

#include <cstdint>
#include <map>
#include <string>

namespace sluice::learner {

class BestPolicy {
 public:
  static constexpr char kMetric[] = "validation/hr@10";
  static constexpr char kTieBreak[] = "validation/ndcg@10";
  static constexpr char kStep[] = "step";

  // True if `metrics` is better than everything before it.
  bool Offer(uint64_t step, const std::map<std::string, double>& metrics);

  // Validations since HR@10 last rose.
  int without_gain() const { return without_gain_; }
  // Metrics of the best, and kStep; empty before the first.
  const std::map<std::string, double>& metrics() const { return metrics_; }

  // Part of a checkpoint's numbers, under keys that start with "best/".
  void Save(std::map<std::string, double>* numbers) const;
  void Restore(const std::map<std::string, double>& numbers);

 private:
  std::map<std::string, double> metrics_;
  int without_gain_ = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_BEST_POLICY_H_
