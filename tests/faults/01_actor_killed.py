"""An actor is killed with work in hand, again and again. Its blocks come back, each is done once more, nothing is lost.

Once at a time when it surely holds a lease, then at random instants: while it starts, fetches weights, samples, waits for
scores or delivers. Last a lease that runs past its deadline while its actor stands still: what the actor then delivers is
refused as late.
"""

from experiment import harness, main
from harness import metric, wait_until


def kill_with_a_lease(x, learner, folder, actor, reward):
    x.frozen_with_a_lease(learner, actor)
    before = harness.last_step(folder)
    with x.recovery():
        actor.kill()
        wait_until(lambda: metric(learner.metrics, "sluice_leases_open") == 0, "its lease is back", alive=[learner])
        following = x.start_actor("--learner", learner.address, reward=reward, name="next")
        x.step(folder, before, alive=[learner])
    x.assertGreaterEqual(metric(learner.metrics, "sluice_lease_returned_total"), 1)
    return following


def outlive_a_lease(x, learner, folder, actor, reward):
    """The deadline ends the lease, as the stream of a stopped process stays open."""
    x.frozen_with_a_lease(learner, actor)
    before = harness.last_step(folder)
    with x.recovery():
        other = x.start_actor("--learner", learner.address, reward=reward, name="other")
        wait_until(lambda: metric(learner.metrics, "sluice_lease_expired_total"), "the lease is over", alive=[learner])
        x.step(folder, before, alive=[learner])
    other.pause()  # the job must not end before the late one has spoken
    actor.resume()

    def refused():
        samples = harness.scrape(learner.metrics)
        return sum(samples.get(f'sluice_deliveries_total{{outcome="{outcome}"}}', 0) for outcome in ("late", "unknown")) \
            + samples.get("sluice_duplicate_deliveries_total", 0)
    wait_until(refused, "what came late is refused", alive=[learner])
    other.resume()
    return actor


def run(x):
    _, reward, _ = x.start_reward(x.data)
    steps = x.pick(12, 60)
    learner, folder = x.start_rl(x.rl(steps=steps, lease_deadline_s=3))
    actor = x.start_actor("--learner", learner.address, reward=reward, name="first")
    x.step(folder, 0, alive=[learner])
    actor = kill_with_a_lease(x, learner, folder, actor, reward)
    actor = outlive_a_lease(x, learner, folder, actor, reward)
    kills = 0
    for _ in range(x.pick(3, 40)):
        x.pass_time(x.random.uniform(0, 1.2))
        if learner.ended():
            break
        actor.kill()
        kills += 1
        actor = x.start_actor("--learner", learner.address, reward=reward, name=f"actor-{kills}")
    x.check_done(learner, folder, steps)
    x.note(f"{kills} kills at random instants, {x.audited['wasted']} groups done more than once")


if __name__ == "__main__":
    main(__file__, run)
