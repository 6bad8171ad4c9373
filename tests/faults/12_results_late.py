"""Results come in another order, after the deadline of their lease, and with an old lease, epoch, version or job. Each is
refused with the reason that fits and counted, and the groups are done again.
"""

import threading

from experiment import harness, main, need

RESULT = 4
LEASE_S = 1


def deliveries(learner):
    """{outcome: results} that the learner counted."""
    prefix = 'sluice_deliveries_total{outcome="'
    return {key[len(prefix):-2]: value for key, value in harness.scrape(learner.metrics).items() if key.startswith(prefix)}


def forgeries():
    """{outcome: change of a Result that must have it}."""
    def group(change):
        return lambda result: change(result.group)
    return {
        "job": lambda result: setattr(result, "job_id", "another"),
        "epoch": lambda result: setattr(result, "epoch", result.epoch + 1),
        "late": group(lambda g: setattr(g, "lease_id", g.lease_id + 1000)),  # as one that ended long ago
        "unknown": group(lambda g: setattr(g, "ordinal", g.ordinal + 10**6)),
        "stale_version": group(lambda g: setattr(g, "behavior_version", g.behavior_version + 1000)),
        "invalid": group(lambda g: g.completions.pop()),
    }


def run(x):
    need("grpc", "google.protobuf")
    from messages import Protocol
    from relay import UP, Relay, pass_on
    message_type = Protocol().type("ActorMessage")
    forged = forgeries()
    lock = threading.Lock()
    told = {name: 0 for name in (*forged, "reordered", "slow")}

    def rule(message):
        if message.method != "Work" or message.way != UP or message.kind != RESULT:
            return pass_on(message)
        with lock:
            fate = x.random.choice(["plain"] * 10 + ["reordered"] * 6 + ["slow", *forged])
            if fate in told:
                told[fate] += 1
        if fate == "reordered":
            return [(x.random.uniform(0, LEASE_S / 4), message.payload)]
        if fate == "slow":
            return [(2 * LEASE_S, message.payload)]
        if fate in forged:
            changed = message_type.FromString(message.payload)
            forged[fate](changed.result)
            return [(0, changed.SerializeToString())]
        return pass_on(message)
    _, reward, _ = x.start_reward(x.data)
    steps = x.pick(10, 100)
    learner, folder = x.start_rl(x.rl(steps=steps, lease_deadline_s=LEASE_S, max_attempts=100))
    with Relay(learner.address, rule) as relay:
        actor = x.start_actor("--learner", relay.address, reward=reward)
        x.step(folder, steps - 2, alive=[learner])
        actor.pause()  # to read the counters before the job ends
        counted = deliveries(learner)
        actor.resume()
        _, trained = x.check_done(learner, folder, steps)
    for outcome in forged:
        if told[outcome]:
            x.assertGreater(counted[outcome], 0, f"{told[outcome]} results were forged to be '{outcome}': {counted}")
    x.assertLessEqual(max(row["staleness/max"] for row in trained), 2)
    x.note("forged " + ", ".join(f"{name} {count}" for name, count in sorted(told.items())))
    x.note("refused " + ", ".join(f"{name} {count:.0f}" for name, count in sorted(counted.items())))


if __name__ == "__main__":
    main(__file__, run)
