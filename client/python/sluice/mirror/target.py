"""What a tracker must be able to do."""
from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sluice.mirror.source import Facts

if TYPE_CHECKING:
    from sluice.mirror.cursor import Cursor


@dataclass(frozen=True)
class Row:
    """What one line of metrics.jsonl measured; `values` are finite."""

    step: int
    time: float  # seconds since 1970, the same whenever it is asked
    values: dict[str, float]


class Target(abc.ABC):
    """A tracker. `cursor.state` is its own to keep between calls; it is on disk after cursor.save()."""

    identity: str  # tells the cursors of several targets of one run apart
    place: str = ""
    facts: Facts = Facts()  # the latest that are known of the run, set before each call
    state_folder: Path | None = None  # where the cursor of a job lies; None: it does not matter
    every: float = 5.0  # seconds between looks of a mirror that follows
    max_points: int = 1000  # of one batch
    # Whether repeated steps replace what the target has; otherwise it keeps the first.
    replaces: bool = False

    @abc.abstractmethod
    def open(self, cursor: Cursor) -> None:
        """Finds or makes the run at the target."""

    @abc.abstractmethod
    def send(self, rows: list[Row], in_doubt: bool, cursor: Cursor) -> None:
        """Sends a batch, whole; the cursor is saved afterwards. in_doubt: some of it may be there already."""

    def restart(self, cursor: Cursor) -> None:
        """The run's first row comes next, again (targets that replace)."""

    def finish(self, cursor: Cursor) -> None:
        """Everything there is was sent; facts.ended: the job will measure nothing more."""
