"""What each service tells systemd over NOTIFY_SOCKET, as a real socket receives it: ready in the moment in which its
health check says so, and once; what it does; and that it stops."""

import os
import socket

import harness
from harness import DONE, NOT_SERVING, SERVING

STEPS = 3


class Manager:
    """The receiving end. Each service has one of its own."""

    def __init__(self, test, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.settimeout(harness.LIMIT_S)
        test.addCleanup(self.socket.close)

    def next(self):
        """The lines of the next message."""
        return self.socket.recv(4096).decode().splitlines()

    def rest(self):
        """All lines of the messages that wait."""
        self.socket.setblocking(False)
        lines = []
        try:
            while True:
                lines += self.next()
        except BlockingIOError:
            return lines


class ServiceManagerTest(harness.SluiceTest):
    def managed(self, start, *arguments, address=None):
        """start(*arguments) with a manager: (process, manager). The address is a path unless one is given."""
        manager = Manager(self, address or self.path(f"notify-{len(self.processes)}"))
        self.variables = {"NOTIFY_SOCKET": manager.address}
        try:
            return start(*arguments), manager
        finally:
            self.variables = {}

    def stop(self, process):
        process.terminate()
        self.assertEqual(process.wait(), DONE, process.said())

    def test_a_cluster_tells_when_it_serves_what_it_does_and_that_it_stops(self):
        cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=1)
        reward, of_reward = self.managed(cluster.start_reward)
        self.assertEqual(of_reward.next(), ["READY=1", "STATUS=serving"])
        self.assertEqual(harness.grpc_health(reward.address), SERVING)

        # An actor is not ready before it has a rank, and needs no job to be.
        actor, of_actor = self.managed(cluster.start_actor)
        self.assertEqual(of_actor.next(), ["STATUS=looking for a learner rank"])
        self.assertEqual(harness.grpc_health(actor.address), NOT_SERVING)
        coordinator, of_coordinator = self.managed(cluster.start_coordinator)
        self.assertEqual(of_coordinator.next(), ["READY=1", f"STATUS=serving at {cluster.address}"])
        self.assertEqual(harness.grpc_health(cluster.address), SERVING)
        rank, of_rank = self.managed(cluster.start_rank, address=f"@sluice-{os.getpid()}-rank")
        self.assertEqual(of_rank.next(), ["READY=1", "STATUS=idle"])
        self.assertEqual(harness.grpc_health(rank.address), SERVING)
        self.assertEqual(of_actor.next(), ["READY=1", "STATUS=attached to a learner rank"])
        self.assertEqual(harness.grpc_health(actor.address), SERVING)

        watch = cluster.submit(harness.rl_spec(cluster.data, steps=STEPS))
        self.assertEqual(watch.wait(), DONE, watch.said())
        job = cluster.job()["job_id"]
        self.assertEqual(of_rank.next(), [f"STATUS=job {job}, rank 0 of 1"])
        self.assertEqual(of_rank.next(), ["STATUS=idle"])

        self.stop(rank)
        self.assertEqual(of_rank.next(), ["STOPPING=1", "STATUS=leaving the group"])
        # Less than ready is nothing that systemd knows.
        self.assertEqual(of_actor.next(), ["STATUS=looking for a learner rank"])
        self.stop(actor)
        self.assertEqual(of_actor.next(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000",
                                           "STATUS=draining: the lease in hand is finished or given back"])
        self.stop(reward)
        self.assertEqual(of_reward.next(), ["STOPPING=1", "STATUS=answering the calls in progress"])
        self.stop(coordinator)
        self.assertEqual(of_coordinator.next(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=90000000",
                                                 "STATUS=draining: the running job writes a checkpoint"])
        for manager in (of_reward, of_actor, of_coordinator, of_rank):
            self.assertEqual(manager.rest(), [])

    def test_a_rank_with_a_job_says_that_it_drains_before_it_writes_the_checkpoint(self):
        cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=1)
        cluster.start_coordinator()
        rank, of_rank = self.managed(cluster.start_rank)
        self.assertEqual(of_rank.next(), ["READY=1", "STATUS=idle"])
        cluster.start_reward()
        cluster.submit(harness.rl_spec(cluster.data, steps=STEPS))  # without an actor it waits for groups
        self.assertRegex(of_rank.next()[0], "^STATUS=job .*, rank 0 of 1$")
        rank.wait_for("job assigned")
        self.stop(rank)
        self.assertEqual(of_rank.next(), ["STOPPING=1", "STATUS=draining: the job writes a checkpoint"])
        self.assertEqual(of_rank.rest(), [])

    def test_a_socket_that_is_broken_is_named_and_the_service_serves(self):
        for address, reason in ((self.path("nobody"), "not sent: No such file or directory"),
                                ("no-path", "want /path or @name of at most 107 bytes, got 'no-path'")):
            with self.subTest(address=address):
                self.variables = {"NOTIFY_SOCKET": address}
                coordinator = self.start("coordinator", "sluice-learner", "coordinator", "--address", "127.0.0.1:0",
                                         "--runs", self.path("runs"))
                coordinator.wait_for(r"the service manager is not told how this process is "
                                     rf"NOTIFY_SOCKET={address} error={reason}")
                serves_at = coordinator.wait_for(r"coordinator started address=(\S+)").group(1)
                self.assertEqual(harness.grpc_health(serves_at), SERVING)
                self.stop(coordinator)
                self.assertEqual(coordinator.said().count("NOTIFY_SOCKET"), 1)


if __name__ == "__main__":
    harness.main()
