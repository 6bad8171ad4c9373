"""The reward server answers nonsense: not finite, too few or too many scores, for another ordinal, catalog or no version.
No such answer becomes a number: its groups are scored again. Scores in another order or all alike are finite and plausible
one by one; groups whose scores are known tell, and no score is believed from then on.
"""

import itertools
import math
import threading

from experiment import audit, main, need


def damages(draw):
    """{name: change of a ScoreResponse that spoils at least its first group}; each must be refused."""
    def first_scores(response):
        return response.groups[0].heads[0].scores
    return {
        "nan": lambda r: first_scores(r).__setitem__(0, math.nan),
        "infinite": lambda r: first_scores(r).__setitem__(draw.randrange(len(first_scores(r))), -math.inf),
        "target nan": lambda r: setattr(r.groups[0].heads[0], "target", math.nan),
        "too few": lambda r: first_scores(r).pop(),
        "too many": lambda r: first_scores(r).append(1),
        "no scores": lambda r: r.groups[0].heads[0].ClearField("scores"),
        "no head": lambda r: r.groups[0].ClearField("heads"),
        "group missing": lambda r: r.groups.pop(),
        "other ordinal": lambda r: setattr(r.groups[0], "ordinal", r.groups[0].ordinal + 1),
        "other attempt": lambda r: setattr(r.groups[0], "attempt", r.groups[0].attempt + 1),
        "other catalog": lambda r: setattr(r, "catalog_version", "another"),
        "no ranker version": lambda r: setattr(r, "ranker_version", ""),
        "empty": lambda r: r.Clear(),
    }


def one_by_one(x, reward):
    """One answer in four is spoilt, the first time that its group is scored, in each way in turn."""
    from messages import Protocol
    from relay import DOWN, Relay, pass_on
    answer = Protocol().type("ScoreResponse")
    ways = itertools.cycle(damages(x.random).items())
    lock, tried, spoilt, names = threading.Lock(), set(), set(), {}

    def rule(message):
        if message.way != DOWN or message.method != "Score":
            return pass_on(message)
        response = answer.FromString(message.payload)
        group = response.groups[0]
        with lock:
            first_time = group.ordinal not in tried
            tried.add(group.ordinal)
            if message.number % 4 != 1 or not first_time or len(group.heads[0].scores) < 2:
                return pass_on(message)
            spoilt.add((group.ordinal, group.attempt))
            name, change = next(ways)
            names[name] = names.get(name, 0) + 1
            change(response)
        return [(0, response.SerializeToString())]
    steps = x.pick(8, 80)
    learner, folder = x.start_rl(x.rl(steps=steps, on_reward_outage="nll_only", operational_steps=1, lease_groups=1,
                                      gate={"negatives": 0, "use_suppression": False}), name="one-by-one")
    with Relay(reward, rule) as relay:
        x.start_actor("--learner", learner.address, reward=relay.address)
        _, trained = x.check_done(learner, folder, steps)
    x.assertEqual(set(names), set(damages(x.random)), "not every way came up")
    believed = {(ordinal, attempt) for _, ordinal, _, _, attempt in audit.read_records(folder)} & spoilt
    x.assertEqual(believed, set(), "recorded with the attempt whose scores were spoilt")
    x.assertEqual([row["gate/reward_unavailable"] for row in trained], [0] * steps, "not scored again")
    x.note(f"{len(spoilt)} answers spoilt in {len(names)} ways, none believed")


def all_at_once(x, reward, name, change):
    """From the third step on every answer is changed so that each score is plausible."""
    from messages import Protocol
    from relay import DOWN, Relay, pass_on
    answer = Protocol().type("ScoreResponse")
    changing = threading.Event()

    def rule(message):
        if message.way != DOWN or message.method != "Score" or not changing.is_set():
            return pass_on(message)
        response = answer.FromString(message.payload)
        for group in response.groups:
            for head in group.heads:
                change(head)
        return [(0, response.SerializeToString())]
    learner, folder = x.start_rl(x.rl(steps=5000, on_reward_outage="nll_only", operational_steps=1), name=name)
    with Relay(reward, rule) as relay:
        x.start_actor("--learner", learner.address, reward=relay.address)
        x.step(folder, 2, alive=[learner])
        with x.recovery():  # here: until it is found out
            changing.set()
            learner.wait_for(r"rewards: \w+ to outage: .*canary")
        learner.terminate()
        learner.wait()
    x.note(f"{name}: found out after {x.recoveries[-1]:.1f} s")


def run(x):
    need("grpc", "google.protobuf")
    _, reward, _ = x.start_reward(x.data)
    one_by_one(x, reward)

    def constant(head):
        head.scores[:] = [1.0] * len(head.scores)
        head.target = 1.0

    def shuffled(head):
        scores = list(head.scores)
        x.random.shuffle(scores)
        head.scores[:] = scores
    all_at_once(x, reward, "shuffled", shuffled)
    all_at_once(x, reward, "constant", constant)


if __name__ == "__main__":
    main(__file__, run)
