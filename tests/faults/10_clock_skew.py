"""Clocks are an hour apart, and one is set an hour forth or back during the run. Leases and deadlines go by monotonic time,
so the job does not care.

libfaketime shifts the wall clock of one process; its monotonic clock stays true, as on a machine whose time is set.
"""

import contextlib
import glob
import os

from experiment import Missing, harness, main
from harness import DONE, wait_until

HOUR_S = 3600
PATIENCE_S = 25  # far less than the hour that a mistaken wait would take


def library():
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        raise Missing("there is no libfaketime here; it is in the Debian package faketime")
    return found[0]


class Clock:
    """The wall clock of the processes that are started within it."""

    def __init__(self, x, name):
        self.file = x.path(f"clock-{name}")
        self.set(0)

    def set(self, seconds):
        aside = self.file + ".new"
        with open(aside, "w", encoding="utf-8") as file:
            file.write(f"{seconds:+d}\n")
        os.replace(aside, self.file)

    @contextlib.contextmanager
    def within(self):
        changes = {"LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": self.file, "FAKETIME_NO_CACHE": "1",
                   "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name in changes:
                del os.environ[name]


def start(x, name, offsets, steps):
    """(clocks by process, cluster, sluicectl that watches, run folder) of a job with one rank."""
    clocks = {who: Clock(x, f"{name}-{who}") for who in ("coordinator", "rank", "reward", "actor")}
    for who, offset in offsets.items():
        clocks[who].set(offset)
    cluster = harness.Cluster(x, x.data, ranks=1)
    cluster.runs, cluster.state = x.path(f"{name} runs"), x.path(f"{name} state")
    for who in clocks:
        with clocks[who].within():
            getattr(cluster, f"start_{who}")()
    watch = cluster.submit(x.rl(steps=steps))
    folder = cluster.run_folder(alive=[watch])
    return clocks, cluster, watch, folder


def end(x, watch, folder, steps):
    x.assertEqual(watch.wait(), DONE, watch.said())
    x.check_rl_results(folder, steps, 16)
    x.check_audit(folder)
    for process in x.processes:
        process.kill()


def apart(x):
    steps = x.pick(8, 50)
    _, _, watch, folder = start(x, "apart", {"rank": HOUR_S, "actor": -HOUR_S, "reward": HOUR_S}, steps)
    end(x, watch, folder, steps)
    x.note("clocks two hours apart")


def stepped(x, who, seconds):
    """One clock is set while the job runs; it must go on as if nothing was."""
    steps = 60
    clocks, cluster, watch, folder = start(x, f"{who}{seconds:+d}", {}, steps)
    x.step(folder, 1, alive=[watch])
    epoch = cluster.job()["epoch"]
    before = harness.last_step(folder)
    with x.recovery():
        clocks[who].set(seconds)
        wait_until(lambda: watch.ended() or harness.last_step(folder) > before + 5, f"the job goes on after {who} {seconds:+d} s",
                   limit_s=PATIENCE_S)
    wait_until(watch.ended, f"the job ends after {who} {seconds:+d} s", limit_s=PATIENCE_S)
    x.assertEqual(cluster.job()["epoch"], epoch, "a clock that was set cost an epoch")
    end(x, watch, folder, steps)


def run(x):
    library()
    apart(x)
    every = [(who, seconds) for who in ("coordinator", "reward", "actor", "rank") for seconds in (HOUR_S, -HOUR_S)]
    set_back = ("rank", -HOUR_S)  # which made ranks go silent once
    for who, seconds in every if x.thorough else [set_back, x.random.choice(every[:-1])]:
        stepped(x, who, seconds)
        x.note(f"{who} {seconds:+d} s")


if __name__ == "__main__":
    main(__file__, run)
