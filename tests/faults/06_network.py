"""The network is slow, lossy, half-open or parted: between actor and learner, actor and reward server, rank and coordinator,
and between ranks. Everybody comes back by himself, nobody storms a server, and nothing is lost.

The first three go through the TCP proxy. Ranks find each other by addresses that no proxy can stand between, so theirs is a
veth pair whose end goes down, in network namespaces of the experiment's own; that needs root.
"""

import ctypes
import os
import subprocess

from experiment import harness, main
from harness import DONE, wait_until
from proxy import DOWN, UP, Proxy

CLONE_NEWNET = 0x40000000
SLOW = {"delay_s": 0.03, "jitter_s": 0.02}
LOSSY = {"stall_probability": 0.1, "reset_probability": 0.02}
STORM = 100  # connections in the few seconds of a fault; more is one


def goes_on(x, proxy, learner, folder, name, heal=True):
    before = harness.last_step(folder)
    made = proxy.connections
    with x.recovery():
        if heal:
            proxy.heal()
        x.step(folder, before + 1, alive=[learner])  # one step may have been under way already
    x.assertLess(proxy.connections - made, STORM, f"{name}: a storm of connections")
    return f"{name} {x.recoveries[-1]:.1f} s"


def actor_and_learner(x):
    _, reward, _ = x.start_reward(x.data)
    steps = x.pick(300, 2000)
    learner, folder = x.start_rl(x.rl(steps=steps, lease_deadline_s=3), name="actor-learner")
    with Proxy(learner.address, seed=x.seed) as proxy:
        x.start_actor("--learner", proxy.address, reward=reward)
        x.step(folder, 0, alive=[learner])
        said = []
        for round_ in range(x.pick(1, 10)):
            proxy.set(**SLOW)
            said.append(goes_on(x, proxy, learner, folder, "slow", heal=False))
            proxy.set(**LOSSY)
            said.append(goes_on(x, proxy, learner, folder, "lossy", heal=False))
            proxy.reset()
            said.append(goes_on(x, proxy, learner, folder, "reset"))
            for name, way in (("parted", None), ("parted upwards", UP), ("parted downwards", DOWN)):
                proxy.partition(way)
                x.pass_time(x.random.uniform(0.5, x.pick(2, 40)))
                said.append(goes_on(x, proxy, learner, folder, name))
            proxy.set(DOWN, cut_after_bytes=x.random.randrange(1, 20000))
            said.append(goes_on(x, proxy, learner, folder, "cut", heal=True))
            proxy.refuse()
            proxy.reset()
            x.pass_time(x.random.uniform(0.5, x.pick(1.5, 10)))
            proxy.refuse(False)
            said.append(goes_on(x, proxy, learner, folder, "refused"))
        proxy.half_open()
        # The actor learns of it by its keepalive, half a minute later; others work meanwhile.
        other = x.start_actor("--learner", learner.address, reward=reward, name="other")
        if x.thorough:
            other.wait_for("ready|working|attached")
            x.pass_time(35)
            other.kill()
        said.append(goes_on(x, proxy, learner, folder, "half-open"))
        x.note("actor and learner: " + ", ".join(said[-9:]))
        # The rest of the job is not needed: it stops after a checkpoint, and the books are audited there.
        learner.terminate()
        x.assertIn(learner.wait(), (DONE, harness.PREEMPTED), learner.said())
    report = x.check_audit(folder)
    x.assertEqual(report["failed"], 0, report)


def actor_and_reward(x):
    _, reward, _ = x.start_reward(x.data)
    with Proxy(reward, seed=x.seed) as proxy:
        proxy.set(stall_probability=0.1, reset_probability=0.05)
        steps = x.pick(6, 40)
        learner, folder = x.start_rl(x.rl(steps=steps, on_reward_outage="fail"), name="actor-reward")
        x.start_actor("--learner", learner.address, reward=proxy.address)
        _, trained = x.check_done(learner, folder, steps)
    without = sum(row["gate/reward_unavailable"] for row in trained) / steps
    x.note(f"lossy to the reward server: {without:.2f} of the groups without scores")
    x.assertLess(without, 0.2, "retries within the deadline of 5 s should have hidden nearly all of it")


def rank_and_coordinator(x):
    cluster = harness.Cluster(x, x.data, ranks=2)
    cluster.coordinator = cluster.start_coordinator()
    cluster.start_reward()
    cluster.start_rank("near")
    with Proxy(cluster.address, seed=x.seed) as proxy:
        real, cluster.address = cluster.address, proxy.address
        far = cluster.start_rank("far")
        cluster.address = real
        for i in range(2):
            cluster.start_actor(f"actor-{i}")
        watch = cluster.submit(x.rl(steps=x.pick(240, 800)))
        folder = cluster.run_folder(alive=[watch])
        x.step(folder, 1, alive=[watch])
        for number in range(x.pick(1, 5)):
            proxy.partition()
            wait_until(lambda: f"epoch={number + 2}" in cluster.coordinator.said()
                       or "group lost" in cluster.coordinator.said(), "the silent rank is out", alive=[watch])
            made = proxy.connections
            x.pass_time(2)
            before = harness.last_step(folder)
            with x.recovery():
                proxy.heal()
                wait_until(lambda: harness.last_step(folder) != before or watch.ended(), "the group goes on")
            x.assertLess(proxy.connections - made, STORM)
        x.assertEqual(watch.wait(), DONE, watch.said())
        x.check_rl_results(folder, x.pick(240, 800), 16)
        x.check_audit(folder)
        x.assertFalse(far.ended(), far.said())
    x.note(f"rank and coordinator: parted for longer than a lease, back in {x.recoveries[-1]:.1f} s")
    for process in x.processes:
        process.kill()


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def rank_and_rank(x):
    if os.geteuid() != 0 or subprocess.run(["ip", "-V"], capture_output=True, check=False).returncode:
        x.note("ranks were not parted: that needs root and ip of iproute2")
        return
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        x.note("ranks were not parted: no network namespaces here")
        return
    ip("link", "set", "lo", "up")
    island = x.start("island", "/usr/bin/unshare", "-n", "/usr/bin/sleep", "infinity")
    wait_until(lambda: os.readlink(f"/proc/{island.child.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "a namespace")
    inside = ("/usr/bin/nsenter", "-t", str(island.child.pid), "-n")
    ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(island.child.pid))
    ip("addr", "add", "10.0.0.1/24", "dev", "near")
    ip("link", "set", "near", "up")
    for arguments in (("addr", "add", "10.0.0.2/24", "dev", "far"), ("link", "set", "far", "up"), ("link", "set", "lo", "up")):
        subprocess.run([*inside, "ip", *arguments], check=True, capture_output=True)
    cluster = harness.Cluster(x, x.data, ranks=2)
    cluster.address = "10.0.0.1:7000"
    cluster.insecure = True  # the veth pair is beyond loopback
    cluster.runs, cluster.state = x.path("runs-apart"), x.path("state-apart")
    cluster.coordinator = cluster.start_coordinator()
    cluster.start_reward()
    binary = os.path.join(harness.BIN, "sluice-learner")
    ranks = [x.start("near", binary, "rank", "--coordinator", cluster.address, "--address", "10.0.0.1:0", "--collective-host",
                     "10.0.0.1", "--insecure"),
             x.start("far", *inside, binary, "rank", "--coordinator", cluster.address, "--address", "10.0.0.2:0",
                     "--collective-host", "10.0.0.2", "--insecure")]
    for rank in ranks:
        rank.wait_for("rank started")
    x.start("standby", binary, "rank", "--coordinator", cluster.address, "--address", "10.0.0.1:0", "--collective-host",
            "10.0.0.1", "--insecure").wait_for("rank started")
    for i in range(2):
        cluster.start_actor(f"actor-{i}")
    watch = cluster.submit(x.rl(steps=240))
    folder = cluster.run_folder(alive=[watch])
    x.step(folder, 1, alive=[watch])
    before = harness.last_step(folder)
    with x.recovery():
        ip("link", "set", "near", "down")
        wait_until(lambda: cluster.job()["epoch"] > 1, "the silent rank is out", alive=[watch])
        for i in range(2):
            cluster.start_actor(f"late-{i}")
        wait_until(lambda: harness.last_step(folder) != before, "the job goes on", alive=[watch])
    ip("link", "set", "near", "up")
    x.assertEqual(watch.wait(), DONE, watch.said())
    x.check_rl_results(folder, 240, 16)
    x.check_audit(folder)
    wait_until(lambda: harness.metric(cluster.metrics, "sluice_coordinator_members") == 3, "all three ranks are known")
    x.note(f"rank and rank: goes on after {x.recoveries[-1]:.1f} s with a standby")


def run(x):
    actor_and_learner(x)
    actor_and_reward(x)
    rank_and_coordinator(x)
    rank_and_rank(x)


if __name__ == "__main__":
    main(__file__, run)
