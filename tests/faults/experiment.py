"""What the fault experiments NN_name.py share: a folder with processes that break, the auditor, and the closing line.

An experiment is a function of one Experiment. It breaks something, waits until the job has ended as promised, and has
the run audited. Its program takes

    --seed N       what is drawn at random; the same seed draws the same
    --thorough     more instants, bytes and messages: minutes instead of seconds

and prints as its last line one JSON object {experiment, verdict, seed, recovery_s, audit, detail}. Exit codes: 0 it held;
1 it did not, or a fault of the product that is known still shows (verdict "known"); 77 something is missing on this
machine. The binaries are those of $SLUICE_BIN_DIR, by default build/bin.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "integration")]
import audit  # noqa: E402
import harness  # noqa: E402

SKIP = 77

# grpcio, where an experiment uses it, would log each fork, and start threads in the child, which have crashed there.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


class Missing(Exception):
    """This machine lacks something that the experiment needs; says what, and how to get it."""


class Experiment(harness.GroupFaultsTest):
    """One experiment on its way. Its `random` is the only source of chance."""

    def __init__(self, number, name, seed, thorough):
        super().__init__()
        self.number, self.name, self.seed, self.thorough = number, name, seed, thorough
        self.random = random.Random(f"{number}/{seed}")
        self.recoveries = []
        self.audited = {"lost": 0, "duplicated": 0, "unexpected": 0, "wasted": 0}
        self.notes = []
        self.known_faults = []
        self.processes = []
        self._data = None

    # --------------------------------------------------------------------------------------------------- reporting

    def note(self, sentence):
        """A figure or a fact for the closing line."""
        print(f"    {sentence}", flush=True)
        self.notes.append(sentence)

    @contextlib.contextmanager
    def known(self, sentence):
        """Around a check that the product is known to fail. It is reported as that, loudly; once it holds, the mark is
        an error, so that it cannot outlive the fault."""
        try:
            yield
        except AssertionError as error:
            print(f"KNOWN FAULT of the product: {sentence}\n    {str(error)[:500]}", flush=True)
            self.known_faults.append(sentence)
        else:
            raise AssertionError(f"a fault that is marked as known no longer shows; remove the mark: {sentence}")

    @contextlib.contextmanager
    def recovery(self):
        """Around the time from a fault to the moment when things go on."""
        started = time.monotonic()
        yield
        self.recoveries.append(time.monotonic() - started)

    def pick(self, quick, thorough):
        return thorough if self.thorough else quick

    # ------------------------------------------------------------------------------------------------------ the job

    @property
    def data(self):
        """The folder of the tiny data set."""
        if self._data is None:
            self._data = self.prepare(ranker={"sequential": False})
        return self._data

    def rl(self, steps=8, **changes):
        """The spec of a small recorded rl job."""
        return harness.rl_spec(self.data, steps=steps, record=True, **changes)

    def step(self, folder, beyond, alive=()):
        """Waits until a step later than `beyond` was trained."""
        return harness.wait_until(lambda: harness.last_step(folder) > beyond, f"a step past {beyond}", alive=alive)

    def frozen_with_a_lease(self, learner, actor):
        """Stops the only actor of a learner at a time when it holds a lease."""
        def freeze():
            actor.pause()
            if harness.metric(learner.metrics, "sluice_leases_open") > 0:
                return True
            actor.resume()
            return False
        harness.wait_until(freeze, f"{actor.name} holds a lease", alive=[learner, actor])

    def pass_time(self, seconds):
        """Lets a fault last. The one place where an experiment waits for time itself; nothing is concluded from it."""
        until = time.monotonic() + seconds
        harness.wait_until(lambda: time.monotonic() > until, "time passes", limit_s=seconds + harness.LIMIT_S)

    def check_audit(self, folder, data=None):
        """The auditor finds nothing wrong with a run; returns its report."""
        report = audit.audit(folder, data or self.data)
        for name in ("lost", "duplicated", "unexpected"):
            self.audited[name] += len(report[name])
        self.audited["wasted"] += report["wasted"] or 0
        self.assertTrue(audit.clean(report), audit.text_of(report))
        return report

    def check_same_state(self, one, other):
        """Two runs ended with the same bytes."""
        self.assertEqual(audit.compare(one, other), [])

    def check_done(self, learner, folder, steps, groups_per_step=16):
        """A one-shot learner ends well, and its run is clean."""
        self.assertEqual(learner.wait(), harness.DONE, learner.said())
        found = self.check_rl_results(folder, steps, groups_per_step)
        self.check_audit(folder)
        return found

    def run_under(self, name, environment, binary, *arguments):
        """A process with more in its environment."""
        return self.start(name, "/usr/bin/env", *(f"{key}={value}" for key, value in environment.items()),
                          os.path.join(harness.BIN, binary), *arguments)


def need(*modules):
    """Python packages that an experiment cannot do without."""
    for module in modules:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise Missing(f"{module} is not installed in {sys.prefix}; './sluice setup' installs what is in "
                          "tests/client/python/requirements.txt")


def need_program(name, package):
    path = shutil.which(name)
    if path is None:
        raise Missing(f"there is no {name} here; it is in the Debian package {package}")
    return path


def need_root(what):
    if os.geteuid() != 0:
        raise Missing(f"{what} needs root")


def outcome_of(x, run):
    """(verdict, sentence) of run(x), with everything that was started ended."""
    x.folder = tempfile.mkdtemp(prefix="sluice-fault-")
    try:
        run(x)
        if x.known_faults:
            return "known", "known: " + "; ".join(x.known_faults)
        return "held", ""
    except Missing as missing:
        return "skipped", str(missing)
    except (AssertionError, OSError, subprocess.SubprocessError, audit.Unreadable) as error:
        traceback.print_exc()
        x._show_logs()
        return "failed", (str(error).splitlines() or [type(error).__name__])[0][:300]
    finally:
        for process in x.processes:
            process.kill()
        if os.environ.get("SLUICE_KEEP"):
            print(f"kept {x.folder}", file=sys.stderr)
        else:
            shutil.rmtree(x.folder, ignore_errors=True)


def main(path, run):
    """The program of the experiment in the file `path`; never returns."""
    number, name = re.match(r"(\d+)_(\w+)\.py$", os.path.basename(path)).groups()
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what is drawn at random")
    parser.add_argument("--thorough", action="store_true", help="minutes instead of seconds")
    args = parser.parse_args()
    x = Experiment(int(number), name, args.seed, args.thorough)
    verdict, sentence = outcome_of(x, run)
    print(json.dumps({"experiment": f"{number}_{name}", "verdict": verdict, "seed": args.seed,
                      "recovery_s": round(max(x.recoveries), 2) if x.recoveries else None, "audit": x.audited,
                      "detail": "; ".join(filter(None, [sentence, *x.notes]))}), flush=True)
    sys.exit({"held": 0, "skipped": SKIP}.get(verdict, 1))
