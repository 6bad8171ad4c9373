"""The four kinds of probes, asked from the node, and when they are due."""

from __future__ import annotations

import http.client
import math
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
import harness  # noqa: E402  # its folder is known from here on

from .manifests import Object, Unsupported  # noqa: E402

TIMES = {"initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"}
# exec(command, timeout) -> (exit code, output), in the container.
Exec = Callable[[list[str], float], tuple[int, str]]


def ask(handler: Object, kind: str, address: str, ports: dict[str, int], timeout: float, execute: Exec) -> str:
    """Why one try failed; empty if it succeeded."""
    try:
        if kind == "exec":
            code, said = execute(handler["command"], timeout)
            return "" if code == 0 else f"exit code {code}: {said.strip()[-200:]}"
        port = handler["port"] if isinstance(handler["port"], int) else ports[handler["port"]]
        host = handler.get("host", address)
        if kind == "tcpSocket":
            socket.create_connection((host, port), timeout).close()
        elif kind == "httpGet":
            return http_get(handler, host, port, timeout)
        else:
            status = harness.grpc_health(f"{address}:{port}", timeout, handler.get("service", ""))
            return "" if status == harness.SERVING else f"health is {status}, not SERVING"
        return ""
    except KeyError as error:
        return f"there is no port named {error}"
    except (OSError, AssertionError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def http_get(handler: Object, host: str, port: int, timeout: float) -> str:
    if handler.get("scheme", "HTTP") != "HTTP":
        raise Unsupported(f"scheme {handler['scheme']}")
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    connection.request("GET", handler.get("path", "/"),
                       headers={item["name"]: item["value"] for item in handler.get("httpHeaders") or []})
    status = connection.getresponse().status
    connection.close()
    return "" if 200 <= status < 400 else f"HTTP status {status}"


@dataclass
class Probe:
    """One declared probe. pace < 1 asks more often and allows as many more failures: the budget stays as declared."""
    role: str  # startup, liveness, readiness
    kind: str
    handler: Object
    delay_s: float
    period_s: float
    timeout_s: float
    failures_allowed: int
    successes_wanted: int
    due: float = 0
    failures: int = 0
    successes: int = 0
    tries: int = 0
    passed: int = 0
    why: str = ""

    def restart(self, now: float) -> None:
        self.due, self.failures, self.successes = now + self.delay_s, 0, 0

    def take(self, why: str, now: float) -> None:
        """Books the result of a try."""
        self.tries, self.due, self.why = self.tries + 1, now + self.period_s, why
        if why:
            self.failures, self.successes = self.failures + 1, 0
        else:
            self.failures, self.successes, self.passed = 0, self.successes + 1, self.passed + 1

    @property
    def failed(self) -> bool:
        return self.failures >= self.failures_allowed

    @property
    def succeeded(self) -> bool:
        return self.successes >= self.successes_wanted

    def __str__(self) -> str:
        port = self.handler.get("port", "")
        return f"{self.role} {self.kind}" + (f" :{port}" if port else "")


def declared(container: Object, role: str, pace: float) -> Probe | None:
    spec = container.get(f"{role}Probe")
    if spec is None:
        return None
    kinds = [kind for kind in ("exec", "grpc", "httpGet", "tcpSocket") if kind in spec]
    if len(kinds) != 1 or set(spec) - TIMES - set(kinds):
        raise Unsupported(f"{role}Probe {spec}")
    return Probe(role, kinds[0], spec[kinds[0]], spec.get("initialDelaySeconds", 0) * pace,
                 spec.get("periodSeconds", 10) * pace, spec.get("timeoutSeconds", 1),
                 math.ceil(spec.get("failureThreshold", 3) / pace), spec.get("successThreshold", 1))
