#!/usr/bin/env python3
"""Gives the production overlays their images, by digest.

    python3 deploy/kubernetes/release.py --image sha256:... --cuda-image sha256:... [--repository HOST/PATH] [--out DIR]

The digests are what your registry answered when the images were pushed. Writes deploy/kubernetes/release/, which git
ignores and without which prod-* do not render; with --out also one file an overlay, to apply or to keep.
Python's standard library alone; --out needs kubectl.
"""

from __future__ import annotations

import argparse
import os
import re
import sys

import render

COMPONENT = os.path.join(render.FOLDER, "release", "kustomization.yaml")


def digest(text: str) -> str:
    """sha256 and 64 hexadecimal digits that somebody may really have computed."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"want sha256: and 64 hexadecimal digits, got '{text}'")
    if len(set(text.removeprefix("sha256:"))) < 8:  # a random one has fewer than 8 distinct digits once in 10^19
        raise argparse.ArgumentTypeError(f"'{text}' is made up: take the digest that the registry answered")
    return text


def repository(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+", text):
        raise argparse.ArgumentTypeError(f"want HOST/PATH without a tag, got '{text}'")
    return text


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Give the production overlays their images, by digest.")
    parser.add_argument("--image", type=digest, required=True, help="digest of the image for processors")
    parser.add_argument("--cuda-image", type=digest, required=True, help="digest of the image with NVIDIA's wheels")
    parser.add_argument("--repository", type=repository, default=render.REPOSITORY,
                        help=f"where sluice and sluice-cuda lie (default {render.REPOSITORY})")
    parser.add_argument("--out", help="folder for one rendered file an overlay")
    args = parser.parse_args(arguments)
    digests = dict(zip(render.IMAGES, (args.image, args.cuda_image), strict=True))
    made = {}
    if args.out:
        with render.Copy() as copy:
            copy.release(digests, args.repository)
            made = {os.path.join(args.out, f"{name}.yaml"): copy.overlay(name) for name in render.UNRELEASED}
    made[os.path.join(render.TOP, COMPONENT)] = render.release_component(digests, args.repository)
    for path, text in made.items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        print(f"wrote {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except render.RenderError as error:
        sys.exit(f"release.py: {error}")
