"""Job specs and data as files that the coordinator reads."""
from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sluice.errors import InvalidRequestError

_MAX_DEPTH = 32  # the schema has four levels


def scalar_yaml(value: Any, where: str) -> str:
    """One value in YAML's flow style. where: its key, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        # JSON's quoting is YAML's double quoting; beyond ASCII as it is, since YAML knows no surrogate pairs.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRequestError(f"{where}: want a finite number, got {value}")
        return repr(float(value))  # of numpy too
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a number of numpy or torch
        return scalar_yaml(value.item(), where)
    raise InvalidRequestError(f"{where}: want text, a number, true, false, a list or a section, got a "
                              f"{type(value).__name__}")


def _flow(value: Any, where: str, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise InvalidRequestError(f"{where}: more than {_MAX_DEPTH} levels deep; a job spec has four")
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return "[" + ", ".join(_flow(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k, where)}: {_flow(v, f'{where}.{k}', depth + 1)}" for k, v in
                               value.items()) + "}"
    return scalar_yaml(value, where)


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidRequestError(f"{where or 'the spec'}: want text as key, got {key!r}")
    return key if key.isidentifier() and key.isascii() else json.dumps(key, ensure_ascii=False)


def to_yaml(spec: Mapping[str, Any], _where: str = "", _depth: int = 0) -> str:
    """YAML text of a spec given as a dict of dicts: a line a key, so that messages' lines can be found in it.

    InvalidRequestError: a key that is no text, a value that YAML has no form for, NaN, too deep. What keys there are,
    and which values they take, the coordinator judges.
    """
    if _depth > _MAX_DEPTH:
        raise InvalidRequestError(f"{_where}: more than {_MAX_DEPTH} levels deep; a job spec has four")
    lines = []
    for key, value in spec.items():
        path = f"{_where}.{key}" if _where else str(key)
        head = "  " * _depth + _key(key, _where)
        if isinstance(value, Mapping) and value:
            lines.append(f"{head}:\n{to_yaml(value, path, _depth + 1)}")
        else:
            lines.append(f"{head}: {_flow(value, path, _depth + 1)}\n")
    return "".join(lines)


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """{"rl.steps": 50} as sluicectl's --set would say it: ["rl.steps=50"]."""
    if not isinstance(values, Mapping):
        raise InvalidRequestError("overrides: want a dict such as {'rl.steps': 50}, got a " + type(values).__name__)
    return [f"{path}={_flow(value, path, 0)}" for path, value in values.items()]


def write_events(path: str | os.PathLike[str], events: Iterable[Sequence[Any]]) -> int:
    """Writes (user, item) or (user, item, timestamp) rows as the CSV that a `prepare` job reads; returns how many.

    Without timestamps the order of the rows is the order in time; then set prepare.timestamp_column to "". A pandas
    frame goes in as frame[["user", "item", "timestamp"]].itertuples(index=False). The file is written aside and
    renamed. InvalidRequestError: no row, rows of unequal or wrong length, an empty or missing name.
    """
    target = os.fspath(path)
    aside = f"{target}.{os.getpid()}.tmp"
    count = width = 0
    try:
        with open(aside, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for row in events:
                try:
                    values = () if isinstance(row, (str, bytes)) else tuple(row)
                except TypeError:
                    values = ()
                if not values:
                    raise InvalidRequestError(f"row {count}: want (user, item) or (user, item, timestamp), got {row!r}")
                if count == 0:
                    width = len(values)
                    if width not in (2, 3):
                        raise InvalidRequestError(f"row 0: want (user, item) or (user, item, timestamp), got {width} "
                                                  "values")
                    writer.writerow(("user", "item", "timestamp")[:width])
                if len(values) != width:
                    raise InvalidRequestError(f"row {count}: want {width} values as in row 0, got {len(values)}")
                for name, value in zip(("user", "item", "timestamp"), values):
                    if value is None or value != value or str(value) == "":
                        raise InvalidRequestError(f"row {count}: {name} is missing")
                writer.writerow(values)
                count += 1
        if count == 0:
            raise InvalidRequestError("want at least one event, got none")
        os.replace(aside, target)
    except OSError as error:  # no such folder, no right, no space
        if error.filename not in (None, aside):
            raise  # of what gives the events
        raise InvalidRequestError(f"{target}: cannot be written: {error.strerror}; name another path, or make room") \
            from None
    finally:
        if os.path.exists(aside):
            os.remove(aside)
    return count
