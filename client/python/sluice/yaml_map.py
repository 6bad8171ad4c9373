"""The YAML that Sluice's own files are in: maps of maps and single values, with the place of each, as PyYAML reads it. Lists, aliases,
tags, a second document and a key that is there twice are refused with their place, as sluicectl refuses what it does not take."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

import yaml

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Place:
    """Counts from 1."""

    line: int
    column: int


@dataclass
class YamlMap:
    """keys: where each stands. A value that is empty, or null, is None; any other is the text as it stands there."""

    values: dict[str, Union[YamlMap, str, None]] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, str]]:
        """("rl.gate.tau", "0.3") of every single value."""
        for key, value in self.values.items():
            if isinstance(value, YamlMap):
                yield from value.leaves(f"{prefix}{key}.")
            elif value is not None:
                yield f"{prefix}{key}", value


class YamlError(Exception):
    """What is wrong, beginning with its place: "contexts.yaml:3:5: ..."."""


def _wrong(source: str, mark: Any, message: str) -> YamlError:
    return YamlError(f"{source}:{mark.line + 1}:{mark.column + 1}: {message}")


class _Builder:
    """Of the parser's events, one after another: a limit stops it where it is passed, and an alias is never followed."""

    def __init__(self, text: str, source: str) -> None:
        self.events = yaml.parse(text, Loader=yaml.SafeLoader)
        self.source = source

    def wrong(self, event: Any, message: str) -> YamlError:
        return _wrong(self.source, event.start_mark, message)

    def document(self) -> YamlMap:
        whole = YamlMap()
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.wrong(event, "a second document begins here; a file holds one")
            elif isinstance(event, yaml.NodeEvent):
                value = self.value(event, 1)
                if isinstance(value, YamlMap):
                    whole = value
                elif value is not None:
                    raise self.wrong(event, "want keys and values, such as 'name: mine', at the top")
        return whole

    def value(self, event: Any, depth: int) -> Union[YamlMap, str, None]:
        if isinstance(event, yaml.AliasEvent):
            raise self.wrong(event, "aliases are not allowed here; write the value out")
        if event.tag not in (None, "!"):
            raise self.wrong(event, f"tags are not allowed here ({event.tag}); write the plain value")
        if isinstance(event, yaml.SequenceStartEvent):
            raise self.wrong(event, "a list begins here; only maps and single values are read here")
        if isinstance(event, yaml.ScalarEvent):
            return None if event.implicit[0] and event.value in _NULLS else self.text(event)
        if depth > _MAX_DEPTH:
            raise self.wrong(event, f"nested deeper than {_MAX_DEPTH} levels")
        return self.map(depth)

    def text(self, event: Any) -> str:
        text: str = event.value
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.wrong(event, "an escape here is half of a character") from None
        return text

    def map(self, depth: int) -> YamlMap:
        into = YamlMap()
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self.wrong(event, "a key must be a plain word")
            key = self.text(event)
            if key in into.keys:
                raise self.wrong(event, f"key {key} is given twice; first on line {into.keys[key].line}")
            into.keys[key] = Place(event.start_mark.line + 1, event.start_mark.column + 1)
            into.values[key] = self.value(next(self.events), depth + 1)
        return into


def read_yaml_map(raw: bytes, source: str) -> YamlMap:
    """One document; nothing, or comments alone, is an empty map. source: of messages.

    YamlError: it is no such text.
    """
    if len(raw) > _MAX_BYTES:
        raise YamlError(f"{source}: want at most {_MAX_BYTES} bytes, this one has {len(raw)}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise YamlError(f"{source}: not a text in UTF-8") from None
    if "\0" in text:
        raise YamlError(f"{source}: byte {text.index(chr(0))} is zero; this is not a text file")
    try:
        return _Builder(text, source).document()
    except yaml.MarkedYAMLError as error:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        ends = error.problem is not None and "stream" in error.problem  # what begins at the context does not end
        mark = error.context_mark if ends and error.context_mark else error.problem_mark
        raise _wrong(source, mark, f"not valid YAML: {said}") from None
    except yaml.YAMLError as error:  # a character that no YAML holds
        raise YamlError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
