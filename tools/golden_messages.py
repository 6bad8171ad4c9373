#!/usr/bin/env python3
"""Keeps tests/common/rpc/golden_messages.jsonl: messages as bytes of a release, and what they say.

    .venv/bin/python tools/golden_messages.py [--check]

A line is {"message": type, "kind": the choice of a oneof, "release", "hex": bytes on the wire, "json": the same in JSON}. Lines stay as they are:
tests read the bytes of every line by the protos of today, in Python and in C++, want the values back, and write them to the same
bytes. Together the lines set every field of every message that an RPC can carry, each with a value of its own; a field without
a line is named, and this program adds one for its message. Needs protoc and Python's protobuf.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "faults"))
FILE = os.path.join(TOP, "tests", "common", "rpc", "golden_messages.jsonl")
PACKAGE = "sluice.v1."
MAX_DEPTH = 8  # of messages that are there so that a field holds one


class GoldenError(Exception):
    """A line and the protos disagree, or a field has no line; the message says which."""


def release() -> str:
    with open(os.path.join(TOP, "CMakeLists.txt"), encoding="utf-8") as file:
        return re.search(r"project\(sluice VERSION (\S+)", file.read())[1]


def carried(protocol) -> dict:
    """Type -> descriptor, of every message that an RPC sends or answers with, and of those inside them."""
    found: dict = {}

    def visit(described):
        if described.full_name in found or described.GetOptions().map_entry:
            return
        if described.full_name.startswith(PACKAGE):
            found[described.full_name] = described
        for field in described.fields:
            if field.message_type is not None:
                inner = field.message_type
                visit(inner.fields_by_name["value"].message_type or inner if inner.GetOptions().map_entry else inner)
    for name in protocol.services:
        for method in protocol.pool.FindServiceByName(PACKAGE + name).methods:
            visit(method.input_type)
            visit(method.output_type)
    return found


def scalar(field, position: int):
    """A value that no other field nearby has. position: among those of a repeated field."""
    number = field.number * 100 + position + 1
    if field.type == field.TYPE_ENUM:
        values = sorted(value.number for value in field.enum_type.values)
        return values[-1 - position % len(values)]
    return {field.CPPTYPE_BOOL: True, field.CPPTYPE_FLOAT: number + 0.5, field.CPPTYPE_DOUBLE: number + 0.25}.get(
        field.cpp_type, (bytes([position, 255, field.number % 256]) if field.type == field.TYPE_BYTES else f"{field.name} {position}")
        if field.cpp_type == field.CPPTYPE_STRING else number)


def put_something(message, depth: int = 0) -> None:
    """Sets the first field that can be, so that a field with this message is more than there."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.seconds, message.nanos = 1_700_000_000, 250_000_000
        return
    plain = [field for field in message.DESCRIPTOR.fields if field.message_type is None and not field.is_repeated]
    if plain:
        setattr(message, plain[0].name, scalar(plain[0], 0))
    elif message.DESCRIPTOR.fields and depth < MAX_DEPTH:
        put_field(message, message.DESCRIPTOR.fields[0], depth + 1)


def put_field(message, field, depth: int = 0) -> None:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, inner = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        for position in range(2):
            if inner.message_type is not None:
                put_something(value[scalar(key, position)], depth)
            else:
                value[scalar(key, position)] = scalar(inner, position)
    elif field.is_repeated:
        for position in range(2):
            if field.message_type is not None:
                put_something(value.add(), depth)
            else:
                value.append(scalar(field, position))
    elif field.message_type is not None:
        put_something(value, depth)
        value.SetInParent()
    else:
        setattr(message, field.name, scalar(field, 0))


def choices(described) -> list[str]:
    """Fields of real oneofs: of each, one message can hold one."""
    return [field.name for oneof in described.oneofs for field in oneof.fields if len(oneof.fields) > 1]


def wanted(described) -> list[tuple[str, set[str]]]:
    """(kind, fields that its line sets) of a message; kind "" where there is no choice."""
    chosen = choices(described)
    always = {field.name for field in described.fields if field.name not in chosen}
    return [(name, always | {name}) for name in chosen] or [("", always)]


def fields_set(message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def read_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def decode(protocol, line: dict):
    """The message of a line. GoldenError: it no longer says what it said, or is written as other bytes."""
    from google.protobuf import json_format
    where = f"{line['message']} {line['kind']}".strip() + f" of release {line['release']}"
    try:
        message = protocol.type(line["message"]).FromString(bytes.fromhex(line["hex"]))
    except Exception as error:  # KeyError of the pool, DecodeError of the runtime
        raise GoldenError(f"{where}: its bytes are no such message any more: {error}") from None
    said = json_format.MessageToDict(message, preserving_proto_field_name=True)
    if said != line["json"]:
        changed = sorted(key for key in said.keys() | line["json"].keys() if said.get(key) != line["json"].get(key))
        raise GoldenError(f"{where}: its bytes say something else than then, in {', '.join(changed)}")
    if message.SerializeToString(deterministic=True).hex() != line["hex"]:
        raise GoldenError(f"{where}: it is written as other bytes than then")
    return message


def missing(protocol, lines: list[dict]) -> list[tuple[str, str, set[str]]]:
    """(message, kind, fields) that no line sets."""
    covered: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        key = (line["message"], line["kind"])
        covered[key] = covered.get(key, set()) | fields_set(decode(protocol, line))
    found = []
    for full_name, described in sorted(carried(protocol).items()):
        name = full_name.removeprefix(PACKAGE)
        for kind, fields in wanted(described):
            if lost := fields - covered.get((name, kind), set()):
                found.append((name, kind, lost))
            elif not fields and (name, kind) not in covered:
                found.append((name, kind, set()))
    return found


def make(protocol, name: str, kind: str) -> dict:
    from google.protobuf import json_format
    described = carried(protocol)[PACKAGE + name]
    message = protocol(name)
    for field_name in sorted(dict(wanted(described))[kind], key=lambda field: described.fields_by_name[field].number):
        put_field(message, described.fields_by_name[field_name])
    return {"message": name, "kind": kind, "release": release(), "hex": message.SerializeToString(deterministic=True).hex(),
            "json": json_format.MessageToDict(message, preserving_proto_field_name=True)}


def complaint(name: str, kind: str, fields: set[str]) -> str:
    of = f"{name} {kind}".strip()
    return (f"{of}: no line sets {', '.join(sorted(fields))}" if fields else f"{of}: has no line") + \
        "; run .venv/bin/python tools/golden_messages.py"


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep messages as bytes, and check that they say what they said.")
    parser.add_argument("--check", action="store_true", help="add nothing; end with 1 if something is wrong or missing")
    args = parser.parse_args()
    from messages import Protocol
    protocol = Protocol()
    text = ""
    if os.path.exists(FILE):
        with open(FILE, encoding="utf-8") as file:
            text = file.read()
    try:
        lost = missing(protocol, read_lines(text))
    except GoldenError as error:
        print(f"golden_messages.py: {error}", file=sys.stderr)
        return 1
    if args.check:
        print(*(complaint(*entry) for entry in lost), sep="\n", end="\n" if lost else "")
        return int(bool(lost))
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(text)
        for name, kind, _ in lost:
            file.write(json.dumps(make(protocol, name, kind), separators=(",", ":")) + "\n")
    print(f"{len(lost)} lines are added.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
