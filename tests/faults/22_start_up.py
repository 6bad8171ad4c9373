"""A port in use, a host that does not exist, servers that come long after their clients, an address of IPv6 alone. A sentence
and exit code 11, or patience with back-off; nobody needs a certain order.
"""

import os
import socket

from experiment import harness, main
from harness import DONE, TRANSIENT

NOWHERE = "nobody.invalid:7000"


def port_in_use(x):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for arguments in (("sluice-reward", "--data", x.data, "--address", taken),
                          ("sluice-learner", "coordinator", "--address", taken, "--runs", x.path("none")),
                          ("sluice-actor", "--learner", "127.0.0.1:1", "--address", taken)):
            process = x.call("server", *arguments)
            x.assertEqual(process.code(), TRANSIENT, process.said())
            x.assertIn("in use", process.said())


def unknown_host(x):
    listing = x.call("list", "sluicectl", "--server", NOWHERE, "--timeout", "2", "list")
    x.assertEqual(listing.code(), TRANSIENT, listing.said())
    x.assertIn("nobody.invalid", listing.said())
    x.assertLess(len(listing.said().splitlines()), 6, listing.said())
    actor = x.start_actor("--learner", NOWHERE, name="lost")
    actor.wait_for("not attached to a learner rank.*retry_in_s")
    rank = x.start("lost-rank", "sluice-learner", "rank", "--coordinator", NOWHERE, "--address", "127.0.0.1:0")
    rank.wait_for("does not answer")
    for process in (actor, rank):
        process.terminate()
        x.assertEqual(process.wait(), DONE, process.said())


def reversed_order(x):
    """Client, actor, rank, coordinator, reward server: each before the one it needs. Only the client gives up, at once."""
    cluster = harness.Cluster(x, x.data, ranks=1)
    cluster.reward_address = harness.free_address()
    early = cluster.ctl("submit", x.spec("first", x.rl(steps=3)), name="early")
    x.assertEqual(early.wait(), TRANSIENT, early.said())
    x.assertIn(f"no coordinator answers at {cluster.address}", early.said())
    actor = cluster.start_actor()
    actor.wait_for("not attached")
    cluster.start_rank().wait_for("does not answer")
    with x.recovery():
        cluster.start_coordinator()
        watch = cluster.submit(x.rl(steps=3))
        folder = cluster.run_folder(alive=[watch])
        x.start_reward(x.data, address=cluster.reward_address)
        x.assertEqual(watch.wait(), DONE, watch.said())
    x.check_rl_results(folder, 3, 16)
    x.check_audit(folder)


def ipv6(x):
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
            port = s.getsockname()[1]
    except OSError:
        x.note("IPv6 was not tried: there is none here")
        return
    learner, folder = x.start_job(x.rl(steps=3), "--address", f"[::1]:{port}", name="six")
    learner.address = learner.wait_for(r"actors attach at: (\S+)").group(1)
    x.assertIn("[::1]", learner.address)
    reward = x.start("reward-six", "sluice-reward", "--data", x.data, "--address", "[::1]:0")
    address = reward.wait_for(r"serving address=(\S+)").group(1)
    x.start_actor("--learner", learner.address, reward=address, name="actor-six")
    x.check_done(learner, folder, 3)


def run(x):
    os.environ["GRPC_DNS_RESOLVER"] = "native"
    port_in_use(x)
    unknown_host(x)
    reversed_order(x)
    ipv6(x)


if __name__ == "__main__":
    main(__file__, run)
