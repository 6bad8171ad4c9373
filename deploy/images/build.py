#!/usr/bin/env python3
"""Says, or runs, the command that builds an image of this commit.

    python3 deploy/images/build.py --base NAME@sha256:... [--variant cuda] [--engine podman] [--run]

BASE is Debian 12 (bookworm, slim) by the digest that your registry answered; there is no default, and one that is plainly
made up is refused. Afterwards push, and tell deploy/kubernetes/release.py the digests. Standard library alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "deploy", "kubernetes")]
import release  # noqa: E402
import render  # noqa: E402
import sbom  # noqa: E402

NAMES = dict(zip(("cpu", "cuda"), render.IMAGES, strict=True))


def base(text: str) -> str:
    name, _, found = text.rpartition("@")
    if not re.fullmatch(r"[a-z0-9][\w.:/-]*", name):
        raise argparse.ArgumentTypeError(f"want NAME@sha256:..., got '{text}'")
    release.digest(found)
    return text


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", TOP, *words], capture_output=True, text=True, check=True).stdout.strip()


def command(engine: str, of: str, variant: str, repository: str, revision: str, seconds: int) -> list[str]:
    created = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    arguments = {"BASE": of, "VARIANT": variant, "VERSION": sbom.version(), "REVISION": revision, "CREATED": created,
                 "SOURCE_DATE_EPOCH": str(seconds)}
    return [engine, "build", "--file", os.path.join(HERE, "Dockerfile"),
            *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
            "--tag", f"{repository}/{NAMES[variant]}:{sbom.version()}", TOP]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Build an image of this commit.")
    parser.add_argument("--base", type=base, required=True, help="Debian 12 by digest")
    parser.add_argument("--variant", choices=NAMES, default="cpu")
    parser.add_argument("--engine", choices=("docker", "podman"), default="docker")
    parser.add_argument("--repository", type=release.repository, default=render.REPOSITORY)
    parser.add_argument("--run", action="store_true", help="run it, and not only say it")
    args = parser.parse_args(arguments)
    if args.run and git("status", "--porcelain"):
        parser.error("the tree differs from its commit, whose number the image would bear")
    words = command(args.engine, args.base, args.variant, args.repository, git("rev-parse", "HEAD"),
                    int(git("log", "-1", "--format=%ct")))
    print(shlex.join(words))
    return subprocess.run(words).returncode if args.run else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
