"""A run's folder, read where it lies: on the coordinator's machine or on storage shared with it."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sluice.errors import RunFolderError
from sluice.metrics import Metrics, read_metrics


class RunFolder:
    """Results of one run. Nothing is written; every read looks at the disk anew, so a running job can be followed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunFolderError(
                f"{self.path}: there is no such run folder here; it lies on the coordinator's machine, "
                "and only a folder shared with it can be read")

    def _file(self, name: str, what: str) -> Path:
        path = self.path / name
        if not path.exists():
            raise RunFolderError(f"{path}: not there; {what}")
        return path

    def _text(self, name: str, what: str) -> str:
        path = self._file(name, what)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text in UTF-8"
            raise RunFolderError(f"{path}: cannot be read: {reason}") from None

    @property
    def spec_yaml(self) -> str:
        """The effective spec, with every default."""
        return self._text("spec.yaml", "this is no run folder, or the job has not begun")

    def results(self) -> dict[str, Any]:
        """results.json: the numbers and texts that the job ended with."""
        path = self.path / "results.json"
        text = self._text("results.json", "the job has not ended well yet, or found its work done already")
        try:
            value = json.loads(text)
        except ValueError as error:
            raise RunFolderError(f"{path}: damaged: {error}") from None
        if not isinstance(value, dict):
            raise RunFolderError(f"{path}: damaged: want an object")
        return value

    def ended(self) -> bool:
        """Whether the job ended well; one that failed, or was cancelled, has no results."""
        return (self.path / "results.json").exists()

    def metrics(self) -> Metrics:
        """Everything measured so far."""
        return read_metrics(self._file("metrics.jsonl", "nothing was measured yet"))

    def tensorboard(self) -> Path:
        """The folder of event files for TensorBoard, which grow while the job runs."""
        return self._file("tensorboard", "nothing was measured yet, or it could not be written, which the job's log says")

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints by step, oldest first."""
        parent = self.path / "checkpoints"
        if not parent.is_dir():
            return []
        return sorted(folder for folder in parent.glob("step-*")
                      if not folder.name.endswith(".tmp") and (folder / "manifest.json").is_file())

    def export(self, which: str = "best") -> Path:
        """Folder of an exported policy in Hugging Face's layout: "best" or "final"."""
        return self._file(os.path.join("export", which), "the job exports when it ends; 'best' and 'final' are usual")

    def report(self) -> Path:
        """The HTML report."""
        return self._file("report.html", "the report is written when the job ends")
