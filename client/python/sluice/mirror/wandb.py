"""W&B's offline format, written by the package `wandb` itself: `wandb sync` sends it later.

Its files cannot be taken up again, so every call that has something new writes a segment, FOLDER/NAME/segment-NNNN, of
the same W&B run. A segment that a killed process left unfinished is removed and written again.
"""
from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from sluice.errors import InvalidRequestError, TrackerError
from sluice.mirror.cursor import Cursor
from sluice.mirror.source import Source
from sluice.mirror.target import Row, Target


class WandbTarget(Target):
    """state: `id` of the W&B run, `segments` that are whole, `told`: the job's state in the last of them."""

    max_points = 1_000_000
    every = 300.0  # each look that finds something writes a segment

    def __init__(self, folder: str, name: str, project: str, source: Source) -> None:
        if not project:
            raise InvalidRequestError("experiment: want a name, got none")
        try:
            import wandb
        except ImportError:
            raise TrackerError("mirroring to wandb needs the package wandb, which is not installed; 'pip install wandb'",
                               2) from None
        self._wandb: Any = wandb
        self.folder = Path(folder).absolute() / name
        self.name = name
        self.project = project
        self.source = source
        self.place = str(self.folder)
        self.identity = f"wandb:{self.folder}#{project}"
        self.state_folder = self.folder.parent / ".sluice-mirror"

    def open(self, cursor: Cursor) -> None:
        """A new W&B run has a new folder."""
        if cursor.state:
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise TrackerError(f"{self.folder}: holds another run; name this one by --name, or remove the folder")
        # A job is one W&B run, wherever and by whom it is mirrored.
        cursor.state.update(id=self.source.job_id or uuid.uuid4().hex[:12], segments=0, told="")

    def send(self, rows: list[Row], in_doubt: bool, cursor: Cursor) -> None:
        """One segment. The cursor was saved before, so that the next process knows its folder as unfinished."""
        self._segment(rows, cursor)

    def _segment(self, rows: list[Row], cursor: Cursor) -> None:
        segment = self.folder / f"segment-{cursor.state['segments'] + 1:04d}"
        wandb, facts = self._wandb, self.facts
        tags = {key.removeprefix("sluice."): value for key, value in facts.tags.items()}
        try:
            shutil.rmtree(segment, ignore_errors=True)
            segment.mkdir(parents=True)
            settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False,
                                      x_disable_stats=True, x_disable_meta=True, x_save_requirements=False)
            run = wandb.init(mode="offline", dir=os.fspath(segment), project=self.project, name=self.name,
                             id=cursor.state["id"], resume="allow", reinit="finish_previous", settings=settings,
                             job_type=tags.get("kind"),
                             config={**{key: _typed(value) for key, value in facts.params.items()}, "sluice": tags})
            steps: dict[int, dict[str, float]] = {}
            for row in rows:  # when it was measured, not when it was mirrored
                steps.setdefault(row.step, {}).update(row.values, _timestamp=row.time)
            for step, values in steps.items():
                run.log(values, step=step)
            if facts.state:
                run.summary["sluice/state"] = facts.state
            run.finish(exit_code=0 if facts.state in ("", "succeeded", "queued", "running", "paused") else 1)
        except (OSError, wandb.Error) as error:
            raise TrackerError(f"{segment}: wandb could not write it: {error}; mend that, then mirror again", 14) from None
        cursor.state["segments"] += 1
        cursor.state["told"] = facts.state

    def finish(self, cursor: Cursor) -> None:
        """A job that ended after its last point says so in a segment of its own."""
        if self.facts.ended and cursor.state.get("told", "") != self.facts.state:
            self._segment([], cursor)
            cursor.save()


def _typed(text: str) -> bool | int | float | str:
    """A number of a spec as a number: W&B draws those."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
