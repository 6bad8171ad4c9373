"""Namespaces around a whole run: nothing of it touches the machine's own network or mounts, and all goes with it.

The caller starts itself again by `unshare` as process 1 of new PID, mount, network, IPC and UTS namespaces. Pods, veth
pairs, rules, mounts and processes live there; when that process ends, however it ends, the kernel removes them. Outside
remain a folder and empty memory cgroups, which the caller removes; cgroups of a caller that was killed go with the next.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile

from . import cgroups
from .image import WANTED
from .probes import harness

INSIDE = "SLUICE_KUBELET_FOLDER"
TOOLS = ("unshare", "ip", "nft", "ldd")
SKIPPED = 77  # what ctest takes for a skipped test


def why_not() -> str:
    """Why this machine cannot do it; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it makes namespaces and needs root"
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"there is no {', '.join(missing)} here: apt-get install iproute2 nftables util-linux"
    if missing := [name for name in WANTED if not os.path.exists(os.path.join(harness.BIN, name))]:
        return f"{harness.BIN} has no {', '.join(missing)}: ./sluice build"
    rules = ("add table ip t\nadd chain ip t c { type nat hook prerouting priority 0; }\n"
             "add rule ip t c ip daddr 192.0.2.1 numgen inc mod 2 0 dnat to 192.0.2.2\n"
             "add set ip t s { type ipv4_addr . inet_service; size 9; flags dynamic; counter; }\n"
             "add chain ip t f { type filter hook forward priority 0; }\n"
             "add rule ip t f ct state new update @s { ip saddr . th dport } reject\n")
    attempt = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--mount-proc", "sh", "-ec",
         "mount -t tmpfs t /run; mkdir /run/netns; ip netns add t; ip link add veth0 type veth peer name eth0 netns t; nft -f -"],
        input=rules, capture_output=True, text=True)
    if attempt.returncode != 0:
        return f"this kernel or container refuses namespaces or nftables: {attempt.stderr.strip()[:200]}"
    return ""


def inside() -> str:
    """The folder of the run, inside the namespaces; empty outside of them."""
    return os.environ.get(INSIDE, "")


def enter(script: str, arguments: list[str]) -> int:
    """Runs a script in new namespaces, waits, cleans up; its exit code. A TERM or INT to this process ends it."""
    cgroups.remove_left_over()
    folder = tempfile.mkdtemp(prefix="sluice-kubelet-")
    os.chmod(folder, 0o755)
    run = str(os.getpid())
    environment = dict(os.environ, **{INSIDE: folder, "SLUICE_KUBELET_RUN": run})
    child = subprocess.Popen(
        ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL", "--mount-proc",
         sys.executable, "-B", script, *arguments], env=environment, preexec_fn=harness.die_with_parent)

    def stop(number: int, _: object) -> None:
        child.kill()
        raise SystemExit(128 + number)
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        child.kill()
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)
        harness.wait_until(lambda: not cgroups.remove_left_over(run), "its cgroups are removed")


def prepare() -> None:
    """Inside: a /run of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    os.makedirs("/run/kubelet")
