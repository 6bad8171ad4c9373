"""SIGTERM at random instants of a job, from before `main` to after the results, with a second SIGTERM or a SIGKILL behind
some. It ends within its budget with a checkpoint (10; with none before the job began), or the one before stands; the same
command then goes on, and nothing is lost however often that was done.
"""

import os
import signal
import time

from experiment import harness, main
from harness import DONE, PREEMPTED

BUDGET_S = 30  # a preemption notice


def start(x, folder, spec, address, metrics):
    learner, _ = x.start_job(spec, "--address", address, "--metrics-address", metrics, folder=folder, name="drained")
    learner.metrics = metrics
    return learner


def drain(x, learner, folder, way, working):
    """Sends what `way` says; returns the exit code. working: it has come so far that actors can attach."""
    before = harness.checkpoints(folder)
    started = time.monotonic()
    learner.terminate()
    if way == "twice":
        x.pass_time(x.random.uniform(0, 0.1))
        if not learner.ended():
            learner.terminate()
    elif way == "killed":
        x.pass_time(x.random.uniform(0, 0.1))
        learner.kill()
    code = learner.wait(BUDGET_S)
    x.recoveries.append(time.monotonic() - started)
    after = harness.checkpoints(folder)
    if code == PREEMPTED and "before the job began" in learner.said():
        x.assertFalse(working, learner.said())
        x.assertEqual(after, before, learner.said())
    elif code == PREEMPTED:
        x.assertTrue(after, learner.said())
        # Looked at now: what stood there before may have been of a timeline that was abandoned.
        x.assertGreaterEqual(int(after[-1][5:]), harness.last_step(folder), learner.said())
    elif code != DONE:
        x.assertFalse(working and way == "once", f"it knew what SIGTERM means, yet: {code} {learner.said()}")
        # Killed, ended by a second signal, or before it could know what the first one means.
        x.assertIn(code, (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, harness.FAILED, harness.TRANSIENT),
                   learner.said())
        if before:
            x.assertGreaterEqual(after[-1], before[-1], "the checkpoint before does not stand")
    x.assertNotIn("terminate called", learner.said())
    return code


def run(x):
    _, reward, _ = x.start_reward(x.data)
    count = x.pick(4, 500)
    steps = x.pick(30, 400)
    codes = {}
    drains = jobs = 0
    while drains < count:
        jobs += 1
        folder, spec = x.path(f"job-{jobs}"), x.rl(steps=steps, checkpoint={"every": 3, "keep": 3})
        address, metrics = harness.free_address(), harness.free_address()
        actor = x.start_actor("--learner", address, reward=reward)
        while True:
            learner = start(x, folder, spec, address, metrics)
            if drains < count:
                # Some in the first instants, most while it works.
                working = x.random.random() < 0.75
                if working:
                    learner.wait_for("actors attach at")
                x.pass_time(x.random.uniform(0, 2 if working else 0.6))
                code = drain(x, learner, folder, x.random.choice(["once"] * 6 + ["twice", "killed"]), working)
                drains += 1
                codes[code] = codes.get(code, 0) + 1
            else:
                code = learner.wait()
                x.assertEqual(code, DONE, learner.said())
            x.processes.remove(learner)
            if code == DONE and os.path.exists(os.path.join(folder, "results.json")):
                break
        actor.kill()
        x.check_rl_results(folder, steps, 16)
        x.check_audit(folder)
    x.note(f"{drains} drains of {jobs} jobs, exit codes " + ", ".join(f"{code}: {n}" for code, n in sorted(codes.items())))


if __name__ == "__main__":
    main(__file__, run)
