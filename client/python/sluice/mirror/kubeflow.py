"""The status of a TrainJob: how far it is, when it ends, and its latest metrics, by HTTPS to Kubeflow Trainer (2.2 or newer with
its feature gate TrainJobStatus; alpha). Trainer tells the containers of a TrainJob where by three variables.

Trainer keeps the latest status alone: what is in doubt is sent again, and whoever begins late has missed nothing.
"""
from __future__ import annotations

import datetime
import http.client
import json
import math
import os
import random
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from sluice._version import __version__
from sluice.errors import InvalidRequestError, ServerDownError, TrackerError
from sluice.mirror.cursor import Cursor
from sluice.mirror.target import Row, Target

# Set by Trainer: the address, the CA of its certificate, and the file of a token that is written anew before it expires.
_VARIABLES = ("KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_CA_CERT", "KUBEFLOW_TRAINER_SERVER_TOKEN")
# Of a status, by its definition; the server takes 64 KiB.
_MAX_METRICS = 256
_MAX_CHARS = 64
_MAX_SECONDS = 2**31 - 1
_MAX_ANSWER_BYTES = 1 << 16
_REQUEST_S = 5.0
_RECENT = 20  # rows that the pace is reckoned from


class _Lost(Exception):
    """No answer, or one that says to come again."""


class KubeflowTarget(Target):
    """state: `values` of each metric, the latest; `recent`, the last rows' steps and times; `done`, the end was told."""

    max_points = 1_000_000  # one status a look, however much is new
    replaces = True

    def __init__(self, patience: float) -> None:
        found = {name: os.environ.get(name, "") for name in _VARIABLES}
        if missing := [name for name in _VARIABLES if not found[name]]:
            raise InvalidRequestError(f"to: kubeflow goes by {', '.join(_VARIABLES)}, which Trainer sets in the containers of a TrainJob "
                                      f"where its feature gate TrainJobStatus is on; {missing[0]} is not set")
        self.url, self._ca, self._token = (found[name] for name in _VARIABLES)
        if urllib.parse.urlsplit(self.url).scheme != "https":
            raise InvalidRequestError(f"{_VARIABLES[0]}: want https://..., got '{self.url}'")
        self.patience = patience
        self.place = self.url
        self.identity = f"kubeflow:{self.url}"

    def open(self, cursor: Cursor) -> None:
        """Nothing is made there: the TrainJob is."""
        cursor.state.setdefault("values", {})
        cursor.state.setdefault("recent", [])

    def restart(self, cursor: Cursor) -> None:
        cursor.state.update(values={}, recent=[])

    def send(self, rows: list[Row], in_doubt: bool, cursor: Cursor) -> None:
        state = cursor.state
        for row in rows:
            state["values"].update(row.values)
        state["recent"] = (state["recent"] + [[row.step, row.time] for row in rows])[-_RECENT:]
        self._post(self._status(state))

    def finish(self, cursor: Cursor) -> None:
        """A job that is done is done wholly, also one whose steps are not known beforehand."""
        if self.facts.state == "succeeded" and not cursor.state.get("done"):
            status = self._status(cursor.state)
            status.update(progressPercentage=100, estimatedRemainingSeconds=0)
            self._post(status)
            cursor.state["done"] = True
            cursor.save()

    def _status(self, state: dict[str, Any]) -> dict[str, Any]:
        """Absent: what is not known."""
        names = sorted(name for name in state["values"] if len(name) <= _MAX_CHARS)[:_MAX_METRICS]
        status: dict[str, Any] = {"metrics": [{"name": name, "value": f"{state['values'][name]:.6g}"} for name in names]}
        if not state["recent"]:
            return status
        (first, began), (step, now) = state["recent"][0], state["recent"][-1]
        status["lastUpdatedTime"] = datetime.datetime.fromtimestamp(int(now), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        total = self.facts.params.get("rl.steps", "")
        if total.isdigit() and int(total) > 0:
            left = max(int(total) - step, 0)
            # 100 says that it is over, results and all.
            status["progressPercentage"] = min(99, 100 * step // int(total))
            if step > first and now > began:
                status["estimatedRemainingSeconds"] = min(math.ceil(left * (now - began) / (step - first)), _MAX_SECONDS)
        return status

    # ---------------------------------------------------------------------------------------------------- the wire

    def _post(self, status: dict[str, Any]) -> None:
        body = json.dumps({"trainerStatus": status}, allow_nan=False).encode()
        deadline = time.monotonic() + self.patience
        pause = 0.1
        while True:
            try:
                return self._once(body)
            except _Lost as error:
                if time.monotonic() + pause > deadline:
                    raise ServerDownError(f"Kubeflow Trainer at {self.url} does not answer ({error}), tried for {self.patience:g} s; "
                                          "mirror again when it does") from None
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 5.0)

    def _once(self, body: bytes) -> None:
        """The token is read each time: its file is written anew before it expires."""
        try:
            with open(self._token, encoding="ascii") as file:
                token = file.read().strip()
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ValueError) as error:
            raise InvalidRequestError(f"{_VARIABLES[1]} and {_VARIABLES[2]}: want files that can be read, {self._ca} and "
                                      f"{self._token}: {error}") from None
        request = urllib.request.Request(self.url, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json",
                                                          "User-Agent": f"sluice/{__version__}"})
        # Trainer is in the cluster: a proxy of the environment is for the world outside.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            try:
                response = opener.open(request, timeout=_REQUEST_S)
            except urllib.error.HTTPError as error:  # an answer too
                response = error
            with response:
                raw, code = response.read(_MAX_ANSWER_BYTES), response.status
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", "") or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise TrackerError(f"the certificate of Kubeflow Trainer at {self.url} is not of {self._ca}: "
                                   f"{reason.verify_message}") from None
            raise _Lost(str(reason) or type(error).__name__) from None
        if code >= 500 or code == 429:
            raise _Lost(f"it answered {code}: {_message(raw)}")
        if code == 403:
            raise TrackerError(f"Kubeflow Trainer at {self.url} does not take the token in {self._token} ({_message(raw)}); a status "
                               "is told from a pod of its own TrainJob")
        if code != 200:
            raise TrackerError(f"Kubeflow Trainer at {self.url} refused with {code}: {_message(raw)}")


def _message(raw: bytes) -> str:
    """Of a Kubernetes Status, or the answer's beginning."""
    try:
        return str(json.loads(raw)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return raw[:300].decode(errors="replace")
