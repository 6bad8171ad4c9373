"""Files that a table writes: comparing them with what lies in the tree, and writing them.

For the scripts that keep such a table; each names its files by their path from the top of the tree. Python's standard
library alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
Files = dict[str, str]  # path from the top of the tree, and text


def read(path: str) -> str | None:
    """The text of a file; None if it is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def out_of_date(made: Files, folder: str, top: str = TOP) -> list[str]:
    """Paths that differ from the table, and files of `folder`, which holds nothing else, that the table knows no more."""
    bad = [path for path, text in made.items() if read(os.path.join(top, path)) != text]
    held = os.path.join(top, folder)
    names = sorted(os.listdir(held)) if os.path.isdir(held) else []
    return bad + [path for path in (os.path.join(folder, name) for name in names) if path not in made]


def main(script: str, what: str, files: Callable[[], Files], folder: str) -> int:
    """The command line of a script that writes `what`, "dashboards" say. Returns the exit code."""
    parser = argparse.ArgumentParser(description=f"Write the {what}.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a file is out of date")
    made = files()
    if parser.parse_args().check:
        bad = out_of_date(made, folder)
        for path in bad:
            print(f"{path} is out of date: run python3 {script}")
        return 1 if bad else 0
    for path, text in made.items():
        os.makedirs(os.path.dirname(os.path.join(TOP, path)), exist_ok=True)
        with open(os.path.join(TOP, path), "w", encoding="utf-8") as file:
            file.write(text)
    print(f"{len(made)} {what} are written.")
    return 0
