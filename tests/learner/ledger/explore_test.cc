// Every interleaving of a small world over the real ledger: two ranks, two actors, three ordinals in two steps, and so
// many faults: results that are lost or doubled, or come without scores and wait to be tried again or are given up,
// leases that end while an actor still works, one crash of each actor and each rank, after which the group forms again
// with two ranks or with one. Checkpoints at any moment. What must hold in every state: each book adds up, and no
// ordinal is trained twice in one timeline. What must hold at every end: each ordinal was trained once. And no state is
// a dead end. A second walk has two crashes and no other fault.
//
// A depth-first search over copies of the world; states that look the same are visited once. $SLUICE_EXPLORE_FAULTS
// asks for more faults than a test run has time for. What is not the ledger (an epoch, a message, an actor) is modelled
// by a line each, after RolloutHub and job_checkpoint.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "learner/ledger/ledger.h"
#include "learner/ledger/merge_shards.h"

namespace sluice::learner {
namespace {

constexpr int kRanks = 2;
constexpr int kActors = 2;
constexpr int kOrdinals = 3;
constexpr uint64_t kSteps = 2;
// Ordinals 0 and 1 are step 0, one for each rank; ordinal 2 is step 1. With one rank they are all its own.
constexpr std::array<uint64_t, kOrdinals> kStepOf = {0, 0, 1};
constexpr std::array<int, kOrdinals> kRankOf = {0, 1, 0};

LedgerOptions Options() {
  LedgerOptions options;
  options.lease_groups = 1;
  options.max_attempts = 100;  // nothing may end because it was tried too often
  return options;
}

struct Work {
  uint64_t epoch = 0;
  int rank = 0;
  uint64_t lease_id = 0;
  uint64_t ordinal = 0;
  uint32_t attempt = 0;

  std::string Text() const { return absl::StrCat(epoch, ".", rank, ".", lease_id, ".", ordinal, ".", attempt); }
};

struct Message {
  Work work;
  bool doubled = false;
};

struct Actor {
  int life = 0;  // restarted actors have new names
  std::optional<Work> work;
  bool crashed = false;    // it may do so once, if other faults may happen too
  bool unnoticed = false;  // its crash is not known to its rank yet

  std::string Name(int index, int life_asked) const { return absl::StrCat("actor", index, "-", life_asked); }
};

struct Checkpoint {
  uint64_t step = 0;
  std::vector<std::string> shards;
  std::array<int, kOrdinals> trained = {};
};

struct Limits {
  int faults = 1;     // together
  bool fence = true;  // whether results of an epoch that is over are refused, as RolloutHub does
  // No fault but so many crashes, also of the same one again.
  struct Crashes {
    int actors = 0;
    int ranks = 0;
  };
  std::optional<Crashes> crashes;
};

class World {
 public:
  explicit World(Limits limits) : limits_(limits) { Form(kRanks, nullptr); }
  World(const World& other)
      : limits_(other.limits_),
        epoch_(other.epoch_),
        step_(other.step_),
        next_lease_(other.next_lease_),
        now_(other.now_),
        faults_(other.faults_),
        rank_crashes_(other.rank_crashes_),
        actors_(other.actors_),
        messages_(other.messages_),
        checkpoint_(other.checkpoint_),
        trained_(other.trained_) {
    for (const auto& ledger : other.ledgers_) ledgers_.push_back(std::make_unique<Ledger>(*ledger));
  }

  bool done() const { return step_ == kSteps; }
  const std::array<int, kOrdinals>& trained() const { return trained_; }

  // The worlds that one event makes of this one, each with what happened.
  std::vector<std::pair<std::string, std::unique_ptr<World>>> Successors() const {
    std::vector<std::pair<std::string, std::unique_ptr<World>>> found;
    const auto add = [&](std::string what, auto change) {
      auto next = std::make_unique<World>(*this);
      if (change(next.get())) found.emplace_back(std::move(what), std::move(next));
    };
    for (int a = 0; a < kActors; ++a) {
      add(absl::StrCat("lease ", a), [a](World* world) { return world->Lease(a); });
      add(absl::StrCat("answer ", a), [a](World* world) { return world->Answer(a); });
      add(absl::StrCat("notice the crash of ", a), [a](World* world) { return world->Notice(a); });
    }
    for (size_t m = 0; m < messages_.size(); ++m) {
      add(absl::StrCat("deliver ", messages_[m].work.Text()), [m](World* world) { return world->Deliver(m, false); });
      add(absl::StrCat("double ", messages_[m].work.Text()), [m](World* world) { return world->Deliver(m, true); });
      add(absl::StrCat("deliver without scores ", messages_[m].work.Text()),
          [m](World* world) { return world->Fault() && world->Deliver(m, false, /*scored=*/false); });
    }
    add("give up", [](World* world) { return world->GiveUp(); });
    add("commit", [](World* world) { return world->Commit(); });
    const bool stuck = found.empty();
    // A lease that ends while its actor still works is a fault; when nothing else can happen, time passes.
    add("expire", [stuck](World* world) { return world->Expire(stuck); });
    progress_ = !found.empty();
    for (size_t m = 0; m < messages_.size(); ++m) {
      add(absl::StrCat("lose ", messages_[m].work.Text()), [m](World* world) {
        world->messages_.erase(world->messages_.begin() + static_cast<ptrdiff_t>(m));
        return world->Fault();
      });
    }
    add("checkpoint", [](World* world) { return world->Save(); });
    for (int a = 0; a < kActors; ++a)
      add(absl::StrCat("crash of actor ", a), [a](World* world) { return world->Crash(a); });
    for (int r = 0; r < kRanks; ++r) {
      for (const int ranks : {kRanks, 1}) {
        add(absl::StrCat("crash of rank ", r, ", ", ranks, " go on"),
            [r, ranks](World* world) { return world->CrashRank(r, ranks); });
      }
    }
    return found;
  }

  // Of the latest call of Successors: whether anything but a fault could happen.
  bool progress() const { return progress_; }

  std::string Fingerprint() const {
    std::string text = absl::StrCat(epoch_, "|", step_, "|", next_lease_, "|", faults_, "|");
    for (const int crashes : rank_crashes_) absl::StrAppend(&text, crashes, ",");
    for (const int count : trained_) absl::StrAppend(&text, count, ",");
    for (const auto& ledger : ledgers_) {
      absl::StrAppend(&text, "|", ledger->Snapshot(), ledger->waiting_blocks(), ".", ledger->live_leases(), ".",
                      ledger->parked(), ".", ledger->unscored());
      for (int a = 0; a < kActors; ++a) {
        for (int life = 0; life <= actors_[a].life; ++life)
          absl::StrAppend(&text, ledger->HoldsLease(actors_[a].Name(a, life)));
      }
      for (int ordinal = 0; ordinal < kOrdinals; ++ordinal) absl::StrAppend(&text, ledger->StepReady(kStepOf[ordinal]));
    }
    for (const Actor& actor : actors_) {
      absl::StrAppend(&text, "|", actor.life, actor.crashed, actor.unnoticed, actor.work ? actor.work->Text() : "-");
    }
    std::vector<std::string> messages;
    for (const Message& message : messages_) messages.push_back(absl::StrCat(message.work.Text(), message.doubled));
    std::sort(messages.begin(), messages.end());
    for (const std::string& message : messages) absl::StrAppend(&text, "|", message);
    absl::StrAppend(&text, "|", checkpoint_ ? absl::StrCat(checkpoint_->step) : "none");
    if (checkpoint_) {
      for (const std::string& shard : checkpoint_->shards) absl::StrAppend(&text, shard);
    }
    return text;
  }

  std::string Wrong() const {
    for (const auto& ledger : ledgers_) {
      if (const absl::Status status = ledger->Check(); !status.ok()) return std::string(status.message());
    }
    for (int ordinal = 0; ordinal < kOrdinals; ++ordinal) {
      if (trained_[ordinal] > 1) return absl::StrCat("ordinal ", ordinal, " was trained ", trained_[ordinal], " times");
      if (done() && trained_[ordinal] != 1) return absl::StrCat("ordinal ", ordinal, " was never trained");
    }
    return wrong_;
  }

 private:
  int RankOf(int ordinal) const { return ledgers_.size() == 1 ? 0 : kRankOf[ordinal]; }

  // A group of learner ranks takes the job up, from a checkpoint or from nothing.
  void Form(int ranks, const Checkpoint* checkpoint) {
    ++epoch_;
    const size_t before = checkpoint == nullptr ? 0 : checkpoint->shards.size();
    ledgers_.clear();
    for (int r = 0; r < ranks; ++r) {
      ledgers_.push_back(std::make_unique<Ledger>(Options()));
      if (before == static_cast<size_t>(ranks)) {
        Require(ledgers_[r]->Restore(checkpoint->shards[r]));
      } else if (before != 0 && r == 0) {
        const auto merged = MergeLedgerShards(checkpoint->shards);
        Require(merged.status());
        if (merged.ok()) Require(ledgers_[0]->Restore(*merged));
      }
    }
    step_ = checkpoint == nullptr ? 0 : checkpoint->step;
    trained_ = checkpoint == nullptr ? std::array<int, kOrdinals>{} : checkpoint->trained;
    for (uint64_t step = step_; step < kSteps; ++step) {
      for (int r = 0; r < ranks; ++r) {
        std::vector<Prompt> prompts;
        for (int ordinal = 0; ordinal < kOrdinals; ++ordinal) {
          if (kStepOf[ordinal] != step || RankOf(ordinal) != r) continue;
          Prompt prompt;
          prompt.ordinal = static_cast<uint64_t>(ordinal);
          prompts.push_back(std::move(prompt));
        }
        if (!prompts.empty()) Require(ledgers_[r]->Issue(step, std::move(prompts), 1));
      }
    }
  }

  // Whether one more fault may happen.
  bool Fault() { return !limits_.crashes && ++faults_ <= limits_.faults; }

  void Require(const absl::Status& status) {
    if (!status.ok() && wrong_.empty()) wrong_ = std::string(status.message());
  }

  bool Lease(int a) {
    Actor& actor = actors_[a];
    if (actor.work) return false;
    const int rank = a % static_cast<int>(ledgers_.size());
    const auto lease = ledgers_[rank]->Lease(actor.Name(a, actor.life), 1, next_lease_, now_);
    if (!lease) return false;
    actor.work = Work{epoch_, rank, next_lease_++, lease->prompts[0].ordinal, lease->attempt};
    return true;
  }

  bool Answer(int a) {
    Actor& actor = actors_[a];
    if (!actor.work) return false;
    messages_.push_back({*actor.work, false});
    actor.work.reset();
    return true;
  }

  bool Deliver(size_t index, bool keep, bool scored = true) {
    Message& message = messages_[index];
    if (keep && (message.doubled || !Fault())) return false;
    message.doubled = true;
    const Work work = message.work;
    if (!keep) messages_.erase(messages_.begin() + static_cast<ptrdiff_t>(index));
    if (limits_.fence && work.epoch != epoch_) return true;
    if (work.rank >= static_cast<int>(ledgers_.size())) return true;
    ScoredGroup group;
    group.ordinal = work.ordinal;
    group.attempt = work.attempt;
    group.lease_id = work.lease_id;
    Ledger& ledger = *ledgers_[work.rank];
    scored ? ledger.Complete(std::move(group)) : ledger.PutBack(std::move(group), now_, now_);
    return true;
  }

  // What waits for scores has waited for long enough.
  bool GiveUp() {
    int closed = 0;
    for (const auto& ledger : ledgers_) closed += ledger->CloseWaiting(now_, absl::ZeroDuration(), std::nullopt);
    return closed > 0;
  }

  bool Commit() {
    for (const auto& ledger : ledgers_) {
      if (ledger->StepOpen(step_) && !ledger->StepReady(step_)) return false;
    }
    for (const auto& ledger : ledgers_) {
      if (!ledger->StepOpen(step_)) continue;
      const auto taken = ledger->Take(step_);
      Require(taken.status());
      if (!taken.ok()) return true;
      std::vector<Verdict> verdicts;
      for (const TakenGroup& one : *taken) {
        if (!one.group) wrong_ = absl::StrCat("ordinal ", one.prompt.ordinal, " came without a group");
        verdicts.push_back({one.prompt.ordinal, TerminalState::kTrained, "open"});
        ++trained_[one.prompt.ordinal];
      }
      Require(ledger->Commit(step_, verdicts));
    }
    ++step_;
    return true;
  }

  bool Expire(bool stuck) {
    bool live = false;
    for (const auto& ledger : ledgers_) live = live || ledger->live_leases() > 0;
    if (!live || (!stuck && !Fault())) return false;
    now_ += Options().lease_deadline;
    for (const auto& ledger : ledgers_) ledger->Expire(now_);
    return true;
  }

  bool Save() {
    if (checkpoint_ && checkpoint_->step == step_) return false;
    if (step_ == 0 || done()) return false;
    Checkpoint saved;
    saved.step = step_;
    saved.trained = trained_;
    for (const auto& ledger : ledgers_) saved.shards.push_back(ledger->Snapshot());
    checkpoint_ = std::move(saved);
    return true;
  }

  bool Crash(int a) {
    Actor& actor = actors_[a];
    if (limits_.crashes ? actors_[0].life + actors_[1].life == limits_.crashes->actors : actor.crashed || !Fault()) {
      return false;
    }
    actor.crashed = true;
    actor.unnoticed = true;
    actor.work.reset();
    ++actor.life;
    return true;
  }

  bool Notice(int a) {
    Actor& actor = actors_[a];
    if (!actor.unnoticed) return false;
    actor.unnoticed = false;
    for (const auto& ledger : ledgers_) {
      for (int life = 0; life < actor.life; ++life) ledger->ReturnLeases(actor.Name(a, life), "the actor is gone");
    }
    return true;
  }

  bool CrashRank(int r, int ranks) {
    if (r >= static_cast<int>(ledgers_.size()) || done()) return false;
    if (limits_.crashes ? rank_crashes_[0] + rank_crashes_[1] == limits_.crashes->ranks
                        : rank_crashes_[r] == 1 || !Fault()) {
      return false;
    }
    ++rank_crashes_[r];
    Form(ranks, checkpoint_ ? &*checkpoint_ : nullptr);
    return true;
  }

  const Limits limits_;
  uint64_t epoch_ = 0;
  uint64_t step_ = 0;
  uint64_t next_lease_ = 1;
  absl::Time now_ = absl::UnixEpoch();
  int faults_ = 0;
  std::array<int, kRanks> rank_crashes_ = {};
  std::array<Actor, kActors> actors_;
  std::vector<Message> messages_;
  std::optional<Checkpoint> checkpoint_;
  std::array<int, kOrdinals> trained_ = {};
  std::vector<std::unique_ptr<Ledger>> ledgers_;
  std::string wrong_;
  mutable bool progress_ = false;
};

struct Explored {
  size_t states = 0;
  size_t ends = 0;
  std::string wrong;  // the first thing, and how it came to be
};

Explored Explore(Limits limits) {
  Explored explored;
  std::vector<std::pair<int, std::string>> history;  // parent and event of each visited state
  const auto story = [&history](int index) {
    std::string text;
    for (; index > 0; index = history[index].first) text = absl::StrCat(history[index].second, "; ", text);
    return text;
  };
  absl::flat_hash_set<std::pair<uint64_t, uint64_t>> seen;  // fingerprints, hashed to 128 bits
  std::vector<std::pair<std::shared_ptr<const World>, int>> todo;
  const auto visit = [&](std::shared_ptr<const World> world, int parent, std::string what) {
    const std::string fingerprint = world->Fingerprint();
    if (!seen.emplace(absl::HashOf(fingerprint), absl::HashOf(fingerprint, 1)).second) return;
    history.emplace_back(parent, std::move(what));
    const int index = static_cast<int>(history.size()) - 1;
    if (const std::string wrong = world->Wrong(); !wrong.empty()) {
      if (explored.wrong.empty()) explored.wrong = absl::StrCat(wrong, ", after: ", story(index));
      return;
    }
    if (world->done()) {
      ++explored.ends;
      return;
    }
    todo.emplace_back(std::move(world), index);
  };
  visit(std::make_shared<World>(limits), -1, "");
  while (!todo.empty() && explored.wrong.empty()) {
    const auto [world, index] = std::move(todo.back());
    todo.pop_back();
    auto successors = world->Successors();
    if (!world->progress()) explored.wrong = absl::StrCat("nothing can happen any more, after: ", story(index));
    for (auto& [what, next] : successors) visit(std::move(next), index, std::move(what));
  }
  explored.states = history.size();
  return explored;
}

int FaultsAsked() {
  const char* asked = std::getenv("SLUICE_EXPLORE_FAULTS");
  int faults = 0;
  return asked != nullptr && absl::SimpleAtoi(asked, &faults) && faults >= Limits().faults ? faults : Limits().faults;
}

TEST(LedgerExploreTest, NothingIsLostOrTrainedTwiceInAnyInterleaving) {
  const Explored explored = Explore({.faults = FaultsAsked()});
  EXPECT_EQ(explored.wrong, "");
  EXPECT_GT(explored.ends, 100u);
  std::printf("%zu states, %zu of them ends, at most %d faults each\n", explored.states, explored.ends, FaultsAsked());
}

// Two actors or the same one twice; where more faults are asked for than a test run has time for, also an actor and a
// rank, two ranks, the one that has just taken over again.
TEST(LedgerExploreTest, NorWhereverTwoProcessesCrash) {
  for (const Limits::Crashes crashes : {Limits::Crashes{2, 0}, Limits::Crashes{1, 1}, Limits::Crashes{0, 2}}) {
    if (crashes.ranks > 0 && FaultsAsked() < 2) continue;
    const Explored explored = Explore({.crashes = crashes});
    EXPECT_EQ(explored.wrong, "");
    EXPECT_GT(explored.ends, 100u);
    std::printf("%zu states, %zu of them ends, at most %d crashes of actors and %d of ranks each\n", explored.states,
                explored.ends, crashes.actors, crashes.ranks);
  }
}

// Lease ids are never used twice over epochs, so even a result that slips past the epoch's fence changes nothing.
TEST(LedgerExploreTest, LeaseIdsFenceEpochsByThemselves) {
  EXPECT_EQ(Explore({.faults = FaultsAsked(), .fence = false}).wrong, "");
}

}  // namespace
}  // namespace sluice::learner
