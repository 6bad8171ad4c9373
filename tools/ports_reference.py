#!/usr/bin/env python3
"""Writes docs/reference/ports.md: where each process listens, what it serves there and to whom, and whom it dials.

    python3 tools/ports_reference.py [--check]

Flags and defaults are those of docs/reference/processes.md, which a test holds to the binaries; who may call what is the table of
common/security/method_rules.cc; customary ports are those of deploy/compose. A flag of an address that no row here has is an error.
tests/deploy/ports_test.py asks running processes. Python's standard library alone.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

import reference_page

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
METRICS, HEALTH = "HTTP, `/metrics`", "`grpc.health.v1`, and nothing else"
NEVER, WITH_FLAGS = "never", "with `--tls-*`; without, loopback or `--insecure` alone"


class PortsError(Exception):
    """The tables and what they are made of disagree; the message says where."""


@dataclass(frozen=True)
class Port:
    flag: str
    services: tuple[str, ...] = ()  # of gRPC, beside health and reflection
    serves: str = ""                # if not gRPC's
    callers: tuple[str, ...] = ()   # beyond those that the rules name
    note: str = ""


@dataclass(frozen=True)
class Process:
    heading: str   # of docs/reference/processes.md
    service: str   # of compose.yaml, whose ports are the customary ones
    listens: tuple[Port, ...]
    dials: tuple[tuple[str, str], ...]  # flag or what else says it, whom


METRICS_PORT = Port("metrics-address", serves=METRICS, callers=("Prometheus",))
HEALTH_PORT = Port("health-address", serves=HEALTH, callers=("probes",))
WEIGHTS = ("`--collective-host`", "other members, with `--weights gloo` or `nccl`, at ports that the kernel picks")
RANK_SERVICES = ("RolloutService", "PolicyService", "RendezvousService")
STORE = ("`checkpoint.mirror` of a spec", "the object store, HTTPS, 443 unless its URL says another port")

PROCESSES = (
    Process("sluice-learner coordinator", "coordinator",
            (Port("address", ("JobService", "DataService", "MemberService")), METRICS_PORT, HEALTH_PORT),
            (("`--reward`", "the reward server, to check a submission"),)),
    Process("sluice-learner rank", "rank-0",
            (Port("address", RANK_SERVICES), METRICS_PORT, HEALTH_PORT,
             Port("collective-host", serves="Gloo or NCCL, at ports that the kernel picks (Linux: 32768 to 60999)", callers=("rank",),
                  note="never; keep it inside")),
            (("`--coordinator`", "the coordinator"), ("`--collective-host`", "the other ranks, for gradients; its actors too with "
                                                      "`--weights gloo` or `nccl`"), STORE)),
    Process("sluice-learner run", "rank-0",
            (Port("address", RANK_SERVICES), METRICS_PORT, HEALTH_PORT,
             Port("collective-host", serves="Gloo or NCCL, at ports that the kernel picks", callers=("actor",), note="never; keep it inside")),
            (WEIGHTS, STORE)),
    Process("sluice-reward", "reward", (Port("address", ("RewardService",)), METRICS_PORT, HEALTH_PORT),
            (("`--ranker`", "the model server that the mapping names: Open Inference, gRPC"),)),
    Process("sluice-actor", "actor-0",
            (Port("address", (), "health and reflection alone", ("probes",)),
             Port("peer-address", (), "`PolicyService`: weights that it holds", ("actor",)), METRICS_PORT, HEALTH_PORT,
             Port("collective-host", serves="Gloo or NCCL, at ports that the kernel picks", callers=("rank", "actor"),
                  note="never; keep it inside")),
            (("`--coordinator`", "the coordinator, then the rank that it names"), ("`--learner`", "that rank, instead of `--coordinator`"),
             ("`--reward`", "the reward server"), ("what a rank says", "another actor's `--peer-address`, for weights"), WEIGHTS)),
    Process("sluicectl", "", (), (("`--server`", "the coordinator"),)),
)

INTRO = """# Ports

Where each process listens, what it serves there, who connects; then whom it dials. Written by `tools/ports_reference.py` from
[processes.md](processes.md), `common/security/method_rules.cc` and `deploy/compose`; a test fails when the page is out of date, and
asks running processes what they listen at and serve. Which of these a firewall has to let through in a cluster:
[kubernetes.md](../kubernetes.md#who-may-talk-to-whom). Certificates, roles, tokens: [security.md](../security.md).

*Custom* is what `deploy/compose` uses and the systemd units follow; a process listens where its flag says, and port 0 picks one that it
prints. Every gRPC port that is not for health alone serves `grpc.health.v1` to everybody and reflection to clients.

## Who listens

| process | flag | default | custom | serves | TLS | who connects |
| --- | --- | --- | --- | --- | --- | --- |
"""
DIALS = """
A *client* is `sluicectl`, the Python package, or a robot with a client's certificate. `sluice-learner rank --with-coordinator` listens as
a rank and, at the address that its `--coordinator` says, as a coordinator.

## Who dials

| process | where from | whom |
| --- | --- | --- |
"""
OUTRO = """
`sluicectl mirror` and `sluice-mirror` dial MLflow or W&B beside the coordinator. Names are resolved by DNS (53).
"""


def read(path: str) -> str:
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def sections(text: str) -> dict[str, str]:
    """Heading -> the help text below it, of docs/reference/processes.md."""
    return dict(re.findall(r"^## (sluice[\w -]*)\n\n```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def address_flags(section: str) -> dict[str, str]:
    """Flag -> default, of those that say where a process listens; "" without one. That of a kind of job stands in the words."""
    found = re.findall(r"^  --([a-z-]*address|[a-z-]*host) TEXT(?:=(\S+))?(.*)", section, re.MULTILINE)
    by_kind = {name: re.search(r"(\w+): (\S+:\d+) by default", words) for name, _, words in found}
    return {name: f"{kind[1]}: `{kind[2]}`" if (kind := by_kind[name]) else f"`{default}`" if default else "" for name, default, _ in found}


def callers(rules: str) -> dict[str, tuple[str, ...]]:
    """Service of sluice.v1 -> the roles that may call it."""
    named = {name: tuple(re.findall(r"Role::k(\w+)", roles)) for name, roles in
             re.findall(r"^constexpr RoleSet (k\w+) = \{([^}]*)\};", rules, re.MULTILINE)}
    found: dict[str, set[str]] = {}
    for service, roles in re.findall(r'\{"/sluice\.v1\.(\w+)/\w+", (k\w+|\{[^}]*\})', rules):
        found.setdefault(service, set()).update(named[roles] if roles in named else re.findall(r"Role::k(\w+)", roles))
    if not found:
        raise PortsError("common/security/method_rules.cc no longer holds lines that begin with {\"/sluice.v1.")
    return {service: tuple(sorted(role.lower() for role in roles)) for service, roles in found.items()}


def customary(compose: str, service: str) -> dict[str, str]:
    """Flag -> port, of a service of compose.yaml."""
    body = re.search(rf"^  {service}:\n(.*?)(?=^  \w|\Z)", compose, re.MULTILINE | re.DOTALL)
    if body is None:
        raise PortsError(f"deploy/compose/compose.yaml has no service {service}")
    return dict(re.findall(r"--((?:metrics-|health-)?address)=[\w.-]+:(\d+)", body[1]))


def page(processes_text: str, rules: str, compose: str) -> str:
    helps, may_call = sections(processes_text), callers(rules)
    rows, dials, served = "", "", set()
    for process in PROCESSES:
        section = helps.get(process.heading)
        if section is None:
            raise PortsError(f"docs/reference/processes.md has no section {process.heading}")
        flags = address_flags(section)
        if missing := set(flags) ^ {port.flag for port in process.listens}:
            raise PortsError(f"{process.heading}: the rows here and the flags of addresses differ in --{', --'.join(sorted(missing))}")
        custom = customary(compose, process.service) if process.service else {}
        for port in process.listens:
            served |= set(port.services)
            who = sorted({role for name in port.services for role in may_call[name]} | set(port.callers))
            serves = port.serves or "gRPC: " + ", ".join(f"`{name}`" for name in port.services)
            tls = port.note or (NEVER if port.serves in (METRICS, HEALTH) else WITH_FLAGS)
            rows += f"| `{process.heading}` | `--{port.flag}` | {flags[port.flag] or 'none'} | {custom.get(port.flag, '-')} | {serves} | {tls} | {', '.join(who)} |\n"
        dials += "".join(f"| `{process.heading}` | {how} | {whom} |\n" for how, whom in process.dials)
    if lost := set(may_call) ^ served:
        raise PortsError(f"no row serves what the rules of calls name, or the other way round: {', '.join(sorted(lost))}")
    return INTRO + rows + DIALS + dials + OUTRO


def written() -> str:
    return page(read("docs/reference/processes.md"), read("common/security/method_rules.cc"), read("deploy/compose/compose.yaml"))


def main() -> int:
    return reference_page.main("ports", "docs/reference/ports.md", written, PortsError)


if __name__ == "__main__":
    sys.exit(main())
