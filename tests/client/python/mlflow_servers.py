"""MLflow servers for tests of sluice.mirror, a fake and the real one, and the mirror as a process."""
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import support

LIMIT_S = 120


class FakeMlflow(http.server.ThreadingHTTPServer):
    """The calls of MLflow's REST API that the mirror makes, as its documentation has them; anything else is an error,
    and points are never made one. Useful for: answers that are lost, late or strange. `trouble` is asked before each
    call with its name ("runs/log-batch params" for those) and its number: "lost" does it and hangs up, "503" does not, "hold" does it and then waits for
    `release`."""

    daemon_threads = True

    def __init__(self):
        self.experiments, self.runs, self.calls = {"Default": "0"}, {}, []
        self.trouble = lambda call, number: None
        self.release, self.held = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), FakeMlflowHandler)
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.release.set()
        self.shutdown()
        self.server_close()

    def points(self):
        (run,) = self.runs.values()
        return sorted((p["step"], p["key"], p["value"]) for p in run["points"])


class FakeMlflowHandler(http.server.BaseHTTPRequestHandler):
    NAME = re.compile(r"^[/\w.\- ]{1,250}$", re.ASCII)

    def log_message(self, *unused):
        pass

    def refuse(self, code, text, status=400):
        return status, {"error_code": code, "message": text}

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.serve(path, {key: values[0] for key, values in urllib.parse.parse_qs(query).items()})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json" and len(body) <= 1_000_000
        self.serve(self.path, json.loads(body))

    def serve(self, path, values):
        call = method_of = path.removeprefix("/api/2.0/mlflow/")
        call += "".join(f" {kind}" for kind in ("params", "tags") if call == "runs/log-batch" and kind in values)
        with self.server.lock:
            number = self.server.calls.count(call)
            self.server.calls.append(call)
            trouble = self.server.trouble(call, number)
            if trouble == "503":
                status, answer = self.refuse("TEMPORARILY_UNAVAILABLE", "busy", 503)
            elif isinstance(trouble, tuple):
                status, answer = trouble
            else:
                method = getattr(self, method_of.replace("/", "_").replace("-", "_"), None)
                status, answer = method(**values) if method else self.refuse("ENDPOINT_NOT_FOUND", call, 404)
        if trouble == "hold":
            self.server.held.set()
            self.server.release.wait(LIMIT_S)
        if trouble in ("lost", "hold"):
            self.close_connection = True
            return
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def experiments_get_by_name(self, experiment_name):
        if experiment_name not in self.server.experiments:
            return self.refuse("RESOURCE_DOES_NOT_EXIST", "no such experiment", 404)
        return 200, {"experiment": {"experiment_id": self.server.experiments[experiment_name]}}

    def experiments_create(self, name):
        if name in self.server.experiments:
            return self.refuse("RESOURCE_ALREADY_EXISTS", "it is there")
        self.server.experiments[name] = str(len(self.server.experiments))
        return 200, {"experiment_id": self.server.experiments[name]}

    def runs_create(self, experiment_id, run_name, start_time, tags):
        assert experiment_id in self.server.experiments.values() and isinstance(start_time, int)
        run_id = f"run{len(self.server.runs)}"
        self.server.runs[run_id] = {"name": run_name, "tags": {t["key"]: t["value"] for t in tags}, "points": [],
                                    "params": {}, "status": "RUNNING", "experiment_id": experiment_id}
        return 200, {"run": {"info": {"run_id": run_id}}}

    def runs_search(self, experiment_ids, filter, max_results, order_by):
        assert order_by == ["attributes.start_time ASC"]
        name, value = re.fullmatch(r"tags\.`([\w.]+)` = '([\w.-]+)'", filter).groups()
        found = [i for i, run in self.server.runs.items()
                 if run["tags"].get(name) == value and run["experiment_id"] in experiment_ids][:max_results]
        return 200, {"runs": [self.shown(i) for i in found]} if found else {}

    def shown(self, run_id):
        run, latest = self.server.runs[run_id], {}
        for point in run["points"]:
            if point["step"] >= latest.get(point["key"], point)["step"]:
                latest[point["key"]] = point
        return {"info": {"run_id": run_id, "status": run["status"]}, "data": {"metrics": list(latest.values())}}

    def runs_log_batch(self, run_id, metrics=(), params=(), tags=()):
        if run_id not in self.server.runs:
            return self.refuse("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found", 404)
        run = self.server.runs[run_id]
        assert 0 < len(metrics) + len(params) + len(tags) <= 1000 and len(params) <= 100 and len(tags) <= 100
        for metric in metrics:
            assert set(metric) == {"key", "value", "timestamp", "step"} and isinstance(metric["timestamp"], int)
            if not self.NAME.match(metric["key"]):
                return self.refuse("INVALID_PARAMETER_VALUE", f"Invalid metric name: '{metric['key']}'")
        for param in params:
            assert isinstance(param["value"], str) and len(param["value"]) <= 6000 and self.NAME.match(param["key"])
            if run["params"].setdefault(param["key"], param["value"]) != param["value"]:
                return self.refuse("INVALID_PARAMETER_VALUE", f"Changing param values is not allowed: {param['key']}")
        for tag in tags:
            assert isinstance(tag["value"], str) and len(tag["value"]) <= 5000 and self.NAME.match(tag["key"])
            run["tags"][tag["key"]] = tag["value"]
        run["points"] += metrics
        return 200, {}

    def metrics_get_history(self, run_id, metric_key, max_results, page_token="0"):
        points = [p for p in self.server.runs[run_id]["points"] if p["key"] == metric_key]
        first, size = int(page_token), min(int(max_results), 2)  # so that pages are turned
        answer = {"metrics": points[first:first + size]} if points else {}
        if first + size < len(points):
            answer["next_page_token"] = str(first + size)
        return 200, answer

    def runs_update(self, run_id, status, end_time=None):
        assert status in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
        self.server.runs[run_id].update(status=status, end_time=end_time)
        return 200, {}


def start_real_mlflow(test, folder):
    """The URI of a server of its own in a folder; it starts while its first request waits. The test is skipped where
    there is none."""
    program = os.environ.get("SLUICE_MLFLOW") or shutil.which("mlflow", path=os.path.join(sys.prefix, "bin"))
    if not program:
        test.skipTest("no MLflow server: SLUICE_MLFLOW does not name the program mlflow; './sluice proof trackers' installs it "
                      "(950 MB) and runs this")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with open(os.path.join(folder, "mlflow.log"), "wb") as log:
        server = subprocess.Popen(
            [program, "server", "--backend-store-uri", "sqlite:///" + os.path.join(folder, "mlflow.db"),
             "--artifacts-destination", os.path.join(folder, "artifacts"), "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
                "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"})
    test.addCleanup(server.wait)
    test.addCleanup(lambda: os.killpg(server.pid, signal.SIGKILL))
    return f"http://127.0.0.1:{port}"


def ask_mlflow(uri, call, **values):
    """What the server answers to a call, asked as anybody would. A value that is a list goes in a body."""
    post = any(isinstance(value, list) for value in values.values())
    url = f"{uri}/api/2.0/mlflow/{call}" + ("" if post else "?" + urllib.parse.urlencode(values))
    request = urllib.request.Request(url, json.dumps(values).encode() if post else None, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=LIMIT_S) as response:
        return json.load(response)


def points_of(uri, run_id, names):
    """[(step, name, value)], sorted, of metrics with fewer points than a page has."""
    found = []
    for name in names:
        page = ask_mlflow(uri, "metrics/get-history", run_id=run_id, metric_key=name)
        found += [(int(m.get("step", 0)), name, m["value"]) for m in page["metrics"]]
    return sorted(found)


def start(arguments):
    environment = dict(os.environ, PYTHONPATH=support.SITE)
    return subprocess.Popen([sys.executable, "-B", "-m", "sluice.mirror", *arguments], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def wait_until(condition, limit_s=LIMIT_S):
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s} s in vain")
        time.sleep(0.005)
