"""The command line of a script that writes a page of docs/reference from the code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(what: str, path: str, make: Callable[[], str], error: type[Exception]) -> int:
    """Writes the page of `what` to `path` below the top; with --check only says whether it is what `make` returns. An
    `error` of `make` is told to people. Exit code 1 if something is wrong."""
    script = os.path.basename(sys.argv[0])
    parser = argparse.ArgumentParser(description=f"Write the reference of {what}.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the page is out of date")
    args = parser.parse_args()
    try:
        text = make()
    except error as problem:
        print(f"{script}: {problem}", file=sys.stderr)
        return 1
    page = os.path.join(TOP, path)
    if not args.check:
        with open(page, "w", encoding="utf-8") as file:
            file.write(text)
        return 0
    if os.path.exists(page):
        with open(page, encoding="utf-8") as file:
            if file.read() == text:
                return 0
    print(f"{path} is out of date: run python3 tools/{script}")
    return 1
