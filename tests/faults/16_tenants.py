"""Tokens that are missing, forged, expired or taken away, scopes that do not suffice, and the jobs of others: refused without
telling whether there is such a job, each with a line in the audit log. A job of one of them trains over TLS to its end.
"""

import json
import os
import re

from experiment import Missing, harness, main
import certificates  # noqa: I001  # its folder is on the path once experiment is imported
from harness import DONE, PERMISSION, USAGE


class People:
    """Holders of tokens, with the files of their secrets."""

    def __init__(self, x):
        self.x = x
        self.tokens = x.path("tokens.jsonl")
        self.secrets = {}

    def add(self, name, scopes):
        made = self.x.call(f"token-{name}", "sluicectl", "token", "create", name, "--scopes", scopes, "--tokens", self.tokens)
        self.x.assertEqual(made.code(), DONE, made.said())
        self.secrets[name] = re.search(r"^sluice_\S+$", made.said(), re.MULTILINE).group(0)
        self.write(name, self.secrets[name])

    def write(self, name, secret):
        with open(self.file(name), "w", encoding="utf-8") as file:
            file.write(secret + "\n")

    def file(self, name):
        return self.x.path(f"{name}.token")

    def change(self, name, **values):
        """Edits the line of somebody; without values it goes."""
        with open(self.tokens, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        with open(self.tokens + ".new", "w", encoding="utf-8") as file:
            for line in lines:
                if line["name"] == name and not values:
                    continue
                file.write(json.dumps({**line, **(values if line["name"] == name else {})}) + "\n")
        os.replace(self.tokens + ".new", self.tokens)


def audited(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def run(x):
    if not certificates.available():
        raise Missing("there is no openssl here; it is in the Debian package openssl")
    people = People(x)
    for name, scopes in (("ada", "submit"), ("bob", "submit"), ("eve", "read"), ("root", "admin"), ("old", "admin"),
                         ("gone", "admin")):
        people.add(name, scopes)
    people.write("forged", people.secrets["root"][:-1] + ("A" if people.secrets["root"][-1] != "A" else "B"))
    cluster = harness.Cluster(x, x.data, ranks=1)
    cluster.certificates = certificates.Certificates(x.path("tls"))
    cluster.coordinator_flags = ["--tokens", people.tokens]
    cluster.start_all()
    tls = ("--tls-ca", cluster.certificates.path("ca.crt"))

    def ctl(who, *arguments, name=None):
        token = ("--token-file", people.file(who)) if who else ()
        return x.start(name or f"{who or 'nobody'}-{arguments[0]}", "sluicectl", "--server", cluster.address, *tls, *token,
                       *arguments)

    def refused(who, *arguments, words):
        process = ctl(who, *arguments)
        x.assertEqual(process.wait(), PERMISSION, f"{who}: {process.said()}")
        x.assertIn(words, process.said())
        x.assertLess(len(process.said().splitlines()), 3, process.said())
        return process.said()

    steps = x.pick(20, 200)
    spec = x.spec("of-ada", dict(x.rl(steps=steps), name="of-ada"))
    watch = ctl("ada", "submit", spec, "--watch", name="submit")
    folder = cluster.run_folder(alive=[watch])
    job = os.path.basename(folder)
    x.step(folder, 0, alive=[watch])

    # People without a right to anything, and the machines' certificates.
    refused("", "list", words="wants a token")
    refused("forged", "list", words="is not known here")
    people.change("old", expires="2020-01-01T00:00:00Z")
    refused("old", "list", words="the token of old expired at")
    people.change("gone")
    refused("gone", "list", words="is not known here")
    robot = x.call("actor-as-client", "sluicectl", "--server", cluster.address, *cluster.certificates.flags("actor"), "list")
    x.assertEqual(robot.code(), PERMISSION, robot.said())

    # People with some rights.
    refused("eve", "submit", spec, words="lacks the scope submit")
    refused("eve", "cancel", job, words="needs the scope admin")
    x.assertEqual(ctl("eve", "describe", job).wait(), DONE)
    mine = ctl("bob", "-o", "json", "list")
    x.assertEqual(mine.wait(), DONE, mine.said())
    x.assertEqual(json.loads(mine.said())["jobs"], [])
    listed = ctl("ada", "list")
    x.assertEqual(listed.wait(), DONE, listed.said())
    x.assertIn(job, listed.said())

    # Over the wire bob learns nothing of ada's job; sluicectl itself looks ids up in what he may list.
    try:
        oracle(x, cluster, people, job)
    except ImportError:
        x.note("the job API was not called directly: grpc is not installed")

    # A token never goes over a network in the clear.
    clear = x.call("clear", "sluicectl", "--server", "192.0.2.1:7070", "--token-file", people.file("ada"), "list")
    x.assertEqual(clear.code(), PERMISSION, clear.said())
    unfit = x.call("unfit", "sluicectl", "--server", cluster.address, *tls, "--token-file", x.path("none"), "list")
    x.assertEqual(unfit.code(), USAGE, unfit.said())

    x.assertEqual(watch.wait(), DONE, watch.said())
    x.check_rl_results(folder, steps, 16)
    x.check_audit(folder)

    lines = audited(os.path.join(cluster.state, "audit.jsonl"))
    told = {(line["who"], line["call"].rpartition("/")[2], line["verdict"]) for line in lines}
    for who, call, verdict in (("ada", "Submit", "allowed"), ("", "List", "refused"), ("eve", "Submit", "refused"),
                               ("eve", "Cancel", "refused"), ("actor", "List", "refused")):
        x.assertIn((who, call, verdict), told)
    # The rank that trained ada's job, by its certificate.
    for call in ("Join", "Finish"):
        x.assertIn(("rank", call, "allowed"), told)
    x.assertTrue(any(line["job"] == job and line["call"].endswith("/Finish") for line in lines), lines)
    x.assertTrue(all(line["from"] for line in lines if line["by"] != "certificate"), lines)
    x.assertTrue(any(line["job"] == job and line["verdict"] == "allowed" for line in lines), lines)
    x.note(f"{len(lines)} lines in the audit log, {sum(line['verdict'] == 'refused' for line in lines)} refusals")
    secrets_nowhere(x, people, cluster)


def oracle(x, cluster, people, job):
    """A job of somebody else and none at all get the same answer."""
    import grpc
    from messages import Protocol
    protocol = Protocol()
    with open(cluster.certificates.path("ca.crt"), "rb") as file:
        wire = grpc.ssl_channel_credentials(file.read())
    with grpc.secure_channel(cluster.address, wire,
                             [("grpc.ssl_target_name_override", "coordinator.sluice.internal")]) as channel:
        for method, message in (("Describe", "DescribeRequest"), ("Cancel", "CancelRequest"), ("Resume", "ResumeRequest")):
            said = []
            for one in (job, job[:-1] + "x"):
                call = channel.unary_unary(f"/sluice.v1.JobService/{method}")
                try:
                    call(protocol(message, job_id=one).SerializeToString(), timeout=harness.LIMIT_S,
                         metadata=[("authorization", f"Bearer {people.secrets['bob']}")])
                    said.append("OK")
                except grpc.RpcError as error:
                    said.append((error.code().name, error.details().replace(one, "JOB")))
            x.assertEqual(said[0], said[1], method)
            x.assertEqual(said[0][0], "PERMISSION_DENIED", method)


def secrets_nowhere(x, people, cluster):
    """No secret in a log, the audit log, the job store, the run folder or the file of tokens."""
    places = [process.log for process in x.processes if not process.name.startswith("token-")]
    for top in (cluster.state, cluster.runs, people.tokens):
        places += [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names] or [top]
    for place in places:
        with open(place, "rb") as file:
            text = file.read()
        for name, secret in people.secrets.items():
            x.assertNotIn(secret.encode(), text, f"the secret of {name} is in {place}")
        x.assertNotIn(b"PRIVATE KEY", text, place)


if __name__ == "__main__":
    main(__file__, run)
