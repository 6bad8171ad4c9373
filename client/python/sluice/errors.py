"""What can go wrong, as types. Every message is a sentence with the cause and the remedy; `exit_code` is the one that
sluicectl would end with (docs/python.md lists them)."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluice.events import Outcome


class SluiceError(Exception):
    """Root of all errors of this package."""

    exit_code: int = 1


class ServerDownError(SluiceError):
    """Nobody answers at the coordinator's address. Trying again later may help; nothing is known to have happened."""

    exit_code = 11


class WrongServerError(SluiceError):
    """Something answers at the address, but no coordinator: another port is meant."""

    exit_code = 4


class CredentialsError(SluiceError):
    """A certificate, key or token cannot be used: the message names the file."""

    exit_code = 2


class ContextError(CredentialsError):
    """The file of named coordinators has mistakes, or no context of the name."""


class TlsError(SluiceError):
    """Client and coordinator do not come to terms over TLS: certificates, their dates, roles or authorities."""

    exit_code = 4


class PermissionDeniedError(SluiceError):
    """The coordinator does not let this caller do that."""

    exit_code = 4


class UnauthenticatedError(PermissionDeniedError):
    """The token is missing, not known, or expired."""


class DeadlineError(SluiceError):
    """The coordinator, or the job waited for, took longer than allowed. The job goes on."""

    exit_code = 11


class BusyError(SluiceError):
    """The coordinator has no room for this call at present; trying again later helps. retry_after: seconds that it asks
    for; None: it says nothing of that."""

    exit_code = 11
    retry_after: float | None = None


class ServerError(SluiceError):
    """The coordinator failed at the call, by a fault of its own or of its storage; `code` is gRPC's name of it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = 3 if code == "DATA_LOSS" else 1


class InvalidRequestError(SluiceError):
    """An argument is not what it must be."""

    exit_code = 2


class UnknownJobError(InvalidRequestError):
    """There is no such job, or the beginning of an id names several."""


class JobStateError(SluiceError):
    """The job's state does not allow this, such as cancelling a job that has ended."""

    exit_code = 4


class VersionError(SluiceError):
    """Client and coordinator are of releases that do not understand each other here."""

    exit_code = 4


class OlderServerError(VersionError):
    """The coordinator is older than this package and lacks the call."""


class NewerServerError(VersionError):
    """The coordinator is newer than this package and says what the package does not know."""


class DataError(SluiceError):
    """Pushed data are not what was to be pushed: a file changed meanwhile, or its bytes were damaged."""

    exit_code = 3


class UnknownDataError(InvalidRequestError):
    """No pushed data have the digest, or several begin with it."""


class DataStateError(SluiceError):
    """The coordinator takes no data, or a job that has not ended reads those that are to go."""

    exit_code = 4


class NoSpaceError(SluiceError):
    """There is no room: a quota, or a disk."""

    exit_code = 14


class RunFolderError(SluiceError):
    """A run folder is missing, unfinished or damaged."""

    exit_code = 3


class TrackerError(SluiceError):
    """A tracker that a run is mirrored to refused, or cannot be written; `exit_code` tells the kind."""

    def __init__(self, message: str, exit_code: int = 4) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_PLACE = re.compile(r"^(?P<source>.*?):(?P<line>\d+):(?P<column>\d+): (?P<rest>.*)$", re.DOTALL)


@dataclass(frozen=True)
class SpecMistake:
    """One mistake of a job spec. `text` is the whole line as the coordinator wrote it."""

    text: str
    source: str = ""
    line: int = 0  # from 1; 0: the mistake has no place, as a missing key in an empty file
    column: int = 0
    message: str = ""

    @classmethod
    def parse(cls, text: str) -> SpecMistake:
        """Reads "job.yaml:3:5: rl.steps: want at least 0, got -1"."""
        match = _PLACE.match(text)
        if match is None:
            return cls(text=text, message=text)
        return cls(text, match["source"], int(match["line"]), int(match["column"]), match["rest"])


class BadSpecError(InvalidRequestError):
    """The job spec has mistakes; all of them, in the order of the text, are in `mistakes`."""

    def __init__(self, mistakes: list[SpecMistake]) -> None:
        super().__init__("\n".join(mistake.text for mistake in mistakes))
        self.mistakes = mistakes


class JobOutcomeError(SluiceError):
    """A job that was waited for did not end well; `outcome` says how."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.job_id} ended {outcome.state.value}: {outcome.message}")
        self.outcome = outcome
        self.exit_code = outcome.exit_code


class JobFailedError(JobOutcomeError):
    """The job failed; outcome.exit_code tells the kind of failure."""


class JobCancelledError(JobOutcomeError):
    """Somebody cancelled the job."""


class JobHeldError(JobOutcomeError):
    """The job waits for a person: it diverged, or spent a budget."""


class JobPreemptedError(JobOutcomeError):
    """The job stopped after a clean checkpoint; running it again resumes it."""
