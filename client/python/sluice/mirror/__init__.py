"""Copies a run's metrics to a tracker: an MLflow server, a TensorBoard folder, or W&B's offline format.

    python -m sluice.mirror RUN_FOLDER --to mlflow:http://127.0.0.1:5000
    python -m sluice.mirror RUN_FOLDER --to tensorboard:FOLDER
    python -m sluice.mirror RUN_FOLDER --to wandb:FOLDER

    from sluice.mirror import mirror_run
    mirror_run("runs/rl-7f2c", "mlflow:http://127.0.0.1:5000", follow=True)

A cursor in RUN_FOLDER/mirror says how far each target is. Called again it goes on there; killed in the middle and called
again it leaves nothing out and sends nothing twice, since what was under way is looked up at the target first. A
point is known by its step and its name. A run that resumed from a checkpoint measures some steps again: TensorBoard
gets the new values in place of the old ones, MLflow and W&B keep the first ones, as nothing can be taken back there.
"""
from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from sluice.errors import InvalidRequestError
from sluice.mirror.cursor import Cursor
from sluice.mirror.target import Target
from sluice.run_folder import RunFolder

KINDS = ("mlflow", "tensorboard", "wandb")


@dataclass(frozen=True)
class Mirrored:
    """What one call did. place: what the target calls the run, such as a URL or a folder."""

    points: int
    last_step: int  # -1: nothing was measured yet
    place: str
    kept_first: bool = False  # the run resumed, and the target keeps what it has of repeated steps


def _open(run: RunFolder, to: str, name: str, experiment: str, patience: float) -> Target:
    kind, _, place = to.partition(":")
    if kind not in KINDS or not place:
        raise InvalidRequestError(f"to: want mlflow:URI, tensorboard:FOLDER or wandb:FOLDER, got '{to}'")
    if not name or name in (".", "..") or "/" in name:
        raise InvalidRequestError(f"name: want a name without '/', got '{name}'")
    if kind == "mlflow":
        from sluice.mirror.mlflow import MlflowTarget
        return MlflowTarget(place, name, experiment, str(run.path.resolve()), patience)
    if kind == "tensorboard":
        from sluice.mirror.tensorboard import TensorBoardTarget
        return TensorBoardTarget(place, name)
    from sluice.mirror.wandb import WandbTarget
    return WandbTarget(place, name, experiment)


def mirror_run(run: str | os.PathLike[str] | RunFolder, to: str, *, name: str | None = None, experiment: str = "sluice",
               follow: bool = False, every: float = 5.0, patience: float = 60.0,
               cursor: str | os.PathLike[str] | None = None, stop: threading.Event | None = None) -> Mirrored:
    """Sends what the target does not have yet. Safe to call again at any time, from one process at a time.

    to: "mlflow:URI", "tensorboard:FOLDER" or "wandb:FOLDER".
    name: of the run at the target; by default that of the run folder.
    experiment: MLflow's experiment, W&B's project.
    follow: go on until the job has its results, or `stop` is set, looking every `every` seconds.
    patience: seconds for which a server that does not answer is asked again; each request has 10 s of them.
    cursor: its file, by default one in RUN_FOLDER/mirror: for run folders that cannot be written to.
    RunFolderError: the run cannot be read. ServerDownError: the server cannot be reached. TrackerError: the target
    refused, or cannot be written. InvalidRequestError: an argument is wrong, or another mirror is at work.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    if every <= 0 or patience <= 0:
        raise InvalidRequestError(f"every and patience: want more than 0 s, got {every} and {patience}")
    target = _open(folder, to, folder.path.resolve().name if name is None else name, experiment, patience)
    stop = stop or threading.Event()
    with Cursor(folder, target.identity, cursor) as at:
        target.open(at)
        sent = 0
        while True:
            ended = folder.ended()  # asked first: what was measured before the end is then there
            sent += at.send_new(target)
            if not follow or ended or stop.wait(every):
                break
        target.finish(at, ended)
        return Mirrored(sent, at.mark.step, target.place, at.kept_first)
