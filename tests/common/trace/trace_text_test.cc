#include "common/trace/trace_text.h"

#include <gtest/gtest.h>

#include "common/rpc/timestamp.h"
#include "common/trace/trace_entries.h"

namespace sluice {
namespace {

v1::TraceResponse Trace() {
  v1::TraceResponse trace;
  trace.set_job_id("tiny-1a2b3c");
  v1::GroupTrace* group = trace.add_groups();
  group->set_ordinal(71);
  group->set_state("trained");
  group->set_reason("open");
  group->set_step(4);
  group->set_summary("trained in step 4: open");
  v1::TraceEntry* issued = group->add_entries();
  issued->set_event("issued");
  issued->set_source("job store");
  issued->set_epoch(3);
  issued->set_user(17);
  issued->set_position(6);
  issued->set_text("for step 4");
  v1::TraceEntry* scored = group->add_entries();
  scored->set_event("scored");
  scored->set_source("record/rank-0000.groups");
  scored->set_attempt(2);
  scored->set_lease(12);
  scored->set_scores("ok");
  scored->set_ranker("cooccurrence-9f");
  v1::TraceEntry* accepted = group->add_entries();
  accepted->set_event("accepted");
  SetTime(absl::FromUnixMillis(1'800'000'000'123), accepted->mutable_time());
  accepted->set_source("j/journal-00000001.jsonl");
  accepted->set_attempt(2);
  accepted->set_lease(12);
  accepted->set_epoch(3);
  accepted->set_policy_version(5);
  accepted->set_actor("a-1");
  v1::TraceGap* gap = group->add_unknown();
  gap->set_what("when it was trained");
  gap->set_why("a run folder has no times of day");
  gap->set_remedy("sluicectl trace JOB");
  v1::GroupTrace* next = trace.add_groups();
  next->set_ordinal(9000);
  next->set_state("not_issued");
  next->set_step(562);
  next->set_summary("not issued: it is of step 562");
  return trace;
}

TEST(TraceTextTest, APersonReadsASentenceATimeLineAndWhatIsNotKnown) {
  EXPECT_EQ(TraceText(Trace(), absl::UTCTimeZone()),
            "group 71: trained in step 4: open\n"
            "  TIME                     EVENT     ATTEMPT  LEASE  EPOCH  VERSION  WRITTEN IN                WHAT\n"
            "  -                        issued    -        -      3      -        job store                 user 17, "
            "position 6, "
            "for step 4\n"
            "  -                        scored    2        12     -      -        record/rank-0000.groups   scores ok "
            "of ranker "
            "cooccurrence-9f\n"
            "  2027-01-15 08:00:00.123  accepted  2        12     3      5        j/journal-00000001.jsonl  actor a-1\n"
            "not known\n"
            "  when it was trained: a run folder has no times of day; to know it: sluicectl trace JOB\n"
            "\n"
            "group 9000: not issued: it is of step 562\n");
}

TEST(TraceTextTest, AProgramReadsWhatThereIsAndNoMore) {
  EXPECT_EQ(
      TraceJson(Trace().groups(0)).dump(),
      R"({"ordinal":71,"state":"trained","reason":"open","step":4,"summary":"trained in step 4: open","entries":[)"
      R"({"event":"issued","source":"job store","epoch":3,"user":17,"position":6,"text":"for step 4"},)"
      R"({"event":"scored","source":"record/rank-0000.groups","attempt":2,"lease":12,"scores":"ok",)"
      R"("ranker":"cooccurrence-9f"},)"
      R"({"time":"2027-01-15T08:00:00.123Z","event":"accepted","source":"j/journal-00000001.jsonl","attempt":2,)"
      R"("lease":12,"epoch":3,"policy_version":5,"actor":"a-1"}],)"
      R"("unknown":[{"what":"when it was trained","why":"a run folder has no times of day",)"
      R"("remedy":"sluicectl trace JOB"}]})");
  EXPECT_EQ(TraceJson(Trace().groups(1)).dump(),
            R"({"ordinal":9000,"state":"not_issued","reason":null,"step":562,)"
            R"("summary":"not issued: it is of step 562","entries":[],"unknown":[]})");
}

}  // namespace
}  // namespace sluice
