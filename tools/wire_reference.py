#!/usr/bin/env python3
"""Writes docs/reference/wire.txt: what the messages between processes are on the wire, a line a field, value or method.

    python3 tools/wire_reference.py [--check]

What the file holds must stay: processes of two releases meet during an upgrade, and job stores and checkpoints outlive one. A
line that would vanish or change is refused and named; a field that is no longer used becomes `reserved` in the proto, and its
line stays with that word. Python's standard library alone.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROTOS = os.path.join(TOP, "proto", "sluice", "v1")
PAGE = os.path.join(TOP, "docs", "reference", "wire.txt")
HEAD = "# Written by tools/wire_reference.py from proto/sluice/v1: lines may be added, and none may change.\n"

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.]+|[^\s\w]')
COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


class WireError(Exception):
    """A proto that is not understood, or that breaks what stands in the file."""


class Reader:
    """One proto file, as far as it decides about bytes."""

    def __init__(self, text: str, name: str):
        self.tokens = TOKEN.findall(COMMENT.sub(lambda found: found[1] or " ", text))
        self.name = name
        self.at = 0
        self.lines: dict[str, str] = {}  # what -> how it is on the wire

    def take(self, wanted: str = "") -> str:
        if self.at == len(self.tokens) or (wanted and self.tokens[self.at] != wanted):
            found = self.tokens[self.at] if self.at < len(self.tokens) else "the end"
            raise WireError(f"{self.name}: want '{wanted or 'more'}', got '{found}' after '{' '.join(self.tokens[self.at - 4:self.at])}'")
        self.at += 1
        return self.tokens[self.at - 1]

    def next_is(self, token: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] == token

    def skip_options(self) -> None:
        """[...] behind a field or value."""
        if not self.next_is("["):
            return
        depth = 0
        while True:
            depth += {"[": 1, "]": -1}.get(self.take(), 0)
            if depth == 0:
                return

    def skip_statement(self) -> None:
        while self.take() != ";":
            pass

    def say(self, key: str, value: str) -> None:
        if key in self.lines:
            raise WireError(f"{self.name}: {key} is there twice")
        self.lines[key] = value

    def file(self) -> dict[str, str]:
        while self.at < len(self.tokens):
            word = self.take()
            if word in ("syntax", "package", "import", "option"):
                self.skip_statement()
            elif word == "message":
                self.message(self.take())
            elif word == "enum":
                self.enum(self.take())
            elif word == "service":
                self.service(self.take())
            elif word == "extend":
                self.message(f"extend {self.take()}")
            else:
                raise WireError(f"{self.name}: '{word}' is not understood")
        return self.lines

    def reserved(self, scope: str) -> None:
        while True:
            number, end = self.take(), self.take()
            if not number.isdigit() or end not in (",", ";"):
                raise WireError(f"{self.name}: {scope}: reserved takes single numbers here, got '{number} {end}'")
            self.say(f"{scope} {number}", "reserved")
            if end == ";":
                return

    def message(self, scope: str, within: str = "{") -> None:
        self.take(within)
        while not self.next_is("}"):
            word = self.take()
            if word == "message":
                self.message(f"{scope}.{self.take()}")
            elif word == "enum":
                self.enum(f"{scope}.{self.take()}")
            elif word == "reserved":
                self.reserved(scope)
            elif word == "option":
                self.skip_statement()
            elif word == "oneof":
                self.take()  # its name is not on the wire
                self.message(scope)
            else:
                self.field(scope, word)
        self.take("}")

    def field(self, scope: str, word: str) -> None:
        label = word + " " if word in ("optional", "repeated") else ""
        kind = self.take() if label else word
        if kind == "map":
            self.take("<")
            key = self.take()
            self.take(",")
            kind = f"map<{key}, {self.take()}>"
            self.take(">")
        name = self.take()
        self.take("=")
        number = self.take()
        self.skip_options()
        self.take(";")
        # Optional or not is the same on the wire; one value or many is not.
        self.say(f"{scope} {number}", f"{label if label == 'repeated ' else ''}{kind} {name}")

    def enum(self, scope: str) -> None:
        self.take("{")
        while not self.next_is("}"):
            name = self.take()
            if name == "reserved":
                self.reserved(scope)
                continue
            if name == "option":
                self.skip_statement()
                continue
            self.take("=")
            number = self.take()
            self.skip_options()
            self.take(";")
            self.say(f"{scope} {number}", name)
        self.take("}")

    def service(self, scope: str) -> None:
        self.take("{")
        while not self.next_is("}"):
            self.take("rpc")
            name = self.take()
            types = []
            for _ in range(2):
                self.take("(")
                streamed = "stream " if self.next_is("stream") and self.take() else ""
                types.append(streamed + self.take())
                self.take(")")
                if len(types) == 1:
                    self.take("returns")
            if self.next_is(";"):
                self.take(";")
            else:
                self.take("{")
                self.take("}")
            self.say(f"{scope}.{name}", " -> ".join(types))
        self.take("}")


def read_protos(folder: str = PROTOS) -> dict[str, str]:
    lines: dict[str, str] = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.proto"))):
        with open(path, encoding="utf-8") as file:
            found = Reader(file.read(), os.path.basename(path)).file()
        if both := sorted(set(found) & set(lines)):
            raise WireError(f"{os.path.basename(path)}: {both[0]} is in another file too")
        lines.update(found)
    return lines


def page(lines: dict[str, str]) -> str:
    def place(key: str) -> tuple[str, int]:
        scope, _, number = key.rpartition(" ")
        return (scope, int(number)) if number.isdigit() else (key, 0)
    return HEAD + "".join(f"{key}: {lines[key]}\n" for key in sorted(lines, key=place))


def parse(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith("#"))


def breaches(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What of `before` is gone or another thing. Reserving is allowed, and using a reserved number is not."""
    found = []
    for key, value in before.items():
        if key not in now:
            found.append(f"{key} ({value}) is gone: reserve its number, so that nobody takes it for another thing")
        elif now[key] != value and now[key] != "reserved":
            found.append(f"{key} was '{value}' and is '{now[key]}': processes of two releases would read one as the other")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Write what messages are on the wire, and refuse what breaks it.")
    parser.add_argument("--check", action="store_true", help="only say what is wrong")
    arguments = parser.parse_args()
    try:
        now = read_protos()
    except WireError as error:
        sys.exit(f"wire_reference.py: {error}")
    before = ""
    if os.path.exists(PAGE):
        with open(PAGE, encoding="utf-8") as file:
            before = file.read()
    if broken := breaches(parse(before), now):
        print(*broken, sep="\n", file=sys.stderr)
        return 1
    if arguments.check:
        if before != page(now):
            print("docs/reference/wire.txt is out of date: run python3 tools/wire_reference.py", file=sys.stderr)
        return int(before != page(now))
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(page(now))
    print(f"{len(now)} lines are written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
