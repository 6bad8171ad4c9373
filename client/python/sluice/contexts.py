"""Named coordinators, as `sluicectl context` keeps them: the same file, and the same rules for what wins."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from sluice import errors
from sluice.yaml_map import YamlError, YamlMap, read_yaml_map

_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Context:
    """A coordinator and how to be let in: HOST:PORT and paths; empty: not said."""

    server: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    token_file: str = ""


@dataclass(frozen=True)
class Contexts:
    """What the file holds. current: the name of the one that is meant where none is named; empty: none is."""

    current: str
    all: Mapping[str, Context]

    def choose(self, name: str = "") -> Context:
        """That of the name, or the current one; an empty one if none is named. ContextError: no context has the name."""
        wanted = name or self.current
        if not wanted:
            return Context()
        if wanted not in self.all:
            raise errors.ContextError(f"there is no context '{wanted}'; there are {', '.join(self.all) or 'none'}. "
                                      "'sluicectl context set NAME --server HOST:PORT' makes one")
        return self.all[wanted]


def contexts_path() -> Path | None:
    """$SLUICE_CONFIG, else sluice/contexts.yaml in $XDG_CONFIG_HOME or ~/.config; None: there is no place for it."""
    if path := os.environ.get("SLUICE_CONFIG"):
        return Path(path)
    folder = os.environ.get("XDG_CONFIG_HOME") or ""
    if not folder and (home := os.environ.get("HOME")):
        folder = os.path.join(home, ".config")
    return Path(folder, "sluice", "contexts.yaml") if folder else None


def read_contexts(path: str | os.PathLike[str] | None = None) -> Contexts:
    """The contexts of this file, by default sluicectl's; none if there is no such file.

    ContextError: the file cannot be read, or has mistakes: all of them, a line each.
    """
    place = contexts_path() if path is None else Path(path)
    if place is None:
        return Contexts("", {})
    try:
        with open(place, "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts("", {})
    except OSError as error:
        raise errors.ContextError(f"{place}: cannot be read: {error.strerror}") from None
    try:
        root = read_yaml_map(raw, str(place))
    except YamlError as error:
        raise errors.ContextError(str(error)) from None
    return _contexts_of(root, str(place))


def _contexts_of(root: YamlMap, source: str) -> Contexts:
    problems: list[str] = []

    def wrong(of: YamlMap, key: str, path: str, message: str) -> None:
        problems.append(f"{source}:{of.keys[key].line}:{of.keys[key].column}: {path}: {message}")

    current = ""
    found: dict[str, Context] = {}
    known = {field.name for field in fields(Context)}
    for key, value in root.values.items():
        if key == "current" and isinstance(value, str):
            current = value
        elif key == "contexts" and isinstance(value, YamlMap):
            for name, named in value.values.items():
                if not _NAME.fullmatch(name):
                    wrong(value, name, name, "want letters, digits, '-', '_' and '.' as a name")
                given: dict[str, str] = {}
                if not isinstance(named, YamlMap):
                    named = YamlMap()
                for field, text in named.values.items():
                    if field in known and isinstance(text, str):
                        given[field] = text
                    else:
                        wrong(named, field, f"{name}.{field}", "unknown field")
                found[name] = Context(**given)
        elif key != "schema_version" and value is not None:
            wrong(root, key, key, "want current: NAME and contexts: {NAME: {server: HOST:PORT}}")
    if problems:
        raise errors.ContextError("\n".join(problems))
    return Contexts(current, found)


def place_of(server: str | None, context: str | None, given: Mapping[str, str | None]) -> Context:
    """Where to go: what is given, then the variables of the environment (those are in `given` already but for
    SLUICE_SERVER and SLUICE_CONTEXT), then the context. given: tls_ca, tls_cert, tls_key and token_file."""
    server = server or os.environ.get("SLUICE_SERVER") or ""
    context = context or os.environ.get("SLUICE_CONTEXT") or ""
    # What a context says of one coordinator is not for another that was named by itself.
    place = read_contexts().choose(context) if not server or context else Context()
    # A certificate and its key go together, so do they and the CA that they are of.
    tls = given if any(given[name] for name in ("tls_ca", "tls_cert", "tls_key")) else vars(place)
    return Context(server=server or place.server, tls_ca=tls["tls_ca"] or "", tls_cert=tls["tls_cert"] or "",
                   tls_key=tls["tls_key"] or "", token_file=given["token_file"] or place.token_file)
