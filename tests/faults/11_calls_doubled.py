"""Messages arrive twice, and answers are lost so that callers send again: submissions, results, reports, reservations, joins.
Each has one effect.
"""

import threading

from experiment import harness, main, need
from harness import DONE


def doubled_submission(x, cluster):
    """Every call of a client comes twice, and the first answer of a submission never arrives: one job."""
    from relay import DOWN, UP, Relay, pass_on
    lost = threading.Event()

    def rule(message):
        if message.way == UP and message.method in ("Submit", "Cancel", "Resume"):
            return pass_on(message) * 2
        if message.way == DOWN and message.method == "Submit" and not lost.is_set():
            lost.set()
            return []
        return pass_on(message)
    with Relay(cluster.address, rule) as relay:
        spec = x.spec("one", x.rl(steps=2))
        for _ in range(2):  # and the user asks again with the same id
            submitted = x.call("submit", "sluicectl", "--server", relay.address, "submit", spec, "--request-id", "the-same")
            x.assertEqual(submitted.code(), DONE, submitted.said())
    x.assertTrue(lost.is_set())
    jobs = cluster.json("list")["jobs"]
    x.assertEqual(len(jobs), 1, jobs)
    return jobs[0]["job_id"]


def doubled_results(x):
    """Every message between actor and learner comes twice but hello and credit, and some a third time much later."""
    from relay import DOWN, UP, Relay, pass_on
    RESULT, HEARTBEAT = 4, 5
    doubled = []

    def rule(message):
        if message.method == "Work" and message.way == UP and message.kind in (RESULT, HEARTBEAT):
            doubled.append(message.kind)
            return pass_on(message) * 2 + ([(0.5, message.payload)] if message.number % 3 == 0 else [])
        return pass_on(message)
    _, reward, _ = x.start_reward(x.data)
    steps = x.pick(8, 100)
    learner, folder = x.start_rl(x.rl(steps=steps))
    with Relay(learner.address, rule) as relay:
        x.start_actor("--learner", relay.address, reward=reward)
        counted = []

        def watch():
            if learner.ended():
                return True
            counted.append(harness.metric(learner.metrics, "sluice_duplicate_deliveries_total"))
            return False
        harness.wait_until(watch, "the job ends")
        x.check_done(learner, folder, steps)
    x.assertGreater(max(counted), 0)
    x.note(f"{doubled.count(RESULT)} results came at least twice, {max(counted):.0f} were seen to be refused as doubled")
    return folder


def doubled_reports(x):
    """Every call between ranks and coordinator comes twice, and one answer in ten is lost."""
    from relay import DOWN, UP, Relay, pass_on
    doubled = {"ReserveVersion", "ReserveOrdinals", "Report", "Finish", "Join", "Heartbeat", "StoreSet"}

    def rule(message):
        if message.way == UP and message.method in doubled:
            return pass_on(message) * 2
        if message.way == DOWN and message.method in doubled - {"Heartbeat"} and message.number % 10 == 3:
            return []
        return pass_on(message)
    cluster = harness.Cluster(x, x.data, ranks=2)
    cluster.coordinator = cluster.start_coordinator()
    cluster.start_reward()
    with Relay(cluster.address, rule) as relay:
        real, cluster.address = cluster.address, relay.address
        for i in range(2):
            cluster.start_rank(f"rank-{i}")
        cluster.address = real
        for i in range(2):
            cluster.start_actor(f"actor-{i}")
        job = doubled_submission(x, cluster)
        waiting = cluster.ctl("wait", job, name="wait")
        x.assertEqual(waiting.wait(), DONE, waiting.said())
        first = cluster.json("describe", job)
        x.check_rl_results(first["run_folder"], 2, 16)
        watch = cluster.submit(dict(x.rl(steps=x.pick(10, 60)), name="second"))
        x.assertEqual(watch.wait(), DONE, watch.said())
        second = next(j for j in cluster.json("list")["jobs"] if j["job_id"] != job)
        folder = cluster.json("describe", second["job_id"])["run_folder"]
        x.check_rl_results(folder, x.pick(10, 60), 16)
        x.check_audit(folder)
        # What a watcher is told of each step, once.
        events = cluster.ctl("-o", "jsonl", "watch", second["job_id"], name="events")
        x.assertEqual(events.wait(), DONE, events.said())
        told = [line for line in events.said().splitlines() if '"loss/nll"' in line]
        x.assertEqual(len(told), len(set(told)), "a step was told twice")
        x.assertGreaterEqual(x.pick(10, 60), len(told))


def run(x):
    need("grpc")
    doubled_results(x)
    doubled_reports(x)


if __name__ == "__main__":
    main(__file__, run)
