"""A real Prometheus beside Sluice's processes, for the tests of this folder and for the proof of alert drills."""

import http.server
import json
import os
import re
import shutil
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
for folder in ("tests/integration", "deploy/prometheus", "deploy/grafana", "tools"):
    sys.path.insert(0, os.path.join(TOP, folder))
import harness  # noqa: E402
from harness import Process, wait_until  # noqa: E402

BINARY = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
ALERTMANAGER = shutil.which("prometheus-alertmanager")
AMTOOL = shutil.which("amtool")
SKIP = None if BINARY and PROMTOOL else "there is no prometheus here: apt-get install prometheus"


def fast(config, scrape="1s"):
    """The checked-in configuration with short intervals and nothing else changed."""
    for key in ("scrape_interval", "evaluation_interval"):
        config, changed = re.subn(rf"(?m)^  {key}: \S+$", f"  {key}: {scrape}", config)
        assert changed == 1, key
    return config


class Prometheus:
    """Debian's Prometheus on loopback with the checked-in configuration, given rules and targets."""

    def __init__(self, test, targets, rules, alertmanagers=()):
        self.folder = test.path("prometheus")
        os.makedirs(self.folder)
        self.address = harness.free_address()
        with open(os.path.join(TOP, "deploy", "prometheus", "prometheus.yml"), encoding="utf-8") as file:
            self.write("prometheus.yml", fast(file.read()))
        self.write("rules.yml", rules)
        self.write("alertmanagers.json", json.dumps([{"targets": alertmanagers}] if alertmanagers else []))
        self.set_targets(targets)
        self.process = Process("prometheus", [
            BINARY, "--config.file", os.path.join(self.folder, "prometheus.yml"), "--storage.tsdb.path",
            os.path.join(self.folder, "data"), "--web.listen-address", self.address], test.path("prometheus.log"))
        test.processes.append(self.process)
        wait_until(self.ready, "Prometheus is ready", alive=[self.process])

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def set_targets(self, targets):
        """(role, address) pairs. Prometheus reads the file again when it changes, so it changes at once."""
        self.write("next.json.tmp", json.dumps([{"targets": [address], "labels": {"role": role}}
                                                for role, address in targets]))
        os.replace(os.path.join(self.folder, "next.json.tmp"), os.path.join(self.folder, "targets.json"))

    def ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def get(self, path, **parameters):
        """What the API answers. AssertionError with Prometheus' own words if it refuses."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {json.load(error)['error']}") from None

    def query(self, expr):
        """Series of an instant query: list of (labels, value)."""
        return [(entry["metric"], float(entry["value"][1])) for entry in self.get("query", query=expr)["result"]]

    def value(self, expr):
        """The value of the only series; None if there is not exactly one."""
        found = self.query(expr)
        return found[0][1] if len(found) == 1 else None

    def firing(self):
        """Names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"}


class Receiver:
    """Where an Alertmanager sends its notes: hears (receiver, status, alert) of each, until the test ends."""

    def __init__(self, test):
        heard = self.heard = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                note = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                heard.extend((self.path.strip("/"), alert["status"], alert["labels"]["alertname"])
                             for alert in note["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *unused):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        test.addCleanup(server.server_close)
        test.addCleanup(server.shutdown)


class Alertmanager:
    """Debian's Alertmanager with the checked-in routes, waits of a second, and a receiver of the test's."""

    def __init__(self, test, receiver):
        folder = test.path("alertmanager")
        os.makedirs(folder)
        with open(os.path.join(TOP, "deploy", "prometheus", "alertmanager.yml"), encoding="utf-8") as file:
            config, changed = re.subn(r"(?m)^(  group_(?:wait|interval)): \S+$", r"\1: 1s", file.read())
        assert changed == 2 and config.count("127.0.0.1:9095") == 2
        with open(os.path.join(folder, "alertmanager.yml"), "w", encoding="utf-8") as file:
            file.write(config.replace("127.0.0.1:9095", receiver.address))
        self.address = harness.free_address()
        self.process = Process("alertmanager", [
            ALERTMANAGER, "--config.file", os.path.join(folder, "alertmanager.yml"), "--storage.path", folder,
            "--web.listen-address", self.address, "--cluster.listen-address", ""], test.path("alertmanager.log"))
        test.processes.append(self.process)
        wait_until(self.ready, "Alertmanager is ready", alive=[self.process])

    def ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).status == 200
        except OSError:
            return False
