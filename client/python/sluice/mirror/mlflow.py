"""An MLflow tracking server over its REST API (https://mlflow.org/docs/latest/rest-api.html), by the standard library.

MLflow appends what it gets, so a request whose answer was lost must not simply be sent again: what is in doubt is first
looked up in the histories of its metrics.
"""
from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import os
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

from sluice._version import __version__
from sluice.errors import InvalidRequestError, ServerDownError, TrackerError
from sluice.mirror.cursor import Cursor
from sluice.mirror.target import Row, Target

_MAX_METRICS = 1000  # of one log-batch request, by its documentation
_MAX_HISTORY = 25_000  # points of one page, by its documentation
_MAX_ANSWER_BYTES = 64 << 20
_REQUEST_S = 10.0
_TAG = "sluice.mirror"


class _Refused(Exception):
    """The server's answer to a request that it did not do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Lost(Exception):
    """No answer: it may have been done."""


def metric_name(name: str) -> str:
    """As MLflow takes it: letters, digits, and _ - . / space. hr@10 becomes hr_at_10."""
    return re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def _opener(host: str) -> urllib.request.OpenerDirector:
    """A proxy of the environment is for the world outside."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))


def _authorization() -> dict[str, str]:
    """From the variables that MLflow's own client reads."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {}


class MlflowTarget(Target):
    """One run of an experiment. state: `key`, which is the run's tag, and `experiment_id`, `run_id`."""

    max_points = _MAX_METRICS

    def __init__(self, uri: str, name: str, experiment: str, source: str, patience: float) -> None:
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidRequestError(f"to: want mlflow:http://HOST:PORT, got 'mlflow:{uri}'")
        if parts.username or parts.password:
            raise InvalidRequestError("to: want no user or password in the address; set MLFLOW_TRACKING_USERNAME and "
                                      "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN")
        if not experiment:
            raise InvalidRequestError("experiment: want a name, got none")
        self.uri = uri.rstrip("/")
        self.name = name
        self.experiment = experiment
        self.source = source
        self.patience = patience
        self.identity = f"mlflow:{self.uri}#{experiment}#{name}"
        self._opener = _opener(parts.hostname)
        self._given: dict[str, str] = {}

    # -------------------------------------------------------------------------------------------------- the wire

    def _once(self, call: str, values: dict[str, Any], get: bool) -> dict[str, Any]:
        url = f"{self.uri}/api/2.0/mlflow/{call}"
        headers = {"User-Agent": f"sluice/{__version__}", **_authorization()}
        body = None
        if get:
            url += "?" + urllib.parse.urlencode(values)
        else:
            body = json.dumps(values, allow_nan=False).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, body, headers)
        try:
            try:
                response = self._opener.open(request, timeout=_REQUEST_S)
            except urllib.error.HTTPError as error:  # an answer too
                response = error
            with response:
                raw, status = response.read(_MAX_ANSWER_BYTES + 1), response.status
        except (OSError, http.client.HTTPException) as error:  # refused, timed out, cut off, TLS
            raise _Lost(str(getattr(error, "reason", "") or error) or type(error).__name__) from None
        if status >= 500 or status == 429:
            raise _Lost(f"it answered {status}: {_text_of(raw)}")
        try:
            answer = json.loads(raw)
            if not isinstance(answer, dict):
                raise ValueError
        except ValueError:
            if status in (401, 403):
                raise _Refused("PERMISSION_DENIED", f"it answered {status}") from None
            raise TrackerError(f"what answers at {self.uri} is no MLflow server ({call} gave {status} and no JSON); "
                               "name the address that 'mlflow server' serves at") from None
        if status != 200:
            raise _Refused(str(answer.get("error_code", status)), _text_of(raw))
        return answer

    def _ask(self, call: str, values: dict[str, Any], get: bool = False) -> dict[str, Any]:
        """A request that may be repeated."""
        answer: dict[str, Any] = self._until_answered(lambda: self._once(call, values, get))
        return answer

    def _until_answered(self, request: Any) -> Any:
        deadline = time.monotonic() + self.patience
        pause = 0.1
        while True:
            try:
                return request()
            except _Lost as error:
                if time.monotonic() + pause > deadline:
                    raise ServerDownError(
                        f"the MLflow server at {self.uri} does not answer ({error}), tried for {self.patience:g} s; "
                        "mirror again when it does: what it has is not sent twice") from None
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 5.0)

    def _refusal(self, error: _Refused, cursor: Cursor) -> TrackerError:
        if error.code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "401", "403"):
            return TrackerError(f"the MLflow server at {self.uri} refuses access ({error}); set "
                                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN")
        if error.code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"):
            return TrackerError(f"the MLflow server at {self.uri} has no run {cursor.state.get('run_id')} that can be "
                                f"written ({error}); restore it there, or remove {cursor.path} to mirror the run anew")
        return TrackerError(f"the MLflow server at {self.uri} refused: {error}")

    # -------------------------------------------------------------------------------------------------- the run

    def open(self, cursor: Cursor) -> None:
        """Its experiment and its run, made if they are not there."""
        state = cursor.state
        try:
            if "key" not in state:
                state["key"] = uuid.uuid4().hex
                cursor.save()  # a run that is made from here on is found again by its tag
            if "experiment_id" not in state:
                state["experiment_id"] = self._experiment_id()
            if "run_id" not in state:
                state["run_id"] = self._run_id(state, cursor)
                cursor.save()
        except _Refused as error:
            raise self._refusal(error, cursor) from None
        self.place = f"{self.uri}/#/experiments/{state['experiment_id']}/runs/{state['run_id']}"

    def _experiment_id(self) -> str:
        for last in (False, True):
            try:
                found = self._ask("experiments/get-by-name", {"experiment_name": self.experiment}, get=True)
                return str(found["experiment"]["experiment_id"])
            except _Refused as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST" or last:
                    raise
            try:
                return str(self._ask("experiments/create", {"name": self.experiment})["experiment_id"])
            except _Refused as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":  # somebody was faster
                    raise
        raise AssertionError

    def _run_id(self, state: dict[str, Any], cursor: Cursor) -> str:
        def find_or_make() -> str:
            found = self._once("runs/search", {"experiment_ids": [state["experiment_id"]], "max_results": 1,
                                               "filter": f"tags.`{_TAG}` = '{state['key']}'"}, False)
            if found.get("runs"):
                return str(found["runs"][0]["info"]["run_id"])
            tags = {_TAG: state["key"], "sluice.run_folder": self.source[:5000], "mlflow.runName": self.name}
            made = self._once("runs/create", {
                "experiment_id": state["experiment_id"], "run_name": self.name,
                "start_time": round(1000 * cursor.started),
                "tags": [{"key": key, "value": value} for key, value in tags.items()]}, False)
            return str(made["run"]["info"]["run_id"])

        return str(self._until_answered(find_or_make))

    def _has(self, run_id: str, name: str) -> set[int]:
        """The steps of a metric that the server has."""
        steps: set[int] = set()
        token = ""
        while True:
            values = {"run_id": run_id, "metric_key": name, "max_results": _MAX_HISTORY}
            if token:
                values["page_token"] = token
            page = self._ask("metrics/get-history", values, get=True)
            steps.update(int(metric.get("step", 0)) for metric in page.get("metrics", []))
            token = page.get("next_page_token", "")
            if not token:
                return steps

    def _given_name(self, name: str) -> str:
        given = metric_name(name)
        other = self._given.setdefault(given, name)
        if other != name:
            raise TrackerError(f"the metrics '{other}' and '{name}' would both be '{given}' for MLflow; mirror to "
                               "TensorBoard or W&B instead")
        return given

    def send(self, rows: list[Row], in_doubt: bool, cursor: Cursor) -> None:
        """In requests of at most 1000 points."""
        points = [{"key": self._given_name(name), "value": value, "timestamp": round(1000 * row.time), "step": row.step}
                  for row in rows for name, value in row.values.items()]
        try:
            for first in range(0, len(points), _MAX_METRICS):
                self._log(cursor.state["run_id"], points[first:first + _MAX_METRICS], in_doubt)
        except _Refused as error:
            raise self._refusal(error, cursor) from None

    def _log(self, run_id: str, points: list[dict[str, Any]], in_doubt: bool) -> None:
        doubt = in_doubt

        def request() -> None:
            nonlocal doubt
            left = points
            if doubt:
                has = {name: self._has(run_id, name) for name in {point["key"] for point in points}}
                left = [point for point in points if point["step"] not in has[point["key"]]]
            if left:
                doubt = True
                self._once("runs/log-batch", {"run_id": run_id, "metrics": left}, False)

        self._until_answered(request)

    def finish(self, cursor: Cursor, ended: bool) -> None:
        """Tells of the job's end, and of steps that were measured again."""
        run_id = cursor.state["run_id"]
        try:
            if cursor.kept_first:
                self._ask("runs/set-tag", {"run_id": run_id, "key": "sluice.resumed", "value":
                                           "the job resumed; steps that it measured again have their first values here"})
            if ended:
                self._ask("runs/update", {"run_id": run_id, "status": "FINISHED",
                                          "end_time": round(1000 * os.stat(cursor.run.path / "results.json").st_mtime)})
        except _Refused as error:
            raise self._refusal(error, cursor) from None


def _text_of(raw: bytes) -> str:
    """What an error says, short, on one line."""
    try:
        value = json.loads(raw)
        text = str(value.get("message") or value.get("error_code") or "") if isinstance(value, dict) else ""
    except ValueError:
        text = raw[:200].decode("utf-8", "replace")
    return " ".join(text.split())[:200] or "no reason"
