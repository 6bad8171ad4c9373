"""The reward server answers nonsense: not finite, too few or too many scores, for another ordinal, catalog or no version.
Every such answer closes the gates of its groups with a reason, and none becomes a number.

Scores that are all alike or in another order are finite and plausible one by one; only a set of known answers could tell.
"""

import math

from experiment import harness, main, need


def damages(draw):
    """{name: change of a ScoreResponse}; each must be refused."""
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


def spoilt(x, name, change, steps=2):
    """A job whose every answer is spoilt; its rows."""
    from messages import Protocol
    from relay import DOWN, Relay, pass_on
    answer = Protocol().type("ScoreResponse")

    def rule(message):
        if message.way != DOWN or message.method != "Score":
            return pass_on(message)
        response = answer.FromString(message.payload)
        change(response)
        return [(0, response.SerializeToString())]
    with Relay(x.reward, rule) as relay:
        learner, folder = x.start_rl(x.rl(steps=steps, on_reward_outage="nll_only", operational_steps=1, lease_groups=1,
                                          gate={"negatives": 0, "use_suppression": False}), name=name.replace(" ", "-"))
        actor = x.start_actor("--learner", learner.address, reward=relay.address)
        _, trained = x.check_done(learner, folder, steps)
        actor.kill()
    return trained


def refused(x, name, rows):
    for row in rows:
        x.assertEqual(row["gate/open_rate"], 0, f"{name}: {row}")
        x.assertNotIn("reward/mean", row, name)
        x.assertNotIn("reward/target_mean", row, name)
    return {key[5:] for row in rows for key, value in row.items() if key.startswith("gate/") and value}


def flagged(rows):
    return all(row["gate/open_rate"] == 0 for row in rows)


def run(x):
    need("grpc", "google.protobuf")
    _, x.reward, _ = x.start_reward(x.data)
    every = damages(x.random)
    names = sorted(every) if x.thorough else sorted(x.random.sample(sorted(every), 5))
    reasons = {name: refused(x, name, spoilt(x, name, every[name])) for name in names}
    x.note(", ".join(f"{name}: {'/'.join(sorted(reasons[name]))}" for name in names))

    def constant(response):
        for group in response.groups:
            for head in group.heads:
                head.scores[:] = [1.0] * len(head.scores)
                head.target = 1.0

    def shuffled(response):
        for group in response.groups:
            for head in group.heads:
                scores = list(head.scores)
                x.random.shuffle(scores)
                head.scores[:] = scores
    rows = spoilt(x, "constant", constant)
    x.assertTrue(flagged(rows), "a ranker that finds everything equally good opened gates")
    with x.known("scores in another order are taken as they are: there is no golden batch that would tell"):
        x.assertTrue(flagged(spoilt(x, "shuffled", shuffled, steps=4)))


if __name__ == "__main__":
    main(__file__, run)
