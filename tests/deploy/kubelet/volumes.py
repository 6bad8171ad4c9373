"""Volumes of a pod, mounted on the node before its containers: emptyDir, claims, config maps, secrets."""

from __future__ import annotations

import base64
import os
import stat
from typing import Any

from .container import MS_NODEV, MS_NOSUID, mount
from .manifests import Object, Unsupported, quantity


class ConfigError(Exception):
    """What a kubelet would not start a container with: something that is named is not there."""


def make(volume: Object, path: str, group: int | None, only_if_root_differs: bool, find: Any, claims: str) -> None:
    """Makes a volume at path, an absent folder. find(kind, name) gives an object of the pod's namespace or None."""
    kind, = set(volume) - {"name"}
    source = volume[kind] or {}
    if kind == "persistentVolumeClaim":
        claim = source["claimName"]
        if find("PersistentVolumeClaim", claim) is None:
            raise ConfigError(f"there is no PersistentVolumeClaim {claim}")
        home = os.path.join(claims, claim)
        os.makedirs(home, mode=0o755, exist_ok=True)
        os.symlink(home, path)
        if group is not None and not (only_if_root_differs and owned(home, group)):
            give(home, group)
        return
    os.makedirs(path)
    if kind == "emptyDir":
        size = quantity(source["sizeLimit"]) if "sizeLimit" in source else 0
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=777" + (f",size={size}" if size else ""))
    elif kind in ("configMap", "secret"):
        name = source["name" if kind == "configMap" else "secretName"]
        thing = find("ConfigMap" if kind == "configMap" else "Secret", name)
        if thing is None and not source.get("optional"):
            raise ConfigError(f"there is no {kind} {name}")
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        write_files(path, contents(thing or {}), source)
    else:
        raise Unsupported(f"volume {kind}")
    if group is not None:
        give(path, group)


def contents(thing: Object) -> dict[str, bytes]:
    """Of a ConfigMap or Secret."""
    found = {key: value.encode() for key, value in {**(thing.get("stringData") or {})}.items()}
    for key, value in (thing.get("data") or {}).items():
        found[key] = base64.b64decode(value) if thing["kind"] == "Secret" else value.encode()
    return found


def write_files(path: str, data: dict[str, bytes], source: Object) -> None:
    items = source.get("items")
    wanted = {item["key"]: item["path"] for item in items} if items else {key: key for key in data}
    for key, name in wanted.items():
        if key not in data:
            raise ConfigError(f"there is no key {key}")
        target = os.path.join(path, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(data[key])
        os.chmod(target, source.get("defaultMode", 0o644))


def owned(path: str, group: int) -> bool:
    found = os.stat(path)
    return found.st_gid == group and bool(found.st_mode & stat.S_ISGID) and (found.st_mode & 0o770) == 0o770


def give(path: str, group: int) -> None:
    """What a kubelet does for fsGroup: the group owns all, may do what the owner may, and inherits."""
    for folder, _, files in os.walk(path):
        os.chown(folder, -1, group)
        os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | 0o2770)
        for name in files:
            file = os.path.join(folder, name)
            os.chown(file, -1, group, follow_symlinks=False)
            if not os.path.islink(file):
                os.chmod(file, stat.S_IMODE(os.stat(file).st_mode) | 0o660)
