"""Metrics of a run as rows; a pandas frame if pandas is there."""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.errors import RunFolderError, SluiceError

if TYPE_CHECKING:
    import pandas


class Metrics:
    """Rows of one run in the order in which they were written; each has `step` and whatever was measured then."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Names of everything measured, in the order of the alphabet."""
        return sorted({name for row in self.rows for name in row} - {"step"})

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric wherever it was measured."""
        return [(row["step"], row[name]) for row in self.rows if name in row]

    def last(self, name: str) -> float:
        """The latest value of a metric; KeyError if it was never measured: a missing number is not 0."""
        for row in reversed(self.rows):
            if name in row:
                return float(row[name])
        raise KeyError(f"the run has no metric '{name}'; it has {', '.join(self.names) or 'none'}")

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with a row a measurement, column `step` first, NaN where something was not measured."""
        try:
            import pandas
        except ImportError:
            raise SluiceError("to_pandas needs pandas, which is not installed; 'pip install sluice[pandas]', or use "
                              ".rows and .series(name)") from None
        return pandas.DataFrame(self.rows, columns=["step", *self.names])


def read_metrics(path: Path) -> Metrics:
    """A run's metrics.jsonl; a last line that is still being written is left out. Lines repeated by a resumed run stay.

    RunFolderError: unreadable, or a line that is no measurement.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path}: cannot be read as metrics: {error}") from None
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        rows.append(parse_row(f"{path}:{number}", line))
    return Metrics(rows)


def parse_row(where: str, line: str | bytes) -> dict[str, Any]:
    """One line of metrics.jsonl. where: its place, for the RunFolderError of a line that is no measurement."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RunFolderError(f"{where}: not a JSON line: {error}") from None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise RunFolderError(f"{where}: want an object with a whole number 'step'")
    return row
