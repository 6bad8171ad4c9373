"""The node's network: a namespace and an address per pod, Services, policies as nftables rules, a DNS server.

Everything lives in the network namespace that sandbox.py made for this run, and goes with it. A pod hangs on a veth pair
of its own and reaches everything through the node, which forwards, so that every connection meets the rules. Services
with an address are rewritten to a ready pod, as kube-proxy does. What new connections were let through or refused is
counted in nftables' own sets.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .policy import Ports

CLONE_NEWNET = 0x40000000
GATEWAY, NODE = "169.254.1.1", "10.244.0.1"
SERVICES, OUTSIDE = "10.96.0.0/16", "192.0.2.1"
DNS_SERVICE = "10.96.0.10"
DOMAIN = "cluster.local"
SETS = ("allowed", "refused_out", "refused_in")
T = TypeVar("T")

BASE = "".join(("table ip kubelet {\n",
                *(f"set {name} {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; size 65535; flags dynamic; "
                  "counter; }\n" for name in SETS),
                *(f"chain refuse_{side} {{\n update @refused_{side} {{ ip saddr . ip daddr . meta l4proto . th dport }}\n"
                  " meta l4proto tcp reject with tcp reset\n reject\n }\n" for side in ("out", "in")),
                "chain services { type nat hook prerouting priority dstnat; }\n"
                "chain own { }\n"
                "chain hairpin { type nat hook postrouting priority srcnat; ct status dnat ip saddr 10.244.0.0/16 jump own; }\n"
                "chain egress { }\nchain ingress { }\n"
                "chain forward {\n type filter hook forward priority 0; policy drop;\n"
                " ct state established,related accept\n"
                f" ip daddr {SERVICES} reject\n"  # a Service without a ready pod
                " jump egress\n jump ingress\n"
                " update @allowed { ip saddr . ip daddr . meta l4proto . th dport }\n accept\n }\n}\n"))


def run(*arguments: str, text: str | None = None) -> str:
    answer = subprocess.run(arguments, input=text, capture_output=True, text=True)
    if answer.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {answer.stderr.strip()}\n{text or ''}")
    return answer.stdout


def inside(path: str, call: Callable[[], T]) -> T:
    """What call() returns in a network namespace. Sockets that it opened stay there."""
    box: dict[str, Any] = {}

    def body() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {path}")
            os.close(descriptor)
            box["value"] = call()
        except BaseException as error:
            box["error"] = error
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "error" in box:
        raise box["error"]
    return box["value"]


@dataclass
class Port:
    """A pod's place on the network."""
    address: str
    namespace: str
    links: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Connection:
    source: str
    target: str
    protocol: str
    port: int


class Network:
    def __init__(self) -> None:
        self.next = 2
        self.names: dict[str, list[str]] = {}  # DNS
        os.makedirs("/run/netns", exist_ok=True)
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
            file.write("1")
        run("ip", "-batch", "-", text=f"link set lo up\naddr add {NODE}/32 dev lo\n"
            "link add services type veth peer name services-end\nlink set services-end up\nlink set services up\n"
            f"route add {SERVICES} dev services\n")
        run("nft", "-f", "-", text=BASE)
        self.outside = self.attach("outside", OUTSIDE)

    def attach(self, name: str, address: str = "") -> Port:
        """A new namespace with an address that was never used."""
        number, self.next = self.next, self.next + 1
        port = Port(address or f"10.244.{number // 256}.{number % 256}", f"/run/netns/{name}", [f"veth{number}"])
        run("ip", "netns", "add", name)
        run("ip", "-batch", "-", text=f"link add veth{number} type veth peer name eth0 netns {name}\n"
            f"addr add {GATEWAY}/32 dev veth{number}\nlink set veth{number} up\n"
            f"route add {port.address}/32 dev veth{number} src {NODE}\n")
        run("ip", "-n", name, "-batch", "-", text=f"link set lo up\naddr add {port.address}/32 dev eth0\n"
            f"link set eth0 up\nroute add {GATEWAY} dev eth0 scope link\nroute add default via {GATEWAY}\n")
        return port

    def detach(self, port: Port) -> None:
        for link in port.links:
            run("ip", "link", "del", link)
        run("ip", "netns", "del", os.path.basename(port.namespace))

    # ------------------------------------------------------------------------------------------------------- rules

    def apply(self, services: list[tuple[str, int, list[tuple[str, int]]]],
              egress: dict[str, list[tuple[str, Ports]]], ingress: dict[str, list[tuple[str, Ports]]]) -> None:
        """Replaces all rules at once, keeps what was counted.

        services: address, port, (pod's address, port). egress and ingress: isolated pod -> whom it may reach, or by whom it
        may be reached. A pod that is not there is not isolated.
        """
        lines = [f"flush chain ip kubelet {chain}" for chain in ("services", "own", "egress", "ingress")]
        for address, port, targets in services:
            for index, (pod, number) in enumerate(targets):
                for protocol in ("tcp", "udp"):
                    lines.append(f"add rule ip kubelet services ip daddr {address} {protocol} dport {port} "
                                 f"numgen inc mod {len(targets) - index} 0 dnat to {pod}:{number}")
        for pod in {pod for _, _, targets in services for pod, _ in targets}:  # one that reaches itself by its Service
            lines.append(f"add rule ip kubelet own ip saddr {pod} ip daddr {pod} masquerade")
        for chain, own, other, side, table in (("egress", "saddr", "daddr", "out", egress),
                                               ("ingress", "daddr", "saddr", "in", ingress)):
            for pod, peers in table.items():
                for peer, ports in peers:
                    lines.append(f"add rule ip kubelet {chain} ip {own} {pod} ip {other} {peer} {ports.protocol} dport "
                                 f"{ports.low}-{ports.high} return")
                lines.append(f"add rule ip kubelet {chain} ip {own} {pod} goto refuse_{side}")
        run("nft", "-f", "-", text="\n".join(lines) + "\n")

    def counted(self) -> dict[str, set[Connection]]:
        """Set of SETS -> the connections that were opened, or tried, so far."""
        found: dict[str, set[Connection]] = {}
        for name in SETS:
            found[name] = set()
            for entry in json.loads(run("nft", "-j", "list", "set", "ip", "kubelet", name))["nftables"]:
                for element in entry.get("set", {}).get("elem", []):
                    value = element["elem"]["val"] if "elem" in element else element
                    source, target, protocol, port = value["concat"]
                    found[name].add(Connection(source, target, str(protocol), int(port)))
        return found


# --------------------------------------------------------------------------------------------------------------- DNS

def answer(query: bytes, names: dict[str, list[str]]) -> bytes:
    """The answer to a query of one question. Addresses of version 4; an unknown name does not exist."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("ascii", "replace"))
        at += query[at] + 1
    question = query[12:at + 5]
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    name = ".".join(labels).lower()
    addresses = names.get(name)
    found = addresses if addresses and kind == 1 else []
    code = 0 if addresses is not None else 3
    flags = 0x8400 | (struct.unpack(">H", query[2:4])[0] & 0x0100) | 0x0080 | code
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0)
    return head + question + b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(address)
                                      for address in found)


class _Datagrams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, connection = self.request
        try:
            reply = answer(data, self.server.names())  # type: ignore[attr-defined]
        except (IndexError, struct.error):
            return
        connection.sendto(reply, self.client_address)


class _Streams(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        size = self.rfile.read(2)
        if len(size) == 2:
            reply = answer(self.rfile.read(struct.unpack(">H", size)[0]), self.server.names())  # type: ignore[attr-defined]
            self.wfile.write(struct.pack(">H", len(reply)) + reply)


def serve_dns(port: Port, names: Callable[[], dict[str, list[str]]]) -> None:
    """Answers in a pod's namespace, over UDP and TCP, until the process ends."""
    def start() -> None:
        for kind, handler in ((socketserver.ThreadingUDPServer, _Datagrams), (socketserver.ThreadingTCPServer, _Streams)):
            server = kind((port.address, 53), handler)
            server.daemon_threads = True
            server.names = names  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 1}, daemon=True).start()
    inside(port.namespace, start)
