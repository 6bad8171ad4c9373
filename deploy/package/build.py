#!/usr/bin/env python3
"""Makes sluice_VERSION_ARCHITECTURE.deb: binaries, the LibTorch that they load on a processor, systemd units, man pages, docs.

    python3 deploy/package/build.py [--binaries build/bin] [--wheels .venv/lib/python3*/site-packages] [--out build/package]

The same inputs and the same SOURCE_DATE_EPOCH (default: the time of the last commit) give the same bytes. Needs dpkg-deb
and patchelf; Python's standard library alone.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "deploy", "images")]
import manuals  # noqa: E402  # their folders are known from here on
from sbom import version  # noqa: E402

PROGRAMS = ("sluice-learner", "sluice-actor", "sluice-reward", "sluicectl", "sluice-inspect")
WITH_TORCH = ("sluice-learner", "sluice-actor", "sluice-reward", "sluice-inspect")
# Of the wheels: what libtorch_cpu needs and nothing more. deploy/images/Dockerfile copies the same.
LIBRARIES = ("torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1",
             "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcupti.so.13")
LICENCES = ("torch-*.dist-info", "nvidia_cuda_runtime-*.dist-info", "nvidia_cuda_cupti-*.dist-info")
RUNPATH = "$ORIGIN/../lib/sluice/torch/lib"
DOCS = ("docs/operations.md", "docs/security.md", "docs/backup.md", "docs/upgrade.md", "docs/images.md", "docs/gpu.md",
        "docs/job_spec.md", "docs/reference/processes.md", "docs/reference/metrics.md",
        "docs/reference/ports.md", "docs/reference/files.md", "docs/reference/logs.md", "THIRD_PARTY.md", "README.md")
UNITS = ("sluice.target", "sluice-coordinator.service", "sluice-rank@.service", "sluice-reward.service",
         "sluice-actor@.service")
# Debian 12's, as in the image's runtime stage.
DEPENDS = ("ca-certificates", "libabsl20220623", "libc6 (>= 2.36)", "libcurl4", "libfmt9", "libgrpc++1.51",
           "libprometheus-cpp-core1.0", "libprometheus-cpp-pull1.0", "libprotobuf32", "libpugixml1v5", "libspdlog1.10",
           "libsqlite3-0", "libssl3", "libstdc++6 (>= 12)", "libxxhash0", "libyaml-cpp0.7")
CONTROL = """Package: sluice
Version: {version}
Architecture: {architecture}
Maintainer: Sluice <sluice@example.com>
Installed-Size: {kibibytes}
Depends: {depends}
Recommends: systemd
Section: science
Priority: optional
Homepage: https://example.com/sluice
Description: reinforcement learning for generative recommenders, as a service
 Coordinator, learner, actor, reward server, and sluicectl. Holds LibTorch and,
 for machines without a GPU, the two NVIDIA libraries that it loads; their
 licences lie beside them in /usr/lib/sluice.
"""
POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers sluice.conf
  fi
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
  fi
fi
"""
PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl stop sluice.target || true
fi
"""


class PackageError(Exception):
    """An input is missing; the message says which."""


def epoch() -> int:
    """Seconds of $SOURCE_DATE_EPOCH, else of the last commit."""
    if text := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(text)
    answer = subprocess.run(["git", "-C", TOP, "log", "-1", "--format=%ct"], capture_output=True, text=True)
    if answer.returncode != 0:
        raise PackageError("this is no git clone: set SOURCE_DATE_EPOCH")
    return int(answer.stdout)


def put(source: str, root: str, target: str, mode: int = 0o644) -> None:
    if not os.path.isfile(source):
        raise PackageError(f"there is no {source}")
    place = os.path.join(root, target)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    shutil.copyfile(source, place)
    os.chmod(place, mode)


def write(root: str, target: str, content: bytes, mode: int = 0o644) -> None:
    place = os.path.join(root, target)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as file:
        file.write(content)
    os.chmod(place, mode)


def tree(root: str, binaries: str, wheels: str, top: str, pages: dict[str, bytes]) -> None:
    """What the package installs, below root."""
    for name in PROGRAMS:
        put(os.path.join(binaries, name), root, f"usr/bin/{name}", 0o755)
        if name in WITH_TORCH:
            subprocess.run(["patchelf", "--set-rpath", RUNPATH, os.path.join(root, "usr/bin", name)], check=True)
    put(os.path.join(top, "deploy/images/sluice-health"), root, "usr/bin/sluice-health", 0o755)
    put(os.path.join(top, "deploy/certificates/make-certificates"), root, "usr/share/sluice/make-certificates", 0o755)
    for name in LIBRARIES:
        put(os.path.join(wheels, name), root, f"usr/lib/sluice/{name}")
    for pattern in LICENCES:
        folders = glob.glob(os.path.join(wheels, pattern))
        if len(folders) != 1:
            raise PackageError(f"want one folder {pattern} in {wheels}, got {len(folders)}")
        for parent, _, names in os.walk(folders[0]):
            for name in names:
                path = os.path.join(parent, name)
                put(path, root, os.path.join("usr/lib/sluice", os.path.relpath(path, wheels)))
    for name in UNITS:
        put(os.path.join(top, "deploy/systemd", name), root, f"usr/lib/systemd/system/{name}")
    put(os.path.join(top, "deploy/systemd/sluice.sysusers"), root, "usr/lib/sysusers.d/sluice.conf")
    put(os.path.join(top, "deploy/systemd/sluice.default"), root, "etc/default/sluice")
    for name in DOCS:
        put(os.path.join(top, name), root, f"usr/share/doc/sluice/{os.path.basename(name)}")
    put(os.path.join(top, "LICENSE"), root, "usr/share/doc/sluice/copyright")
    with open(os.path.join(top, "CHANGELOG.md"), "rb") as file:
        write(root, "usr/share/doc/sluice/changelog.gz", gzip.compress(file.read(), mtime=0))
    for place, content in pages.items():
        write(root, place, content)


def manual_pages(binaries: str, seconds: int, top: str = TOP) -> dict[str, bytes]:
    """What the programs say of themselves: place below the root -> bytes. seconds: their date."""
    try:
        return manuals.manuals(binaries, version(), time.strftime("%Y-%m-%d", time.gmtime(seconds)), top)
    except manuals.ManualError as error:
        raise PackageError(str(error)) from None


def build(binaries: str, wheels: str, out: str, seconds: int, pages: dict[str, bytes], top: str = TOP) -> str:
    """The path of the package."""
    for tool in ("dpkg-deb", "patchelf"):
        if not shutil.which(tool):
            raise PackageError(f"there is no {tool} here: apt-get install {'dpkg' if tool == 'dpkg-deb' else tool}")
    os.makedirs(out, exist_ok=True)
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(dir=out, prefix=".tree-") as root:
        os.chmod(root, 0o755)
        tree(root, binaries, wheels, top, pages)
        files = [os.path.join(parent, name) for parent, _, names in os.walk(root) for name in names]
        control = CONTROL.format(version=version(), architecture=architecture, depends=", ".join(DEPENDS),
                                 kibibytes=sum(-(-os.path.getsize(path) // 1024) for path in files))
        write(root, "DEBIAN/control", control.encode())
        write(root, "DEBIAN/conffiles", b"/etc/default/sluice\n")
        write(root, "DEBIAN/postinst", POSTINST.encode(), 0o755)
        write(root, "DEBIAN/prerm", PRERM.encode(), 0o755)
        for parent, folders, names in os.walk(root):
            for name in folders + names:
                os.utime(os.path.join(parent, name), (seconds, seconds))
        os.utime(root, (seconds, seconds))
        path = os.path.join(out, f"sluice_{version()}_{architecture}.deb")
        # One thread: how zstd cuts the work would show in the bytes.
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zzstd", "-z9", "--threads-max=1", "--build", root, path],
                       check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, SOURCE_DATE_EPOCH=str(seconds)))
    return path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a Debian package of built binaries.")
    parser.add_argument("--binaries", default=os.path.join(TOP, "build", "bin"))
    parser.add_argument("--wheels", help="folder site-packages with torch; default: that of .venv")
    parser.add_argument("--out", default=os.path.join(TOP, "build", "package"))
    args = parser.parse_args(arguments)
    found = [args.wheels] if args.wheels else glob.glob(os.path.join(TOP, ".venv/lib/python3*/site-packages"))
    if not found:
        raise PackageError("there is no .venv: ./sluice setup makes it")
    seconds = epoch()
    path = build(args.binaries, found[0], args.out, seconds, manual_pages(args.binaries, seconds))
    print(f"{os.path.relpath(path)}: {os.path.getsize(path) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PackageError as error:
        sys.exit(f"build.py: {error}")
