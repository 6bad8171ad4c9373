"""Every failpoint as a sudden death in a small cluster, which must end as if nothing had happened (docs/failpoints.md).

    python3 tests/faults/failpoints.py [--only TEXT] [--page]      what `./sluice proof failpoints` runs

A case is a failpoint and a number: one process of its kind is killed when it passes the failpoint for that time. A
supervisor starts it again without the failpoint, the job goes on, and then the auditor says 0 lost, 0 duplicated,
0 unexpected, and the parameters are byte for byte those of an undisturbed run: the job is synchronous, so they are a function
of the seed. The programs are those of the preset faults, in build/faults/bin or $SLUICE_BIN_DIR.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
os.environ.setdefault("SLUICE_BIN_DIR", os.path.join(TOP, "build", "faults", "bin"))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "integration")]
import audit  # noqa: E402
import harness  # noqa: E402
from harness import CANCELLED, DONE, HELD, wait_until  # noqa: E402

NAMES = os.path.join(TOP, "common", "failpoint", "failpoint_names.h")
PAGE = os.path.join(TOP, "docs", "proof", "failpoints.md")
STEPS, GROUPS = 6, 16
PASSES = (1, 3)
NOT_PASSED = "not passed so often"
NO_REWARD = {"ranker": "cooccurrence", "deadline_s": 0.2, "park_s": 12}
# Jobs that end otherwise than well, for the failpoints that only those pass.
SCENARIOS = {"coordinator/before_cancel": "cancel", "coordinator/after_cancel": "cancel",
             "coordinator/before_cancelled": "cancel", "coordinator/after_cancelled": "cancel",
             "coordinator/before_resume": "cancel", "coordinator/after_resume": "cancel",
             "coordinator/before_preempt": "preempt", "coordinator/after_preempt": "preempt",
             "coordinator/before_fail": "fail", "coordinator/after_fail": "fail",
             "coordinator/before_hold": "hold", "coordinator/after_hold": "hold"}


def names():
    with open(NAMES, encoding="utf-8") as file:
        return re.findall(r'^    \{"([^"]+)"', file.read(), re.MULTILINE)


def role_of(failpoint):
    role = failpoint.split("/")[0]
    return "learner" if role in ("publish", "checkpoint") else role


def why_not():
    """Why the cases cannot run here, in words; None if they can."""
    if os.path.exists(os.path.join(harness.BIN, "sluice-actor")):
        return None
    return f"there are no programs with failpoints in {os.path.relpath(harness.BIN, TOP)}: ./sluice build faults"


class Supervisor(threading.Thread):
    """Starts a process again when it dies of the failpoint, once."""

    def __init__(self, victim, start_again):
        super().__init__(daemon=True)
        self.victim, self.start_again = victim, start_again
        self.stopping = threading.Event()
        self.died_at = None
        self.error = None
        self.start()

    def run(self):
        while not self.stopping.wait(harness.POLL_S):
            if not self.victim.ended():
                continue
            self.died_at = time.monotonic()
            try:
                self.start_again()
            except AssertionError as error:
                self.error = error
            # The kernel ends a child with the thread that started it.
            self.stopping.wait()
            return

    def stop(self):
        self.stopping.set()
        self.join()


class FailpointCase(harness.SluiceTest):
    """Runs one case. Data set and undisturbed run are made once, for all of them."""

    world = None        # folder of the data set and of the undisturbed run
    undisturbed = None  # digest of its parameters

    @classmethod
    def setUpClass(cls):
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)
        FailpointCase.world = tempfile.mkdtemp(prefix="sluice-failpoints-")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.world, ignore_errors=True)
        FailpointCase.world = FailpointCase.undisturbed = None

    # ------------------------------------------------------------------------------------------------- the cluster

    def data(self):
        folder = os.path.join(self.world, "data")
        if not os.path.isdir(folder):
            values = harness.prepare_spec(harness.write_events(self.path("events.csv")), folder)
            values["prepare"]["ranker"] = {"sequential": False}
            self.run_job(values)
        return folder

    def start_armed(self, role, start):
        """start(); with the failpoint, if that is of this role and nobody has it yet. Returns the process."""
        if self.failpoint is None or role_of(self.failpoint) != role or self.supervisor is not None:
            return start()
        self.variables = {"SLUICE_FAILPOINTS": f"{self.failpoint}={self.action}@{self.number}"}
        try:
            process = start()
        finally:
            self.variables = {}
        self.supervisor = Supervisor(process, start)
        return process

    def start_reward_again(self):
        return self.start_reward(self.cluster.data, address=self.cluster.reward_address)[0]

    def start_all(self, failpoint, number, with_reward, action="kill"):
        self.failpoint, self.number, self.action, self.supervisor = failpoint, number, action, None
        self.cluster = cluster = harness.Cluster(self, self.data(), ranks=2, lease_s=3)
        cluster.reward_address = harness.free_address()
        coordinator = self.start_armed("coordinator", cluster.start_coordinator)
        if with_reward:
            self.start_armed("reward", self.start_reward_again)
        # The rank that joins first is the first of the group: it alone writes checkpoints.
        self.members = [self.start_armed("learner", lambda: cluster.start_rank("rank-0"))]
        coordinator.wait_for("member joined")
        self.members.append(cluster.start_rank("rank-1"))
        self.actors = [self.start_armed("actor", lambda i=i: cluster.start_actor(f"actor-{i}")) for i in range(2)]

    def job_spec(self, **changes):
        return harness.rl_spec(self.cluster.data, steps=STEPS, staleness=0, record=True,
                               **dict({"reward": {"ranker": "cooccurrence", "deadline_s": 60}}, **changes))

    def wait_for_coordinator(self):
        """Whoever asks while it is away is told so, and asks again."""
        wait_until(lambda: self.cluster.ctl("list", name="ask").wait() == DONE, "the coordinator answers")

    def submit_until_done(self, spec):
        """Submits and watches to the end; under the same request id again if the coordinator was away at the beginning."""
        watch = self.cluster.submit(spec, "--request-id", "the-only-one")
        while watch.wait() == harness.TRANSIENT:
            self.wait_for_coordinator()
            watch = self.cluster.submit(spec, "--request-id", "the-only-one")
        return watch

    def job(self):
        self.wait_for_coordinator()
        jobs = self.cluster.json("list")["jobs"]
        self.assertEqual(len(jobs), 1, "one submission, one job")
        return self.cluster.json("describe", jobs[0]["job_id"])

    def check_ctl(self, *arguments):
        """sluicectl, which itself goes on when the coordinator comes back; on a busy machine that takes a while."""
        process = self.cluster.ctl("--timeout", "60", *arguments, name=arguments[0])
        self.assertEqual(process.wait(), DONE, process.said())

    # ----------------------------------------------------------------------------------------------------- the jobs

    def run_plain(self):
        watch = self.submit_until_done(self.job_spec())
        self.assertEqual(watch.code(), DONE, watch.said())

    def stop_in_the_middle(self):
        """Submits; returns (sluicectl that watches) once there is a checkpoint and the actors are frozen."""
        watch = self.cluster.submit(self.job_spec())
        folder = self.cluster.run_folder(alive=[watch])
        wait_until(lambda: harness.checkpoints(folder), "a checkpoint", alive=[watch])
        for actor in self.actors:
            actor.pause()
        return watch

    def run_cancelled_and_resumed(self):
        watch = self.stop_in_the_middle()
        job_id = self.job()["job_id"]
        self.check_ctl("cancel", job_id)
        self.assertEqual(watch.wait(), CANCELLED, watch.said())
        self.assertEqual(self.job()["state"], "cancelled")
        # Without actors the job cannot end before a second try of the call asks for what the first one did.
        self.check_ctl("resume", job_id)
        for actor in self.actors:
            actor.resume()
        self.check_ctl("wait", job_id)

    def run_preempted(self):
        watch = self.stop_in_the_middle()
        self.members[1].terminate()
        self.assertEqual(self.members[1].wait(), DONE, self.members[1].said())
        for actor in self.actors:
            actor.resume()
        self.cluster.start_rank("successor")
        self.assertEqual(watch.wait(), DONE, watch.said())

    def run_held_and_resumed(self):
        watch = self.cluster.submit(self.job_spec(on_reward_outage="hold", operational_steps=2, reward=NO_REWARD))
        self.assertEqual(watch.wait(), HELD, watch.said())
        self.assertEqual(self.job()["state"], "held")
        self.start_reward_again()
        self.check_ctl("resume", self.job()["job_id"])
        self.check_ctl("wait", self.job()["job_id"])

    def run_failing(self):
        watch = self.submit_until_done(dict(self.job_spec(), model={"path": self.path("nowhere")}))
        self.assertNotEqual(watch.code(), DONE, watch.said())
        job = self.job()
        self.assertEqual((job["state"], job["exit_code"]), ("failed", watch.code()), job)
        self.assertIn("nowhere", job["message"])

    # ------------------------------------------------------------------------------------------------------- a case

    def check_case(self, failpoint, number):
        """Returns the case's row of the page: (failpoint, number, what happened, seconds from death to the end)."""
        scenario = SCENARIOS.get(failpoint, "plain")
        if self.undisturbed is None:
            FailpointCase.undisturbed = self.undisturbed_digest()
        self.start_all(failpoint, number, with_reward=scenario != "hold")
        {"plain": self.run_plain, "cancel": self.run_cancelled_and_resumed, "preempt": self.run_preempted,
         "hold": self.run_held_and_resumed, "fail": self.run_failing}[scenario]()
        ended_at = time.monotonic()
        # What it started is asked until the end, and ends with it.
        self.addCleanup(self.supervisor.stop)
        if self.supervisor.error:
            raise self.supervisor.error
        victim = self.supervisor.victim
        if f"failpoint {failpoint}: kill@{number}" not in victim.said():
            self.assertFalse(victim.ended(), victim.said())
            self.assertGreater(number, 1, "a failpoint that nothing passes proves nothing")
            return failpoint, number, NOT_PASSED, None
        self.assertEqual(victim.code(), -signal.SIGKILL)
        said = "job failed, once" if scenario == "fail" else self.check_result(compare=scenario != "hold")
        return failpoint, number, said, ended_at - self.supervisor.died_at

    def check_stopped(self, failpoint, number):
        """The first rank stops there, others take its job over, and it goes on while they still work: nothing changes."""
        if self.undisturbed is None:
            FailpointCase.undisturbed = self.undisturbed_digest()
        self.start_all(failpoint, number, with_reward=True, action="stop")
        # Or it would start again what the end of the test kills.
        self.addCleanup(self.supervisor.stop)
        zombie = self.members[0]
        watch = self.cluster.submit(self.job_spec())
        zombie.wait_for(f"failpoint {failpoint}: stop@{number}")
        self.cluster.start_rank("successor")
        wait_until(lambda: self.cluster.job()["epoch"] > 1, "the next epoch", alive=[watch])
        # Actors that hang on the stopped rank notice by their keepalive in half a minute; a new one works at once.
        self.actors.append(self.cluster.start_actor("late"))
        folder = self.cluster.run_folder()
        before = harness.checkpoints(folder)
        wait_until(lambda: harness.checkpoints(folder) != before, "a checkpoint of the next epoch", alive=[watch])
        for actor in self.actors:
            actor.pause()
        zombie.resume()
        zombie.wait_for("has taken over the job's run folder|in epoch 2, not in 1|epoch 1 is over|the group broke")
        for actor in self.actors:
            actor.resume()
        self.assertEqual(watch.wait(), DONE, watch.said())
        self.check_result(compare=True)

    def undisturbed_digest(self):
        self.start_all(None, 0, with_reward=True)
        self.run_plain()
        self.check_result(compare=False)
        digest = self.digest()
        for process in self.processes:
            process.kill()
        for folder in (self.cluster.runs, self.cluster.state, self.cluster.journals):
            shutil.rmtree(folder)
        return digest

    def digest(self):
        return harness.sha256(os.path.join(self.cluster.run_folder(), "export", "final", "model.safetensors"))

    def check_result(self, compare):
        run = self.cluster.run_folder()
        self.assertEqual(self.job()["state"], "succeeded")
        self.check_rl_results(run, STEPS, GROUPS)
        report = audit.audit(run, self.cluster.data, [self.cluster.journals])
        text = audit.text_of(report)
        self.assertTrue(audit.clean(report), text)
        self.assertEqual((report["trained"], report["recorded"]), (STEPS * GROUPS, STEPS * GROUPS), text)
        said = f"0 lost, 0 duplicated, 0 unexpected of {report['trained']}; {report['wasted']} rollouts wasted"
        if not compare:
            return said
        self.assertEqual(self.digest(), self.undisturbed, "the parameters of the undisturbed run")
        return said + "; same bytes"


class OneCase(FailpointCase):
    def __init__(self, failpoint, number, rows):
        super().__init__("test")
        self.case, self.rows = (failpoint, number), rows

    def test(self):
        self.rows.append(self.check_case(*self.case))


# -------------------------------------------------------------------------------------------------------------- the page

def page(rows, seconds):
    lines = ["# Failpoints", "",
             "One process of a small cluster (coordinator, two ranks, two actors, reward server) is killed with SIGKILL when it",
             "passes a failpoint for the first or the third time; a supervisor starts it again, and the job goes on. Then the",
             "auditor looks at ledger and record, and the parameters are compared with those of an undisturbed run.",
             "`./sluice proof failpoints` runs this and writes this page; the stage `faults` of CI runs a part. What the",
             "failpoints are: [failpoints.md](../failpoints.md).", "",
             f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.uname().machine}, {os.cpu_count()} cores, "
             f"{len(rows)} cases in {seconds / 60:.0f} minutes. The lease of a rank is 3 s here: a dead one is not missed earlier.", "",
             "| failpoint | killed at pass | verdict | death to the end of the job |", "| --- | --- | --- | --- |"]
    for name, number, said, recovery in rows:
        lines.append(f"| `{name}` | {number} | {said} | " + ("|" if recovery is None else f"{recovery:.1f} s |"))
    lines += ["", f"\"{NOT_PASSED.capitalize()}\": the job passes that place fewer than so many times, and nothing was killed.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Kills a process at every failpoint.")
    parser.add_argument("--only", metavar="TEXT", default="", help="only failpoints whose names hold this")
    parser.add_argument("--page", action="store_true", help=f"write {os.path.relpath(PAGE, TOP)} if all is well")
    args = parser.parse_args()
    if why_not():
        print(f"failpoints: {why_not()}", file=sys.stderr)
        return 2
    rows, broken, began = [], [], time.monotonic()
    cases = [(name, number) for name in names() for number in PASSES if args.only in name]
    FailpointCase.setUpClass()
    try:
        for name, number in cases:
            case = OneCase(name, number, rows)
            result = unittest.TestResult()
            case.run(result)
            if not result.wasSuccessful():
                broken.append((name, number))
                print("".join(text for _, text in result.failures + result.errors), file=sys.stderr)
            print(f"{len(rows) + len(broken):3d}/{len(cases)}  {name} {number}  "
                  + ("FAILED" if not result.wasSuccessful() else rows[-1][2]), flush=True)
    finally:
        FailpointCase.tearDownClass()
    print(f"{len(rows)} of {len(cases)} cases are well, {len(broken)} are not: {broken}")
    if args.page and not broken:
        with open(PAGE, "w", encoding="utf-8") as file:
            file.write(page(rows, time.monotonic() - began))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
