#include "learner/train/step_lanes.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/plan.h"
#include "common/status/status.h"
#include "common/sync/mutex.h"
#include "common/sync/thread.h"
#include "common/tensor/catch_torch.h"
#include "learner/train/adamw.h"

namespace sluice::learner {

std::vector<LaneRange> SplitByCost(absl::Span<const int64_t> costs, int lanes) {
  const int64_t total = std::accumulate(costs.begin(), costs.end(), int64_t{0});
  std::vector<LaneRange> ranges;
  size_t place = 0;
  int64_t passed = 0;
  for (int lane = 0; lane < lanes; ++lane) {
    LaneRange range{place, place};
    const int64_t share = total * (lane + 1) / lanes;
    while (range.end < costs.size() && (lane + 1 == lanes || passed + costs[range.end] / 2 < share)) {
      passed += costs[range.end++];
    }
    place = range.end;
    ranges.push_back(range);
  }
  return ranges;
}

int LanesFor(const Policy& policy, int threads) {
  if (policy.placement().takes_device_path()) return 1;
  return TrainingLanes(static_cast<int64_t>(policy.parameters().nbytes()), threads);
}

// Threads that wait for work, all the time that the lanes live.
class StepLanes::Workers {
 public:
  explicit Workers(int count) {
    const int threads = at::get_num_threads();
    for (int lane = 0; lane < count; ++lane) {
      threads_.push_back(StartThread(absl::StrCat("lane-", lane), [this, lane] { Loop(lane); }));
    }
    {
      MutexLock lock(&mutex_);
      while (ready_ < threads_.size()) changed_.Wait(&mutex_);
    }
    // The number is the calling thread's own to torch's thread pool, but new threads take the last one that was set.
    at::set_num_threads(threads);
  }

  ~Workers() {
    {
      MutexLock lock(&mutex_);
      closed_ = true;
      changed_.NotifyAll();
    }
    threads_.clear();
  }

  void Run(const std::function<void(int)>& work) {
    MutexLock lock(&mutex_);
    work_ = &work;
    ++round_;
    running_ = threads_.size();
    changed_.NotifyAll();
    while (running_ > 0) changed_.Wait(&mutex_);
    work_ = nullptr;
  }

 private:
  void Loop(int lane) {
    // The first question makes a thread take the process's number, now or in the middle of the work.
    at::get_num_threads();
    at::set_num_threads(1);
    uint64_t done = 0;
    mutex_.Lock();
    ++ready_;
    changed_.NotifyAll();
    while (true) {
      while (!closed_ && round_ == done) changed_.Wait(&mutex_);
      if (closed_) break;
      done = round_;
      const std::function<void(int)>* const work = work_;
      mutex_.Unlock();
      (*work)(lane);
      mutex_.Lock();
      if (--running_ == 0) changed_.NotifyAll();
    }
    mutex_.Unlock();
  }

  Mutex mutex_;
  CondVar changed_;
  const std::function<void(int)>* work_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t round_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t ready_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Thread> threads_;
};

StepLanes::StepLanes() = default;
StepLanes::~StepLanes() = default;

absl::StatusOr<std::unique_ptr<StepLanes>> StepLanes::Create(Policy* policy, Policy* reference, int lanes) {
  if (lanes < 1) return absl::InvalidArgumentError(absl::StrCat("want at least one lane, got ", lanes));
  std::unique_ptr<StepLanes> result(new StepLanes());
  const auto twin = [&](const Policy* of) -> absl::StatusOr<Policy*> {
    if (of == nullptr) return nullptr;
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Policy> made, of->MakeTwin());
    result->twins_.push_back(std::move(made));
    return result->twins_.back().get();
  };
  result->policies_.push_back(policy);
  result->references_.push_back(reference);
  for (int lane = 1; lane < lanes; ++lane) {
    SLUICE_ASSIGN_OR_RETURN(Policy* const own, twin(policy));
    SLUICE_ASSIGN_OR_RETURN(Policy* const own_reference, twin(reference));
    result->policies_.push_back(own);
    result->references_.push_back(own_reference);
  }
  if (lanes > 1) result->workers_ = std::make_unique<Workers>(lanes);
  return result;
}

absl::Status StepLanes::Run(const std::function<absl::Status(int lane)>& work) {
  if (workers_ == nullptr) return work(0);
  std::vector<absl::Status> statuses(policies_.size());
  workers_->Run([&](int lane) {
    // Nothing may leave a thread's entry function.
    absl::Status status = absl::OkStatus();
    const absl::Status thrown = CatchTorch("a lane of a training step", [&] { status = work(lane); });
    statuses[static_cast<size_t>(lane)] = thrown.ok() ? status : thrown;
  });
  for (const absl::Status& status : statuses) SLUICE_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

void StepLanes::ForRange(int64_t size, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
  if (workers_ == nullptr) {
    TorchParallelFor(size, grain, work);
    return;
  }
  const int64_t pieces = (size + grain - 1) / grain;
  workers_->Run([&](int lane) {
    const int64_t begin = std::min(size, pieces * lane / count() * grain);
    const int64_t end = std::min(size, pieces * (lane + 1) / count() * grain);
    if (begin < end) work(begin, end);
  });
}

void StepLanes::SumGradients() {
  if (policies_.size() == 1) return;
  at::Tensor sum = policies_[0]->gradients();
  if (!sum.device().is_cpu()) {
    for (size_t lane = 1; lane < policies_.size(); ++lane) sum.add_(policies_[lane]->gradients());
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(sum.scalar_type(), "sum_lane_gradients", [&] {
    scalar_t* const total = sum.mutable_data_ptr<scalar_t>();
    ForRange(sum.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
      for (size_t lane = 1; lane < policies_.size(); ++lane) {
        const scalar_t* const own = policies_[lane]->gradients().const_data_ptr<scalar_t>();
        for (int64_t i = begin; i < end; ++i) total[i] += own[i];
      }
    });
  });
}

}  // namespace sluice::learner
