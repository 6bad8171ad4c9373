"""Client of the coordinator's job API."""
from __future__ import annotations

import builtins
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import grpc

from sluice import errors, specs
from sluice.credentials import Credentials
from sluice.download import download_file
from sluice.events import (Artifact, Event, GapEvent, JobDescription, JobSummary, LogEvent, MetricsEvent, Outcome, Plan,
                           StateEvent, artifact_of, description_of, event_of, plan_of, summary_of)
from sluice.metrics import Metrics
from sluice.push import PushedData, PushedFolder, manifest_of, pushed_folder_of, send_files
from sluice.run_folder import RunFolder
from sluice.v1 import data_pb2, job_pb2

logger = logging.getLogger("sluice")

# As the servers' own bounds (common/rpc/channel.h, common/spec).
_MAX_MESSAGE_BYTES = 16 << 20
_MAX_SPEC_BYTES = 1 << 20
_MAX_LISTED = 1000
# A stream lasts at most so long and is then taken up again, so that none hangs for ever on a dead path.
_STREAM_LIMIT_S = 1800.0
# For calls whose server reads files or computes.
_SLOW_CALL_S = 300.0
# Calls that servers before them do not have.
_NEWER = {"Pause": "pause jobs", "Kill": "kill jobs", "Delete": "delete jobs", "Fork": "fork jobs", "Plan": "plan jobs",
          "ListArtifacts": "list files", "ReadArtifact": "send files"}
# Calls of the data service, and what a coordinator before them cannot do. FAILED_PRECONDITION and NOT_FOUND are of data there.
_DATA = {"Begin": "BeginPush", "Put": "Put", "Commit": "CommitPush", "List": "ListData", "Remove": "RemoveData"}
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0),
    # The middle one also limits one attempt to connect: a distant or busy coordinator needs its time. One that is not
    # there refuses at once.
    ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A proxy of the environment is for the world outside.
    ("grpc.enable_http_proxy", 0),
]

SpecSource = Union[Mapping[str, Any], str, "os.PathLike[str]"]
JobRef = Union[str, "Job"]


@dataclass(frozen=True)
class Validation:
    """What the coordinator makes of a spec without submitting it. `mistakes` empty: it is good, and the rest is set."""

    mistakes: list[errors.SpecMistake]
    effective_yaml: str = ""
    spec_digest: str = ""
    text: str = ""  # the YAML that was judged: places refer to it
    given: Any = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return not self.mistakes


def _check_address(server: str) -> str:
    host, _, port = server.rpartition(":") if isinstance(server, str) else ("", "", "")
    if not host or "/" in host or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        raise errors.InvalidRequestError(f"server: want HOST:PORT with a port from 1 to 65535, got '{server}'")
    return server


def _is_seconds(value: Any, least: float) -> bool:
    """A number from `least` on; NaN is none."""
    return isinstance(value, (int, float)) and value >= least


def _told_to_wait(error: grpc.RpcError) -> float | None:
    """Seconds after which the server wants to be asked again; None: it says nothing of that."""
    if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    told = dict(error.trailing_metadata() or ()).get("retry_after_ms", "")
    return int(told) / 1000 if isinstance(told, str) and told.isascii() and told.isdigit() else None


def _read_spec(source: SpecSource) -> tuple[str, str]:
    """(YAML text, its name in messages)."""
    if isinstance(source, Mapping):
        return specs.to_yaml(source), "spec"
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return source, "spec"
    if not isinstance(source, (str, os.PathLike)):
        raise errors.InvalidRequestError("spec: want a dict, the path of a YAML file, or YAML text, got a "
                                         f"{type(source).__name__}")
    path = Path(source)
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_SPEC_BYTES + 1)
        text = raw.decode("utf-8")
    except ValueError as error:
        if not isinstance(error, UnicodeDecodeError):  # a zero byte in the path
            raise errors.InvalidRequestError(f"spec: {source!r} is no path of a file: {error}") from None
        raise errors.InvalidRequestError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise errors.InvalidRequestError(f"{path}: cannot be read: {error.strerror}") from None
    return text, str(path)


class Client:
    """A connection to a coordinator. Thread-safe; a context manager. Nothing is sent before the first call.

    server: HOST:PORT; by default $SLUICE_SERVER, then the context's, else 127.0.0.1:7070.
    context: a name of `sluicectl context list`; by default $SLUICE_CONTEXT, then the current one, which is not asked where
      `server` or $SLUICE_SERVER names another coordinator.
    timeout: seconds for one call, retries included (not for `watch` and `wait`). Every call is idempotent, and tried
      again when what went wrong may pass by itself; nobody at the address is said at once.
    watch_patience: seconds for which `watch` and `wait` try to find a coordinator again that they have lost.
    tls_ca, tls_cert, tls_key: PEM files for a coordinator that speaks TLS; by default those of $SLUICE_TLS_CA,
      $SLUICE_TLS_CERT and $SLUICE_TLS_KEY, then the context's. Read once: after a renewal make another client.
    token_file: a file that holds a token of `sluicectl token create`; by default $SLUICE_TOKEN_FILE, then the context's.
      Read at every call.
    """

    def __init__(self, server: str | None = None, *, context: str | None = None, timeout: float = 5.0,
                 watch_patience: float = 600.0,
                 tls_ca: str | os.PathLike[str] | None = None, tls_cert: str | os.PathLike[str] | None = None,
                 tls_key: str | os.PathLike[str] | None = None,
                 token_file: str | os.PathLike[str] | None = None) -> None:
        found, self._credentials = Credentials.find(server, context, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key,
                                                    token_file=token_file)
        self.server = _check_address(found or "127.0.0.1:7070")
        if not (_is_seconds(timeout, 0) and timeout > 0 and _is_seconds(watch_patience, 0)):
            raise errors.InvalidRequestError(f"want a timeout above 0 and a watch_patience from 0, got {timeout} and "
                                             f"{watch_patience}")
        self.timeout = timeout
        self.watch_patience = watch_patience
        self._channel = self._credentials.channel(self.server, _CHANNEL_OPTIONS)
        self._calls = {
            name: self._channel.unary_unary(f"/sluice.v1.JobService/{name}",
                                            request_serializer=getattr(job_pb2, f"{name}Request").SerializeToString,
                                            response_deserializer=getattr(job_pb2, f"{name}Response").FromString)
            for name in ("Validate", "Submit", "List", "Describe", "Cancel", "Resume", "Pause", "Kill", "Delete", "Fork",
                         "Plan", "ListArtifacts", "ReadArtifact")
        }
        self._calls |= {
            f"DataService/{name}": self._channel.unary_unary(
                f"/sluice.v1.DataService/{name}",
                request_serializer=getattr(data_pb2, f"{message}Request").SerializeToString,
                response_deserializer=getattr(data_pb2, f"{message}Response").FromString)
            for name, message in _DATA.items()
        }
        self._watch_stream = self._channel.unary_stream("/sluice.v1.JobService/Watch",
                                                        request_serializer=job_pb2.WatchRequest.SerializeToString,
                                                        response_deserializer=job_pb2.JobEvent.FromString)

    def close(self) -> None:
        """Ends the connection; calls in flight fail. Jobs go on."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"sluice.Client('{self.server}')"

    # ------------------------------------------------------------------------------------------------------- jobs

    def validate(self, spec: SpecSource, *, overrides: Mapping[str, Any] | None = None) -> Validation:
        """Lets the coordinator judge a spec. A bad spec is an answer here, not an exception: see `mistakes`.

        spec: a dict of dicts; a path of a YAML file; or YAML text (whatever holds a line's end or ": ").
        overrides: {"rl.steps": 50} wins over the spec.
        """
        text, name = _read_spec(spec)
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise errors.InvalidRequestError(f"{name}: holds a character that no text can: "
                                             f"{text[error.start]!r}") from None
        if size > _MAX_SPEC_BYTES:
            raise errors.BadSpecError([errors.SpecMistake.parse(
                f"{name}: a job spec has at most {_MAX_SPEC_BYTES} bytes, this one has more")])
        changes = specs.overrides_of(overrides or {})
        request = job_pb2.ValidateRequest(spec_yaml=text, file_name=name[:4096], overrides=changes)
        try:
            answer = self._call("Validate", request)
        except errors.WrongServerError:
            self._call("List", job_pb2.ListRequest(limit=1))  # raises again if this is no coordinator at all
            raise errors.OlderServerError(
                f"the coordinator at {self.server} is older than this package: it cannot validate specs; bring it to "
                "the package's release, or submit with the sluicectl of its own") from None
        if changes:
            text = text if text.endswith("\n") else text + "\n"
            text += "".join(f"# --set {change}\n" for change in changes)
        return Validation([errors.SpecMistake.parse(line) for line in answer.errors], answer.effective_yaml,
                          answer.spec_digest, text, answer.given)

    def submit(self, spec: SpecSource, *, overrides: Mapping[str, Any] | None = None,
               request_id: str | None = None) -> Job:
        """Submits a job; arguments as of `validate`.

        request_id: submitting again with the same id is the same job (`Job.existed`), whatever the spec says then; by
        default a new one, so that only the retries of this call are the same job.
        BadSpecError: the spec has mistakes.
        """
        judged = self.validate(spec, overrides=overrides)
        if not judged.ok:
            raise errors.BadSpecError(judged.mistakes)
        request = job_pb2.SubmitRequest(request_id=request_id or uuid.uuid4().hex, spec=judged.given,
                                        spec_yaml=judged.text)
        answer = self._call("Submit", request)
        return Job(self, answer.job_id, answer.existed)

    def plan(self, spec: SpecSource, *, overrides: Mapping[str, Any] | None = None) -> Plan:
        """Everything that submitting this spec would meet on the coordinator, and what the job would do, need and take;
        arguments as of `validate`. Creates nothing.

        BadSpecError: the spec has mistakes.
        """
        judged = self.validate(spec, overrides=overrides)
        if not judged.ok:
            raise errors.BadSpecError(judged.mistakes)
        return plan_of(self._call("Plan", job_pb2.PlanRequest(spec=judged.given), timeout=_SLOW_CALL_S))

    def list(self, limit: int = 100) -> list[JobSummary]:
        """Jobs, newest first; at most `limit`, 1 to 1000."""
        if not 1 <= limit <= _MAX_LISTED:
            raise errors.InvalidRequestError(f"limit: want 1 to {_MAX_LISTED}, got {limit}")
        return [summary_of(job) for job in self._call("List", job_pb2.ListRequest(limit=limit)).jobs]

    def job(self, job: JobRef) -> Job:
        """A job by its id, or by a beginning of it, or of what follows its last dash, that no other job has.

        UnknownJobError: there is none, or there are several.
        """
        if isinstance(job, Job):
            return job
        listed = [summary.job_id for summary in self.list(_MAX_LISTED)]
        if job in listed:
            return Job(self, job)
        found = [i for i in listed if job and (i.startswith(job) or ("-" in i and i.rsplit("-", 1)[1].startswith(job)))]
        if len(found) == 1:
            return Job(self, found[0])
        if found:
            raise errors.UnknownJobError(f"'{job}' may be {', '.join(found)}; give more of the id")
        if len(listed) < _MAX_LISTED:
            raise errors.UnknownJobError(f"there is no job '{job}'; Client.list() and 'sluicectl list' show them")
        self._describe(job)  # beyond what is listed only a full id can be known
        return Job(self, job)

    def describe(self, job: JobRef) -> JobDescription:
        """All about one job."""
        return self.job(job).describe()

    def cancel(self, job: JobRef) -> None:
        """See Job.cancel."""
        self.job(job).cancel()

    def wait(self, job: JobRef, timeout: float | None = None, *, check: bool = True) -> Outcome:
        """See Job.wait."""
        return self.job(job).wait(timeout, check=check)

    def watch(self, job: JobRef, after: int = 0) -> Iterator[Event]:
        """See Job.watch."""
        return self.job(job).watch(after)

    # ------------------------------------------------------------------------------------------------------- data

    def push_data(self, path: str | os.PathLike[str], *, name: str = "",
                  on_progress: Callable[[int, int], None] | None = None) -> PushedData:
        """Sends a prepared data set, a folder, or a file of events to the coordinator's machine, piece by piece; a spec
        says `data: PushedData.address`. The same files again are there at once, and what an earlier call left goes on
        where it stopped. Safe to call again.

        name: for people; by default the path's last part. on_progress: told (bytes there, of all) after each piece.
        InvalidRequestError: there is nothing at the path that can be pushed. NoSpaceError: the coordinator's quota has no
        room. DataStateError: it takes no data. DataError: a file changed while it was pushed.
        """
        folder, request = manifest_of(path)
        request.name = name or Path(os.path.abspath(path)).name
        return send_files(folder, request, self._data_call, on_progress or (lambda *unused: None))

    def pushed_data(self) -> builtins.list[PushedFolder]:
        """What was pushed, newest first."""
        return [pushed_folder_of(folder) for folder in self._data_call("List", data_pb2.ListDataRequest()).folders]

    def remove_data(self, digest: str) -> int:
        """Removes what was pushed; returns the bytes that are free again. digest: or a beginning of at least 8 digits.

        UnknownDataError: nothing has it. DataStateError: a job that has not ended reads it.
        """
        request = data_pb2.RemoveDataRequest(digest=digest.removeprefix("digest:"))
        return int(self._data_call("Remove", request).freed_bytes)

    # ------------------------------------------------------------------------------------------------ the wire

    def _data_call(self, name: str, request: Any) -> Any:
        try:
            return self._call(f"DataService/{name}", request, _SLOW_CALL_S if name == "Commit" else None)
        except errors.JobStateError as error:
            raise errors.DataStateError(str(error)) from None
        except errors.UnknownJobError as error:
            raise errors.UnknownDataError(str(error)) from None
        except errors.BusyError as error:
            if error.retry_after is not None:
                raise
            raise errors.NoSpaceError(str(error)) from None
        except errors.ServerError as error:
            if error.code != "DATA_LOSS":
                raise
            raise errors.DataError(str(error)) from None

    def _describe(self, job_id: str) -> JobDescription:
        return description_of(self._call("Describe", job_pb2.DescribeRequest(job_id=job_id)))

    def _watch(self, request: Any, timeout: float) -> Any:
        return self._watch_stream(request, timeout=timeout, metadata=self._credentials.metadata())

    def _no_answer(self, text: str) -> errors.SluiceError:
        trouble = self._credentials.trouble(self.server, text)
        if trouble is not None:
            return trouble
        if "resol" in text:  # DNS, or the system's own names
            return errors.ServerDownError(
                f"the host of {self.server} is not known here; mend the address in Client(server=...), SLUICE_SERVER or the context")
        if "failed to connect" in text and ("reset by peer" in text or "ocket closed" in text):
            return errors.ServerDownError(
                f"what listens at {self.server} ends every connection at once: it is no coordinator, or expects TLS: mend "
                "the address in Client(server=...) or SLUICE_SERVER, or name its CA with Client(tls_ca=...) or "
                "SLUICE_TLS_CA")
        return errors.ServerDownError(
            f"no coordinator answers at {self.server}; start one with 'sluice-learner coordinator' or './sluice up', "
            "or name another with Client(server=...) or SLUICE_SERVER")

    def _error(self, error: grpc.RpcError) -> errors.SluiceError:
        """The typed error of a failed call."""
        code, text = error.code(), error.details() or ""
        if code == grpc.StatusCode.UNIMPLEMENTED or "Failed parsing HTTP/2" in text or "http1" in text:
            return errors.WrongServerError(f"what answers at {self.server} is no coordinator ({text}); name the "
                                           "coordinator with Client(server=...) or SLUICE_SERVER")
        if code == grpc.StatusCode.UNAVAILABLE:
            return self._no_answer(text)
        if code == grpc.StatusCode.CANCELLED:
            return errors.ServerDownError(f"the call to {self.server} was ended: {text}")
        kinds = {
            grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
            grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
            grpc.StatusCode.NOT_FOUND: errors.UnknownJobError,
            grpc.StatusCode.FAILED_PRECONDITION: errors.JobStateError,
            grpc.StatusCode.RESOURCE_EXHAUSTED: errors.BusyError,
            grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
            grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
        }
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            text = f"the coordinator at {self.server} gave no answer within {self.timeout:g} s"
        if code in kinds:
            typed = kinds[code](text)
            if isinstance(typed, errors.BusyError):
                typed.retry_after = _told_to_wait(error)
            return typed
        return errors.ServerError(f"the coordinator at {self.server} failed: {text}", code.name)

    def _call(self, name: str, request: Any, timeout: float | None = None) -> Any:
        try:
            return self._call_any(name, request, timeout or self.timeout)
        except errors.WrongServerError:
            if name not in _NEWER and not name.startswith("DataService/"):
                raise
        self._call("List", job_pb2.ListRequest(limit=1))  # raises again if this is no coordinator at all
        raise errors.OlderServerError(f"the coordinator at {self.server} is older than this package and cannot "
                                      f"{_NEWER.get(name, 'take data')}; bring it to the package's release")

    def _call_any(self, name: str, request: Any, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        pause = 0.05
        while True:
            try:
                return self._calls[name](request, timeout=max(0.001, deadline - time.monotonic()),
                                         metadata=self._credentials.metadata())
            except grpc.RpcError as error:
                passing = (error.code() == grpc.StatusCode.UNAVAILABLE and "refused" not in (error.details() or "") and
                           not isinstance(self._error(error), (errors.WrongServerError, errors.TlsError)))
                pause = min(2 * pause, 1.0)
                told = _told_to_wait(error)
                if (told is None and not passing) or time.monotonic() + max(pause, told or 0) > deadline:
                    raise self._error(error) from None
            # Who calls too often is told when to come again, and not before.
            time.sleep(pause * random.uniform(0.5, 1) if told is None else told * random.uniform(1, 1.5))


def connect(context: str | None = None, **options: Any) -> Client:
    """A client of the coordinator that `sluicectl` would speak with; options as of Client.

    context: a name of `sluicectl context list`. Without it SLUICE_SERVER, SLUICE_CONTEXT and the current context are asked, in
    this order, and 127.0.0.1:7070 is taken if none says anything.
    """
    return Client(context=context, **options)


class Job:
    """A job of a coordinator. `existed`: the request that made it had been made before."""

    def __init__(self, client: Client, job_id: str, existed: bool = False) -> None:
        self.client = client
        self.id = job_id
        self.existed = existed

    def __repr__(self) -> str:
        return f"sluice.Job('{self.id}')"

    def describe(self) -> JobDescription:
        """State, spec, ledger, latest metrics, results, members."""
        return self.client._describe(self.id)

    def cancel(self) -> None:
        """Asks the job to end at its next step, with a checkpoint; returns at once. Once more changes nothing.

        JobStateError: it has ended in another way.
        """
        self.client._call("Cancel", job_pb2.CancelRequest(job_id=self.id))

    def pause(self) -> None:
        """Asks the job to stop at its next step, with a checkpoint, and to wait until it is resumed; returns at once.

        JobStateError: it has ended, or is being cancelled.
        """
        self.client._call("Pause", job_pb2.PauseRequest(job_id=self.id))

    def kill(self) -> None:
        """Ends the job now, as cancelled, without a checkpoint: what it did since the last one is lost.

        JobStateError: it ended otherwise.
        """
        self.client._call("Kill", job_pb2.KillRequest(job_id=self.id))

    def fork(self, overrides: Mapping[str, Any] | None = None, *, checkpoint: str = "",
             request_id: str | None = None) -> Job:
        """A new job that begins with this one's checkpoint, from step 0, with its spec and some changes: the way when
        data or spec changed.

        overrides: {"rl.steps": 50}. checkpoint: its name, as "step-00000120"; by default the last one. request_id: as of
        Client.submit. InvalidRequestError: the changed spec has mistakes. UnknownJobError: there is no such checkpoint.
        """
        request = job_pb2.ForkRequest(request_id=request_id or uuid.uuid4().hex, job_id=self.id, checkpoint=checkpoint,
                                      overrides=specs.overrides_of(overrides or {}))
        answer = self.client._call("Fork", request, timeout=_SLOW_CALL_S)
        return Job(self.client, answer.job_id, answer.existed)

    def delete(self, *, files: bool = False) -> None:
        """Forgets a job that has ended; files: removes its run folder too.

        JobStateError: it has not ended, or (with files) a job that has not ended reads its run folder.
        """
        self.client._call("Delete", job_pb2.DeleteRequest(job_id=self.id, files=files), timeout=_SLOW_CALL_S)

    def artifacts(self) -> list[Artifact]:
        """The files of the run folder, by path. UnknownJobError: it has none yet."""
        listed = self.client._call("ListArtifacts", job_pb2.ListArtifactsRequest(job_id=self.id))
        return [artifact_of(artifact) for artifact in listed.artifacts]

    def download(self, folder: str | os.PathLike[str], prefix: str = "") -> list[Path]:
        """Fetches the files whose paths begin with `prefix` into `folder`, each checked by its digest; returns where they
        are. A file that a try before fetched in part goes on where it stopped.

        RunFolderError: bytes were damaged on their way, or this machine has no room.
        """
        def read(path: str, offset: int, identity: str) -> Any:
            request = job_pb2.ReadArtifactRequest(job_id=self.id, path=path, offset=offset, identity=identity,
                                                  digest=True)
            return self.client._call("ReadArtifact", request, timeout=_SLOW_CALL_S)

        wanted = [artifact for artifact in self.artifacts() if artifact.path.startswith(prefix)]
        if not wanted:
            raise errors.RunFolderError(f"no file of {self.id} begins with '{prefix}'; Job.artifacts() shows them")
        return [download_file(artifact.path, Path(folder), read) for artifact in wanted]

    def resume(self) -> str:
        """Lets a job that failed, was held, cancelled or paused go on under its id; returns the checkpoint that it goes on from,
        or "" if it starts anew. Nothing happens to a job that has not ended.

        JobStateError: it succeeded, or is being cancelled.
        """
        return str(self.client._call("Resume", job_pb2.ResumeRequest(job_id=self.id)).last_checkpoint)

    def watch(self, after: int = 0, *, until_now: bool = False,
              on_contact: Callable[[errors.SluiceError | None], None] | None = None) -> Iterator[Event]:
        """The job's events after number `after`, then live ones until it ends. Leaving the loop detaches.

        Each event's `sequence` is the token to resume from: watch(after=event.sequence) in another process, another
        day. A coordinator that is restarted meanwhile is found again, and nothing comes twice or is left out; where
        old events are no longer kept, one GapEvent says how many. until_now: ends with the events there are.
        on_contact: told of the error when the coordinator is lost, and None when it is back; by default a line of the
        logger "sluice" each.
        ServerDownError: lost for longer than the client's watch_patience; its message holds the token.
        """
        if after < 0:
            raise errors.InvalidRequestError(f"after: want 0 or the number of an event, got {after}")
        contact = on_contact or self._log_contact
        return self._watch(after, until_now, contact, None)

    def _log_contact(self, lost: errors.SluiceError | None) -> None:
        logger.warning("%s: %s", self.id, "the coordinator is back" if lost is None else
                       "lost the coordinator; trying again (the job goes on)")

    def _watch(self, after: int, until_now: bool, contact: Callable[[errors.SluiceError | None], None],
               deadline: float | None) -> Iterator[Event]:
        sequence, failures, lost = after, 0, False
        last_contact = time.monotonic()
        while True:
            limit = _STREAM_LIMIT_S
            if deadline is not None:
                limit = min(limit, max(0.001, deadline - time.monotonic()))
            request = job_pb2.WatchRequest(job_id=self.id, after_sequence=sequence, until_now=until_now)
            stream = self.client._watch(request, timeout=limit)
            try:
                for message in stream:
                    if lost:
                        contact(None)
                    lost, failures, last_contact = False, 0, time.monotonic()
                    if message.sequence <= sequence:
                        continue  # told before
                    # From the very start what is no longer kept is as unknown as it is in between.
                    if message.sequence > sequence + 1:
                        yield GapEvent(message.sequence - 1, sequence)
                    sequence = message.sequence
                    yield event_of(message)
                return
            except grpc.RpcError as error:
                code, failed = error.code(), error
            finally:
                stream.cancel()
            if deadline is not None and time.monotonic() >= deadline:
                raise errors.DeadlineError(f"{self.id} has not ended in time; it goes on")
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                last_contact = time.monotonic()  # the stream's own limit, not a fault
                continue
            problem = self.client._error(failed)
            if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or \
                    isinstance(problem, errors.WrongServerError) or \
                    (isinstance(problem, errors.TlsError) and sequence == after):
                raise problem from None
            if time.monotonic() - last_contact >= self.client.watch_patience:
                raise errors.ServerDownError(
                    f"no coordinator answers at {self.client.server} since {self.client.watch_patience:g} s; the job "
                    f"may go on; watch again with after={sequence}") from None
            if not lost:
                contact(problem)
            lost = True
            failures += 1
            time.sleep(min(2.0, 0.1 * 2**min(failures, 5)) * random.uniform(0.5, 1))

    def watch_metrics(self, after: int = 0) -> Iterator[MetricsEvent]:
        """As watch, the measurements alone."""
        return (event for event in self.watch(after) if isinstance(event, MetricsEvent))

    def logs(self, *, follow: bool = False) -> Iterator[LogEvent]:
        """The job's log lines; follow: go on until it ends."""
        return (event for event in self.watch(until_now=not follow) if isinstance(event, LogEvent))

    def metrics(self) -> Metrics:
        """Everything measured so far, as far as the coordinator keeps it (RunFolder(...).metrics() has all)."""
        return Metrics({"step": event.step, **event.values} for event in self.watch(until_now=True)
                       if isinstance(event, MetricsEvent))

    def wait(self, timeout: float | None = None, *, check: bool = True) -> Outcome:
        """Waits for the job's end, over restarts of the coordinator.

        timeout: seconds; None: for ever. DeadlineError: not ended in time, it goes on.
        check: raise JobFailedError, JobCancelledError, JobHeldError or JobPreemptedError if it did not end well.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        last: StateEvent | None = None
        for event in self._watch(0, False, self._log_contact, deadline):
            if isinstance(event, StateEvent):
                last = event
        if last is not None and last.state.terminal:
            outcome = Outcome(self.id, last.state, last.exit_code, last.message)
        else:  # its last event is no longer kept
            summary = self.describe().summary
            if summary.exit_code is None:
                raise errors.ServerError(f"the coordinator ended the events of {self.id}, which has not ended",
                                         "INTERNAL")
            outcome = Outcome(self.id, summary.state, summary.exit_code, summary.message)
        return outcome.check() if check else outcome

    def run_folder(self) -> RunFolder:
        """The folder with the results, if it can be read from this machine. RunFolderError: it cannot."""
        return RunFolder(self.describe().run_folder)
