"""A learner rank is killed at random instants of a synchronous job with two ranks, whose end has the same bytes as that of
a job that nobody disturbed.

A standby takes the place of the dead. The auditor compares parameters, moments, terminal ordinals and recorded groups.
"""

from experiment import harness, main
from harness import DONE, wait_until


def submit(x, cluster, name, steps):
    spec = dict(x.rl(steps=steps, staleness=0, checkpoint={"every": 3}), name=name)
    watch = cluster.submit(spec)
    def folder_of():
        jobs = [job for job in cluster.json("list")["jobs"] if job["name"] == name]
        return cluster.json("describe", jobs[0]["job_id"])["run_folder"] if jobs else None
    return watch, wait_until(folder_of, f"job {name} is there", alive=[watch])


def kill_one(x, cluster, folder, watch, number):
    """kill -9 of a rank of the group at a random instant after a checkpoint. False: the job was over first."""
    done = harness.last_step(folder)
    wait_until(lambda: watch.ended() or harness.last_step(folder) > done, "a step")
    x.pass_time(x.random.uniform(0, 0.5))
    spare = cluster.start_rank(f"spare-{number}")
    working = {member["address"] for member in cluster.job_named("disturbed")["members"] if member["rank"] >= 0}
    victims = [rank for rank in cluster.members if rank.address in working]
    if watch.ended() or not victims:
        return False
    before = harness.last_step(folder)
    with x.recovery():
        victim = x.random.choice(victims)
        victim.kill()
        cluster.members.remove(victim)
        cluster.members.append(spare)
        wait_until(lambda: watch.ended() or cluster.job_named("disturbed")["epoch"] > number + 1, "the next epoch")
        wait_until(lambda: watch.ended() or harness.last_step(folder) > before, "a step past the fault")
    return True


def run(x):
    cluster = x.start_cluster(ranks=2)
    cluster.job_named = lambda name: next(cluster.json("describe", job["job_id"]) for job in cluster.json("list")["jobs"]
                                          if job["name"] == name)
    steps = x.pick(30, 100)
    watch, undisturbed = submit(x, cluster, "undisturbed", steps)
    x.assertEqual(watch.wait(), DONE, watch.said())
    x.check_rl_results(undisturbed, steps, 16)
    x.check_audit(undisturbed)

    watch, disturbed = submit(x, cluster, "disturbed", steps)
    kills = 0
    for number in range(x.pick(1, 8)):
        kills += kill_one(x, cluster, disturbed, watch, number)
    x.assertGreater(kills, 0, "the job was over before a rank could be killed")
    x.assertEqual(watch.wait(), DONE, watch.said())
    x.check_rl_results(disturbed, steps, 16)
    x.check_audit(disturbed)
    x.check_same_state(undisturbed, disturbed)
    exported = [harness.sha256(f"{folder}/export/final/model.safetensors") for folder in (undisturbed, disturbed)]
    x.assertEqual(*exported)
    x.note(f"{kills} ranks killed, parameters {exported[0][:16]} both times")


if __name__ == "__main__":
    main(__file__, run)
