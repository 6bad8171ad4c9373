"""Certificates that are missing, unreadable, expired, of another role, another authority or none, on either side: refused in a
sentence, with exit code 2 for the own files and 4 for a peer. Renewed while a job trains over TLS: no stream breaks.
"""

import os
import shutil

from experiment import Missing, harness, main
import certificates  # noqa: I001  # its folder is on the path once experiment is imported
from harness import CANCELLED, DONE, PERMISSION, USAGE, wait_until


def own_files(x, made):
    """Who cannot work with its files does not start."""
    other = certificates.Certificates(x.path("other"))
    made.issue("reward", days=-1)
    expired = made.flags("reward")
    binary = ("sluice-reward", "--data", x.data, "--address", "127.0.0.1:0")
    cases = {"expired": (expired, "expired at"),
             "role": (made.flags("actor"), "needs one with reward.sluice.internal"),
             "ca": (("--tls-ca", other.path("ca.crt"), *made.flags("rank")[2:]), "is not from a CA in"),
             "key": ((*made.flags("rank")[:4], "--tls-key", made.path("actor.key")), "is not that of the certificate"),
             "missing": ((*made.flags("rank")[:4], "--tls-key", made.path("none.key")), "No such file"),
             "half": (made.flags("rank")[:4], "--tls-cert and --tls-key together")}
    for name, (flags, words) in cases.items():
        process = x.call(f"own-{name}", *binary, *flags)
        x.assertEqual(process.code(), USAGE, process.said())
        x.assertIn(words, process.said())
        x.assertEqual(len(process.said().splitlines()), 1, process.said())
    made.issue("reward")
    outside = x.call("outside", *binary[:-1], "0.0.0.0:0")
    x.assertEqual(outside.code(), USAGE, outside.said())
    x.assertIn("--insecure", outside.said())


def peers(x, made, cluster):
    """What the other side makes of certificates that are in order by themselves."""
    foreign = certificates.Certificates(x.path("foreign"))
    believing = x.path("foreign", "both.crt")  # of the foreign one, who believes the cluster too
    with open(believing, "w", encoding="utf-8") as file:
        for ca in (foreign.path("ca.crt"), made.path("ca.crt")):
            with open(ca, encoding="utf-8") as part:
                shutil.copyfileobj(part, file)
    plain = harness.free_address()
    x.start("plain", "sluice-learner", "coordinator", "--address", plain, "--runs", x.path("plain")).wait_for("coordinator started")
    cases = {"plaintext to TLS": (cluster.address, (), "speaks TLS alone"),
             "TLS to plaintext": (plain, made.flags("client"), "speaks no TLS"),
             "unknown CA": (cluster.address, foreign.flags("client"), "is not from a CA in"),
             "foreign client": (cluster.address, ("--tls-ca", believing, *foreign.flags("client")[2:]), "refuses the certificate"),
             "no certificate": (cluster.address, made.flags("client")[:2], "wants a certificate"),
             "a rank for a coordinator": (cluster.members[0].address, made.flags("client"), "a coordinator is wanted"),
             "an actor at the job API": (cluster.address, made.flags("actor"), "is for client alone")}
    for name, (address, flags, words) in cases.items():
        process = x.call("peer", "sluicectl", "--server", address, *flags, "list")
        x.assertEqual(process.code(), PERMISSION, f"{name}: {process.said()}")
        x.assertIn(words, process.said())
        x.assertLess(len(process.said().splitlines()), 3, process.said())
    for binary, flag in (("sluice-actor", "--coordinator"), ("sluice-actor", "--learner")):
        lost = x.call("lost", binary, flag, cluster.address if flag == "--coordinator" else cluster.members[0].address,
                      *foreign.flags("actor"))
        x.assertEqual(lost.code(), PERMISSION, lost.said())
        x.assertIn("is not from a CA in", lost.said())
    rank = x.call("lost-rank", "sluice-learner", "rank", "--coordinator", plain, "--address", "127.0.0.1:0", *made.flags("rank"))
    x.assertEqual(rank.code(), PERMISSION, rank.said())
    x.assertIn("speaks no TLS", rank.said())


def expiry(process):
    return harness.scrape(process.metrics).get('sluice_certificate_expiry_timestamp_seconds{file="certificate"}', 0)


def renewal(x, made, cluster, watch, folder):
    """All certificates are replaced while the job trains: nobody notices but the log, and new connections use them."""
    everyone = {"coordinator": cluster.coordinator, "rank": cluster.members[0], "reward": cluster.reward,
                "actor": cluster.actors[0]}
    before = {role: expiry(process) for role, process in everyone.items()}
    attached = cluster.actors[0].said().count("attached to a learner rank")
    with x.recovery():
        made.issue(days=200)
        for process in everyone.values():
            process.wait_for("certificates read again")
    for role, process in everyone.items():
        wait_until(lambda: expiry(process) > before[role] + 86400, f"{role} tells of its new certificate")
    x.step(folder, harness.last_step(folder), alive=[watch])
    # A key that cannot be read any more is said aloud, and what runs goes on.
    os.rename(made.path("actor.key"), made.path("actor.hidden"))
    cluster.actors[0].wait_for("the certificates are unfit.*actor.key")
    x.step(folder, harness.last_step(folder), alive=[watch])
    os.rename(made.path("actor.hidden"), made.path("actor.key"))
    x.assertEqual(cluster.actors[0].said().count("attached to a learner rank"), attached, "the actor's stream was dropped")
    x.assertNotIn("group lost", cluster.coordinator.said())
    # Whoever comes now meets the new certificates.
    cluster.start_actor("late").wait_for("attached to a learner rank")


def run(x):
    if not certificates.available():
        raise Missing("there is no openssl here; it is in the Debian package openssl")
    made = certificates.Certificates(x.path("tls"))
    own_files(x, made)
    cluster = harness.Cluster(x, x.data, ranks=1)
    cluster.certificates = made
    cluster.start_all()
    # However fast the machine, this job does not end before it has been looked at.
    watch = cluster.submit(x.rl(steps=100_000))
    folder = cluster.run_folder(alive=[watch])
    x.step(folder, 1, alive=[watch])
    renewal(x, made, cluster, watch, folder)
    peers(x, made, cluster)
    cancel = cluster.ctl("cancel", cluster.job()["job_id"])
    x.assertEqual(cancel.wait(), DONE, cancel.said())
    x.assertEqual(watch.wait(), CANCELLED, watch.said())
    x.check_audit(folder)


if __name__ == "__main__":
    main(__file__, run)
