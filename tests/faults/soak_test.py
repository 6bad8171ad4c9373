"""The soak in short: seven faults on a tiny job, paced by its steps. And the parts of the soak by themselves."""

import collections
import json
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]
import audit  # noqa: E402
import soak  # noqa: E402
import supervise  # noqa: E402
from supervise import harness  # noqa: E402

SEED, FAULTS = 283, 7  # of all roles
STEPS, STEPS_BETWEEN = 60, 6  # the faults are over before the job can be
REWARD_DELAY_MS = 20
FIRST_OF_SEED_1 = [(3.8, "constant", "ranker", 1.8), (11.4, "kill", "coordinator", 0.0), (14.5, "version", "ranker", 5.9),
                   (19.1, "swapped", "ranker", 7.3)]


class ShortSoakTest(harness.SluiceTest):
    def test_a_job_that_is_broken_again_and_again_trains_every_group_once(self):
        data = self.prepare(ranker={"sequential": False})
        cluster = supervise.Supervisor(self, data, reward_delay_ms=REWARD_DELAY_MS, links=True).start()
        self.addCleanup(cluster.stop)
        values = harness.rl_spec(data, steps=STEPS, record=True, staleness=2, on_reward_outage="nll_only", max_attempts=100,
                                 lease_deadline_s=5, checkpoint={"every": 5})
        job_id, folder = cluster.submit(values)
        progress = supervise.Progress(folder)
        faults = soak.schedule(SEED, 600)[:FAULTS]
        attack = soak.Attack(cluster, progress, faults, STEPS_BETWEEN, tell=print)
        cluster.wait(attack.look, "the faults are over")
        self.assertEqual([fault for fault, _ in attack.struck], faults)
        self.assertEqual({fault for fault, _ in attack.waits}, set(faults))
        killed = collections.Counter(fault.target for fault in faults if fault.kind == "kill")
        self.assertFalse(killed - collections.Counter(name for name, _ in cluster.ends), cluster.ends)
        self.assertEqual([end for end in cluster.ends if end[1] not in soak.EXPECTED_ENDS], [])

        job = cluster.wait(lambda: (lambda job: job if job and job["exit_code"] is not None else None)(
            cluster.describe(job_id)), "the job ends")
        self.assertEqual((job["state"], job["step"]), ("succeeded", STEPS), job["message"])
        self.check_rl_results(folder, STEPS, 16)
        report = audit.audit(folder, data)
        self.assertTrue(audit.clean(report), audit.text_of(report))
        self.assertEqual((report["trained"], report["recorded"]), (STEPS * 16, STEPS * 16))


class ScheduleTest(unittest.TestCase):
    def test_the_same_seed_is_the_same_schedule_and_another_is_not(self):
        self.assertEqual(soak.schedule(3, 1800), soak.schedule(3, 1800))
        self.assertNotEqual(soak.schedule(3, 1800), soak.schedule(4, 1800))
        # Written down, so that a seed means the same on the next machine and in the next release.
        self.assertEqual([(fault.at_s, fault.kind, fault.target, fault.seconds) for fault in soak.schedule(1, 20)],
                         FIRST_OF_SEED_1)

    def test_a_longer_schedule_begins_with_the_shorter_one(self):
        short = soak.schedule(5, 300)
        self.assertEqual(soak.schedule(5, 1800)[:len(short)], short)

    def test_faults_of_every_kind_come_within_ten_seconds_of_each_other(self):
        seen = {role: set() for role in soak.KINDS}
        for seed in range(20):
            faults = soak.schedule(seed, 1800)
            times = [0.0] + [fault.at_s for fault in faults] + [1800.0]
            self.assertLessEqual(max(later - earlier for earlier, later in zip(times, times[1:])), soak.PROMISED_GAP_S)
            roles = {role: set() for role in soak.KINDS}
            for fault in faults:
                roles[next(role for role in soak.KINDS if fault.target in soak.NAMES.get(role, (role,)))].add(fault.kind)
                self.assertEqual(fault.seconds > 0, fault.kind in soak.LASTING, fault)
            for role, kinds in roles.items():
                # Of six sicknesses of scores one may be missing in half an hour.
                self.assertGreaterEqual(len(kinds), len(soak.KINDS[role]) - (role == "ranker"), f"{role} of seed {seed}")
                seen[role] |= kinds
        self.assertEqual(seen, {role: set(kinds) for role, kinds in soak.KINDS.items()})

    def test_the_noise_of_seeds_is_the_interval_for_one_more_of_them(self):
        mean, width = soak.noise([1.0, 2.0, 3.0])
        self.assertAlmostEqual(mean, 2)
        self.assertAlmostEqual(width, 4.303 * (4 / 3) ** 0.5, places=6)

    def test_percentiles(self):
        values = list(range(20, 0, -1))
        self.assertEqual([supervise.percentile(values, share) for share in (0.5, 0.95, 1)], [10, 19, 20])
        self.assertEqual(supervise.percentile([7], 0.5), 7)


class ProgressTest(unittest.TestCase):
    def write(self, rows, aside=False):
        path = os.path.join(self.folder.name, "aside" if aside else "metrics.jsonl")
        with open(path, "w" if aside else "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step, "time_s": time_s, "loss/nll": 1}) + "\n" for step, time_s in rows)
        if aside:
            os.replace(path, os.path.join(self.folder.name, "metrics.jsonl"))

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.progress = supervise.Progress(self.folder.name)

    def test_steps_are_counted_as_they_come_and_torn_lines_wait(self):
        self.assertEqual(self.progress.look(), 0)
        self.write([(1, 1), (2, 2)])
        self.assertEqual((self.progress.look(), self.progress.look()), (2, 0))
        with open(self.progress.path, "a", encoding="utf-8") as file:
            file.write('{"step": 3, "time_s": 3,')
        self.assertEqual(self.progress.look(), 0)
        with open(self.progress.path, "a", encoding="utf-8") as file:
            file.write(' "loss/nll": 1}\n')
        self.assertEqual((self.progress.look(), self.progress.step, self.progress.last["time_s"]), (1, 3, 3))

    def test_a_file_that_was_cut_back_tells_of_abandoned_steps_and_of_no_new_ones(self):
        self.write([(1, 1), (2, 2), (3, 3)])
        self.progress.look()
        self.write([(1, 1)], aside=True)
        self.assertEqual((self.progress.look(), self.progress.step, self.progress.abandoned), (0, 1, 2))
        self.write([(2, 5)])
        self.assertEqual((self.progress.look(), self.progress.step, self.progress.trained), (1, 2, 4))

    def test_a_cut_and_the_next_step_may_be_seen_at_once(self):
        self.write([(1, 1), (2, 2), (3, 3)])
        self.progress.look()
        self.write([(1, 1), (2, 5)], aside=True)
        self.assertEqual((self.progress.look(), self.progress.step, self.progress.abandoned), (1, 2, 2))


if __name__ == "__main__":
    harness.main()
