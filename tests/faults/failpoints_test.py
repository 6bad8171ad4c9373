"""A part of the cases of failpoints.py, one of each kind of place; ./sluice proof failpoints runs all of them."""

import failpoints
import harness

CASES = (("actor/after_sample", 1), ("actor/before_send", 3), ("reward/before_answer", 3), ("learner/before_all_reduce", 3),
         ("learner/after_commit", 3), ("publish/after_reserve", 3), ("checkpoint/before_manifest", 3),
         ("checkpoint/after_rename", 1), ("coordinator/after_assign", 1), ("coordinator/before_succeed", 1))


class FailpointsTest(failpoints.FailpointCase):
    def check(self, *case):
        row = self.check_case(*case)
        self.assertNotEqual(row[2], failpoints.NOT_PASSED, row)

    def test_a_rank_that_stops_between_its_fence_and_its_checkpoints_name_changes_nothing_when_it_goes_on(self):
        self.check_stopped("checkpoint/after_fence", 2)

    def test_a_rank_that_stops_between_its_fence_and_the_first_ledgers_name_changes_nothing_when_it_goes_on(self):
        self.check_stopped("checkpoint/after_table_fence", 1)


def name_of(failpoint, number):
    return f"test_killed_at_pass_{number}_of_{failpoint.replace('/', '_')}_all_is_as_if_nothing_had_happened"


for one in CASES:
    setattr(FailpointsTest, name_of(*one), lambda self, case=one: self.check(*case))


if __name__ == "__main__":
    harness.main()
