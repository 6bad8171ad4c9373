"""Sluice's Python client: submit jobs, follow them, read their results, serve a ranker.

    import sluice

    client = sluice.connect()                      # as sluicectl: $SLUICE_SERVER, the current context, 127.0.0.1:7070
    job = client.submit({"kind": "sft", "data": "data/ml-100k", "sft": {"passes": 2}})
    for point in job.watch_metrics():
        print(point.step, point.values.get("loss/nll"))
    outcome = job.wait()                           # raises JobFailedError and its like

Names are loaded when they are first used: `sluice.encoder` needs no grpc, the client needs no torch.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sluice._version import __version__

if TYPE_CHECKING:
    from sluice.client import Client as Client, Job as Job, Validation as Validation, connect as connect
    from sluice.contexts import Context as Context, Contexts as Contexts, read_contexts as read_contexts
    from sluice.errors import (BadSpecError as BadSpecError, BusyError as BusyError,
                               ContextError as ContextError, CredentialsError as CredentialsError,
                               DataError as DataError, DataStateError as DataStateError, DeadlineError as DeadlineError,
                               InvalidRequestError as InvalidRequestError, JobCancelledError as JobCancelledError,
                               JobFailedError as JobFailedError, JobHeldError as JobHeldError,
                               JobOutcomeError as JobOutcomeError, JobPreemptedError as JobPreemptedError,
                               JobStateError as JobStateError, NewerServerError as NewerServerError,
                               OlderServerError as OlderServerError, PermissionDeniedError as PermissionDeniedError,
                               RunFolderError as RunFolderError,
                               ServerDownError as ServerDownError, ServerError as ServerError,
                               SluiceError as SluiceError, SpecMistake as SpecMistake,
                               TlsError as TlsError, TrackerError as TrackerError,
                               UnauthenticatedError as UnauthenticatedError, UnknownDataError as UnknownDataError,
                               UnknownJobError as UnknownJobError,
                               VersionError as VersionError, WrongServerError as WrongServerError)
    from sluice.events import (Artifact as Artifact, Cause as Cause, Event as Event, GapEvent as GapEvent,
                               JobDescription as JobDescription, JobState as JobState, JobSummary as JobSummary,
                               LedgerBalance as LedgerBalance, LogEvent as LogEvent, Member as Member,
                               MetricsEvent as MetricsEvent, Outcome as Outcome, Plan as Plan,
                               PlanCheck as PlanCheck, StateEvent as StateEvent, UnknownEvent as UnknownEvent)
    from sluice.metrics import Metrics as Metrics
    from sluice.push import PushedData as PushedData, PushedFolder as PushedFolder
    from sluice.ranker import RankerServer as RankerServer, TensorSpec as TensorSpec, serve_ranker as serve_ranker
    from sluice.run_folder import RunFolder as RunFolder
    from sluice.specs import to_yaml as to_yaml, write_events as write_events

_HOME = {
    "client": ("Client", "Job", "Validation", "connect"),
    "contexts": ("Context", "Contexts", "read_contexts"),
    "errors": ("BadSpecError", "BusyError", "ContextError", "CredentialsError", "DataError", "DataStateError", "DeadlineError",
               "InvalidRequestError", "JobCancelledError", "JobFailedError", "JobHeldError", "JobOutcomeError",
               "JobPreemptedError", "JobStateError", "NewerServerError", "NoSpaceError", "OlderServerError",
               "PermissionDeniedError", "RunFolderError", "ServerDownError", "ServerError", "SluiceError", "SpecMistake",
               "TlsError", "TrackerError", "UnauthenticatedError", "UnknownDataError", "UnknownJobError", "VersionError",
               "WrongServerError"),
    "events": ("Artifact", "Cause", "Event", "GapEvent", "JobDescription", "JobState", "JobSummary", "LedgerBalance",
               "LogEvent", "Member", "MetricsEvent", "Outcome", "Plan", "PlanCheck", "StateEvent", "UnknownEvent"),
    "metrics": ("Metrics",),
    "push": ("PushedData", "PushedFolder"),
    "ranker": ("RankerServer", "TensorSpec", "serve_ranker"),
    "run_folder": ("RunFolder",),
    "specs": ("to_yaml", "write_events"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sluice' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"sluice.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
