"""A learner rank stands still for longer than its lease and then goes on, as a zombie. It is fenced: what it still writes
does not count, and the job ends well under the next epoch.

The rank is stopped at a random instant, and while it writes a checkpoint, also where it is the only one, so that no broken
connection tells it anything. A standby takes its place; the zombie wakes while the job still runs, at last while its
successor writes the very checkpoint that it was writing.
"""

import os

from experiment import harness, main
from harness import DONE, wait_until

LEASE_S = 4
ROUNDS = 5


def half_written(folder):
    """{(step, inode)} of the checkpoints that are being written, or were when their writer died."""
    parent = os.path.join(folder, "checkpoints")
    try:
        with os.scandir(parent) as entries:
            return {(entry.name[:len("step-00000000")], entry.inode()) for entry in entries if entry.name.endswith(".tmp")}
    except FileNotFoundError:
        return set()


def catch_writing(x, folder, watch, known=(), step=None):
    """One that begins to be written, of a certain step if one is given; that lasts milliseconds, so without a pause. None
    if the job was over first."""
    while not watch.ended():
        for found in half_written(folder):
            if found not in known and step in (None, found[0]):
                return found
    return None


def stop_in_a_checkpoint(x, zombie, folder, watch):
    """Stops a rank in the middle of writing a checkpoint; returns which."""
    while True:
        found = catch_writing(x, folder, watch)
        x.assertIsNotNone(found, "the job was over before a checkpoint was caught")
        zombie.pause()
        if found in half_written(folder):
            return found
        zombie.resume()  # it was done with it


def start(x, name, ranks, steps):
    """(cluster, sluicectl that watches, run folder) of a job under way, with a standby rank."""
    cluster = harness.Cluster(x, x.data, ranks=ranks, lease_s=LEASE_S)
    cluster.runs, cluster.state = x.path(f"{name} runs"), x.path(f"{name} state")
    cluster.start_all()
    watch = cluster.submit(x.rl(steps=steps, checkpoint={"every": 2}))
    folder = cluster.run_folder(alive=[watch])
    wait_until(lambda: harness.checkpoints(folder), "a checkpoint", alive=[watch])
    cluster.standby = cluster.start_rank("standby")
    return cluster, watch, folder


def rank_0(cluster):
    """The rank that writes the run folder."""
    first = next(m["address"] for m in cluster.job()["members"] if m["rank"] == 0)
    return next(m for m in cluster.members if m.address == first)


def take_over(x, cluster, watch, folder):
    """Waits until the next epoch trains."""
    wait_until(lambda: cluster.job()["epoch"] > 1, "the next epoch", alive=[watch])
    # Actors that hang on the stopped rank notice by their keepalive in half a minute; new ones work at once.
    cluster.actors += [cluster.start_actor(f"late-{i}") for i in range(cluster.ranks)]
    step = harness.last_step(folder)
    wait_until(lambda: harness.last_step(folder) != step, "the job goes on", alive=[watch])


def wake(zombie):
    """Lets it go on until it has noticed what it is."""
    zombie.resume()
    zombie.wait_for("in epoch 2, not in 1|epoch 1 is over|the group broke")


def end(x, cluster, watch, folder, steps, zombie):
    x.assertEqual(watch.wait(), DONE, watch.said())
    x.assertFalse(zombie.ended(), zombie.said())  # it is a standby now
    x.check_rl_results(folder, steps, 16)
    x.check_audit(folder)
    for process in x.processes:
        process.kill()


def stopped(x, name, ranks, instant, seconds):
    """The zombie wakes in the middle of the next epoch, in which all others stand still as long as it speaks."""
    steps = x.pick(30, 60)
    cluster, watch, folder = start(x, name, ranks, steps)
    zombie = rank_0(cluster)
    if instant == "checkpoint":
        stop_in_a_checkpoint(x, zombie, folder, watch)
    else:
        x.pass_time(x.random.uniform(0, 0.3))
        zombie.pause()
    with x.recovery():
        take_over(x, cluster, watch, folder)
    x.pass_time(max(0, seconds - LEASE_S))
    for actor in cluster.actors:
        actor.pause()
    over = watch.ended()
    wake(zombie)
    for actor in cluster.actors:
        actor.resume()
    end(x, cluster, watch, folder, steps, zombie)
    x.note(f"{name}: woke {'after' if over else 'before'} the job's end")


def two_writers(x, name):
    """The zombie was stopped in the middle of a checkpoint, and wakes while its successor writes the same one. False: that
    was too short to be seen."""
    cluster, watch, folder = start(x, name, 1, 30)
    zombie = rank_0(cluster)
    began = stop_in_a_checkpoint(x, zombie, folder, watch)
    wait_until(lambda: cluster.job()["epoch"] > 1, "the next epoch", alive=[watch])
    cluster.start_actor("late")
    caught = catch_writing(x, folder, watch, known={began}, step=began[0])
    cluster.standby.pause()
    wake(zombie)
    cluster.standby.resume()
    end(x, cluster, watch, folder, 30, zombie)
    return caught is not None


def run(x):
    seconds = x.pick(LEASE_S + 1, 60)
    stopped(x, "two ranks", 2, "random", seconds)
    stopped(x, "one rank, in a checkpoint", 1, "checkpoint", seconds)
    for number in range(x.pick(0, 5)):
        stopped(x, f"one rank, {number}", 1, "random", seconds)
        stopped(x, f"two ranks in a checkpoint, {number}", 2, "checkpoint", seconds)
    rounds = next((number for number in range(1, ROUNDS + 1) if two_writers(x, f"two-writers-{number}")), None)
    x.assertIsNotNone(rounds, f"a checkpoint was never seen to be written by the successor, in {ROUNDS} rounds")
    x.note(f"woke while its successor wrote the same checkpoint, in round {rounds}")


if __name__ == "__main__":
    main(__file__, run)
