"""The reward server stops answering, then answers slowly for one item alone. Groups without scores in time have that
reason, no score is made up, training goes on meanwhile, and scores are back when the server is.
"""

from experiment import harness, main, need
from proxy import Proxy

STALL_DEADLINE_S = 0.5
PATIENCE_S = 45
SLOW_DEADLINE_S = 2  # a busy machine must not miss it for the other items


def stall(x):
    _, reward, _ = x.start_reward(x.data)
    with Proxy(reward, seed=x.seed) as proxy:
        steps = x.pick(10, 40)
        learner, folder = x.start_rl(x.rl(steps=steps, on_reward_outage="nll_only", operational_steps=1,
                                          reward={"ranker": "cooccurrence", "deadline_s": STALL_DEADLINE_S}), name="stalled")
        x.start_actor("--learner", learner.address, reward=proxy.address)
        x.step(folder, 1, alive=[learner])
        proxy.partition()
        stalled = harness.last_step(folder)
        x.step(folder, stalled + 2, alive=[learner])  # goes on without scores
        with x.recovery():
            proxy.heal()
            harness.wait_until(lambda: any("reward/mean" in row for row in harness.read_metrics(folder)
                                           if row["step"] > stalled + 2), "scores are back", alive=[learner])
        _, trained = x.check_done(learner, folder, steps)
    without = [row for row in trained if row["gate/reward_unavailable"] == 1]
    x.assertTrue(without)
    for row in without:
        x.assertNotIn("reward/mean", row)
    x.note(f"{len(without)} of {steps} steps without any score")


def slow_item(x):
    need("grpc", "google.protobuf")
    from messages import Protocol
    from relay import UP, Relay, pass_on
    request = Protocol().type("ScoreRequest")
    slow = []

    def rule(message):
        if message.way == UP and message.method == "Score":
            for group in request.FromString(message.payload).groups:
                if not slow:
                    slow.append(group.target)
                if group.target == slow[0]:
                    return [(SLOW_DEADLINE_S * 2, message.payload)]
        return pass_on(message)
    _, reward, _ = x.start_reward(x.data)
    with Relay(reward, rule) as relay:
        learner, folder = x.start_rl(x.rl(steps=8, lease_groups=2, on_reward_outage="nll_only", operational_steps=1,
                                          reward={"ranker": "cooccurrence", "deadline_s": SLOW_DEADLINE_S}), name="slow-item")
        x.start_actor("--learner", learner.address, reward=relay.address)
        harness.wait_until(learner.ended, "8 steps are trained although one item is slow", limit_s=PATIENCE_S)
        _, trained = x.check_done(learner, folder, 8)
    shares = [row["gate/reward_unavailable"] for row in trained]
    x.assertTrue(slow and any(shares))
    x.assertLess(max(shares), 1, "one slow item took the scores of others' blocks too")
    x.note(f"groups in a block with the slow item: {sum(shares) / len(shares):.2f} of all")


def run(x):
    stall(x)
    slow_item(x)


if __name__ == "__main__":
    main(__file__, run)
