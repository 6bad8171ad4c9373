"""Starts Sluice's processes on loopback for integration tests, and looks at them from outside. Standard library alone.

A test derives from SluiceTest: whatever it starts is killed when it ends, and if it fails the last lines of every
process are printed. Nothing sleeps for a fixed time: everything waits for an observable event, with a generous limit.
The binaries are those of $SLUICE_BIN_DIR, by default build/bin.
"""

import ctypes
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("SLUICE_BIN_DIR", os.path.join(TOP, "build", "bin"))

# Generous: a loaded machine must not fail a test, a hang must.
LIMIT_S = 90
POLL_S = 0.02
PR_SET_PDEATHSIG = 1

# Exit codes of common/status/exit_code.h.
DONE, FAILED, USAGE, INTEGRITY, PERMISSION = 0, 1, 2, 3, 4
PREEMPTED, TRANSIENT, CANCELLED, HELD, NO_SPACE = 10, 11, 12, 13, 14

# The tiny world: item i is followed by (i + STRIDE) % ITEMS with this probability, else by any item.
USERS, EVENTS, ITEMS, STRIDE, FOLLOWS = 60, 12, 40, 7, 0.9


def die_with_parent(max_file_bytes=None):
    """In a child, before exec: killed when this process dies, however that happens (a ctest timeout, say).

    max_file_bytes: writes beyond it fail, much as on a full disk.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))


def wait_until(condition, what, limit_s=LIMIT_S, alive=()):
    """The first true value of condition(). Fails after limit_s, or as soon as a process of `alive` ends."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        for process in alive:
            if process.ended():
                value = condition()  # what it did last counts
                if value:
                    return value
                raise AssertionError(f"{process.name} ended with exit code {process.code()} before {what}")
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s} s in vain for: {what}")
        time.sleep(POLL_S)


def free_address():
    """A port that nobody listens at, and that the system gives to no outgoing connection: while a server is dead its
    port must stay free for the next one. Below the usual range of such connections, which starts at 32768."""
    draw = random.Random()  # two suites at the same time must not look at the same ports
    while True:
        port = draw.randrange(15000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return f"127.0.0.1:{port}"
            except OSError:
                continue


class Process:
    """A child in a process group of its own; standard output and error go to one file."""

    def __init__(self, name, argv, log, max_file_bytes=None, variables=None):
        self.name = name
        self.argv = argv
        self.log = log
        environment = dict(os.environ, OMP_NUM_THREADS="1", NO_COLOR="1", **(variables or {}))
        with open(log, "wb") as file:
            self.child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment,
                                          start_new_session=True, preexec_fn=lambda: die_with_parent(max_file_bytes))

    def ended(self):
        return self.child.poll() is not None

    def code(self):
        return self.child.returncode

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_for(self, pattern, limit_s=LIMIT_S):
        """The match of a regular expression in what it said so far or will say."""
        return wait_until(lambda: re.search(pattern, self.said()), f"{self.name} says /{pattern}/", limit_s, [self])

    def wait(self, limit_s=LIMIT_S):
        """Its exit code."""
        wait_until(self.ended, f"{self.name} ends", limit_s)
        return self.code()

    def send(self, number):
        """A signal, to it alone."""
        self.child.send_signal(number)

    def terminate(self):
        self.send(signal.SIGTERM)

    def pause(self):
        self.send(signal.SIGSTOP)
        wait_until(lambda: self._state() in ("T", None), f"{self.name} is stopped", alive=[self])

    def resume(self):
        self.send(signal.SIGCONT)

    def kill(self):
        """kill -9 of its whole group, and its funeral."""
        if not self.ended():
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.wait()

    def tail(self, lines=25):
        return "\n".join("    " + line for line in self.said().splitlines()[-lines:])

    def _state(self):
        try:
            with open(f"/proc/{self.child.pid}/stat", encoding="utf-8") as file:
                return file.read().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return None


class SluiceTest(unittest.TestCase):
    """Processes, a folder and the tiny world for each test."""

    variables = {}  # of the environment of what is started from now on, beyond those of the test itself

    def run(self, result=None):
        """As unittest's, with a folder, and an end for every process whatever happened."""
        result = result if result is not None else self.defaultTestResult()
        self.folder = tempfile.mkdtemp(prefix="sluice-integration-")
        self.processes = []
        before = len(result.failures) + len(result.errors)
        try:
            super().run(result)
        finally:
            if len(result.failures) + len(result.errors) > before:
                self._show_logs()
            for process in self.processes:
                process.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
        return result

    def _show_logs(self):
        for process in self.processes:
            code = process.code() if process.ended() else "still runs"
            print(f"--- {process.name} ({code}): {' '.join(process.argv)}\n{process.tail()}", file=sys.stderr)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    # ------------------------------------------------------------------------------------------------- processes

    def start(self, name, binary, *arguments, max_file_bytes=None):
        log = self.path(f"{len(self.processes):02d}-{name}.log")
        process = Process(name, [os.path.join(BIN, binary), *map(str, arguments)], log, max_file_bytes, self.variables)
        self.processes.append(process)
        return process

    def ask(self, *arguments):
        """What sluicectl prints about files, without a server."""
        answer = subprocess.run([os.path.join(BIN, "sluicectl"), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                capture_output=True, timeout=LIMIT_S, text=True)
        self.assertEqual(answer.returncode, DONE, answer.stderr)
        return answer.stdout

    def call(self, name, binary, *arguments, limit_s=LIMIT_S):
        """Runs to the end; returns the process."""
        process = self.start(name, binary, *arguments)
        process.wait(limit_s)
        return process

    def check_call(self, name, binary, *arguments, limit_s=LIMIT_S):
        process = self.call(name, binary, *arguments, limit_s=limit_s)
        self.assertEqual(process.code(), DONE, f"{name}: {process.said()}")
        return process

    def spec(self, name, values):
        """Writes a job spec; JSON is YAML too."""
        path = self.path(f"{name}.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=1)
        return path

    def start_job(self, values, *flags, name=None, folder=None, max_file_bytes=None):
        """`sluice-learner run`: returns (process, run folder)."""
        name = name or values.get("name", values["kind"])
        folder = folder or self.path(name)
        spec = self.spec(name, values)
        return self.start(name, "sluice-learner", "run", spec, "--run-folder", folder, *flags,
                          max_file_bytes=max_file_bytes), folder

    def run_job(self, values, *flags, name=None, folder=None):
        """As start_job, to its end, which must be a good one."""
        process, folder = self.start_job(values, *flags, name=name, folder=folder)
        self.assertEqual(process.wait(), DONE, process.said())
        return process, folder

    def prepare(self, **changes):
        """Returns the folder of a prepared data set of the tiny world."""
        events = write_events(self.path("events.csv"))
        values = prepare_spec(events, self.path("data"))
        values["prepare"].update(changes)
        self.run_job(values)
        return self.path("data")

    def start_reward(self, data, address="127.0.0.1:0", metrics="127.0.0.1:0", flags=()):
        """Returns (process, address, address of metrics)."""
        reward = self.start("reward", "sluice-reward", "--data", data, "--address", address, "--metrics-address", metrics,
                            *flags)
        return reward, reward.wait_for(r"serving address=(\S+)").group(1), metrics_address(reward)

    def start_actor(self, *flags, reward=None, name="actor"):
        """Returns the process, with .address (health) and .metrics."""
        if reward:
            flags += ("--reward", reward)
        actor = self.start(name, "sluice-actor", *flags, "--metrics-address", "127.0.0.1:0")
        actor.address = actor.wait_for(r"starting actor=\S+ address=(\S+)").group(1)
        actor.metrics = metrics_address(actor)
        return actor

    def start_rl(self, values, folder=None, name=None, flags=()):
        """A one-rank rl job, with .address for actors and .metrics; returns (process, run folder)."""
        metrics = free_address()
        learner, folder = self.start_job(values, "--address", "127.0.0.1:0", "--metrics-address", metrics, *flags,
                                         folder=folder, name=name)
        learner.address = learner.wait_for(r"actors attach at: (\S+)").group(1)
        learner.metrics = metrics
        return learner, folder

    # ---------------------------------------------------------------------------------------------------- checks

    def check_rl_results(self, folder, steps, groups_per_step):
        """What holds for every rl run that ended well, however rough its way; returns (results, rows of metrics)."""
        results = read_json(folder, "results.json")
        ledger = results["numbers"]["ledger"]
        self.assertEqual(ledger["issued"], sum(ledger[k] for k in ("trained", "dropped", "failed", "cancelled", "open")),
                         ledger)
        self.assertEqual(ledger["trained"], steps * groups_per_step, ledger)
        self.assertEqual((ledger["open"], ledger["failed"], ledger["dropped"]), (0, 0, 0), ledger)
        self.assertEqual(ledger["frontier"], steps * groups_per_step, ledger)
        rows = read_metrics(folder)
        trained = [row for row in rows if "loss/nll" in row]
        self.assertEqual([row["step"] for row in trained], list(range(1, steps + 1)))
        for row in trained:
            reasons = {key: row[key] for key in row if key.startswith("gate/") and key != "gate/open_rate"}
            self.assertAlmostEqual(sum(reasons.values()), 1, places=6, msg=reasons)
        versions = [row["policy_version"] for row in trained]
        self.assertEqual(versions, sorted(set(versions)), "policy versions only rise")
        first = [row for row in rows if row["step"] == 0]
        self.assertEqual(len(first), 1, rows[:3])
        self.assertIn("validation/hr@10", first[0])
        self.assertIn("validation/hr@10", results["numbers"]["final"])
        self.assertTrue(os.path.isfile(os.path.join(folder, "report.html")))
        for which in ("best", "final"):
            self.assertTrue(os.path.isfile(os.path.join(folder, "export", which, "model.safetensors")), which)
        return results, trained


class Cluster:
    """Coordinator, ranks, reward server and actors as a deployment has them; the test kills and restarts at will."""

    def __init__(self, test, data, ranks, lease_s=4):
        self.test = test
        self.data = data
        self.ranks = ranks
        self.lease_s = lease_s
        self.address = free_address()
        self.metrics = free_address()
        self.runs = test.path("runs")
        self.state = test.path("state")
        self.journals = test.path("journals")  # a folder an actor
        self.reward_address = None
        self.certificates = None  # a Certificates: everything speaks TLS from now on
        self.insecure = False     # listen beyond loopback without
        self.coordinator_flags = []
        self.rank_flags = []
        self.actor_flags = []

    def security(self, role):
        """Flags of a server of that role."""
        return [*(self.certificates.flags(role) if self.certificates else ()), *(["--insecure"] if self.insecure else ())]

    def start_coordinator(self):
        coordinator = self.test.start("coordinator", "sluice-learner", "coordinator", "--address", self.address,
                                      "--metrics-address", self.metrics, "--runs", self.runs, "--state", self.state,
                                      "--ranks", self.ranks, "--lease-seconds", self.lease_s,
                                      *self.security("coordinator"), *self.coordinator_flags)
        coordinator.wait_for(r"coordinator \w+ address=")
        coordinator.address = self.address
        coordinator.metrics = self.metrics
        return coordinator

    def start_rank(self, name="rank"):
        metrics = free_address()
        rank = self.test.start(name, "sluice-learner", "rank", "--coordinator", self.address, "--address", "127.0.0.1:0",
                               "--metrics-address", metrics, *self.security("rank"), *self.rank_flags)
        rank.address = rank.wait_for(r"rank started address=(\S+)").group(1)
        rank.metrics = metrics
        return rank

    def start_reward(self):
        process, self.reward_address, process.metrics = self.test.start_reward(self.data, flags=self.security("reward"))
        process.address = self.reward_address
        return process

    def start_actor(self, name="actor"):
        journal = os.path.join(self.journals, f"{len(self.test.processes):02d}-{name}")
        return self.test.start_actor("--coordinator", self.address, "--journal", journal, *self.security("actor"),
                                     *self.actor_flags, reward=self.reward_address, name=name)

    def start_all(self):
        """Coordinator, reward server, all ranks and as many actors; they are kept as attributes."""
        self.coordinator = self.start_coordinator()
        self.reward = self.start_reward()
        self.members = [self.start_rank(f"rank-{i}") for i in range(self.ranks)]
        self.actors = [self.start_actor(f"actor-{i}") for i in range(self.ranks)]
        return self

    def ctl(self, *arguments, name="sluicectl"):
        return self.test.start(name, "sluicectl", "--server", self.address, *self.client_flags(), *arguments)

    def client_flags(self):
        """Who sluicectl is, if the cluster speaks TLS."""
        return self.certificates.flags("client") if self.certificates else ()

    def submit(self, values, *flags):
        """sluicectl submit --watch: the process, which ends with the job and its exit code."""
        return self.ctl("submit", self.test.spec(values["name"], values), "--watch", *flags, name="submit")

    def run_folder(self, alive=()):
        """The folder of the one job of this cluster so far, once it is there."""
        def only():
            names = [n for n in (os.listdir(self.runs) if os.path.isdir(self.runs) else [])
                     if os.path.isdir(os.path.join(self.runs, n))]
            return os.path.join(self.runs, names[0]) if len(names) == 1 else None
        return wait_until(only, "the job has a run folder", alive=alive)

    def json(self, *arguments):
        """What a command of sluicectl prints with -o json."""
        answer = subprocess.run([os.path.join(BIN, "sluicectl"), "--server", self.address, *self.client_flags(), "-o", "json",
                                 *arguments],
                                stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, text=True)
        if answer.returncode != DONE:
            raise AssertionError(f"sluicectl {arguments} ended with {answer.returncode}: {answer.stderr}")
        return json.loads(answer.stdout)

    def job(self):
        """The description of the only job."""
        jobs = self.json("list")["jobs"]
        self.test.assertEqual(len(jobs), 1, jobs)
        return self.json("describe", jobs[0]["job_id"])

    def wait_for_state(self, state, alive=()):
        """The description of the only job once it is in that state."""
        return wait_until(lambda: (lambda job: job if job["state"] == state else None)(self.job()),
                          f"the job is {state}", alive=alive)


class GroupFaultsTest(SluiceTest):
    """A cluster whose job is stopped in the middle, by freezing its actors, so that a fault cannot come too late."""

    STEPS = 12

    def start_cluster(self, ranks=2):
        return Cluster(self, self.prepare(ranker={"sequential": False}), ranks=ranks).start_all()

    def spec_of(self, cluster, **changes):
        return rl_spec(cluster.data, steps=self.STEPS, checkpoint={"every": 2}, **changes)

    def submit_and_freeze(self, cluster, **changes):
        """Returns (sluicectl that watches, run folder), with at least one checkpoint in it."""
        watch = cluster.submit(self.spec_of(cluster, **changes))
        folder = cluster.run_folder(alive=[watch])
        wait_until(lambda: checkpoints(folder), "a checkpoint", alive=[watch])
        for actor in cluster.actors:
            actor.pause()
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")), "the job was too fast to be disturbed")
        return watch, folder

    def thaw(self, cluster):
        for actor in cluster.actors:
            actor.resume()

    def check_ends_well(self, watch, folder):
        self.assertEqual(watch.wait(), DONE, watch.said())
        return self.check_rl_results(folder, self.STEPS, 16)


# ------------------------------------------------------------------------------------------------------ the tiny world

def write_events(path, seed=7):
    """CSV of the tiny world, the same for a seed. Returns the path."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        file.write("user,item,timestamp\n")
        for user in range(USERS):
            item = draw.randrange(ITEMS)
            for time_of_event in range(EVENTS):
                file.write(f"u{user},i{item},{1000 * user + time_of_event}\n")
                item = (item + STRIDE) % ITEMS if draw.random() < FOLLOWS else draw.randrange(ITEMS)
    return path


def prepare_spec(events, output):
    return {"name": "tiny", "kind": "prepare", "seed": 3,
            "prepare": {"events": events, "output": output, "min_user_events": 3, "min_item_events": 1,
                        "max_history": 12,
                        "sids": {"levels": 2, "codes": 8, "vector_dim": 8, "iterations": 10},
                        "ranker": {"hidden_size": 16, "layers": 1, "heads": 1, "passes": 2, "batch_users": 20}}}


def model_spec():
    return {"hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 2}


def rl_spec(data, steps=8, **changes):
    """16 groups of 4 a step: one rank leases four blocks of it, two ranks two each."""
    rl = {"steps": steps, "groups_per_step": 16, "group_size": 4, "lease_groups": 4, "sampler": "beam",
          "reward": {"ranker": "cooccurrence", "deadline_s": 5}, "gate": {"negatives": 2},
          "optimizer": {"learning_rate": 0.001}, "validation": {"every": 0, "users": 20, "beams": 10}}
    checkpoint = changes.pop("checkpoint", {"every": 2})
    rl.update(changes)
    return {"name": "tiny-rl", "kind": "rl", "seed": 5, "data": data, "model": model_spec(), "rl": rl,
            "checkpoint": checkpoint}


# ------------------------------------------------------------------------------------------------------------- looking

def read_json(*names):
    with open(os.path.join(*names), encoding="utf-8") as file:
        return json.load(file)


def read_metrics(folder):
    """The whole lines of metrics.jsonl; none if it is not there yet."""
    try:
        with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


def last_step(folder):
    """The latest trained step in metrics.jsonl; 0 before the first."""
    return max([row["step"] for row in read_metrics(folder) if "loss/nll" in row], default=0)


def checkpoints(folder):
    """Names of the complete checkpoints, oldest first."""
    parent = os.path.join(folder, "checkpoints")
    names = os.listdir(parent) if os.path.isdir(parent) else []
    return sorted(n for n in names if n.startswith("step-") and not n.endswith(".tmp")  # one that is being written
                  and os.path.isfile(os.path.join(parent, n, "manifest.json")))


def replace_file(path, content):
    """Whoever reads it meanwhile reads the old or the new content."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(path + ".new", path)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def metrics_address(process):
    return "127.0.0.1:" + process.wait_for(r"metrics served .*port=(\d+)").group(1)


SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*)\})? ([^ ]+)(?: \d+)?$')


def scrape(address):
    """/metrics as {"name{labels}": value}; every line must be what Prometheus reads."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=LIMIT_S) as response:
        text = response.read().decode()
    samples = {}
    for line in text.splitlines():
        if not line or line.startswith("# HELP ") or line.startswith("# TYPE "):
            continue
        match = SAMPLE.match(line)
        if match is None:
            raise AssertionError(f"/metrics of {address} has a line that is not a sample: {line!r}")
        labels = "{" + match.group(2) + "}" if match.group(2) else ""
        samples[match.group(1) + labels] = float(match.group(3))
    return samples


def metric(address, name):
    """Sum of a metric over its labels; 0 if it is not there, or the process does not answer yet."""
    try:
        samples = scrape(address)
    except OSError:
        return 0
    return sum(value for key, value in samples.items() if key.split("{")[0] == name)


SERVING, NOT_SERVING = 1, 2


def grpc_health(address, timeout_s=30, service=""):
    """The answer of grpc.health.v1.Health/Check for a service, by default for the whole server, e.g. SERVING.

    gRPC by hand, as the standard library has no client: HTTP/2 with one request whose headers are literals, so that
    nothing of HPACK but its plainest form is needed, and an answer of which only the data frame is read.
    """
    def header(name, value):
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    headers = b"".join(header(*pair) for pair in (
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", address.encode()), (b"content-type", b"application/grpc"), (b"te", b"trailers")))
    message = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout_s) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 0x4, 1, headers)
                           + frame(0, 0x1, 1, b"\x00" + struct.pack(">I", len(message)) + message))
        stream = connection.makefile("rb")
        while True:
            head = stream.read(9)
            if len(head) < 9:
                raise AssertionError(f"{address} closed the connection without an answer to the health check")
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            payload = stream.read(size)
            if kind == 4 and not flags & 1:  # settings: acknowledged
                connection.sendall(frame(4, 1, 0))
            if kind == 6 and not flags & 1:  # ping: answered
                connection.sendall(frame(6, 1, 0, payload))
            if kind == 0 and payload:
                message = payload[5:]  # after the compression flag and the length
                return message[1] if message[:1] == b"\x08" else 0
            if kind in (1, 3) and flags & 1:
                raise AssertionError(f"{address} refused the health check")


def main():
    unittest.main(verbosity=2)
