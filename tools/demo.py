#!/usr/bin/env python3
"""Runs Sluice's main job, or just its processes, on this machine. Called by ./sluice; Python's standard library alone.

demo: prepare, sft, then coordinator, learner ranks, reward server and actors as processes on loopback, an rl job
followed live, evaluate, and a closing table. up: the same processes on fixed ports, until ctrl-C.
Whatever happens, no process outlives this one.
"""

import argparse
import ctypes
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

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(TOP, "build", "bin")
STOP_SECONDS = 20       # for a clean stop of a process, then it is killed
READY_SECONDS = 60      # for a process to answer on its port
GRACE_SECONDS = 120     # a stage may need this much beyond the time limit in its spec
PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """Ends the run with a sentence for people and an exit code."""

    def __init__(self, sentence, code=1):
        super().__init__(sentence)
        self.code = code


def die_with_parent():
    """In a child, before exec: it gets SIGTERM when this process dies, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(argv, **options):
    """A child in a session of its own, so that ctrl-C reaches this process alone, which then stops all in order."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", "1")  # several processes do better here than several threads
    return subprocess.Popen(argv, cwd=TOP, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
                            preexec_fn=die_with_parent, **options)


def stop(process):
    """SIGTERM, then SIGKILL for the whole session of the child."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tail(path, lines=15):
    with open(path, encoding="utf-8", errors="replace") as file:
        return "".join("    " + line for line in file.readlines()[-lines:])


class Cluster:
    """Coordinator, ranks, reward server and actors on loopback. A context manager: leaving it stops them all."""

    def __init__(self, place, data, ranks, actors, port=None, rankers=()):
        self.place = place
        self.data = data
        self.rankers = rankers  # mapping files
        self.ranks = ranks
        self.actors = actors
        self.next_port = port
        self.processes = []  # (name, process, log), in the order of starting
        self.server = None

    def port(self):
        if self.next_port is None:
            return free_port()
        self.next_port += 1
        return self.next_port - 1

    def __enter__(self):
        try:
            self.start_all()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(self, *unused):
        self.stop_all()

    def start_all(self):
        logs = os.path.join(self.place, "logs")
        os.makedirs(logs, exist_ok=True)
        runs = os.path.join(self.place, "runs")
        self.server = f"127.0.0.1:{self.port()}"
        reward = f"127.0.0.1:{self.port()}"
        learner = os.path.join(BIN, "sluice-learner")
        print(f"{'process':<12} {'pid':>8}  {'address':<18} {'metrics':<32} log")
        self.launch("coordinator", self.server, [
            learner, "coordinator", "--address", self.server, "--state", os.path.join(self.place, "state"),
            "--runs", runs, "--ranks", str(self.ranks)])
        self.launch("reward", reward, [os.path.join(BIN, "sluice-reward"), "--data", self.data, "--address", reward,
                                        *(word for file in self.rankers for word in ("--ranker", file))])
        for rank in range(self.ranks):
            address = f"127.0.0.1:{self.port()}"
            self.launch(f"rank-{rank}", address, [learner, "rank", "--coordinator", self.server, "--address", address])
        for actor in range(self.actors):
            self.launch(f"actor-{actor}", None, [
                os.path.join(BIN, "sluice-actor"), "--coordinator", self.server, "--reward", reward])
        for name, process, log in list(self.processes):
            self.wait_ready(name, process, log)

    def launch(self, name, address, argv):
        metrics = f"127.0.0.1:{self.port()}"
        log = os.path.join(self.place, "logs", f"{name}.log")
        with open(log, "w", encoding="utf-8") as file:
            process = start(argv + ["--metrics-address", metrics], stdout=file, stderr=file)
        process.addresses = [a for a in (address, metrics) if a]
        self.processes.append((name, process, log))
        print(f"{name:<12} {process.pid:>8}  {address or '-':<18} {'http://' + metrics + '/metrics':<32} "
              f"{os.path.relpath(log, TOP)}", flush=True)

    def wait_ready(self, name, process, log):
        deadline = time.monotonic() + READY_SECONDS
        for address in process.addresses:
            host, port = address.split(":")
            while True:
                self.check()
                try:
                    socket.create_connection((host, int(port)), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise Failure(f"{name} does not answer on {address} after {READY_SECONDS} s; its log is "
                                      f"{log}:\n{tail(log)}", 11) from None
                    time.sleep(0.05)

    def check(self):
        """Fails if a process ended by itself."""
        for name, process, log in self.processes:
            if process.poll() is not None:
                raise Failure(f"{name} ended with exit code {process.returncode}; the last lines of {log}:\n{tail(log)}",
                              process.returncode if 0 < process.returncode < 100 else 1)

    def stop_all(self):
        # Those who work stop first, those whom they work for last.
        while self.processes:
            role = self.processes[-1][0].split("-")[0]
            together = [entry for entry in self.processes if entry[0].split("-")[0] == role]
            self.processes = [entry for entry in self.processes if entry not in together]
            threads = [threading.Thread(target=stop, args=(process,)) for _, process, _ in together]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def with_values(text, values):
    """The YAML text of a spec (two spaces a level, one key a line) with some values replaced: {"model.path": ...}."""
    left = dict(values)
    path, lines = [], []
    for line in text.splitlines():
        match = re.match(r"^( *)([a-z_0-9]+):", line)
        if match:
            del path[len(match.group(1)) // 2:]
            path.append(match.group(2))
            if ".".join(path) in left:
                line = f"{match.group(0)} {json.dumps(left.pop('.'.join(path)))}"
        lines.append(line)
    if left:
        raise Failure(f"the example spec has no key {', '.join(left)}")
    return "\n".join(lines) + "\n"


def time_limit(text):
    return float(re.search(r"^time_limit_s: *([\d.]+)", text, re.MULTILINE).group(1))


class Demo:
    def __init__(self, args):
        self.args = args
        self.name = "beauty" if args.data else "ml-100k"
        self.place = os.path.join(TOP, ".sluice", "demo", self.name)
        self.data = os.path.join(self.place, "data")
        self.times = []

    def spec(self, kind, values, file_name=None):
        """Writes the spec of a stage; returns its path and its time limit."""
        with open(os.path.join(TOP, "examples", self.name, f"{kind}.yaml"), encoding="utf-8") as file:
            text = with_values(file.read(), values)
        path = os.path.join(self.place, "specs", f"{file_name or kind}.yaml")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path, time_limit(text)

    def call(self, title, argv, limit, cluster=None):
        """One stage: a child that talks to this terminal, ended if it takes too long or a process of the cluster dies."""
        print(f"\n== {title} (at most {limit:.0f} s)", flush=True)
        started = time.monotonic()
        process = start(argv)
        try:
            while process.poll() is None:
                if time.monotonic() - started > limit + GRACE_SECONDS:
                    raise Failure(f"{title} did not end {GRACE_SECONDS} s after its time limit of {limit:.0f} s", 11)
                if cluster:
                    cluster.check()
                time.sleep(0.1)
        finally:
            stop(process)
        self.times.append((title, time.monotonic() - started))
        if process.returncode != 0:
            code = process.returncode if process.returncode > 0 else 1
            raise Failure(f"{title} failed with exit code {process.returncode}: the sentence above says why. Command: "
                          + " ".join(os.path.relpath(a, TOP) if a.startswith(TOP) else a for a in argv), code)

    def run(self, kind, values, folder):
        """A one-shot job in a process of its own."""
        path, limit = self.spec(kind, values)
        self.call(kind, [os.path.join(BIN, "sluice-learner"), "run", path, "--run-folder", folder], limit)
        return folder

    def submit(self, cluster, kind, values, title):
        """A job on the cluster, followed until it ends; returns its run folder."""
        path, limit = self.spec(kind, values, title.replace(" ", "-"))
        runs = os.path.join(self.place, "runs")
        before = set(os.listdir(runs)) if os.path.isdir(runs) else set()
        self.call(title, [os.path.join(BIN, "sluicectl"), "submit", path, "--watch", "--server", cluster.server], limit,
                  cluster)
        made = set(os.listdir(runs)) - before
        if len(made) != 1:
            raise Failure(f"want one new run folder in {runs} after '{title}', got {sorted(made)}", 3)
        return os.path.join(runs, made.pop())

    def main(self):
        prepare_values = {}
        if self.args.data:
            folder = os.path.abspath(self.args.data)
            for key, name in (("prepare.events", "inter_std.json"), ("prepare.sids.index", "index_rqvae.json")):
                path = os.path.join(folder, name)
                if not os.path.isfile(path):
                    raise Failure(f"there is no {name} in {folder}; docs/data.md says where it comes from", 3)
                prepare_values[key] = path
        else:
            site = os.path.join(TOP, ".venv", "lib")
            events = [os.path.join(site, p, "site-packages", "recbole", "dataset_example", "ml-100k", "ml-100k.inter")
                      for p in sorted(os.listdir(site))]
            events = [path for path in events if os.path.isfile(path)]
            if not events:
                raise Failure(f"ml-100k.inter is not in {site}; run ./sluice setup", 3)
            prepare_values["prepare.events"] = events[0]
        prepare_values["prepare.output"] = self.data
        return self.stages(prepare_values)

    def stages(self, prepare_values):
        started = time.monotonic()
        shutil.rmtree(self.place, ignore_errors=True)
        os.makedirs(self.place)
        self.run("prepare", prepare_values, os.path.join(self.place, "prepare"))
        print("\n== processes", flush=True)
        with Cluster(self.place, self.data, self.args.ranks, self.args.actors) as cluster:
            sft = self.submit(cluster, "sft", {"data": self.data}, "sft")
            sft_scores = self.submit(cluster, "evaluate", {"data": self.data, "model.path": sft}, "evaluate after sft")
            rl = self.submit(cluster, "rl", {"data": self.data, "model.path": sft}, "rl")
            rl_scores = self.submit(cluster, "evaluate", {"data": self.data, "model.path": rl}, "evaluate after rl")
        report = os.path.join(self.place, "report.html")
        self.call("report", [os.path.join(BIN, "sluice-learner"), "report", sft, sft_scores, rl, rl_scores,
                             "--title", self.name, "--output", report], 60)
        self.table(results(sft_scores), results(rl), results(rl_scores))
        print(f"\n{duration(time.monotonic() - started)}: "
              + ", ".join(f"{title} {duration(seconds)}" for title, seconds in self.times))
        print(f"Report: {report}")

    def table(self, sft, rl, after):
        users = int(sft["numbers"]["metrics"]["prompts"])
        name = sft["texts"].get("data_name", self.name)
        print(f"\n{name}, {sft['texts'].get('split', 'test')} split, {users} users, 50 constrained beams, seed 1\n")
        print(f"{'':<20} {'HR@10':>8} {'NDCG@10':>8} {'hallucination':>14} {'admission':>10}")
        admission = rl["numbers"].get("run", {}).get("admission_rate")
        for title, numbers, admitted in (("co-occurrence rule", sft["numbers"]["baseline"], None),
                                         ("after SFT", sft["numbers"]["metrics"], None),
                                         ("after RL", after["numbers"]["metrics"], admission)):
            print(f"{title:<20} {cell(numbers.get('hr@10')):>8} {cell(numbers.get('ndcg@10')):>8} "
                  f"{cell(numbers.get('hallucination')):>14} {cell(admitted):>10}")


def results(folder):
    path = os.path.join(folder, "results.json")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {path}: {error}", 3) from None


def cell(value):
    return "-" if value is None else f"{value:.4f}"


def duration(seconds):
    minutes, seconds = divmod(int(round(seconds)), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def up(args):
    data = os.path.abspath(args.data) if args.data else os.path.join(TOP, ".sluice", "demo", "ml-100k", "data")
    if not os.path.isdir(data):
        raise Failure(f"there is no data set in {data}. Run ./sluice demo once, or name a prepared data set: "
                      "./sluice up --data DIR", 3)
    place = os.path.join(TOP, ".sluice", "up")
    os.makedirs(place, exist_ok=True)
    with Cluster(place, data, args.ranks, args.actors, port=args.port,
                 rankers=[os.path.abspath(file) for file in args.ranker]) as cluster:
        print(f"\nReady. In another terminal: build/bin/sluicectl submit FILE --watch --server {cluster.server}\n"
              "ctrl-C stops all.", flush=True)
        while True:
            cluster.check()
            time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(prog="./sluice", description="Run the main job, or its processes, on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("demo", "the main job on ML-100K, or on Beauty with --data"),
                       ("up", "the processes on fixed ports, until ctrl-C")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--ranks", type=int, default=2, help="learner ranks (default 2)")
        command.add_argument("--actors", type=int, default=2, help="actors (default 2)")
        command.add_argument("--data", metavar="DIR", help=(
            "folder with inter_std.json and index_rqvae.json" if name == "demo" else
            "a prepared data set (default: the demo's)"))
        if name == "up":
            command.add_argument("--port", type=int, default=7070,
                                 help="the coordinator's port; the others follow it (default 7070)")
            command.add_argument("--ranker", metavar="FILE", action="append", default=[],
                                 help="mapping of a model outside, which becomes a ranker (docs/ranker_mapping.md); may be repeated")
    args = parser.parse_args()

    def on_signal(number, _):
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        if args.command == "up":
            up(args)
        else:
            Demo(args).main()
    except KeyboardInterrupt:
        print("\nsluice: stopped on request; no process is left.", file=sys.stderr)
        return 0 if args.command == "up" else 12
    except Failure as failure:
        print(f"\nsluice: {failure}", file=sys.stderr)
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
