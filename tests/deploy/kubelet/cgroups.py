"""Memory limits, where this process may make memory cgroups; of either version."""

from __future__ import annotations

import glob
import os
import re

PREFIX = "sluice-kubelet-"


def parent() -> str:
    """The folder below which a cgroup with a memory limit can be made; empty if there is none."""
    try:
        with open("/proc/self/cgroup", encoding="ascii") as file:
            lines = [line.strip().split(":", 2) for line in file]
    except OSError:
        return ""
    for _, controllers, path in lines:
        places = []
        if controllers == "memory":
            places = ["/sys/fs/cgroup/memory" + path, "/sys/fs/cgroup/memory"]
        elif controllers == "":
            places = [place for place in ("/sys/fs/cgroup" + path, "/sys/fs/cgroup")
                      if "memory" in _read(place + "/cgroup.subtree_control")]
        for place in places:
            if os.path.exists(place + "/cgroup.procs") and os.access(place, os.W_OK):
                return place
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def remove_left_over(run: str = "") -> bool:
    """Removes the cgroups of a run, and of runs whose process is gone. Call it outside of the PID namespace.

    Whether some of that run's still hold a process.
    """
    busy = False
    for folder in glob.glob(os.path.join(parent() or "/nowhere", PREFIX + "*")):
        owner = re.match(PREFIX + r"(\d+)-", os.path.basename(folder))
        if owner and (owner[1] == run or not os.path.exists(f"/proc/{owner[1]}")):
            try:
                os.rmdir(folder)
            except OSError:
                busy |= owner[1] == run
    return busy


class Memory:
    """The cgroup of one container, for all of its starts."""

    def __init__(self, name: str, limit: int | None):
        place = parent() if limit else ""
        self.limit = limit
        self.path, self.home = "", place
        self.first = 0
        if not place:
            return
        path = os.path.join(place, f"{PREFIX}{os.environ.get('SLUICE_KUBELET_RUN', os.getpid())}-{name}")
        try:
            os.makedirs(path, exist_ok=True)
            for file in ("memory.limit_in_bytes", "memory.max"):
                if os.path.exists(f"{path}/{file}"):
                    with open(f"{path}/{file}", "w", encoding="ascii") as out:
                        out.write(str(limit))
                    self.path = path
        except OSError:
            self.path = ""

    def kills(self) -> int:
        """How often the kernel killed for want of memory."""
        text = _read(self.path + "/memory.events") or _read(self.path + "/memory.oom_control")
        found = re.search(r"^oom_kill (\d+)", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def peak(self) -> int | None:
        text = _read(self.path + "/memory.peak") or _read(self.path + "/memory.max_usage_in_bytes")
        return int(text) if text.strip().isdigit() else None

    def remove(self) -> None:
        if self.path:
            try:
                os.rmdir(self.path)
            except OSError:
                pass
