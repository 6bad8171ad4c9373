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
from sluice.mirror.target import Row, Target


class WandbTarget(Target):
    """state: `id` of the W&B run, `segments` that are whole."""

    max_points = 1_000_000

    def __init__(self, folder: str, name: str, project: str) -> None:
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
        self.place = str(self.folder)
        self.identity = f"wandb:{self.folder}#{project}"

    def open(self, cursor: Cursor) -> None:
        """A new W&B run has a new folder."""
        if cursor.state:
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise TrackerError(f"{self.folder}: holds another run; name this one by --name, or remove the folder")
        cursor.state.update(id=uuid.uuid4().hex[:12], segments=0)

    def send(self, rows: list[Row], in_doubt: bool, cursor: Cursor) -> None:
        """One segment. The cursor was saved before, so that the next process knows its folder as unfinished."""
        segment = self.folder / f"segment-{cursor.state['segments'] + 1:04d}"
        wandb = self._wandb
        try:
            shutil.rmtree(segment, ignore_errors=True)
            segment.mkdir(parents=True)
            settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False,
                                      x_disable_stats=True, x_disable_meta=True)
            run = wandb.init(mode="offline", dir=os.fspath(segment), project=self.project, name=self.name,
                             id=cursor.state["id"], resume="allow", reinit="finish_previous", settings=settings)
            steps: dict[int, dict[str, float]] = {}
            for row in rows:
                steps.setdefault(row.step, {}).update(row.values)
            for step, values in steps.items():
                run.log(values, step=step)
            run.finish()
        except (OSError, wandb.Error) as error:
            raise TrackerError(f"{segment}: wandb could not write it: {error}; mend that, then mirror again", 14) from None
        cursor.state["segments"] += 1
