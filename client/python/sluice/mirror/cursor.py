"""How far a mirror is: a small JSON file, replaced as a whole, and the rows of metrics.jsonl that come next."""
from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from sluice.errors import InvalidRequestError, RunFolderError, TrackerError
from sluice.metrics import parse_row
from sluice.mirror.source import Source
from sluice.mirror.target import Row, Target

_VERSION = 1
_MAX_CURSOR_BYTES = 16 << 20
_MAX_LINE_BYTES = 1 << 20  # of metrics.jsonl
_NO_VALUES = ("step", "time_s")


@dataclass(frozen=True)
class Mark:
    """A place in metrics.jsonl.

    offset, line, length: where the next row begins, the hash of the row before it, and its bytes: a resumed job cuts the
    file back to a checkpoint, and then another row, or none, ends there.
    step, names: the latest step up to here, and what of it was measured. Steps never fall within one file.
    """

    offset: int = 0
    line: str = ""
    step: int = -1
    names: frozenset[str] = field(default=frozenset())
    length: int = _MAX_LINE_BYTES


class Cursor:
    """A context manager that holds the mirror's lock.

    mark: everything before it was sent.
    pending: the last step of the batch that is, or was when the process died, under way; None: there is none.
    state: the target's own.
    """

    def __init__(self, source: Source, identity: str, path: str | os.PathLike[str] | None = None,
                 folder: Path | None = None) -> None:
        """path: of its file; by default one of its own in `folder`, or where the source keeps such."""
        self.source = source
        self.identity = identity
        key = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.path = Path(path) if path is not None else \
            (folder or source.state_folder()) / f"{identity.partition(':')[0]}-{key}.json"
        self.mark = Mark()
        self.pending: int | None = None
        self.started = 0.0
        self.kept_first = False
        self.state: dict[str, Any] = {}
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Cursor:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = open(f"{self.path}.lock", "ab")
        except OSError as error:
            raise InvalidRequestError(f"{self.path}: cannot be written ({error.strerror}); name a file for the cursor "
                                      "that can, with --cursor, or another folder") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            self._lock.close()
            raise InvalidRequestError(f"{self.path}: another mirror of this run to this target is at work; end it, or "
                                      "let it finish") from None
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _load(self) -> None:
        try:
            with open(self.path, "rb") as file:
                raw = file.read(_MAX_CURSOR_BYTES)
        except FileNotFoundError:
            self.started = self.source.started()
            return
        try:
            value = json.loads(raw)
            if value["version"] != _VERSION:
                raise TrackerError(f"{self.path}: of another release (version {value['version']}, want {_VERSION}); "
                                   "go on with that release", 4)
            if value["identity"] != self.identity:
                raise InvalidRequestError(f"{self.path}: the cursor of another target, {value['identity']}; name "
                                          "another file")
            self.mark = Mark(int(value["offset"]), str(value["line"]), int(value["step"]), frozenset(value["names"]),
                             int(value.get("length", _MAX_LINE_BYTES)))
            self.started = float(value["started"])
            self.pending = None if value["pending"] is None else int(value["pending"])
            self.kept_first, self.state = bool(value["kept_first"]), dict(value["state"])
        except (ValueError, KeyError, TypeError):
            raise RunFolderError(f"{self.path}: damaged; without it the mirror does not know what it has sent. Remove it "
                                 "and mirror to a new place or under a new --name") from None

    def doubt_up_to(self, step: int) -> None:
        """The target may have points up to this step that this cursor knows nothing of."""
        if step > self.mark.step:
            self.pending = step if self.pending is None else max(step, self.pending)

    def save(self) -> None:
        """On disk, whole, when it returns."""
        text = json.dumps({
            "version": _VERSION, "identity": self.identity, "offset": self.mark.offset, "line": self.mark.line,
            "length": self.mark.length, "step": self.mark.step, "names": sorted(self.mark.names), "pending": self.pending,
            "started": self.started, "kept_first": self.kept_first, "state": self.state})
        aside = f"{self.path}.tmp"
        try:
            with open(aside, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self.path)
        except OSError as error:
            raise TrackerError(f"{self.path}: cannot be written: {error.strerror}; make room, then mirror again", 14) \
                from None

    # -------------------------------------------------------------------------------------------------- rows

    def _continues(self, file: IO[bytes]) -> bool:
        """Whether the row that was sent last still ends where it did."""
        if self.mark.offset == 0:
            return True
        back = min(self.mark.offset, self.mark.length + 1)
        file.seek(self.mark.offset - back)
        tail = file.read(back)
        return len(tail) == back and tail.endswith(b"\n") and _hash(tail[:-1].rpartition(b"\n")[2]) == self.mark.line

    def _rows(self, file: IO[bytes], mark: Mark) -> Iterator[tuple[Row, Mark]]:
        """What of each row is new after `mark`, and the mark behind it; a line that is being written is left out."""
        file.seek(mark.offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            place = mark.offset + len(line)
            row = parse_row(f"{self.source.label}: the line that ends at byte {place}", line)
            step, time_s = row["step"], row.get("time_s")
            sent = mark.names if step == mark.step else frozenset()
            values = {name: float(value) for name, value in row.items()
                      if step >= mark.step and name not in sent and name not in _NO_VALUES and
                      isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)}
            mark = replace(mark, offset=place, line=_hash(line[:-1]), length=len(line))
            if values:
                mark = replace(mark, step=step, names=sent | values.keys())
            at = self.started + (time_s if isinstance(time_s, (int, float)) else 0)
            yield Row(step, at, values), mark

    def send_new(self, target: Target) -> int:
        """Sends every whole row that is not sent yet, batch by batch; returns the number of points."""
        file = self.source.open_metrics()
        if file is None:
            return 0
        sent = points = 0
        with file:
            if not self._continues(file):
                self._rewind(target)
            batch: list[Row] = []
            behind = self.mark
            for row, mark in self._rows(file, self.mark):
                if points and points + len(row.values) > target.max_points:
                    self._send(target, batch, behind)
                    sent += points
                    batch, points = [], 0
                if row.values:
                    batch.append(row)
                    points += len(row.values)
                behind = mark
            self._send(target, batch, behind)
        return sent + points

    def _rewind(self, target: Target) -> None:
        """The job resumed from a checkpoint: the file is another one from there on."""
        if target.replaces:
            self.mark, self.pending = Mark(), None
            target.restart(self)
        else:
            self.mark = replace(self.mark, offset=0, line="", length=_MAX_LINE_BYTES)
            self.kept_first = True

    def _send(self, target: Target, batch: list[Row], behind: Mark) -> None:
        if batch:
            doubtful = -1 if self.pending is None else self.pending
            self.pending = max(doubtful, batch[-1].step)
            self.save()
            target.send(batch, batch[0].step <= doubtful, self)
            self.pending = None if batch[-1].step >= doubtful else doubtful
        elif behind == self.mark:
            return
        self.mark = behind
        self.save()


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:32]
