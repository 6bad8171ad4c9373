"""An MLflow tracking server over its REST API (https://mlflow.org/docs/latest/rest-api.html), by the standard library.

MLflow appends what it gets, so a request whose answer was lost must not simply be sent again: what is in doubt is first
looked up in the histories of its metrics. So is everything up to the run's last step where the run is there and no cursor
is: another machine goes on where this one stopped.
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
from sluice.mirror.source import Source
from sluice.mirror.target import Row, Target

# Of one log-batch request, and of one parameter or tag, by its documentation.
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_MAX_PARAM_CHARS = 6000
_MAX_TAG_CHARS = 5000
_MAX_HISTORY = 25_000  # points of one page, by its documentation
_MAX_ANSWER_BYTES = 64 << 20
_REQUEST_S = 10.0
_TAG = "sluice.mirror"
_JOB_TAG = "sluice.job_id"
# MLflow has five words; the job's own is in the tag sluice.state.
_STATUS = {"queued": "SCHEDULED", "running": "RUNNING", "paused": "RUNNING", "succeeded": "FINISHED", "failed": "FAILED",
           "held": "FAILED", "cancelled": "KILLED"}


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
    """One run of an experiment. It is known by a tag: a job's by the job's id, a folder's by a key that is made for it.

    state: `key` of a folder, `experiment_id`, `run_id`; `params`, whether they are there; `tags` and `status`, the last
    that were sent.
    """

    max_points = _MAX_METRICS

    def __init__(self, uri: str, name: str, experiment: str, source: Source, patience: float) -> None:
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidRequestError(f"to: want http://HOST:PORT of the MLflow server, got '{uri}'")
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
        self.identity = f"mlflow:{self.uri}#{experiment}#{name if not source.job_id else source.key}"
        self._opener = _opener(parts.hostname)
        self._given: dict[str, str] = {}
        self._steps: dict[str, set[int]] = {}  # of metrics that were looked up, by name: those that the server has

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
        if error.code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE") and "run_id" in cursor.state:
            return TrackerError(f"the MLflow server at {self.uri} has no run {cursor.state['run_id']} that can be "
                                f"written ({error}); restore it there, or remove {cursor.path} to mirror the run anew")
        return TrackerError(f"the MLflow server at {self.uri} refused: {error}")

    # -------------------------------------------------------------------------------------------------- the run

    def open(self, cursor: Cursor) -> None:
        """Its experiment and its run, made if they are not there."""
        state = cursor.state
        try:
            if not self.source.job_id and "key" not in state:
                state["key"] = uuid.uuid4().hex
                cursor.save()  # a run that is made from here on is found again by its tag
            if "experiment_id" not in state:
                state["experiment_id"] = self._experiment_id()
            if "run_id" not in state:
                state["run_id"] = self._run_id(state, cursor)
                cursor.save()
            self._tell(cursor)
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
        tag, value = (_JOB_TAG, self.source.job_id) if self.source.job_id else (_TAG, state["key"])

        def find_or_make() -> str:
            found = self._once("runs/search", {"experiment_ids": [state["experiment_id"]], "max_results": 1,
                                               "order_by": ["attributes.start_time ASC"],
                                               "filter": f"tags.`{tag}` = '{value}'"}, False)
            if found.get("runs"):
                run = found["runs"][0]
                there = [int(metric.get("step", 0)) for metric in run.get("data", {}).get("metrics", [])]
                cursor.doubt_up_to(max(there, default=-1))
                state["status"] = run["info"].get("status", "RUNNING")
                return str(run["info"]["run_id"])
            tags = {tag: value, "mlflow.runName": self.name}
            made = self._once("runs/create", {
                "experiment_id": state["experiment_id"], "run_name": self.name,
                "start_time": round(1000 * cursor.started),
                "tags": [{"key": key, "value": text} for key, text in tags.items()]}, False)
            return str(made["run"]["info"]["run_id"])

        return str(self._until_answered(find_or_make))

    def _tell(self, cursor: Cursor) -> None:
        """Parameters, tags and the status, as far as the server does not have them; to repeat that changes nothing."""
        state, facts = cursor.state, self.facts
        run_id = state["run_id"]
        if facts.params and not state.get("params"):
            params = [{"key": key, "value": _cut(value, _MAX_PARAM_CHARS)} for key, value in facts.params.items()]
            for first in range(0, len(params), _MAX_PARAMS):
                self._ask("runs/log-batch", {"run_id": run_id, "params": params[first:first + _MAX_PARAMS]})
            state["params"] = True
        tags = {key: _cut(value, _MAX_TAG_CHARS) for key, value in facts.tags.items()}
        if cursor.kept_first:
            tags["sluice.resumed"] = "the job resumed; steps that it measured again have their first values here"
        told = state.get("tags", {})
        tags = {**dict.fromkeys(told, ""), **tags}  # an exit code goes when the job is resumed
        if changed := {key: value for key, value in tags.items() if told.get(key) != value}:
            self._ask("runs/log-batch", {"run_id": run_id, "tags": [
                {"key": key, "value": value} for key, value in changed.items()]})
            state["tags"] = {**told, **changed}
        status = _STATUS.get(facts.state, "RUNNING")
        if state.get("status", "RUNNING") != status:
            update = {"run_id": run_id, "status": status}
            if facts.ended_at is not None:
                update["end_time"] = round(1000 * facts.ended_at)
            self._ask("runs/update", update)
            state["status"] = status
        cursor.save()

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
                for name in {point["key"] for point in points} - self._steps.keys():
                    self._steps[name] = self._has(run_id, name)
                left = [point for point in points if point["step"] not in self._steps[point["key"]]]
            if not left:
                return
            doubt = True
            try:
                self._once("runs/log-batch", {"run_id": run_id, "metrics": left}, False)
            except _Lost:
                self._steps.clear()
                raise
            for point in left:
                if point["key"] in self._steps:
                    self._steps[point["key"]].add(point["step"])

        self._until_answered(request)

    def finish(self, cursor: Cursor) -> None:
        """Tells of the job's end, and of steps that were measured again."""
        try:
            self._tell(cursor)
        except _Refused as error:
            raise self._refusal(error, cursor) from None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most - 3] + "..."


def _text_of(raw: bytes) -> str:
    """What an error says, short, on one line."""
    try:
        value = json.loads(raw)
        text = str(value.get("message") or value.get("error_code") or "") if isinstance(value, dict) else ""
    except ValueError:
        text = raw[:200].decode("utf-8", "replace")
    return " ".join(text.split())[:200] or "no reason"
