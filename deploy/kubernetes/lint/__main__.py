"""python3 deploy/kubernetes/lint FILE...: one rendered overlay a file; --rules lists what is asked."""

from __future__ import annotations

import os
import sys

import yaml

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
import lint  # noqa: E402  # its folder is known from here on


def main(arguments: list[str]) -> int:
    if arguments == ["--rules"]:
        for one in lint.RULES.values():
            print(f"{one.name:28} {one.check.__doc__}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        print("usage: python3 deploy/kubernetes/lint FILE... | --rules", file=sys.stderr)
        return 2
    bad = 0
    for path in arguments:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            things = lint.load(text)
        except yaml.YAMLError as error:
            print(f"{path}: yaml-plain: {error}")
            bad += 1
            continue
        found = lint.findings(things)
        for name, where, what in found:
            print(f"{path}: {name}: {where}: {what}")
        bad += len(found)
        print(f"{path}: {len(things)} objects, {len(lint.RULES)} rules, {len(found)} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
