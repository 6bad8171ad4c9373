"""The YAML that Sluice's own files are in: maps of maps and single values, with the place of each. sluicectl and the jobs
write nothing else; what more YAML has is refused with its place, and never read in another way than sluicectl reads it."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Union

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_NULLS = ("", "~", "null", "Null", "NULL")
# As in JSON, and YAML's few more.
_ESCAPES = {"0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b", " ": " ",
            '"': '"', "/": "/", "\\": "\\"}


@dataclass(frozen=True)
class Place:
    """Counts from 1."""

    line: int
    column: int


@dataclass
class YamlMap:
    """keys: where each stands. A value that is empty, or null, is None."""

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


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.at = 0

    def wrong(self, message: str, at: int | None = None) -> YamlError:
        place = self.place(self.at if at is None else at)
        return YamlError(f"{self.source}:{place.line}:{place.column}: {message}")

    def place(self, at: int) -> Place:
        start = self.text.rfind("\n", 0, at) + 1
        return Place(self.text.count("\n", 0, at) + 1, at - start + 1)

    def peek(self) -> str:
        return self.text[self.at:self.at + 1]

    def skip_blanks(self, over_lines: bool) -> None:
        """Blanks and comments; over_lines: ends of lines too."""
        while True:
            while self.peek() == " " or (over_lines and self.peek() in ("\n", "\r")):
                self.at += 1
            if self.peek() == "\t":
                raise self.wrong("a tab stands here; want blanks")
            if self.peek() == "#" and (self.at == 0 or self.text[self.at - 1] in " \n\r"):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
                if over_lines:
                    continue
            return

    def end_of_line(self) -> None:
        self.skip_blanks(False)
        if self.peek() == "\r" and self.text[self.at:self.at + 2] == "\r\n":
            self.at += 1
        if self.peek() not in ("", "\n"):
            raise self.wrong("want the end of the line after a value; a text with ': ', ' #' or signs of YAML in it stands in "
                             "quotes")

    # ---------------------------------------------------------------------------------------------- single values

    def quoted(self) -> str:
        start, quote = self.at, self.peek()
        self.at += 1
        out = []
        while True:
            char = self.peek()
            if char in ("", "\n"):
                raise self.wrong("the quote that begins here does not end on its line", start)
            self.at += 1
            if char == quote:
                if quote == "'" and self.peek() == "'":
                    self.at += 1
                    out.append("'")
                    continue
                return "".join(out)
            out.append(self.escape() if char == "\\" and quote == '"' else char)

    def escape(self) -> str:
        char = self.peek()
        if char in _ESCAPES:
            self.at += 1
            return _ESCAPES[char]
        match = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})").match(self.text, self.at)
        code = int("".join(filter(None, match.groups())), 16) if match else -1
        if match is None or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise self.wrong(f"an escape that is not known: '\\{char}'", self.at - 1)
        self.at = match.end()
        return chr(code)

    def plain(self, stops: str) -> str:
        """Up to ": ", " #", the end of the line, or one of `stops`."""
        begin = re.compile(r"[-?:]" if stops else r"[-?:](\s|$)|---|\.\.\.").match(self.text, self.at)
        if self.peek() in tuple("&*!|>%@`{}[],\"'#") or begin:
            raise self.wrong(f"'{self.peek()}' begins what is more than a plain text; only maps and single values are read "
                             "here; a text that begins so stands in quotes")
        start = self.at
        while (char := self.peek()) not in ("", "\n", "\r", *stops):
            following = self.text[self.at + 1:self.at + 2]
            if char == ":" and following in ("", " ", "\t", "\n", "\r", *stops):
                break
            if char == "#" and self.text[self.at - 1] == " ":
                break
            if char == "\t" or (stops and char in "{}[]?"):
                raise self.wrong(f"a text with {char!r} in it stands in quotes")
            self.at += 1
        return self.text[start:self.at].rstrip(" ")

    def value(self, stops: str, depth: int) -> Union[YamlMap, str, None]:
        if self.peek() == "{":
            return self.flow(depth)
        if self.peek() in ("'", '"'):
            return self.quoted()
        if self.peek() in ("", "\n", "\r", *stops):
            return None
        text = self.plain(stops)
        return None if text in _NULLS else text

    # ------------------------------------------------------------------------------------------------------ maps

    def key(self, stops: str, into: YamlMap) -> str:
        start = self.at
        key = self.quoted() if self.peek() in ("'", '"') else self.plain(stops)
        self.skip_blanks(False)
        following = self.text[self.at + 1:self.at + 2]
        if self.peek() != ":" or not (stops or following in ("", " ", "\n", "\r")):
            raise self.wrong("want 'key: value'", start)
        self.at += 1
        if key in into.values:
            raise self.wrong(f"key {key} is given twice; first on line {into.keys[key].line}", start)
        into.keys[key] = self.place(start)
        return key

    def flow(self, depth: int) -> YamlMap:
        """{a: b, "c": {}}, over as many lines as it likes."""
        if depth > _MAX_DEPTH:
            raise self.wrong(f"nested deeper than {_MAX_DEPTH} levels")
        start, into = self.at, YamlMap()
        self.at += 1
        while True:
            self.skip_blanks(True)
            if self.peek() == "}":
                self.at += 1
                return into
            if self.peek() == "":
                raise self.wrong("the '{' that begins here does not end", start)
            key = self.key(",}", into)
            self.skip_blanks(True)
            into.values[key] = self.value(",}", depth + 1)
            self.skip_blanks(True)
            if self.peek() == ",":
                self.at += 1
            elif self.peek() not in ("}", ""):
                raise self.wrong("want ',' or '}' here")

    def indent(self) -> int:
        """Of the next line that says something, at whose first character the reader then is; -1: there is none."""
        while True:
            start = self.at
            self.skip_blanks(False)
            if self.peek() == "\r":
                self.at += 1
            if self.peek() == "":
                return -1
            if self.peek() != "\n":
                return self.at - start
            self.at += 1

    def block(self, indent: int, depth: int) -> YamlMap:
        """The lines of this indentation; ends at the start of a line with less of it."""
        if depth > _MAX_DEPTH:
            raise self.wrong(f"nested deeper than {_MAX_DEPTH} levels")
        into = YamlMap()
        while True:
            if self.peek() in ("-", "["):
                raise self.wrong("a list begins here; only maps and single values are read here")
            key = self.key("", into)
            self.skip_blanks(False)
            into.values[key] = self.value("", depth + 1)
            self.end_of_line()
            line_end = self.at
            found = self.indent()
            if found > indent:
                if into.values[key] is not None:
                    raise self.wrong("the indentation does not fit the lines above")
                into.values[key] = self.block(found, depth + 1)
                line_end = self.at
                found = self.indent()
            if found < indent:
                self.at = line_end
                return into
            if found > indent:
                raise self.wrong("the indentation does not fit the lines above")


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
    reader = _Reader(text, source)
    indent = reader.indent()
    if indent == 0 and re.compile(r"---( +#.*| *)\r?(\n|$)").match(text, reader.at):
        reader.at = text.find("\n", reader.at) + 1 or len(text)
        indent = reader.indent()
    if indent < 0:
        return YamlMap()
    if reader.peek() == "{":
        whole = reader.flow(1)
        reader.skip_blanks(True)
        if reader.peek() != "":
            raise reader.wrong("want nothing more here")
        return whole
    whole = reader.block(indent, 1)
    if reader.indent() >= 0:
        raise reader.wrong("the indentation does not fit the lines above")
    return whole
