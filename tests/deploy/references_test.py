"""The references of files, ports and logs say what real jobs write, where real processes listen, and what they log."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("tools", "tests/integration"):
    sys.path.insert(0, os.path.join(TOP, folder))
import files_reference  # noqa: E402
import harness  # noqa: E402
import ports_reference  # noqa: E402
from harness import DONE  # noqa: E402

GRPC = importlib.util.find_spec("grpc") is not None
LISTEN = "0A"  # of /proc/net/tcp


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def below(folder):
    """Every file, by its path within."""
    return sorted(os.path.relpath(os.path.join(parent, name), folder) for parent, _, names in os.walk(folder) for name in names)


def listening(pid):
    """Ports where a process listens, as the kernel has it."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}")))
        except FileNotFoundError:
            pass  # closed meanwhile
    found = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}", encoding="utf-8") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and fields[9] in inodes:
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def services(address):
    """What a port serves, as its reflection says it. The messages are few enough to be written by hand: list_services is
    field 7 of the request; services are field 1 of field 6 of the answer, and a service's name is its field 1."""
    import grpc
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        answer = next(iter(call(iter([b"\x3a\x01*"]), timeout=harness.LIMIT_S)))
    found, lists = [], fields(answer)[6]
    for entry in (value for number, value in pairs(lists) if number == 1):
        found.append(fields(entry)[1].decode())
    return found


def pairs(message):
    """(number, bytes) of the fields with a length."""
    at, found = 0, []
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 2:
            size, at = varint(message, at)
            found.append((key >> 3, message[at:at + size]))
            at += size
        else:
            _, at = varint(message, at)
    return found


def fields(message):
    return dict(pairs(message))


def varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


class PagesTest(unittest.TestCase):
    def test_files_are_in_step_with_the_code(self):
        self.assertEqual(read("docs/reference/files.md"), files_reference.page(), "run python3 tools/files_reference.py")

    def test_pages_and_headers_that_files_are_explained_by_are_there(self):
        for folder in files_reference.FOLDERS:
            for entry in folder.entries:
                for path in re.findall(r"`(\w[\w/]*\.h)`", entry.form) + [f"docs/{page}" for page in re.findall(r"\(\.\./([\w.]+)", entry.form)]:
                    self.assertTrue(os.path.exists(os.path.join(TOP, path)), path)

    def test_ports_are_in_step_with_flags_rules_and_compose(self):
        self.assertEqual(read("docs/reference/ports.md"), ports_reference.written(), "run python3 tools/ports_reference.py")

    def test_a_file_that_the_code_gains_or_loses_is_named(self):
        texts = files_reference.sources()
        self.assertEqual(files_reference.breaches(files_reference.FOLDERS, texts), [])
        gained = dict(texts, **{"learner/run/job_rl.cc": texts["learner/run/job_rl.cc"] + '\nJoinPath(path_, "weights.csv");'})
        self.assertIn("job_rl.cc names a file weights.csv", " ".join(files_reference.breaches(files_reference.FOLDERS, gained)))
        run_h = files_reference.RUN_H
        lost = dict(texts, **{run_h: texts[run_h].replace('"ledger.csv"', '"book.csv"')})
        said = " ".join(files_reference.breaches(files_reference.FOLDERS, lost))
        self.assertIn('run_folder.h no longer holds "ledger.csv"', said)
        self.assertIn("names a file book.csv", said)

    def test_a_port_a_call_or_a_service_without_a_row_is_named(self):
        pages = [read(path) for path in ("docs/reference/processes.md", "common/security/method_rules.cc", "deploy/compose/compose.yaml")]
        for at, old, new, said in (
                (0, "  --peer-address TEXT", "  --debug-address TEXT  x\n  --peer-address TEXT", "--debug-address"),
                (0, "  --peer-address TEXT", "  --peer TEXT", "--peer-address"),
                (1, "/sluice.v1.JobService/Validate", "/sluice.v1.NewService/Do", "NewService"),
                (2, "\n  reward:", "\n  rewards:", "no service reward")):
            with self.subTest(said):
                changed = list(pages)
                changed[at] = changed[at].replace(old, new, 1)
                self.assertNotEqual(changed, pages)
                with self.assertRaisesRegex(ports_reference.PortsError, said):
                    ports_reference.page(*changed)


class RealJobsTest(harness.SluiceTest):
    """One small installation that does every kind of job."""

    def setUp(self):
        self.variables = {"SLUICE_CONFIG": self.path("contexts.yaml")}
        self.data = self.prepare(rl_events=2)
        self.cluster = harness.Cluster(self, self.data, ranks=1)
        self.cluster.coordinator_flags = ["--data-root", self.path("pushed")]
        self.cluster.start_all()

    def rl(self, **changes):
        spec = harness.rl_spec(self.data, steps=4, **changes)
        spec["checkpoint"]["mirror"] = self.path("mirror")
        return spec

    def submit(self, spec):
        watch = self.cluster.submit(spec)
        self.assertEqual(watch.wait(), DONE, watch.said())

    def run_jobs(self):
        self.submit(self.rl(prompt_split="reserved", record=True))
        job = self.cluster.job()
        self.submit({"name": "evaluate", "kind": "evaluate", "data": self.data, "model": {"path": job["run_folder"]},
                     "evaluate": {"beams": 10, "unconstrained_beams": 2}})
        self.submit({"name": "sft", "kind": "sft", "data": self.data, "model": harness.model_spec(), "checkpoint": {"every": 2},
                     "sft": {"passes": 1, "targets_per_step": 100, "validation": {"every": 0, "users": 20, "beams": 10}}})
        for words in (("fork", job["job_id"], "--set", "rl.steps=6", "--watch"), ("data", "push", self.data)):
            process = self.cluster.ctl(*words)
            self.assertEqual(process.wait(), DONE, process.said())
        learner, _ = self.start_rl(harness.rl_spec(self.data, steps=2), folder=self.path("alone"))
        self.json_actor = self.start("actor-alone", "sluice-actor", "--learner", learner.address, "--reward",
                                     self.cluster.reward_address, "--metrics-address", "127.0.0.1:0", "--log-format", "json")
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.json_actor.wait_for(r'"level":"warning".*not attached')  # the rank has gone
        return job["job_id"]

    def test_real_jobs_write_and_real_processes_serve_what_the_pages_say(self):
        self.check_ports()
        job = self.run_jobs()
        self.check_files()
        self.check_log_lines()
        self.check_log_commands()
        self.check_job_logs(job)

    def check_files(self):
        runs = [os.path.join(self.cluster.runs, name) for name in os.listdir(self.cluster.runs) if name != "forks"]
        places = {"Run folder": [*runs, self.path("alone"), self.path("tiny")], "Folder of runs": [self.cluster.runs],
                  "State folder": [self.cluster.state], "Data set": [self.data], "Pushed data": [self.path("pushed")],
                  "Mirror of checkpoints": [self.path("mirror")],
                  "Journal": [os.path.join(self.cluster.journals, name) for name in os.listdir(self.cluster.journals)]}
        for folder in files_reference.FOLDERS:
            if folder.title not in places:  # what clients keep
                self.assertTrue(all(entry.rare for entry in folder.entries), folder.title)
                continue
            found = {path for place in places[folder.title] for path in below(place)}
            self.assertEqual([path for path in sorted(found) if folder.find(path) is None], [],
                             f"{folder.title}: files that no row of tools/files_reference.py has")
            absent = [entry.path for entry in folder.entries if not entry.rare and not any(entry.matches(path) for path in found)]
            self.assertEqual(absent, [], f"{folder.title}: rows of files that these jobs did not write")
        run_folder = files_reference.FOLDERS[0]
        fewer = dataclasses.replace(run_folder, entries=tuple(entry for entry in run_folder.entries if entry.path != "ledger.csv"))
        self.assertIsNone(fewer.find("ledger.csv"))  # so a file without a row is seen

    def check_ports(self):
        """Each process listens at the flags of the page and nowhere else, and serves there what the page says."""
        by_heading = {process.heading: process for process in ports_reference.PROCESSES}
        actor = self.cluster.actors[0]
        for heading, process in (("sluice-learner coordinator", self.cluster.coordinator), ("sluice-learner rank", self.cluster.members[0]),
                                 ("sluice-reward", self.cluster.reward), ("sluice-actor", actor)):
            with self.subTest(heading):
                ports = {port.flag: port for port in by_heading[heading].listens}
                given = {flag: address for flag, address in (("address", process.address), ("metrics-address", process.metrics))}
                self.assertLessEqual(set(given), set(ports))
                opened = listening(process.child.pid)
                told = {int(address.rpartition(":")[2]) for address in given.values()}
                self.assertLessEqual(told, opened)
                # What the kernel picked: a rank listens for the other members.
                if "collective-host" not in ports:
                    self.assertEqual(opened, told)
                if GRPC:
                    served = {name.removeprefix("sluice.v1.") for name in services(process.address)}
                    self.assertEqual(served - {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"},
                                     set(ports["address"].services))

    PAGE = "docs/reference/logs.md"

    def blocks(self, language):
        return re.findall(rf"^```{language}\n(.*?)^```", read(self.PAGE), re.MULTILINE | re.DOTALL)

    def names(self, heading, which=0):
        """What stands in backticks in the first column of a table that begins so."""
        body = re.findall(rf"^\| {heading} \|.*\n((?:\|.*\n)+)", read(self.PAGE), re.MULTILINE)[which]
        return [name for line in body.splitlines()[1:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]

    def check_log_lines(self):
        """Examples are lines of real processes, but for values; fields and levels are those of the code."""
        real = [json.loads(line) for line in self.json_actor.said().splitlines() if line.startswith("{")]
        self.assertGreater(len(real), 3)
        first = self.names("field")
        for line in real:
            self.assertEqual(list(line)[:len(first)], first)
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        shapes = {(line["level"], line["role"], line["message"], tuple((name, type(value)) for name, value in line.items())) for line in real}
        for line in map(json.loads, self.blocks("json")[0].splitlines()):
            self.assertIn((line["level"], line["role"], line["message"], tuple((name, type(value)) for name, value in line.items())), shapes)

        def shape(line):
            time, level, rest = re.fullmatch(r"(\S{24}) (\w+) *(.*)", line).groups()
            self.assertEqual(line[25:33], f"{level:7} ")
            return level, re.sub(r"=\S*", "=", rest)
        text = {shape(line) for line in self.cluster.coordinator.said().splitlines()}
        for line in self.blocks("text")[0].splitlines():
            self.assertIn(shape(line), text)
        named = re.search(r'kNames\[\] = \{([^}]*)\}', read("common/log/log.cc"))[1].replace('"', "").split(", ")
        self.assertEqual([level for level in named if level != "debug"], self.names("level"))

    def check_log_commands(self):
        """Each command of the page picks what it says, also behind a line that is no JSON."""
        folder = self.path("reading")
        os.makedirs(folder)
        actor = self.json_actor.said() + "sluice-actor: gone\n"
        coordinator = self.cluster.coordinator.said() + "2026-01-31T12:00:00.000Z warning learner: planted\n"
        for name, text in (("actor.log", actor), ("coordinator.log", coordinator)):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        lines = [json.loads(line) for line in actor.splitlines() if line.startswith("{")]
        counts = collections.Counter(line["message"] for line in lines)
        wanted = {"select": sum(line["level"] in ("warning", "error") for line in lines), ".message": len(counts),
                  "grep": sum(line.split()[1] in ("warning", "error") for line in coordinator.splitlines())}
        commands = [block for block in self.blocks("sh") if "sluicectl" not in block]
        self.assertEqual(len(commands), len(wanted))
        for command in commands:
            if command.startswith("jq") and not shutil.which("jq"):
                continue
            answer = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)
            self.assertEqual((answer.returncode, answer.stderr), (0, ""), command)
            want = next(count for word, count in wanted.items() if word in command)
            self.assertEqual(len(answer.stdout.splitlines()), want, f"{command}: {answer.stdout}")

    def check_job_logs(self, job):
        environment = dict(os.environ, NO_COLOR="1", PATH=f"{harness.BIN}:{os.environ['PATH']}", SLUICE_SERVER=self.cluster.address,
                           **self.variables)
        (block,) = [block for block in self.blocks("sh") if "sluicectl" in block]
        for command in block.splitlines():
            answer = subprocess.run(["bash", "-c", command.replace("JOB", job)], env=environment, capture_output=True, text=True, timeout=60)
            self.assertEqual(answer.returncode, DONE, answer.stderr)
        known = set(self.names("field", which=1))
        events = [json.loads(line) for line in answer.stdout.splitlines()]
        self.assertTrue(any("text" in event for event in events) and any("state" in event for event in events), answer.stdout)
        for event in events:
            self.assertLessEqual(set(event), known)


if __name__ == "__main__":
    harness.main()
