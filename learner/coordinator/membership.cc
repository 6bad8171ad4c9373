#include "learner/coordinator/membership.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sluice::learner {
namespace {

bool Contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool Holds(const std::vector<Member>& joined, const std::string& id, bool busy) {
  return std::any_of(joined.begin(), joined.end(),
                     [&id, busy](const Member& member) { return member.id == id && (busy || !member.leaving); });
}

}  // namespace

GroupDecision DecideGroup(const std::vector<Member>& joined, const std::vector<std::string>& group, int ranks,
                          bool busy) {
  GroupDecision decision;
  int lost = 0;
  std::string lost_id;
  for (const std::string& id : group) {
    if (Holds(joined, id, busy)) continue;
    ++lost;
    lost_id = id;
  }
  if (!group.empty() && lost == 0 && static_cast<int>(group.size()) == ranks) {
    decision.reason = absl::StrCat("all ", ranks, " ranks live");
    return decision;
  }
  std::vector<size_t> staying;
  for (size_t i = 0; i < joined.size(); ++i) {
    if (!joined[i].leaving) staying.push_back(i);
  }
  const std::string why =
      lost > 0 ? absl::StrCat(lost, " of ", group.size(), " ranks lost or leaving (", lost_id, "); ") : "";
  if (static_cast<int>(staying.size()) >= ranks) {
    decision.kind = GroupDecision::Kind::kForm;
    decision.members.assign(staying.begin(), staying.begin() + ranks);
    decision.reason = absl::StrCat(why, ranks, " of ", staying.size(), " members form the group");
    return decision;
  }
  decision.kind = group.empty() ? GroupDecision::Kind::kKeep : GroupDecision::Kind::kLost;
  decision.reason = absl::StrCat(why, staying.size(), " of ", ranks, " ranks have joined");
  return decision;
}

RankChoice ChooseRank(const std::vector<uint32_t>& actors, const std::vector<std::string>& addresses,
                      const std::vector<std::string>& avoid) {
  RankChoice choice;
  bool chosen_avoided = true;
  for (size_t rank = 0; rank < actors.size(); ++rank) {
    if (addresses[rank].empty()) continue;
    const bool avoided = Contains(avoid, addresses[rank]);
    const bool better = choice.rank < 0 || (chosen_avoided && !avoided) ||
                        (chosen_avoided == avoided && actors[rank] < actors[choice.rank]);
    if (!better) continue;
    choice.rank = static_cast<int>(rank);
    chosen_avoided = avoided;
  }
  if (choice.rank < 0) {
    choice.reason = "no rank serves actors";
  } else if (chosen_avoided && !avoid.empty() && Contains(avoid, addresses[choice.rank])) {
    choice.reason = "every rank is to be avoided; this one has the fewest actors";
  } else {
    choice.reason = absl::StrCat("rank ", choice.rank, " has the fewest actors, ", actors[choice.rank]);
  }
  return choice;
}

RankChoice ChooseDonor(const std::vector<RankLoad>& loads) {
  int needy = -1;
  int donor = -1;
  for (size_t rank = 0; rank < loads.size(); ++rank) {
    const RankLoad& load = loads[rank];
    if (load.waiting_blocks > 0 && (needy < 0 || load.actors < loads[needy].actors)) needy = static_cast<int>(rank);
    const bool more = donor < 0 || load.actors > loads[donor].actors ||
                      (load.actors == loads[donor].actors && load.waiting_blocks < loads[donor].waiting_blocks);
    if (more) donor = static_cast<int>(rank);
  }
  RankChoice choice;
  if (needy < 0 || donor == needy || loads[donor].actors == 0) {
    choice.reason = "no rank wants for actors";
    return choice;
  }
  const bool unfair = loads[donor].actors >= loads[needy].actors + 2;
  const bool last_but_idle = loads[needy].actors == 0 && loads[donor].waiting_blocks == 0;
  if (!unfair && !last_but_idle) {
    choice.reason = "every rank needs its own actors";
    return choice;
  }
  choice.rank = donor;
  choice.reason =
      absl::StrCat("rank ", needy, " has ", loads[needy].actors, " actors for ", loads[needy].waiting_blocks,
                   " waiting blocks, rank ", donor, " has ", loads[donor].actors, " actors");
  return choice;
}

}  // namespace sluice::learner
