"""A cluster whose processes are started again at once when they end, as Kubernetes would, and a look at its training.

Over tests/integration/harness.py; standard library alone. One thread: Supervisor.wait looks after the processes while it
waits.
"""

import glob
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "integration")]
import harness  # noqa: E402

try:
    import proxy
except ImportError:
    proxy = None  # then there are no faults of the network

LEASE_S = 4         # a rank silent for this long is out
DRAIN_S = 15        # a coordinator's time for a checkpoint after SIGTERM
GRACE_S = 30        # after SIGTERM, then SIGKILL: the default of a pod
CALL_S = 1          # for one look at a server
IDLE_EVERY_S = 2    # between two looks whether a coordinator is idle
RANKS, ACTORS = 2, 2
GROUPS_PER_STEP, CHECKPOINT_EVERY = 16, 10


class Ground(harness.SluiceTest):
    """What harness.SluiceTest gives a test, for a program: a folder, which stays, and processes, which do not."""

    def __init__(self, folder):
        super().__init__()
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.folder = folder
        self.processes = []

    def runTest(self):
        """unittest asks for one."""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for process in self.processes:
            process.kill()


class Supervisor:
    """Coordinator, reward server, ranks and actors, each by name ("rank-1"). Whoever ends is started again.

    links: actors reach the reward server, and ranks and actors the coordinator, through a proxy in .links; and what the
    reward server answers goes through tests/integration/sick_reward, which sicken() makes ill.
    """

    def __init__(self, ground, data, name="cluster", reward_delay_ms=3, links=False, weights="grpc"):
        self.ground = ground
        self.name = name
        self.data = data
        self.address, self.reward, metrics = (harness.free_address() for _ in range(3))
        self.reward_delay_ms = reward_delay_ms
        self.links = {}
        self.mood = ground.path(f"{name}-mood")
        scores = harness.free_address() if links else self.reward  # where they come from, as the actors see it
        if links:
            self.links = {"link-reward": proxy.Proxy(scores), "link-coordinator": proxy.Proxy(self.address)}
        to_reward, to_coordinator = (self.links[link].address if links else address for link, address in (
            ("link-reward", self.reward), ("link-coordinator", self.address)))
        self.metrics = {"coordinator": metrics}
        self.commands = {
            "coordinator": ("sluice-learner", "coordinator", "--address", self.address, "--metrics-address", metrics,
                            "--runs", ground.path(name, "runs"), "--state", ground.path(name, "state"), "--ranks", RANKS,
                            "--lease-seconds", LEASE_S, "--drain-seconds", DRAIN_S)}
        self.delay_rewards(reward_delay_ms)
        if links:
            self.sicken("well")
            self.commands["ranker"] = (os.path.join("..", "tests", "sick-reward"), scores, self.reward, self.mood, 0)
        for i in range(RANKS):
            self.commands[f"rank-{i}"] = ("sluice-learner", "rank", "--coordinator", to_coordinator,
                                          "--address", "127.0.0.1:0", "--weights", weights)
        for i in range(ACTORS):
            self.metrics[f"actor-{i}"] = harness.free_address()
            self.commands[f"actor-{i}"] = ("sluice-actor", "--coordinator", to_coordinator, "--reward", to_reward,
                                           "--weights", weights, "--metrics-address", self.metrics[f"actor-{i}"])
        self.processes = {}
        self.ends = []          # (name, exit code) of whoever was started again
        self.told_to_end = {}   # name -> when, of those that got SIGTERM
        self.overran = []       # names of those that SIGKILL had to follow
        self._idle_seen = (-math.inf, False)

    def start(self):
        for name in self.commands:
            self._start(name)
        return self

    def _start(self, name):
        binary, *arguments = self.commands[name]
        self.processes[name] = self.ground.start(f"{self.name}-{name}", binary, *arguments)

    def look(self):
        """Starts whoever ended again, and kills whoever overran its grace."""
        for name, process in self.processes.items():
            if process.ended():
                self.ends.append((name, process.code()))
                self.told_to_end.pop(name, None)
                self._start(name)
            elif time.monotonic() > self.told_to_end.get(name, float("inf")) + GRACE_S:
                self.overran.append(name)
                process.kill()

    def wait(self, condition, what, limit_s=harness.LIMIT_S, poll_s=harness.POLL_S):
        """The first true value of condition(), while ended processes are started again."""
        deadline = time.monotonic() + limit_s
        while True:
            self.look()
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: waited {limit_s:.0f} s in vain for: {what}")
            time.sleep(poll_s)

    def delay_rewards(self, delay_ms):
        """How long the next reward server waits before each batch."""
        self.commands["reward"] = ("sluice-reward", "--data", self.data, "--address", self.reward, "--max-delay-ms", delay_ms)

    def sicken(self, mood):
        """A word of tests/integration/sick_reward: how the scores are from now on."""
        harness.replace_file(self.mood, mood)

    def stop(self):
        """The end of all, by SIGKILL."""
        for process in self.processes.values():
            process.kill()
        for link in self.links.values():
            link.close()
        self.links = {}

    def kill(self, name):
        self.processes[name].kill()

    def terminate(self, name):
        self.told_to_end.setdefault(name, time.monotonic())
        self.processes[name].terminate()

    def is_serving(self, address):
        """Whether the server at this address says that it is healthy."""
        try:
            return harness.grpc_health(address, CALL_S) == harness.SERVING
        except (OSError, AssertionError, ValueError):
            return False

    def sample(self, name, metric):
        """Sum over labels of a metric of this process; None if it does not answer or has no such metric."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics[name]}/metrics", timeout=CALL_S) as response:
                lines = response.read().decode().splitlines()
        except OSError:
            return None
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == metric]
        return sum(values) if values else None

    def ctl(self, *arguments):
        """Standard output of sluicectl; None if it did not end well."""
        answer = subprocess.run([os.path.join(harness.BIN, "sluicectl"), "--server", self.address, *arguments],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=harness.LIMIT_S)
        return answer.stdout if answer.returncode == harness.DONE else None

    def describe(self, job_id):
        """What the coordinator knows of the job, or None for now."""
        answer = self.ctl("-o", "json", "describe", job_id)
        return json.loads(answer) if answer else None

    def submit(self, values):
        """Returns (job id, its run folder)."""
        self.wait(lambda: self.is_serving(self.address), "the coordinator serves")
        path = self.ground.spec(f"{self.name}-{values['name']}-{values['seed']}", values)
        job_id = self.wait(lambda: self.ctl("submit", path), "the job is taken").strip()
        return job_id, self.wait(lambda: (self.describe(job_id) or {}).get("run_folder"), "the job has a run folder")

    def is_idle(self):
        """Whether the coordinator said lately that no job waits or runs."""
        if time.monotonic() > self._idle_seen[0] + IDLE_EVERY_S:
            self._idle_seen = (time.monotonic(), self.sample("coordinator", "sluice_coordinator_jobs") == 0)
        return self._idle_seen[1]


class Progress:
    """Reads metrics.jsonl as it grows, and notices when a resumed job cuts it back to its checkpoint."""

    def __init__(self, run_folder):
        self.path = os.path.join(run_folder, "metrics.jsonl")
        self.rows = {}          # step -> line, of the present timeline
        self.trained = 0        # steps seen, those included that were abandoned later
        self.abandoned = 0      # of these
        self.last = {}          # the latest row
        self._inode, self._read = None, 0

    @property
    def step(self):
        """The latest step of the present timeline; 0 before the first."""
        return max(self.rows, default=0)

    def look(self):
        """Takes in what is new; returns how many steps were trained since the last look."""
        try:
            with open(self.path, "rb") as file:
                inode, size = os.fstat(file.fileno()).st_ino, os.fstat(file.fileno()).st_size
                if inode != self._inode:
                    return self._take(self._whole_lines(file, 0), inode)
                if size == self._read:
                    return 0
                return self._take(self._whole_lines(file, self._read), inode)
        except FileNotFoundError:
            return 0

    def _whole_lines(self, file, start):
        file.seek(start)
        content = file.read()
        content = content[:content.rfind(b"\n") + 1]
        self._read = start + len(content)
        return content.splitlines()

    def _take(self, lines, inode):
        rows = {}
        for line in lines:
            row = json.loads(line)
            if "loss/nll" in row:
                rows[row["step"]] = line
                self.last = row
        new = sum(self.rows.get(step) != line for step, line in rows.items())
        if inode != self._inode:
            self.abandoned += sum(rows.get(step) != line for step, line in self.rows.items())
            self.rows, self._inode = {}, inode
        self.rows.update(rows)
        self.trained += new
        return new


# ------------------------------------------------------------------------------------------------- what is trained

def movielens():
    """The events of MovieLens 100K, which ./sluice setup has put beside LibTorch."""
    found = glob.glob(os.path.join(harness.TOP, ".venv", "lib", "python3*", "site-packages", "recbole", "dataset_example",
                                   "ml-100k", "ml-100k.inter"))
    if not found:
        raise SystemExit("sluice proof: ml-100k.inter is not in .venv; run ./sluice setup")
    return found[0]


def prepare_movielens(ground):
    """Returns the folder of the prepared data set; the ranker is the co-occurrence rule, which needs no training."""
    values = {"name": "ml-100k", "kind": "prepare", "seed": 1,
              "prepare": {"events": movielens(), "output": ground.path("data"), "max_history": 20,
                          "sids": {"levels": 3, "codes": 64}, "ranker": {"sequential": False}}}
    ground.run_job(values)
    return ground.path("data")


def rl_spec(data, seed, steps, **changes):
    """An asynchronous job from random weights on MovieLens, which records what it judges and trains through outages of the
    reward server. Leases are short and tries many, so that a fault costs a retry and never a group."""
    rl = {"steps": steps, "groups_per_step": GROUPS_PER_STEP, "group_size": 8, "lease_groups": 4, "sampler": "beam",
          "staleness": 2,
          "lease_deadline_s": 10, "max_attempts": 100, "record": True, "on_reward_outage": "nll_only",
          "reward": {"ranker": "cooccurrence", "deadline_s": 5}, "gate": {"negatives": 2},
          "optimizer": {"learning_rate": 0.003}, "validation": {"every": 0, "users": 0, "beams": 20}}
    rl.update(changes)
    return {"name": "ml-100k-faults", "kind": "rl", "seed": seed, "data": data,
            "model": {"hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 2}, "rl": rl, "checkpoint": {"every": CHECKPOINT_EVERY}}


# ---------------------------------------------------------------------------------------------------------- figures

def percentile(values, share):
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def machine():
    """The machine, and how busy it was, in general words."""
    return f"{os.cpu_count()} cores, no GPU; load average {os.getloadavg()[2]:.0f}, with what else ran there"
