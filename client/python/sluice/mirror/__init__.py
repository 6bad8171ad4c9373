"""Copies a run to a tracker: an MLflow server, a TensorBoard folder, W&B's offline format, or a TrainJob's status.

    python -m sluice.mirror --job rl-7f2c --to mlflow --uri http://127.0.0.1:5000
    python -m sluice.mirror RUN_FOLDER --to tensorboard --folder FOLDER
    python -m sluice.mirror --job rl-7f2c --to wandb --folder FOLDER --follow
    python -m sluice.mirror RUN_FOLDER --to kubeflow --follow       in a container of the TrainJob

    from sluice.mirror import mirror_run
    mirror_run(client.job("rl-7f2c"), "mlflow:http://127.0.0.1:5000", follow=True)

A job comes through its coordinator, from wherever that is; a run folder from this machine. What arrives: every metric of
every step; at MLflow and W&B also the effective spec, where the run came from, and the job's state. A
TrainJob's status has the latest values alone, how far the job is, and when it ends.

A cursor says how far each target is: of a run folder in RUN_FOLDER/mirror, of a job beside the target's folder, or in
~/.local/state/sluice/mirror. Called again it goes on there; killed in the middle and called again it leaves nothing out
and sends nothing twice, since what was under way is looked up at the target first. A point is known by its step and its
name. A run that resumed from a checkpoint measures some steps again: TensorBoard gets the new values in place of the old
ones, MLflow and W&B keep the first ones, as nothing can be taken back there.
"""
from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from sluice.errors import InvalidRequestError
from sluice.mirror.cursor import Cursor
from sluice.mirror.source import Source, source_of
from sluice.mirror.target import Target
from sluice.run_folder import RunFolder

if TYPE_CHECKING:
    from sluice.client import Job

KINDS = ("kubeflow", "mlflow", "tensorboard", "wandb")


@dataclass(frozen=True)
class Mirrored:
    """What one call did. place: what the target calls the run, such as a URL or a folder. state: of the job at the end of
    the call, such as "held"; "": a run folder does not say."""

    points: int
    last_step: int  # -1: nothing was measured yet
    place: str
    kept_first: bool = False  # the run resumed, and the target keeps what it has of repeated steps
    state: str = ""


def _open(source: Source, to: str, name: str, experiment: str, patience: float) -> Target:
    kind, _, place = to.partition(":")
    if kind not in KINDS or bool(place) == (kind == "kubeflow"):
        raise InvalidRequestError(f"to: want mlflow:URI, tensorboard:FOLDER, wandb:FOLDER or kubeflow, got '{to}'")
    if not name or name in (".", "..") or "/" in name:
        raise InvalidRequestError(f"name: want a name without '/', got '{name}'")
    if kind == "kubeflow":
        from sluice.mirror.kubeflow import KubeflowTarget
        return KubeflowTarget(patience)
    if kind == "mlflow":
        from sluice.mirror.mlflow import MlflowTarget
        return MlflowTarget(place, name, experiment, source, patience)
    if kind == "tensorboard":
        from sluice.mirror.tensorboard import TensorBoardTarget
        return TensorBoardTarget(place, name)
    from sluice.mirror.wandb import WandbTarget
    return WandbTarget(place, name, experiment, source)


def mirror_run(run: Union[str, os.PathLike[str], RunFolder, Job], to: str, *, name: str | None = None,
               experiment: str = "sluice", follow: bool = False, every: float | None = None, patience: float = 60.0,
               cursor: str | os.PathLike[str] | None = None, stop: threading.Event | None = None) -> Mirrored:
    """Sends what the target does not have yet. Safe to call again at any time, from one process at a time.

    run: a job of a client, a run folder, or its path.
    to: "mlflow:URI", "tensorboard:FOLDER", "wandb:FOLDER", or "kubeflow": the TrainJob whose container this is.
    name: of the run at the target; by default that of the run folder, or the job's id. MLflow has one run a job, whatever
      its name there.
    experiment: MLflow's experiment, W&B's project.
    follow: go on until the job has ended (a run folder: has its results), or `stop` is set, looking every `every` seconds;
      by default 5, and 300 to W&B, where each look that finds something writes a file.
    patience: seconds for which a server that does not answer is asked again; each request has 10 s of them.
    cursor: its file, by default one as the package's text says: for folders that cannot be written to.
    UnknownJobError: there is no such job. RunFolderError: the run cannot be read. ServerDownError: the coordinator or the
    tracker cannot be reached. TrackerError: the target refused, or cannot be written. InvalidRequestError: an argument is
    wrong, or another mirror is at work.
    """
    if not all(value is None or 0 < value < math.inf for value in (every, patience)):
        raise InvalidRequestError(f"every and patience: want more than 0 s, got {every} and {patience}")
    stop = stop or threading.Event()
    source = source_of(run, patience, stop)
    target = _open(source, to, source.name if name is None else name, experiment, patience)
    identity = target.identity + (f"#{source.key}" if source.job_id else "")
    with Cursor(source, identity, cursor, target.state_folder if source.job_id else None) as at:
        target.facts = source.facts()
        target.open(at)
        sent = 0
        while True:
            # Their end is asked for first: what was measured before it is then there.
            sent += at.send_new(target)
            if not follow or target.facts.ended or stop.wait(target.every if every is None else every):
                break
            target.facts = source.facts()
        target.finish(at)
        return Mirrored(sent, at.mark.step, target.place, at.kept_first, target.facts.state)
