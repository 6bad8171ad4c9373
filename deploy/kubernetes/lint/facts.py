"""What is true of Sluice's processes, read from the references and the code that say it, and who talks to whom."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
API_LABELS: tuple[str, ...] = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version",
                               "app.kubernetes.io/component", "app.kubernetes.io/part-of")
SHARED_LABELS: tuple[str, ...] = ("app.kubernetes.io/instance", "app.kubernetes.io/version",
                                  "app.kubernetes.io/part-of")
ROLES = ("coordinator", "rank", "reward", "actor")
COMMANDS = {"coordinator": ("sluice-learner", "coordinator"), "rank": ("sluice-learner", "rank"),
            "reward": ("sluice-reward", ""), "actor": ("sluice-actor", "")}
RUN = ("sluice-learner", "run")  # what a one-shot job's rank runs
GLOO = "32768-60999"  # where the kernel puts a listener that asks for any port; NCCL's too

# Environment variables of ours that a process reads. NCCL's are none of ours, and none was tried.
ENVIRONMENT = ("SLUICE_SERVER", "SLUICE_TLS_CA", "SLUICE_TLS_CERT", "SLUICE_TLS_KEY", "SLUICE_TOKEN_FILE")
# Secrets that are read from the environment alone, whose role reads them, and the Secret that a person writes for them.
STORE_KEYS = {"AWS_ACCESS_KEY_ID": "access-key-id", "AWS_SECRET_ACCESS_KEY": "secret-access-key"}
STORE_ROLE, STORE_SECRET = "rank", "sluice-object-store"  # ranks, those of one-shot jobs too

# Flags whose value is an address that the process listens at, and those that name a peer with what it serves.
LISTENING = {"address": "grpc", "metrics-address": "metrics", "health-address": "health"}  # and the port's name
PEERS = {"coordinator": "coordinator", "reward": "reward", "learner": "rank"}
# Flags that name a folder, and whether the process writes there.
FOLDERS = {"state": True, "runs": True, "run-folder": True, "data": False}
# Flags of certificates, and the key of the Secret that cert-manager writes each under.
TLS = {"tls-ca": "ca.crt", "tls-cert": "tls.crt", "tls-key": "tls.key"}
DOMAIN = ".sluice.internal"  # of the roles' names in certificates
# Secrets that a person writes before the launch, who mounts them, and their key.
BY_HAND = {"sluice-tokens": ("coordinator", "tokens")}
# What a secret looks like: our tokens, keys in PEM, AWS's key ids.
SECRET = re.compile(r"\bsluice_(?=[\w-]*[A-Z])[\w-]{43}\b|PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b")
# What a container here must say, beyond what the program itself demands: defaults listen on loopback, or not at all.
NEEDED = {"coordinator": ("address", "metrics-address", "state", "runs", "ranks", "drain-seconds"),
          "rank": ("coordinator", "address", "collective-host", "metrics-address"),
          "reward": ("data", "address", "metrics-address"),
          "actor": ("address", "metrics-address", "reward", "drain-timeout"),
          "run": ("run-folder", "address", "metrics-address")}
DEVICE = re.compile(r"cpu|cuda:\d+")
# Seconds that starting up may take: opening a job store, loading CUDA, loading rankers.
STARTUP = {"coordinator": 60, "rank": 240, "reward": 300, "actor": 240}
# Whose gRPC health depends on others, so that it must not decide over life and death.
HEALTH_OF_PEERS = ("actor",)
SHARED_MEMORY = ("rank", "actor")  # roles that need more than a container's 64 MiB

# From, to, port. Both ends have a policy that says so; nothing else is allowed.
EDGES = (("rank", "coordinator", "7070"), ("actor", "coordinator", "7070"), ("client", "coordinator", "7070"),
         ("actor", "rank", "7090"), ("rank", "rank", GLOO), ("actor", "reward", "7080"),
         ("prometheus", "coordinator", "7071"), ("prometheus", "rank", "7091"), ("prometheus", "reward", "7081"),
         ("prometheus", "actor", "7101"), ("rank", "dns", "53"), ("actor", "dns", "53"), ("client", "dns", "53"),
         ("job-actor", "job-rank", "7090"), ("job-actor", "job-reward", "7080"), ("prometheus", "job-rank", "7091"),
         ("prometheus", "job-reward", "7081"), ("prometheus", "job-actor", "7101"), ("job-actor", "dns", "53"),
         ("train-actor", "train-rank", "7090"), ("train-actor", "reward", "7080"), ("prometheus", "train-rank", "7091"),
         ("prometheus", "train-actor", "7101"), ("train-actor", "dns", "53"),
         ("rank", "store", "443"), ("job-rank", "store", "443"), ("job-rank", "dns", "53"))
# Of these, what is needed where the first has keys of an object store, and not allowed otherwise.
EDGES_OF_KEYS = (("rank", "store", "443"), ("job-rank", "store", "443"), ("job-rank", "dns", "53"))
OUTSIDE = ("prometheus", "dns", "client")  # have no pods among the manifests
METADATA = "169.254.0.0/16"  # where clouds hand out rights: never open to a pod

# What a Job does with an exit code; what is not listed is tried again and counted.
IGNORED_CODES = (10,)
FINAL_CODES = (1, 2, 3, 4, 12, 13, 14)


def read(path: str) -> str:
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


@dataclass(frozen=True)
class Flag:
    kind: str  # TEXT, INT, FLOAT, ENUM, or "" for one without a value
    required: bool
    values: tuple[str, ...]  # of an enumeration
    low: float
    high: float

    def refuses(self, value: str) -> str:
        """Why the program would not take this value; empty if it would."""
        if not self.kind:
            return "takes no value" if value else ""
        if not value:
            return "wants a value"
        if self.values and value not in self.values:
            return f"wants one of {', '.join(self.values)}, not {value}"
        if self.kind in ("INT", "FLOAT"):
            if not re.fullmatch(r"-?\d+" if self.kind == "INT" else r"-?\d+(\.\d+)?", value):
                return f"wants a number ({self.kind}), not {value}"
            if not self.low <= float(value) <= self.high:
                return f"wants {self.low:g} to {self.high:g}, not {value}"
        return ""


FLAG = re.compile(r"^  (?:-\w,)?--([a-z-]+)(?: (TEXT|INT|FLOAT|ENUM)(?::\{([^}]*)\})?"
                  r"(?::\w+ in \[([\d.]+) - ([\d.]+)\])?(?:=\S*)?( REQUIRED)?)?", re.MULTILINE)


@functools.cache
def programs() -> dict[tuple[str, str], dict[str, Flag]]:
    """(binary, subcommand) -> its flags, from docs/reference/processes.md; a test holds that page to the binaries."""
    found = {}
    for heading, body in re.findall(r"^## (sluice[\w -]*)\n\n```\n(.*?)^```", read("docs/reference/processes.md"),
                                    re.MULTILINE | re.DOTALL):
        binary, _, command = heading.partition(" ")
        found[binary, command] = {
            name: Flag(kind, bool(required), tuple(values.split(",")) if values else (),
                       float(low) if low else float("-inf"), float(high) if high else float("inf"))
            for name, kind, values, low, high, required in FLAG.findall(body)}
    return found


@functools.cache
def exit_codes() -> frozenset[int]:
    page = read("docs/reference/processes.md")
    return frozenset(int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE))


@functools.cache
def metrics() -> frozenset[str]:
    """Every series name that a process exports."""
    found = set()
    for name, kind in re.findall(r"^\| `(\w+)` \| (\w+) \|", read("docs/reference/metrics.md"), re.MULTILINE):
        found.add(name)
        if kind in ("histogram", "summary"):
            found.update(name + suffix for suffix in ("_bucket", "_sum", "_count"))
    return frozenset(found)


def seconds(path: str, before: str) -> int:
    """A duration in the code: the number in absl::Seconds(...) after the text `before`."""
    found = re.search(re.escape(before) + r"absl::Seconds\((\d+)\)", read(path))
    if found is None:
        raise ValueError(f"{path} no longer holds {before}absl::Seconds(...)")
    return int(found[1])


@functools.cache
def drain(role: str) -> tuple[tuple[str, int | str], ...]:
    """What a role may do between SIGTERM and its end: what, and for how many seconds or by which flag."""
    return {
        "coordinator": (("the running job's checkpoint", "drain-seconds"),
                        ("calls in progress", seconds("learner/rpc/coordinator_server.cc", "server_->Shutdown("))),
        # The first two are of the model; docs/kubernetes.md says where to read them.
        "rank": (("the step in hand", 120), ("the checkpoint", 120),
                 ("the last reports", seconds("learner/rank_command.cc", "kFlushTimeout = ")),
                 ("calls in progress", seconds("learner/rank_server.cc", "kShutdownGrace = "))),
        "reward": (("calls in progress", seconds("reward_server/main.cc", "kStopGrace = ")),),
        "actor": (("the lease in hand", "drain-timeout"),),
    }[role]


DRAIN_MARGIN = 5  # seconds beyond the sum
