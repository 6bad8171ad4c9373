// Who is in the learner group: pure decisions over plain data, each with its reason.
#ifndef SLUICE_LEARNER_COORDINATOR_MEMBERSHIP_H_
#define SLUICE_LEARNER_COORDINATOR_MEMBERSHIP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "learner/job/job.h"

namespace sluice::learner {

struct Member {
  std::string id;
  std::string address;  // where actors reach it
  std::string host;
  std::string version;  // of its release; empty: it does not say
  absl::Time lease_until;
  absl::Time last_heard;
  std::string phase;
  uint32_t actors = 0;
  uint32_t waiting_blocks = 0;  // lease blocks that wait for an actor
  uint64_t step = 0;
  bool leaving = false;              // its process was asked to stop: it finishes the job it has, and gets no other
  LedgerBalance balance;             // of this rank's share
  std::vector<absl::Time> attached;  // actors sent here that its heartbeats may not count yet
};

struct GroupDecision {
  enum class Kind {
    kKeep,  // the group stands as it is (or there is none, and none can form)
    kForm,  // a new epoch with `members`
    kLost,  // the group is lost, and too few are left for a new one
  };
  Kind kind = Kind::kKeep;
  std::vector<size_t> members;  // kForm: indices into `joined`, rank by rank
  std::string reason;
};

// `joined`: the living, in the order they joined. `group`: ids of the present epoch's members, empty if there is none.
// `busy`: the group runs a job. A busy group keeps its epoch exactly as long as every member of it lives, an idle one
// as long as none is leaving either; who is left over stands by. No group is formed with a member that is leaving.
GroupDecision DecideGroup(const std::vector<Member>& joined, const std::vector<std::string>& group, int ranks,
                          bool busy);

struct RankChoice {
  int rank = -1;  // -1: none
  std::string reason;
};

// The rank that a new actor works for: the one with the fewest actors, the lowest of those, not one to avoid unless
// all are. `actors` and `addresses` are indexed by rank.
RankChoice ChooseRank(const std::vector<uint32_t>& actors, const std::vector<std::string>& addresses,
                      const std::vector<std::string>& avoid);

// What a rank has to do and who does it.
struct RankLoad {
  uint32_t actors = 0;
  uint32_t waiting_blocks = 0;
};

// The rank that is to send one of its actors away, -1 if none is. A step needs every rank's groups, so one rank without
// an actor holds up all: it gets one from the rank with the most, and the last one too of a rank that has nothing to
// do. Indexed by rank.
RankChoice ChooseDonor(const std::vector<RankLoad>& loads);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_COORDINATOR_MEMBERSHIP_H_
