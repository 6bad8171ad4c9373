#!/usr/bin/env python3
"""Renders the overlays with kubectl's kustomize and keeps deploy/kubernetes/rendered/ in step.

    python3 deploy/kubernetes/render.py            writes deploy/kubernetes/rendered/*.yaml
    python3 deploy/kubernetes/render.py --check    only says what is out of date, and ends with 1 if anything is

Needs kubectl 1.27 or newer: the one of .venv (./sluice setup installs it), else the one on PATH. Python's standard
library alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import written_files  # noqa: E402  # its folder is known from here on

TOP = written_files.TOP
FOLDER = os.path.join("deploy", "kubernetes")
RENDERED = os.path.join(FOLDER, "rendered")
# Overlay, and what the first line of its rendered file says of it.
OVERLAYS = {"dev-cpu": "Apply it as it is.", "single-gpu-node": "Apply it as it is."}
UNRELEASED = ("prod-tcp", "prod-ib", "prod-efa")
TO_READ = ("To read, not to apply: it lacks the\n"
           "# digests of the images, which release.py sets, and the dashboards, which are deploy/grafana/dashboards.")
OVERLAYS.update(dict.fromkeys(UNRELEASED, TO_READ))
IMAGES = ("sluice", "sluice-cuda")  # names in the base; for processors, and with NVIDIA's wheels of torch
REPOSITORY = "registry.example.com/sluice"
# Stands where release.py puts a digest. No image reference, so that whoever applies it all the same starts nothing.
NO_DIGEST = "sha256:set-by-release.py"
OLDEST_KUBECTL = (1, 27)  # older ones hold a kustomize without components, or one that renders otherwise


class RenderError(Exception):
    """kubectl is missing or too old, or an overlay does not render; the message says which."""


def kubectl() -> str:
    """The path of a kubectl that is new enough."""
    reasons = []
    for path in (os.path.join(TOP, ".venv", "bin", "kubectl"), shutil.which("kubectl")):
        if path is None or not os.access(path, os.X_OK):
            continue
        answer = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=60)
        found = re.search(r'"gitVersion": *"v(\d+)\.(\d+)', answer.stdout)
        if found and (int(found[1]), int(found[2])) >= OLDEST_KUBECTL:
            return path
        reasons.append(f"{path} is {'v' + '.'.join(found.groups()) if found else 'no kubectl'}")
    wanted = ".".join(map(str, OLDEST_KUBECTL))
    raise RenderError(f"there is no kubectl {wanted} or newer ({'; '.join(reasons) or 'none at all'}): "
                      "./sluice setup brings one")


def build(folder: str) -> str:
    """What kustomize makes of a folder."""
    answer = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, timeout=120)
    if answer.returncode != 0:
        raise RenderError(f"{folder} does not render: {answer.stderr.strip()}")
    return answer.stdout


def release_component(digests: dict[str, str], repository: str = REPOSITORY) -> str:
    """The kustomization that gives the production overlays their images."""
    lines = ["# Written by deploy/kubernetes/release.py.", "apiVersion: kustomize.config.k8s.io/v1alpha1",
             "kind: Component", "images:"]
    for name in IMAGES:
        lines += [f"  - name: {name}", f"    newName: {repository}/{name}", f"    digest: {json.dumps(digests[name])}"]
    return "\n".join(lines) + "\n"


class Copy:
    """A copy of deploy/ in a temporary folder: a release, or another overlay, leaves nothing in the tree."""

    def __enter__(self) -> Copy:
        self._folder = tempfile.mkdtemp(prefix="sluice-kubernetes-")
        self.kubernetes = os.path.join(self._folder, "kubernetes")
        for name in ("kubernetes", "grafana"):
            shutil.copytree(os.path.join(TOP, "deploy", name), os.path.join(self._folder, name),
                            ignore=shutil.ignore_patterns("__pycache__", "rendered", "release"))
        return self

    def __exit__(self, *unused: object) -> None:
        shutil.rmtree(self._folder)

    def write(self, path: str, text: str) -> None:
        """A file by its path below deploy/kubernetes."""
        full = os.path.join(self.kubernetes, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

    def release(self, digests: dict[str, str], repository: str = REPOSITORY) -> None:
        self.write("release/kustomization.yaml", release_component(digests, repository))

    def overlay(self, name: str) -> str:
        return build(os.path.join(self.kubernetes, "overlays", name))

    def combination(self, base: str, components: Iterable[str]) -> str:
        """An overlay on another one, as docs/kubernetes.md tells users to write it."""
        listed = "".join(f"\n  - ../../components/{name}" for name in (*components, "identity", "tagged-images"))
        self.write("overlays/combined/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\n"
                   f"kind: Kustomization\nresources:\n  - ../{base}\ncomponents:{listed}\n")
        return self.overlay("combined")


def without_dashboards(text: str) -> str:
    """Without the ConfigMaps of dashboards, which are deploy/grafana/dashboards/*.json once more."""
    return "---\n".join(part for part in text.split("---\n") if 'grafana_dashboard: "1"' not in part)


def files() -> written_files.Files:
    made = {}
    with Copy() as copy:
        copy.release(dict.fromkeys(IMAGES, NO_DIGEST))
        for name, use in OVERLAYS.items():
            head = f"# Written by deploy/kubernetes/render.py from overlays/{name}: edit that. {use}\n"
            made[os.path.join(RENDERED, f"{name}.yaml")] = head + without_dashboards(copy.overlay(name))
    return made


if __name__ == "__main__":
    try:
        sys.exit(written_files.main(os.path.join(FOLDER, "render.py"), "rendered overlays", files, RENDERED))
    except RenderError as error:
        sys.exit(f"render.py: {error}")
