"""The coordinator is killed at every turn of a job: as it is submitted, queued, taken, trained, saved, cancelled, ended and
resumed. Whatever it answered holds afterwards, clients find the next one by themselves, and a watcher misses no event.
"""

import json
import os
import re

from experiment import harness, main
from harness import CANCELLED, DONE, wait_until


def restart(x, cluster):
    with x.recovery():
        cluster.coordinator.kill()
        cluster.coordinator = cluster.start_coordinator()
        cluster.json("list")


def submit(x, cluster, name, steps, request_id):
    """A submission whose answer is not seen by the client, which asks again with the same id: one job."""
    spec = x.spec(name, dict(x.rl(steps=steps), name=name))
    ids = []
    for _ in range(2):
        asked = cluster.ctl("--timeout", "60", "submit", spec, "--request-id", request_id, name="submit")
        asked.wait_for(rf"(?m)^{name}-\w+$")
        restart(x, cluster)
        x.assertEqual(asked.wait(), DONE, asked.said())
        ids.append(re.search(rf"^{name}-\w+$", asked.said(), re.M).group(0))
    x.assertEqual(ids[0], ids[1])
    return ids[0]


def numbers(text):
    return [json.loads(line)["sequence"] for line in text.splitlines() if line.startswith("{")]


def turns(x, cluster, job, watch):
    """(what, condition) of the moments of a job, in order."""
    folder = cluster.json("describe", job)["run_folder"]
    yield "it is queued", lambda: True
    for i in range(cluster.ranks):
        cluster.start_rank(f"rank-{i}")
    yield "a group took it", lambda: cluster.json("describe", job)["state"] == "running"
    for i in range(cluster.ranks):
        cluster.start_actor(f"actor-{i}")
    yield "it trains", lambda: harness.last_step(folder) >= 1
    yield "it has a checkpoint", lambda: harness.checkpoints(folder)
    for _ in range(x.pick(1, 10)):
        step = harness.last_step(folder)
        yield "at a random step", lambda: harness.last_step(folder) > step + x.random.randrange(3) or watch.ended()
    yield "it ends", lambda: os.path.exists(os.path.join(folder, "results.json"))
    yield "it has ended", watch.ended


def run(x):
    cluster = harness.Cluster(x, x.data, ranks=1)
    cluster.coordinator = cluster.start_coordinator()
    cluster.start_reward()
    steps = x.pick(30, 200)
    job = submit(x, cluster, "turned", steps, "the-same")
    x.assertEqual(len(cluster.json("list")["jobs"]), 1)
    watch = cluster.ctl("-o", "jsonl", "watch", job, name="watch")
    told = []
    for what, came in turns(x, cluster, job, watch):
        wait_until(came, what)
        restart(x, cluster)
        told.append(what)
    x.assertEqual(watch.wait(), DONE, watch.said())
    description = cluster.json("describe", job)
    x.assertEqual(description["state"], "succeeded", description)
    x.check_rl_results(description["run_folder"], steps, 16)
    x.check_audit(description["run_folder"])
    seen = numbers(watch.said())
    x.assertGreater(len(seen), steps)
    x.assertEqual(seen, list(range(1, len(seen) + 1)), "a watcher missed or saw twice an event")
    whole = cluster.ctl("-o", "jsonl", "watch", job, name="whole")
    x.assertEqual(whole.wait(), DONE)
    x.assertEqual(numbers(whole.said()), seen)

    # A job that is asked to end, and to go on.
    other = submit(x, cluster, "asked", steps * 3, "another")
    folder = cluster.json("describe", other)["run_folder"]
    wait_until(lambda: harness.last_step(folder) >= 1, "the second job trains")
    cancel = cluster.ctl("cancel", other, name="cancel")
    x.assertEqual(cancel.wait(), DONE, cancel.said())
    restart(x, cluster)
    ended = cluster.ctl("wait", other, name="wait")
    x.assertEqual(ended.wait(), CANCELLED, ended.said())
    resume = cluster.ctl("resume", other, name="resume")
    x.assertEqual(resume.wait(), DONE, resume.said())
    restart(x, cluster)
    ended = cluster.ctl("wait", other, name="wait")
    x.assertEqual(ended.wait(), DONE, ended.said())
    x.check_rl_results(folder, steps * 3, 16)
    x.check_audit(folder)
    x.note(f"{len(x.recoveries)} kills: as it is submitted, " + ", ".join(told) + ", cancelled, resumed")


if __name__ == "__main__":
    main(__file__, run)
