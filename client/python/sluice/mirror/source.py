"""Where a run's numbers come from: its folder on this machine, or the coordinator, wherever that is."""
from __future__ import annotations

import abc
import hashlib
import io
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sluice.errors import (BusyError, DeadlineError, InvalidRequestError, RunFolderError, ServerDownError,
                           UnknownJobError)
from sluice.run_folder import RunFolder
from sluice.yaml_map import YamlError, read_yaml_map

if TYPE_CHECKING:
    from sluice.client import Job
    from sluice.events import JobDescription

_METRICS = "metrics.jsonl"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What is told of a run beside its metrics, as far as it is known now.

    params: the effective spec; {}: not known yet. tags: where it came from.
    state: of the job, in its own word ("held"); "": the folder does not say. ended: it measures nothing more.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    state: str = ""
    ended: bool = False
    ended_at: float | None = None  # seconds since 1970


class Source(abc.ABC):
    """A run. `key` tells it from every other; `job_id` is "" where nobody knows it."""

    name: str
    key: str
    job_id: str = ""
    label: str  # of metrics.jsonl, in messages

    @abc.abstractmethod
    def facts(self) -> Facts:
        """As they are now."""

    @abc.abstractmethod
    def started(self) -> float:
        """When the job began, about, in seconds since 1970: rows say their time since then."""

    @abc.abstractmethod
    def open_metrics(self) -> IO[bytes] | None:
        """metrics.jsonl as it is now, which can be sought in; None: nothing was measured yet."""

    @abc.abstractmethod
    def state_folder(self) -> Path:
        """Where the cursor lies if the target has no better place."""


class FolderSource(Source):
    """A run folder on this machine."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.name = run.path.resolve().name
        self.key = str(run.path.resolve())
        self.label = str(run.path / _METRICS)

    def facts(self) -> Facts:
        """A folder does not say how a job ended that has no results."""
        params: dict[str, str] = {}
        path = self.run.path / "spec.yaml"
        try:
            params = dict(read_yaml_map(path.read_bytes(), str(path)).leaves())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from None
        except YamlError as error:
            raise RunFolderError(str(error)) from None
        ended = self.run.ended()
        return Facts(params, {"sluice.run_folder": self.key}, "succeeded" if ended else "", ended,
                     os.stat(self.run.path / "results.json").st_mtime if ended else None)

    def started(self) -> float:
        for name in ("spec.yaml", _METRICS):
            try:
                return round(os.stat(self.run.path / name).st_mtime, 3)
            except OSError:
                continue
        return round(os.stat(self.run.path).st_mtime, 3)

    def open_metrics(self) -> IO[bytes] | None:
        path = self.run.path / _METRICS
        try:
            return open(path, "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from None

    def state_folder(self) -> Path:
        return self.run.path / "mirror"


class _Artifact(io.RawIOBase):
    """A file of a job's run folder, read through the coordinator. It may grow meanwhile, and is then longer."""

    def __init__(self, source: JobSource, path: str) -> None:
        self._source = source
        self._path = path
        self._at = 0
        self._piece = (0, source.read(path, 0, 1))  # UnknownJobError: it is not there

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            raise io.UnsupportedOperation("its end moves")
        self._at = offset if whence == os.SEEK_SET else self._at + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        begin, data = self._piece
        if not begin <= self._at < begin + len(data):
            self._piece = begin, data = self._at, self._source.read(self._path, self._at)
        part = data[self._at - begin:self._at - begin + len(buffer)]
        buffer[:len(part)] = part
        self._at += len(part)
        return len(part)


class JobSource(Source):
    """A job of a coordinator. patience: seconds for which a coordinator that was there and is lost is asked again, unless
    `stop` is set meanwhile."""

    def __init__(self, job: Job, patience: float, stop: threading.Event) -> None:
        self._client = job.client
        self._patience = patience
        self._stop = stop
        self._known = False  # it answered once: a wrong address is said at once
        described: JobDescription = self._ask(job.describe)
        self._job = job
        self._last = described
        self.job_id = job.id
        self.name = job.id
        self.key = f"job:{job.id}"
        self.label = f"{_METRICS} of {job.id}"

    def _ask(self, call: Any) -> Any:
        deadline = time.monotonic() + self._patience
        pause = 0.1
        while True:
            try:
                answer = call()
                self._known = True
                return answer
            except (ServerDownError, DeadlineError, BusyError) as error:
                if not self._known or time.monotonic() + pause > deadline or self._stop.wait(pause):
                    raise error from None
            pause = min(2 * pause, 5.0)

    def facts(self) -> Facts:
        self._last = described = self._ask(self._job.describe)
        summary = described.summary
        tags = {
            "sluice.job_id": summary.job_id, "sluice.job_name": summary.name, "sluice.kind": summary.kind,
            "sluice.state": summary.state.value, "sluice.message": summary.message,
            "sluice.exit_code": "" if summary.exit_code is None else str(summary.exit_code),
            "sluice.server": self._client.server, "sluice.server_version": described.server_version,
            "sluice.run_folder": described.run_folder, "sluice.forked_from": described.forked_from,
            "sluice.spec_digest": described.spec_digest,
            **{f"sluice.digest.{name}": digest for name, digest in sorted(described.digests.items())}}
        ended = summary.ended.timestamp() if summary.ended is not None else None
        return Facts({key: _text_of(value) for key, value in described.spec.items()},
                     {key: value for key, value in tags.items() if value}, summary.state.value, summary.state.terminal,
                     ended if summary.state.terminal else None)

    def started(self) -> float:
        summary = self._last.summary
        began = summary.started or summary.submitted
        return round(began.timestamp(), 3) if began is not None else round(time.time(), 3)

    def read(self, path: str, offset: int, most: int = _PIECE_BYTES) -> bytes:
        """At most so many bytes of a file from there on; none at or behind its end."""
        from sluice.v1 import job_pb2
        request = job_pb2.ReadArtifactRequest(job_id=self.job_id, path=path, offset=offset, max_bytes=most)
        try:
            piece = self._ask(lambda: self._client._call("ReadArtifact", request))
        except UnknownJobError:
            raise
        except InvalidRequestError:
            return b""  # a resumed job has cut it back to a checkpoint
        if hashlib.sha256(piece.data).hexdigest() != piece.chunk_sha256:
            raise RunFolderError(f"{path} of {self.job_id}: bytes were damaged on their way; mirror again")
        return bytes(piece.data)

    def open_metrics(self) -> IO[bytes] | None:
        try:
            return io.BufferedReader(_Artifact(self, _METRICS), _PIECE_BYTES)
        except UnknownJobError:  # the file, or the job's folder: the job itself was described a moment ago
            return None

    def state_folder(self) -> Path:
        """$XDG_STATE_HOME/sluice/mirror, or ~/.local/state/sluice/mirror."""
        base = os.environ.get("XDG_STATE_HOME") or ""
        if not base and (home := os.environ.get("HOME")):
            base = os.path.join(home, ".local", "state")
        if not base:
            raise InvalidRequestError("there is no home folder to remember in what was sent; name a file with --cursor")
        return Path(base, "sluice", "mirror")


def _text_of(value: Any) -> str:
    """As it is written in a spec."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def source_of(run: Any, patience: float, stop: threading.Event) -> Source:
    """Of a Job, a RunFolder, or the path of a run folder."""
    if isinstance(run, (str, os.PathLike)):
        return FolderSource(RunFolder(run))
    if isinstance(run, RunFolder):
        return FolderSource(run)
    if hasattr(run, "describe") and hasattr(run, "client"):  # without loading grpc for a folder
        return JobSource(run, patience, stop)
    raise InvalidRequestError(f"run: want a job, a run folder, or its path, got a {type(run).__name__}")


