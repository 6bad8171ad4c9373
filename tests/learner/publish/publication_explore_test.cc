// Every order of events of a small world over the real Publication: one learner that publishes two versions, two or
// three actors, and so many faults: a message that is lost, a deadline that passes while its answer is on its way, a
// fetch that fails or brings something else, an actor that dies or whose stream breaks.
//
// In every state: nobody may be given work under a version whose bytes it did not prove, or that it does not sample
// with; no version falls; a quorum that is told is there. And from every state, if nothing goes wrong any more, all
// actors come to the latest version: no wait is without end.
//
// A depth-first search over copies of the world; states that look the same are visited once. $SLUICE_EXPLORE_FAULTS
// asks for more faults than a test run has time for. The actor is modelled after ActorClient: it does one thing after
// the other, and what it is told meanwhile waits in one place, where the latest replaces what was there; a broadcast
// that it waits for is given up for it.
//
// With a weight group a broadcast comes to all members in one event, once the sender and they all take part; what is
// beyond the faults above is a sender that fails. A group never has two memberships, and a version never two rounds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "learner/publish/publication.h"

namespace sluice::learner {
namespace {

constexpr uint64_t kVersions = 2;

std::string ChecksumOf(uint64_t version) { return absl::StrCat("sum of ", version); }

struct Setting {
  int actors = 2;
  int earlier = 0;  // of these, actors of an earlier release
  bool peers = false;
  int branching = 4;
  int min_actors = 0;
  int faults = 1;
  bool group = false;     // all that speak the protocol can be in a weight group
  bool attached = false;  // all are attached before anything else happens
  int failures = 3;       // rounds that fail before there are none for a while
};

// What an actor says.
struct Word {
  enum Kind { kPrepared, kVerified, kDamaged, kFailed, kReady } kind;
  uint64_t version;
  bool peer_failed = false;
  uint64_t epoch = 0;  // kFailed: of the group in which it failed
};

struct ModelActor {
  bool staged = true;
  uint64_t handle = 0;     // 0: not attached
  bool unnoticed = false;  // its stream is broken, and the rank does not know yet
  uint64_t active = 0;
  uint64_t shadow = 0;  // whole and hashed, not swapped in
  uint64_t proven = 0;  // the highest version whose right hash the rank has heard in this attachment
  std::optional<PublicationOrder> fetching;
  bool received = false;                  // of a broadcast: it is here, and not hashed yet
  uint64_t void_epoch = 0;                // weight groups up to this one are of no use to it
  std::optional<PublicationOrder> order;  // waits
  std::deque<PublicationOrder> from_rank;
  std::deque<Word> to_rank;
};

class World {
 public:
  explicit World(const Setting& setting)
      : setting_(setting), publication_([&setting] {
          PublicationOptions options;
          options.branching = setting.branching;
          options.min_actors = setting.min_actors;
          if (setting.group) options.group = "gloo";
          options.group_failures = setting.failures;
          return options;
        }()) {
    actors_.resize(static_cast<size_t>(setting.actors));
    for (int a = 0; a < setting.earlier; ++a) actors_[static_cast<size_t>(a)].staged = false;
    for (size_t a = 0; setting.attached && a < actors_.size(); ++a) Attach(a);
  }

  std::vector<std::pair<std::string, std::unique_ptr<World>>> Successors() const {
    std::vector<std::pair<std::string, std::unique_ptr<World>>> found;
    const auto add = [&](std::string what, auto change) {
      auto next = std::make_unique<World>(*this);
      if (change(*next)) found.emplace_back(std::move(what), std::move(next));
    };
    for (size_t a = 0; a < actors_.size(); ++a) {
      add(absl::StrCat("attach ", a), [a](World& world) { return world.Attach(a); });
      add(absl::StrCat("tell ", a), [a](World& world) { return world.Tell(a); });
      add(absl::StrCat("hear ", a), [a](World& world) { return world.Hear(a); });
      add(absl::StrCat("fetched ", a), [a](World& world) { return world.Fetched(a, Word::kVerified); });
      add(absl::StrCat("notice ", a), [a](World& world) { return world.Notice(a); });
      add(absl::StrCat("closed at ", a), [a](World& world) { return world.MemberNotices(a); });
    }
    add("broadcast", [](World& world) { return world.Broadcast(); });
    add("sender notices", [](World& world) { return world.SenderNotices(); });
    add("hear sender", [](World& world) { return world.HearSender(); });
    const bool stuck = found.empty();
    add("publish", [](World& world) { return world.Publish(); });
    add("deadline", [stuck](World& world) { return (stuck || world.Fault()) && world.Pass(); });
    add("sender fails", [](World& world) { return world.sending_ && world.Fault() && world.EndSending(false); });
    for (size_t a = 0; a < actors_.size(); ++a) {
      add(absl::StrCat("lose to ", a), [a](World& world) { return world.Lose(a, world.actors_[a].from_rank); });
      add(absl::StrCat("lose from ", a), [a](World& world) { return world.Lose(a, world.actors_[a].to_rank); });
      add(absl::StrCat("damaged at ", a), [a](World& world) { return world.Fetched(a, Word::kDamaged); });
      add(absl::StrCat("not fetched by ", a), [a](World& world) { return world.Fetched(a, Word::kFailed); });
      add(absl::StrCat("peer fails ", a), [a](World& world) { return world.Fetched(a, Word::kVerified, true); });
      add(absl::StrCat("crash ", a), [a](World& world) { return world.Break(a, /*crash=*/true); });
      add(absl::StrCat("break ", a), [a](World& world) { return world.Break(a, /*crash=*/false); });
    }
    return found;
  }

  std::string Fingerprint() const {
    std::string text = absl::StrCat(faults_, "|", publication_.Fingerprint(now_));
    const auto order = [&text](const PublicationOrder& one) {
      absl::StrAppend(&text, static_cast<int>(one.kind), ".", one.version, one.source, ".", one.place.epoch, ",");
    };
    absl::StrAppend(&text, "|", dead_epoch_);
    if (sending_) absl::StrAppend(&text, "|sends ", sending_->version, ".", sending_->place.epoch);
    for (const Sent& sent : from_sender_) absl::StrAppend(&text, "|", sent.epoch, ".", sent.version, ".", sent.ok);
    for (const ModelActor& actor : actors_) {
      absl::StrAppend(&text, "|", actor.handle, ".", actor.unnoticed, ".", actor.active, ".", actor.shadow, ".",
                      actor.proven, ".", actor.received, actor.void_epoch, ":");
      if (actor.fetching) order(*actor.fetching);
      absl::StrAppend(&text, ":");
      if (actor.order) order(*actor.order);
      absl::StrAppend(&text, ":");
      for (const PublicationOrder& one : actor.from_rank) order(one);
      absl::StrAppend(&text, ":");
      for (const Word& word : actor.to_rank)
        absl::StrAppend(&text, word.kind, ".", word.version, word.peer_failed, word.epoch, ",");
    }
    return text;
  }

  std::string Wrong() const {
    if (!wrong_.empty()) return wrong_;
    int at_latest = 0;
    std::array<int, kNumWeightStates> in_state{};
    for (size_t a = 0; a < actors_.size(); ++a) {
      const ModelActor& actor = actors_[a];
      if (actor.handle == 0 && !actor.unnoticed) continue;
      const uint64_t handle = actor.handle != 0 ? actor.handle : lost_handle_[a];
      const uint64_t active = publication_.ActiveVersion(handle);
      if (actor.handle != 0 && active > actor.active) {
        return absl::StrCat("actor ", a, " would be given work under ", active, " and holds ", actor.active);
      }
      at_latest += active == publication_.latest() && active != 0 ? 1 : 0;
      ++in_state[static_cast<size_t>(publication_.StateOf(handle))];
      if (publication_.StateOf(handle) == WeightState::kReady && active != publication_.latest()) {
        return absl::StrCat("actor ", a, " is called ready at ", active);
      }
    }
    for (int s = 0; s < kNumWeightStates; ++s) {
      if (in_state[static_cast<size_t>(s)] != publication_.CountIn(static_cast<WeightState>(s))) {
        return absl::StrCat("miscounted: ", WeightStateName(static_cast<WeightState>(s)));
      }
    }
    if (publication_.committed() != at_latest) {
      return absl::StrCat(publication_.committed(), " are said to have committed, ", at_latest, " have");
    }
    // Who fell back took the version twice over the rank's link; so did who came back.
    if (faults_ == 0 && setting_.peers && publication_.counts().from_rank > kVersions * setting_.branching) {
      return "the rank sent more often than it branches";
    }
    for (const FallbackReason reason : {FallbackReason::kGroupLate, FallbackReason::kGroupFailed}) {
      if (faults_ == 0 && publication_.counts().fallbacks[static_cast<size_t>(reason)] > 0) {
        return "a round failed, and nothing went wrong";
      }
    }
    return "";
  }

  // Goes on without faults. Empty: every actor came to the latest version.
  std::string Settle() const {
    World world(*this);
    world.faults_ = 1000;  // none is left
    for (int round = 0; round < 100; ++round) {
      bool moved = true;
      while (moved) {
        moved = world.Broadcast() || world.SenderNotices() || world.HearSender();
        for (size_t a = 0; a < world.actors_.size(); ++a) {
          moved |= world.Notice(a) || world.MemberNotices(a) || world.Attach(a) || world.Tell(a) ||
                   world.Fetched(a, Word::kVerified) || world.Hear(a);
        }
        if (const std::string wrong = world.Wrong(); !wrong.empty()) return wrong;
      }
      if (world.publication_.latest() == 0) return "";
      const bool settled = std::all_of(world.actors_.begin(), world.actors_.end(), [&world](const ModelActor& actor) {
        return world.publication_.StateOf(actor.handle) == WeightState::kReady;
      });
      if (settled) return world.publication_.QuorumCommitted() ? "" : "all are ready, and the learner waits";
      if (!world.Pass()) return absl::StrCat("waits for ever: ", world.Fingerprint());
    }
    return absl::StrCat("does not settle: ", world.Fingerprint());
  }

  bool AllReady() const {
    return publication_.latest() == kVersions && publication_.CountIn(WeightState::kReady) == setting_.actors;
  }

 private:
  bool Fault() { return ++faults_ <= setting_.faults; }

  std::string AddressOf(size_t a) const { return setting_.peers && actors_[a].staged ? absl::StrCat("peer", a) : ""; }

  void Send() {
    for (PublicationOrder& order : publication_.TakeOrders()) {
      if (order.kind == PublicationOrder::Kind::kBroadcast) {
        std::vector<uint64_t>& members = members_[order.place.epoch];
        const size_t rank = static_cast<size_t>(order.place.rank);
        const size_t others = static_cast<size_t>(order.place.world_size) - 1;
        if (members.empty()) members.resize(others);
        if (members.size() != others || rank < 1 || rank > others) {
          wrong_ = "a place that the group has not";
          continue;
        }
        if (members[rank - 1] != 0 && members[rank - 1] != order.actor) wrong_ = "two actors in one place of a group";
        members[rank - 1] = order.actor;
      }
      for (ModelActor& actor : actors_) {
        if (actor.handle != order.actor) continue;
        const bool commit = order.kind == PublicationOrder::Kind::kCommit;
        if (commit && actor.proven < order.version) wrong_ = "an actor is told to commit what it did not prove";
        actor.from_rank.push_back(order);
      }
    }
    for (const GroupOrder& order : publication_.TakeGroupOrders()) {
      if (order.kind == GroupOrder::Kind::kAbort) {
        dead_epoch_ = std::max(dead_epoch_, order.place.epoch);
        if (sending_ && sending_->place.epoch <= order.place.epoch) EndSending(false);
        continue;
      }
      if (order.version <= last_sent_) wrong_ = "a version has a second round";
      if (sending_) wrong_ = "two rounds at a time";
      if (publication_.GroupPaused(now_)) wrong_ = "a round begins although there are to be none";
      last_sent_ = order.version;
      sending_ = order;
    }
    publication_.TakeTimes();
  }

  // The broadcast, at once for all: everybody takes part.
  bool Broadcast() {
    if (!sending_) return false;
    std::vector<ModelActor*> members;
    for (const uint64_t handle : members_[sending_->place.epoch]) {
      for (ModelActor& actor : actors_) {
        const bool takes_part = actor.handle == handle && actor.fetching && !actor.received &&
                                actor.fetching->kind == PublicationOrder::Kind::kBroadcast &&
                                actor.fetching->place.epoch == sending_->place.epoch &&
                                actor.fetching->version == sending_->version;
        if (takes_part) members.push_back(&actor);
      }
    }
    if (members.size() != members_[sending_->place.epoch].size()) return false;
    for (ModelActor* member : members) member->received = true;
    return EndSending(true);
  }

  // A member is gone, or has given the group up: its connections are closed.
  bool SenderNotices() {
    if (!sending_) return false;
    for (const uint64_t handle : members_[sending_->place.epoch]) {
      const bool alive = std::any_of(actors_.begin(), actors_.end(), [&](const ModelActor& actor) {
        return actor.handle == handle && actor.void_epoch < sending_->place.epoch;
      });
      if (!alive) return EndSending(false);
    }
    return false;
  }

  // The sender has given the group up: the member's connections are closed.
  bool MemberNotices(size_t a) {
    ModelActor& actor = actors_[a];
    const bool waits = actor.fetching && actor.fetching->kind == PublicationOrder::Kind::kBroadcast && !actor.received;
    if (!waits || actor.fetching->place.epoch > dead_epoch_) return false;
    actor.void_epoch = actor.fetching->place.epoch;
    actor.to_rank.push_back({Word::kFailed, actor.fetching->version, false, actor.fetching->place.epoch});
    actor.fetching.reset();
    Act(actor);
    return true;
  }

  bool EndSending(bool ok) {
    if (!ok) dead_epoch_ = sending_->place.epoch;
    from_sender_.push_back({sending_->place.epoch, sending_->version, ok});
    sending_.reset();
    return true;
  }

  bool HearSender() {
    if (from_sender_.empty()) return false;
    const Sent sent = from_sender_.front();
    from_sender_.pop_front();
    publication_.OnBroadcast(sent.epoch, sent.version, sent.ok, now_);
    Send();
    return true;
  }

  bool Attach(size_t a) {
    ModelActor& actor = actors_[a];
    if (actor.handle != 0) return false;
    Notice(a);  // a hub sends the old attachment of the same actor away first
    actor.handle = next_handle_++;
    const bool in_group = setting_.group && actor.staged;
    publication_.Join(actor.handle,
                      {.staged = actor.staged, .peer_address = AddressOf(a), .group = in_group ? "gloo" : ""}, now_);
    Send();
    return true;
  }

  bool Publish() {
    if (publication_.latest() == kVersions) return false;
    const uint64_t version = publication_.latest() + 1;
    publication_.Publish(version, ChecksumOf(version), now_);
    Send();
    return true;
  }

  // The rank takes in what an actor said.
  bool Hear(size_t a) {
    ModelActor& actor = actors_[a];
    if (actor.to_rank.empty()) return false;
    const Word word = actor.to_rank.front();
    actor.to_rank.pop_front();
    const uint64_t before = publication_.ActiveVersion(actor.handle);
    switch (word.kind) {
      case Word::kPrepared:
        publication_.OnPrepared(actor.handle, word.version, now_);
        break;
      case Word::kVerified:
        actor.proven = std::max(actor.proven, word.version);
        publication_.OnVerified(actor.handle, word.version, ChecksumOf(word.version), word.peer_failed, now_);
        break;
      case Word::kDamaged:
        publication_.OnVerified(actor.handle, word.version, "another", word.peer_failed, now_);
        break;
      case Word::kFailed:
        if (word.epoch != 0) {
          publication_.OnMemberFailed(actor.handle, word.version, word.epoch, now_);
        } else {
          publication_.OnFailed(actor.handle, word.version, now_);
        }
        break;
      case Word::kReady:
        publication_.OnReady(actor.handle, word.version, now_);
        break;
    }
    if (publication_.ActiveVersion(actor.handle) < before) wrong_ = "an active version fell";
    Send();
    return true;
  }

  // The actor takes in what the rank said.
  bool Tell(size_t a) {
    ModelActor& actor = actors_[a];
    if (actor.from_rank.empty()) return false;
    actor.order = actor.from_rank.front();
    actor.from_rank.pop_front();
    Act(actor);
    return true;
  }

  void Act(ModelActor& actor) {
    const bool waits = actor.fetching && actor.fetching->kind == PublicationOrder::Kind::kBroadcast && !actor.received;
    if (waits && actor.order) {
      actor.void_epoch = actor.fetching->place.epoch;
      actor.fetching.reset();
    }
    if (actor.fetching || !actor.order) return;
    const PublicationOrder order = *std::exchange(actor.order, std::nullopt);
    const uint64_t version = order.version;
    const bool holds = actor.active == version || actor.shadow == version;
    if (!actor.staged) {
      if (actor.active == version) {
        actor.to_rank.push_back({Word::kReady, version});
      } else {
        actor.fetching = order;
      }
      return;
    }
    switch (order.kind) {
      case PublicationOrder::Kind::kPrepare:
        if (!holds) actor.shadow = 0;
        actor.to_rank.push_back({holds ? Word::kVerified : Word::kPrepared, version});
        break;
      case PublicationOrder::Kind::kBroadcast:
      case PublicationOrder::Kind::kTransfer:
        if (holds) {
          actor.to_rank.push_back({Word::kVerified, version});
        } else if (order.place.epoch != 0 && order.place.epoch <= actor.void_epoch) {
          actor.to_rank.push_back({Word::kFailed, version, false, order.place.epoch});
        } else {
          actor.shadow = 0;
          actor.fetching = order;
        }
        break;
      case PublicationOrder::Kind::kCommit:
        if (actor.shadow == version) {
          if (version < actor.active) wrong_ = "an actor went back";
          actor.active = std::exchange(actor.shadow, 0);
        }
        actor.to_rank.push_back({actor.active == version ? Word::kReady : Word::kFailed, version});
        break;
    }
  }

  bool Fetched(size_t a, Word::Kind how, bool peer_fails = false) {
    ModelActor& actor = actors_[a];
    if (!actor.fetching) return false;
    const uint64_t version = actor.fetching->version;
    const bool in_group = actor.fetching->kind == PublicationOrder::Kind::kBroadcast;
    if (in_group && how != Word::kFailed && !actor.received) return false;
    const bool from_peer = !actor.fetching->source.empty();
    bool peer_has_it = false;
    for (size_t p = 0; from_peer && p < actors_.size(); ++p) {
      if (AddressOf(p) == actor.fetching->source) peer_has_it = actors_[p].active == version;
    }
    if (peer_fails && !(from_peer && peer_has_it)) return false;
    if ((how != Word::kVerified || peer_fails) && !Fault()) return false;
    if (!actor.staged && how != Word::kVerified) return false;  // it would leave and come again, which is another event
    const uint64_t epoch = in_group && how == Word::kFailed ? actor.fetching->place.epoch : 0;
    if (in_group && !actor.received) actor.void_epoch = actor.fetching->place.epoch;
    actor.fetching.reset();
    actor.received = false;
    if (!actor.staged) {
      actor.active = version;
      actor.to_rank.push_back({Word::kReady, version});
    } else {
      if (how == Word::kVerified) actor.shadow = version;
      actor.to_rank.push_back({how, version, from_peer && (!peer_has_it || peer_fails), epoch});
    }
    Act(actor);
    return true;
  }

  bool Lose(size_t a, auto& queue) {
    if (queue.empty() || !actors_[a].staged || !Fault()) return false;
    queue.pop_front();
    return true;
  }

  bool Break(size_t a, bool crash) {
    ModelActor& actor = actors_[a];
    if (actor.handle == 0 || !Fault()) return false;
    ModelActor after;
    after.staged = actor.staged;
    if (!crash) after.active = actor.active;
    lost_handle_[a] = actor.handle;
    after.unnoticed = true;
    actor = after;
    return true;
  }

  bool Notice(size_t a) {
    ModelActor& actor = actors_[a];
    if (!std::exchange(actor.unnoticed, false)) return false;
    publication_.Leave(lost_handle_[a], now_);
    Send();
    return true;
  }

  bool Pass() {
    if (publication_.NextDeadline() == absl::InfiniteFuture()) return false;
    now_ = publication_.NextDeadline();
    publication_.Tick(now_);
    Send();
    return true;
  }

  Setting setting_;
  Publication publication_;
  std::vector<ModelActor> actors_;
  std::array<uint64_t, 3> lost_handle_{};
  uint64_t next_handle_ = 1;
  absl::Time now_ = absl::UnixEpoch();
  int faults_ = 0;
  std::string wrong_;

  // How a broadcast went.
  struct Sent {
    uint64_t epoch;
    uint64_t version;
    bool ok;
  };
  std::optional<GroupOrder> sending_;  // the rank's sender waits for the members
  std::deque<Sent> from_sender_;
  uint64_t dead_epoch_ = 0;
  uint64_t last_sent_ = 0;
  std::map<uint64_t, std::vector<uint64_t>> members_;  // handles, by epoch
};

struct Explored {
  size_t states = 0;
  size_t ready = 0;   // of these, all actors at the last version
  std::string wrong;  // the first thing, and how it came to be
};

Explored Explore(const Setting& setting) {
  Explored explored;
  std::vector<std::pair<int, std::string>> history;  // parent and event of each visited state
  const auto story = [&history](int index) {
    std::string text;
    for (; index > 0; index = history[static_cast<size_t>(index)].first) {
      text = absl::StrCat(history[static_cast<size_t>(index)].second, "; ", text);
    }
    return text;
  };
  absl::flat_hash_set<std::pair<uint64_t, uint64_t>> seen;  // fingerprints, hashed to 128 bits
  std::vector<std::pair<std::unique_ptr<World>, int>> todo;
  const auto visit = [&](std::unique_ptr<World> world, int parent, std::string what) {
    const std::string fingerprint = world->Fingerprint();
    if (!seen.emplace(absl::HashOf(fingerprint), absl::HashOf(fingerprint, 1)).second) return;
    history.emplace_back(parent, std::move(what));
    const int index = static_cast<int>(history.size()) - 1;
    std::string wrong = world->Wrong();
    if (wrong.empty()) wrong = world->Settle();
    if (!wrong.empty() && explored.wrong.empty()) explored.wrong = absl::StrCat(wrong, ", after: ", story(index));
    explored.ready += world->AllReady() ? 1 : 0;
    todo.emplace_back(std::move(world), index);
  };
  visit(std::make_unique<World>(setting), -1, "");
  while (!todo.empty() && explored.wrong.empty()) {
    auto [world, index] = std::move(todo.back());
    todo.pop_back();
    for (auto& [what, next] : world->Successors()) visit(std::move(next), index, std::move(what));
  }
  explored.states = history.size();
  return explored;
}

int Faults(int usual) {
  const char* asked = std::getenv("SLUICE_EXPLORE_FAULTS");
  int faults = 0;
  return asked != nullptr && absl::SimpleAtoi(asked, &faults) && faults >= usual ? faults : usual;
}

void Expect(const Setting& setting) {
  const Explored explored = Explore(setting);
  EXPECT_EQ(explored.wrong, "");
  EXPECT_GT(explored.ready, 0u);
  std::printf("%zu states, %zu of them with all actors at the last version, at most %d faults each\n", explored.states,
              explored.ready, setting.faults);
}

TEST(PublicationExploreTest, TwoActorsThatFetchFromTheRank) { Expect({.min_actors = 1, .faults = Faults(1)}); }

TEST(PublicationExploreTest, OneActorAndManyFaults) { Expect({.actors = 1, .min_actors = 1, .faults = Faults(3)}); }

TEST(PublicationExploreTest, TwoActorsOneOfWhichFetchesFromTheOther) {
  Expect({.peers = true, .branching = 1, .min_actors = 2, .faults = Faults(1)});
}

TEST(PublicationExploreTest, AnActorOfAnEarlierReleaseBesideOneThatSpeaksTheProtocol) {
  Expect({.earlier = 1, .peers = true, .branching = 1, .faults = Faults(1)});
}

TEST(PublicationExploreTest, TwoActorsInAWeightGroup) { Expect({.min_actors = 1, .faults = Faults(1), .group = true}); }

TEST(PublicationExploreTest, OneActorInAWeightGroupAndManyFaults) {
  Expect({.actors = 1, .min_actors = 1, .faults = Faults(2), .group = true});
  Expect({.actors = 1, .min_actors = 1, .faults = Faults(2), .group = true, .failures = 1});
}

TEST(PublicationExploreTest, AWeightGroupBesideAnActorOfAnEarlierReleaseThatFetchesFromTheOther) {
  Expect({.earlier = 1, .peers = true, .branching = 1, .faults = Faults(1), .group = true});
}

TEST(PublicationExploreTest, ThreeActorsInAWeightGroup) {
  Expect({.actors = 3, .faults = 0, .group = true, .attached = true});
}

TEST(PublicationExploreTest, ThreeActorsInATree) { Expect({.actors = 3, .peers = true, .branching = 1, .faults = 0}); }

}  // namespace
}  // namespace sluice::learner
