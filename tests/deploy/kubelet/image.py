"""The image, emulated: what deploy/kubernetes/README.md says that it must hold, bound read-only out of this machine.

Of this machine come /usr with its libraries, and LibTorch's folder at the path where the binaries look for it. Everything
else is made: users, name service, an empty /tmp, /srv, /var. So it does not show that a real image holds enough.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

PROGRAMS = ("sluice-learner", "sluice-reward", "sluice-actor", "sluicectl", "sluice-inspect")
WANTED = PROGRAMS[:4]
PROGRAM_FOLDER = "/usr/local/bin"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def libraries_elsewhere(binary: str) -> set[str]:
    """Folders outside /usr and /lib that a binary loads libraries from."""
    said = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout
    folders = {os.path.dirname(path) for path in re.findall(r"=> (/\S+) \(", said)}
    return {folder for folder in folders if not re.match(r"/(usr|lib)", os.path.normpath(folder))}


def describe(binaries: str, etc: str) -> dict[str, Any]:
    """The parts of a container's root that are the same for all. etc: an empty folder to write /etc's files in."""
    programs = [os.path.join(binaries, name) for name in PROGRAMS if os.path.exists(os.path.join(binaries, name))]
    files = {"passwd": "root:x:0:0:root:/root:/sbin/nologin\nsluice:x:10001:10001::/:/sbin/nologin\n",
             "group": "root:x:0:\nsluice:x:10001:\n", "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"}
    for name, text in files.items():
        with open(os.path.join(etc, name), "w", encoding="utf-8") as file:
            file.write(text)
    image = [("/usr", "/usr")] + [(os.path.join(etc, name), f"/etc/{name}") for name in files]
    image += [(path, path) for path in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl") if os.path.exists(path)]
    links = {}
    for path in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(path):
            links[path] = os.readlink(path)
        elif os.path.isdir(path):
            image.append((path, path))
    folders = {os.path.normpath(folder)
               for binary in programs for folder in libraries_elsewhere(binary)}
    image += [(folder, folder) for folder in sorted(folders)]
    return {"image": image, "links": links, "folders": ["/tmp", "/srv", "/var/lib", "/root", "/run"],
            "programs": programs, "program_folder": PROGRAM_FOLDER}
