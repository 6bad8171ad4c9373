#!/usr/bin/env python3
"""Runs arms of an experiment, each with several seeds, and ends in one table. Called by ./sluice matrix.

    ./sluice matrix FILE [--jobs N] [--out DIR] [--evaluation NAME] [--data DIR] [--model DIR] [--only ARM,...]
                         [--replicates N,...] [--dry-run]

FILE says which data set, which start policy, which base spec and which arms (docs/results.md). Every stage is one
`sluice-learner run` in a folder of its own. What is done is not done again: call the same command after an interruption,
a crash or an edit that adds arms. An arm that was cut off goes on from its checkpoint.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import demo  # noqa: E402
import matrix_report  # noqa: E402
from demo import Failure, duration  # noqa: E402

TOP = demo.TOP
BIN = os.environ.get("SLUICE_BIN_DIR", demo.BIN)
KEYS = {"name", "data", "prepare", "start", "base", "set", "evaluations", "seeds", "rows", "arms", "against", "metrics",
        "reward", "resamples", "note", "cells"}
ROW_KEYS = {"name", "set", "note", "error", "share", "arms"}
ARM_KEYS = {"name", "spec", "set", "reward", "note", "once", "gate", "lambda"}
STAGE_KEYS = {"spec", "set", "threads"}
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
START = "start"
CHECKPOINTS = ("best", "final")
CELLS = "cells"
CELL_GROUPS = 64        # a step of the job that judges held-out events
REWARD_READY_SECONDS = 120
LOCK_SECONDS = 60       # for the process of an earlier call to let go of its run folder
PREEMPTED = 10


# ------------------------------------------------------------------------------------------------------- the file

def wrong(path, what):
    return Failure(f"{path}: {what}", 2)


def overrides_of(path, where, value):
    """`set` as a list of "key=value" or as a mapping; returns the list."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [f"{key}={one if isinstance(one, str) else json.dumps(one)}" for key, one in value.items()]
    if isinstance(value, list) and all(isinstance(one, str) and "=" in one for one in value):
        return list(value)
    raise wrong(path, f"{where}.set: want a list of KEY=VALUE or a mapping, got {value!r}")


class Stage:
    """What one `sluice-learner run` is told."""

    def __init__(self, spec, overrides, threads=1):
        self.spec = spec
        self.overrides = overrides
        self.threads = threads


class Row:
    """A condition under which every arm runs, e.g. a ranker. `error` and `share` say what is wrong with it; `own` are
    overrides of single arms."""

    def __init__(self, name, overrides, own, note="", error=None, share=None):
        self.name = name
        self.overrides = overrides
        self.own = own
        self.note = note
        self.error = error
        self.share = share


class Arm:
    """One way of training, in one row. `label` is its name in the file, `name` that of the pair; without rows, or for an
    arm that runs once for all rows, both are the same and `row` is None. `gate` and `lambda_` enter a table of gains."""

    def __init__(self, label, row, stage, reward, note, gate=None, lambda_=None):
        self.label = label
        self.row = row
        self.name = f"{row.name}.{label}" if row else label
        self.stage = stage
        self.reward = reward
        self.note = note
        self.gate = gate
        self.lambda_ = lambda_


def names_of(arm):
    """What --only knows an arm by."""
    return {arm.name, arm.label} | ({arm.row.name} if arm.row else set())


class Matrix:
    """The file, checked."""

    def __init__(self, path):
        try:
            import yaml
        except ImportError:
            raise Failure("the matrix file is YAML, and Python's yaml is missing: install the package python3-yaml",
                          4) from None
        self.path = path
        self.folder = os.path.dirname(os.path.abspath(path))
        try:
            with open(path, encoding="utf-8") as file:
                self.text = file.read()
            document = yaml.safe_load(self.text)
        except OSError as error:
            raise wrong(path, error.strerror) from None
        except yaml.YAMLError as error:
            raise wrong(path, f"is not YAML: {error}") from None
        if not isinstance(document, dict):
            raise wrong(path, "want a mapping with the keys " + ", ".join(sorted(KEYS)))
        self.check_keys("", document, KEYS)
        self.name = self.checked_name("name", document.get("name"))
        self.note = document.get("note", "")
        self.prepare = self.stage("prepare", document["prepare"]) if "prepare" in document else None
        self.data = self.place(document["data"]) if "data" in document else None
        if (self.prepare is None) == (self.data is None):
            raise wrong(path, "want one of data (a prepared data set) and prepare (how to make it)")
        start = document.get("start")
        if not isinstance(start, dict) or ("model" in start) == ("spec" in start):
            raise wrong(path, "start: want a mapping with one of model (a folder) and spec (a job of kind sft)")
        self.model = self.place(start["model"]) if "model" in start else None
        self.start = self.stage(START, start) if "spec" in start else None
        if not isinstance(document.get("base"), str):
            raise wrong(path, "base: want the spec of an rl job")
        self.reward = self.texts("reward", document.get("reward", []))
        common = overrides_of(path, "the file", document.get("set"))
        self.seeds = document.get("seeds", [1])
        if not isinstance(self.seeds, list) or not self.seeds or len(set(self.seeds)) != len(self.seeds) \
                or not all(isinstance(s, int) and s >= 0 for s in self.seeds):
            raise wrong(path, f"seeds: want a list of different whole numbers, got {self.seeds!r}")
        self.rows = self.read_rows(document.get("rows"))
        self.arms = self.read_arms(document.get("arms"), document["base"], common)
        self.evaluations = self.read_evaluations(document.get("evaluations"))
        self.cells = self.read_cells(document.get("cells"), document["base"], common)
        self.against = self.texts("against", document.get("against", [START]))
        known = list(dict.fromkeys([START] + [arm.label for arm in self.arms]))
        for name in self.against:
            if name not in known:
                raise wrong(path, f"against: there is no arm {name!r}; want some of {', '.join(known)}")
        self.metrics = self.texts("metrics", document.get("metrics", ["hr@1", "hr@10", "hr@50", "ndcg@10", "hallucination"]))
        self.resamples = document.get("resamples", 2000)
        if not isinstance(self.resamples, int) or self.resamples < 1:
            raise wrong(path, f"resamples: want a whole number of at least 1, got {self.resamples!r}")

    def check_keys(self, where, mapping, allowed):
        for key in mapping:
            if key not in allowed:
                raise wrong(self.path, f"{where}{key}: there is no such key; want some of {', '.join(sorted(allowed))}")

    def checked_name(self, where, name):
        if not isinstance(name, str) or not NAME.match(name):
            raise wrong(self.path, f"{where}: want a name of letters, digits, _, - and ., got {name!r}")
        return name

    def texts(self, where, value):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise wrong(self.path, f"{where}: want a list of texts, got {value!r}")
        return value

    def place(self, name):
        """Paths are relative to the file, or to Sluice's folder if they are not there."""
        if not isinstance(name, str):
            raise wrong(self.path, f"want a path, got {name!r}")
        beside = os.path.normpath(os.path.join(self.folder, name))
        return beside if os.path.exists(beside) else os.path.normpath(os.path.join(TOP, name))

    def spec_path(self, where, name):
        path = self.place(name)
        if not os.path.isfile(path):
            raise wrong(self.path, f"{where}: there is no spec {name!r} beside the file or in {TOP}")
        return path

    def stage(self, where, mapping):
        if not isinstance(mapping, dict) or "spec" not in mapping:
            raise wrong(self.path, f"{where}: want a mapping with spec, and maybe set and threads")
        self.check_keys(where + ".", mapping, STAGE_KEYS)
        threads = mapping.get("threads", 1)
        if not isinstance(threads, int) or threads < 1:
            raise wrong(self.path, f"{where}.threads: want a whole number of at least 1, got {threads!r}")
        return Stage(self.spec_path(where, mapping["spec"]), overrides_of(self.path, where, mapping.get("set")), threads)

    def read_rows(self, rows):
        if rows is None:
            return []
        if not isinstance(rows, list) or not rows:
            raise wrong(self.path, "rows: want a list with at least one row")
        found = []
        for row in rows:
            if not isinstance(row, dict):
                raise wrong(self.path, f"rows: want mappings with name and set, got {row!r}")
            name = self.checked_name("rows.name", row.get("name"))
            self.check_keys(f"rows.{name}.", row, ROW_KEYS)
            if name in [other.name for other in found]:
                raise wrong(self.path, f"rows: the name {name} is taken")
            if ("error" in row) != ("share" in row):
                raise wrong(self.path, f"rows.{name}: error and share go together")
            share = self.number(f"rows.{name}.share", row.get("share"))
            overrides = overrides_of(self.path, f"rows.{name}", row.get("set"))
            own = row.get("arms", {})
            if not isinstance(own, dict):
                raise wrong(self.path, f"rows.{name}.arms: want a mapping from an arm to its overrides, got {own!r}")
            own = {label: overrides_of(self.path, f"rows.{name}.arms.{label}", value) for label, value in own.items()}
            found.append(Row(name, overrides, own, row.get("note", ""), row.get("error"), share))
        return found

    def number(self, where, value):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise wrong(self.path, f"{where}: want a number, got {value!r}")
        return value

    def read_arms(self, arms, base, common):
        if not isinstance(arms, list) or not arms:
            raise wrong(self.path, "arms: want a list with at least one arm")
        labels = []
        once, crossed = [], {row.name: [] for row in self.rows}
        for arm in arms:
            if not isinstance(arm, dict):
                raise wrong(self.path, f"arms: want mappings with name and set, got {arm!r}")
            label = self.checked_name("arms.name", arm.get("name"))
            self.check_keys(f"arms.{label}.", arm, ARM_KEYS)
            if label == START or label in labels or label in crossed:
                raise wrong(self.path, f"arms: the name {label} is taken")
            labels.append(label)
            if not isinstance(arm.get("once", False), bool):
                raise wrong(self.path, f"arms.{label}.once: want true or false, got {arm['once']!r}")
            if ("gate" in arm) != ("lambda" in arm):
                raise wrong(self.path, f"arms.{label}: gate and lambda go together")
            spec = self.spec_path(f"arms.{label}.spec", arm.get("spec", base))
            own = overrides_of(self.path, f"arms.{label}", arm.get("set"))
            reward = tuple(self.texts(f"arms.{label}.reward", arm.get("reward", self.reward)))
            rest = (reward, arm.get("note", ""), arm.get("gate"), self.number(f"arms.{label}.lambda", arm.get("lambda")))
            if not self.rows or arm.get("once", False):
                once.append(Arm(label, None, Stage(spec, common + own), *rest))
            else:
                for row in self.rows:
                    overrides = common + row.overrides + own + row.own.get(label, [])
                    crossed[row.name].append(Arm(label, row, Stage(spec, overrides), *rest))
        for row in self.rows:
            for label in row.own:
                if label not in [arm.label for arm in crossed[row.name]]:
                    raise wrong(self.path, f"rows.{row.name}.arms: there is no arm {label!r} that runs in every row")
        return once + [arm for row in self.rows for arm in crossed[row.name]]

    def read_cells(self, cells, base, common):
        """How held-out events are judged, in whose cells the arms are compared; None: they are not."""
        if cells is None:
            return None
        if not isinstance(cells, dict):
            raise wrong(self.path, f"cells: want a mapping with set, and maybe spec and reward, got {cells!r}")
        self.check_keys("cells.", cells, {"spec", "set", "reward"})
        spec = self.spec_path("cells.spec", cells.get("spec", base))
        reward = tuple(self.texts("cells.reward", cells.get("reward", self.reward)))
        overrides = common + overrides_of(self.path, "cells", cells.get("set")) + [
            "rl.optimizer.learning_rate=0", "rl.validation.every=0", f"rl.groups_per_step={CELL_GROUPS}", "seed=1"]
        return Arm(CELLS, None, Stage(spec, overrides), reward, "")

    def read_evaluations(self, evaluations):
        if not isinstance(evaluations, dict) or not evaluations:
            raise wrong(self.path, "evaluations: want a mapping from a name to spec and set, e.g. test: {spec: evaluate.yaml}")
        if "stage" in evaluations or CELLS in evaluations:
            raise wrong(self.path, "evaluations: the names stage and cells are taken by the runner's own files; choose another")
        return {self.checked_name("evaluations", name): self.stage(f"evaluations.{name}", one)
                for name, one in evaluations.items()}


# ------------------------------------------------------------------------------------------------------ processes

class Child:
    """A process that tells its exit code and the CPU time that it took."""

    def __init__(self, argv, log):
        self.argv = argv
        self.log = log
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "w", encoding="utf-8") as file:
            self.process = demo.start(argv, stdout=file, stderr=file)
        self.code = None
        self.cpu_s = 0.0

    def poll(self, options=os.WNOHANG):
        if self.code is None:
            pid, status, usage = os.wait4(self.process.pid, options)
            if pid != 0:
                self.code = self.process.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_s = usage.ru_utime + usage.ru_stime
        return self.code

    def wait(self, stopping, others=()):
        """To its end; ends early, and it too, when all is to stop or one of the others fails."""
        failed_since = None
        while self.poll() is None:
            if stopping.is_set():
                self.stop()
                break
            for other in others:
                if not other.poll():
                    continue
                # What fails because this one is just ending is no failure.
                failed_since = failed_since or time.monotonic()
                if time.monotonic() - failed_since > demo.STOP_SECONDS:
                    self.stop()
                    raise Failure(f"{os.path.basename(other.argv[0])} ended with exit code {other.code}; {other.log}:\n"
                                  + demo.tail(other.log, 5), 11)
            stopping.wait(0.05)
        return self.code

    def stop(self):
        if self.poll() is not None:
            return
        self.process.terminate()
        deadline = time.monotonic() + demo.STOP_SECONDS
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.poll(0)


def free_of_others(run_folder, stopping):
    """Waits until the process of an earlier call, which may still write its checkpoint, lets go of a run folder."""
    import fcntl
    path = os.path.join(run_folder, "lock")
    deadline = time.monotonic() + LOCK_SECONDS
    while os.path.exists(path) and not stopping.is_set():
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise Failure(f"{run_folder} is still in use by another process after {LOCK_SECONDS} s", 11) from None
        stopping.wait(0.2)


def read_json(*names):
    try:
        with open(os.path.join(*names), encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        return None
    except ValueError as error:
        raise Failure(f"{os.path.join(*names)} is not JSON: {error}", 3) from None


def write_json(path, value):
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
    os.replace(path + ".tmp", path)


def digest_of(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def weights_of(model):
    """Digests of a model's weights: of the folder itself, or of the best export of a run folder."""
    for folder in (model, os.path.join(model, "export", "best")):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        weights = [os.path.join(folder, name) for name in names if name.endswith(".safetensors")]
        if weights:
            break
    else:
        raise Failure(f"there are no weights in {model}; want an export, or the run folder of an sft or rl job", 3)
    found = []
    for path in weights:
        with open(path, "rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# ----------------------------------------------------------------------------------------------------------- the run

class Runner:
    def __init__(self, matrix, out, jobs, evaluation):
        self.matrix = matrix
        self.out = os.path.abspath(out)
        self.jobs = jobs
        self.evaluation = evaluation
        self.stopping = threading.Event()
        self.rewards = {}      # flags -> (address, child)
        self.print_lock = threading.Lock()
        self.done = []         # seconds of the arms that this call has run
        self.left = 0
        self.data = matrix.data or os.path.join(self.out, "data")

    def say(self, text):
        with self.print_lock:
            print(text, flush=True)

    # -------------------------------------------------------------------------------------------------- one stage

    def command(self, stage, overrides, run_folder, flags=()):
        argv = [os.path.join(BIN, "sluice-learner"), "run", stage.spec, "--run-folder", run_folder,
                "--threads", str(stage.threads), *flags]
        for override in [*stage.overrides, *overrides]:
            argv += ["--set", override]
        return argv

    def record(self, folder):
        return read_json(folder, "stage.json")

    def is_done(self, folder, digest):
        """True if a stage ended well in this folder. Fails if it was told something else there."""
        record = self.record(folder)
        if record is None:
            return False
        if record["digest"] != digest:
            raise Failure(f"{folder} was made from another spec or start; remove it to run it anew, or choose another "
                          "--out", 3)
        return record["code"] == 0

    def run_stage(self, what, folder, digest, stage, overrides, flags=(), helper=None):
        """Runs a stage unless it is done; returns its record. `helper`: argv of a process beside it."""
        if self.is_done(folder, digest):
            return self.record(folder)
        run_folder = os.path.join(folder, "run")
        free_of_others(run_folder, self.stopping)
        before = self.record(folder) or {}
        record = {"what": what, "digest": digest, "code": 11, "wall_s": before.get("wall_s", 0.0),
                  "cpu_s": before.get("cpu_s", 0.0)}
        os.makedirs(folder, exist_ok=True)
        write_json(os.path.join(folder, "stage.json"), record)  # its digest: an interrupted one must not change its spec
        began = time.monotonic()
        argv = self.command(stage, overrides, run_folder, flags)
        child = Child(argv, os.path.join(folder, "log.txt"))
        beside = [Child(helper, os.path.join(folder, "actor.txt"))] if helper else []
        try:
            child.wait(self.stopping, beside)
        finally:
            for one in [child, *beside]:
                one.stop()
            record["wall_s"] += time.monotonic() - began
            record["cpu_s"] += child.cpu_s + sum(one.cpu_s for one in beside)
            record["code"] = child.code if child.code is not None else 11
            write_json(os.path.join(folder, "stage.json"), record)
        if self.stopping.is_set():
            raise Failure(f"{what} was interrupted; the same command goes on with it", PREEMPTED)
        if child.code != 0:
            raise Failure(f"{what} failed with exit code {child.code}; the end of {child.log}:\n{demo.tail(child.log, 6)}"
                          f"    command: {' '.join(argv)}", child.code if child.code > 0 else 1)
        return record

    # ---------------------------------------------------------------------------------------------- stages of a matrix

    def prepare_data(self):
        stage = self.matrix.prepare
        if stage is None:
            if not os.path.isfile(os.path.join(self.data, "manifest.json")):
                raise Failure(f"there is no prepared data set in {self.data}", 3)
            return
        digest = digest_of(text_of(stage.spec), *stage.overrides)
        self.run_stage("prepare", os.path.join(self.out, "prepare"), digest, stage, [f"prepare.output={self.data}"])

    def train_start(self):
        """Returns (model folder, digest)."""
        if self.matrix.start is None:
            if not os.path.isdir(self.matrix.model):
                raise Failure(f"there is no model in {self.matrix.model}", 3)
            return self.matrix.model, digest_of(self.data_digest(), *weights_of(self.matrix.model))
        folder = os.path.join(self.out, START)
        stage = self.matrix.start
        digest = digest_of(self.data_digest(), text_of(stage.spec), *stage.overrides)
        self.run_stage(START, folder, digest, stage, [f"data={self.data}"])
        return os.path.join(folder, "run", "export", "best"), digest

    def data_digest(self):
        with open(os.path.join(self.data, "manifest.json"), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    def evaluate(self, what, folder, model, upstream):
        """Evaluates a model; returns the record."""
        stage = self.matrix.evaluations[self.evaluation]
        digest = digest_of(upstream, text_of(stage.spec), *stage.overrides)
        return self.run_stage(f"{what}, {self.evaluation}", folder, digest, stage,
                              [f"data={self.data}", f"model.path={model}"])

    def start_reward(self, flags):
        address = f"127.0.0.1:{demo.free_port()}"
        log = os.path.join(self.out, "logs", f"reward-{len(self.rewards)}.txt")
        child = Child([os.path.join(BIN, "sluice-reward"), "--data", self.data, "--address", address, *flags], log)
        self.rewards[flags] = (address, child)
        deadline = time.monotonic() + REWARD_READY_SECONDS
        while "serving address=" not in text_of(log):
            if child.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"sluice-reward {' '.join(flags)} does not serve; {log}:\n{demo.tail(log)}",
                              child.code or 11)
            self.stopping.wait(0.05)

    def arm_folder(self, arm, seed):
        return os.path.join(self.out, "arms", arm.name, f"seed-{seed}")

    def arm_digest(self, arm, seed, upstream):
        return digest_of(upstream, text_of(arm.stage.spec), *arm.stage.overrides, *arm.reward, str(seed))

    def train_arm(self, what, folder, digest, arm, overrides):
        """The job of an arm, with an actor beside it."""
        address = f"127.0.0.1:{demo.free_port()}"
        actor = [os.path.join(BIN, "sluice-actor"), "--learner", address, "--reward", self.rewards[arm.reward][0]]
        self.run_stage(what, folder, digest, arm.stage, overrides, ["--address", address], actor)

    def run_arm(self, arm, seed, model, upstream):
        """Trains an arm and evaluates its best and its final policy. Returns True if anything was to do."""
        folder = self.arm_folder(arm, seed)
        what = f"{arm.name}, seed {seed}"
        digest = self.arm_digest(arm, seed, upstream)
        self.train_arm(what, folder, digest, arm, [f"data={self.data}", f"model.path={model}", f"seed={seed}"])
        same = {}  # checkpoint -> folder of its evaluation
        results = read_json(folder, "run", "results.json")["numbers"]
        last = results["final"]["step"]
        for which in CHECKPOINTS:
            step = results[which].get("step", last)
            # Update 0 is the start, and best may be final: the same weights are evaluated once.
            if step == 0:
                same[which] = os.path.join(self.out, f"{START}-{self.evaluation}")
            elif which == "final" and results["best"].get("step") == last:
                same[which] = same["best"]
            else:
                same[which] = os.path.join(folder, f"{self.evaluation}-{which}")
        waiting = [which for which in CHECKPOINTS if same[which].endswith(f"-{which}")]
        with concurrent.futures.ThreadPoolExecutor(len(CHECKPOINTS)) as pool:
            list(pool.map(lambda which: self.evaluate(f"{what}, {which}", same[which],
                                                      os.path.join(folder, "run", "export", which), digest), waiting))
        write_json(os.path.join(folder, f"{self.evaluation}.json"),
                   {which: os.path.relpath(path, self.out) for which, path in same.items()})

    def cells_folder(self):
        return os.path.join(self.out, f"{CELLS}-{self.evaluation}")

    def judge_cells(self, model, upstream):
        """Judges every held-out event that the evaluation may look at with the start policy, and trains nothing."""
        arm = self.matrix.cells
        split = read_json(self.out, f"{START}-{self.evaluation}", "run", "results.json")["texts"]["split"]
        users = read_json(self.data, "manifest.json")["users"]
        overrides = [f"rl.prompt_split={split}", f"rl.steps={-(-users // CELL_GROUPS)}", f"data={self.data}",
                     f"model.path={model}"]
        digest = digest_of(upstream, text_of(arm.stage.spec), *arm.stage.overrides, *arm.reward, split)
        if self.is_done(self.cells_folder(), digest):
            return
        if arm.reward not in self.rewards:
            self.start_reward(arm.reward)
        self.say(f"{CELLS}: judging the {split} events of {users} users")
        self.train_arm(CELLS, self.cells_folder(), digest, arm, overrides)

    def arm_is_done(self, arm, seed, upstream):
        folder = self.arm_folder(arm, seed)
        return self.is_done(folder, self.arm_digest(arm, seed, upstream)) and \
            os.path.exists(os.path.join(folder, f"{self.evaluation}.json"))

    def run_arm_timed(self, arm, seed, model, upstream):
        """Returns what failed, or None."""
        began = time.monotonic()
        failure = None
        try:
            self.run_arm(arm, seed, model, upstream)
        except Failure as error:
            failure = error
        seconds = time.monotonic() - began
        with self.print_lock:
            self.left -= 1
            if failure is None:
                self.done.append(seconds)
            mean = sum(self.done) / len(self.done) if self.done else seconds
            rest = f"; {self.left} left, about {duration(mean * self.left / self.jobs)}" if self.left else ""
            if failure is None:
                print(f"{arm.name}, seed {seed}: {duration(seconds)}{rest}", flush=True)
            elif not self.stopping.is_set():
                print(f"{arm.name}, seed {seed}: FAILED after {duration(seconds)}{rest}\n{failure}", flush=True)
        return failure

    def run(self, only):
        os.makedirs(self.out, exist_ok=True)
        try:
            return self.run_all(only)
        finally:
            self.stopping.set()
            for _, child in self.rewards.values():
                child.stop()

    def run_all(self, only):
        arms = [arm for arm in self.matrix.arms if not only or names_of(arm) & set(only)]
        self.prepare_data()
        model, upstream = self.train_start()
        self.evaluate(START, os.path.join(self.out, f"{START}-{self.evaluation}"), model, upstream)
        # The order of seeds first: after one seed of every arm there is a first table to look at.
        todo = [(arm, seed) for seed in self.matrix.seeds for arm in arms
                if not self.arm_is_done(arm, seed, upstream)]
        self.left = len(todo)
        total = len(arms) * len(self.matrix.seeds)
        self.say(f"{self.matrix.name}: {total - len(todo)} of {total} runs are done; {self.jobs} at a time")
        for flags in dict.fromkeys(arm.reward for arm, _ in todo):
            self.start_reward(flags)
        failures = {}
        if self.matrix.cells:
            try:
                self.judge_cells(model, upstream)
            except Failure as error:
                if self.stopping.is_set():
                    raise
                failures[CELLS] = error
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(self.run_arm_timed, arm, seed, model, upstream): (arm, seed) for arm, seed in todo}
            try:
                for future in concurrent.futures.as_completed(futures):
                    if future.result() is not None:
                        arm, seed = futures[future]
                        failures[f"{arm.name}, seed {seed}"] = future.result()
            except BaseException:
                self.stopping.set()
                for future in futures:
                    future.cancel()
                raise
        return failures


def write_tables(runner, failures):
    report = matrix_report.collect(runner.matrix, runner.out, runner.evaluation, failures)
    if report is None:
        print("no arm has ended, so there is no table")
        return None
    compare(runner, report)
    compare_cells(runner, report)
    base = os.path.join(runner.out, runner.evaluation)
    write_json(base + ".json", report)
    for suffix, render in ((".md", matrix_report.markdown), (".html", matrix_report.page)):
        with open(base + suffix, "w", encoding="utf-8") as file:
            file.write(render(report))
    gains = matrix_report.gains_csv(report)
    if gains:
        with open(base + ".gains.csv", "w", encoding="utf-8") as file:
            file.write(gains)
    print("\n" + matrix_report.markdown(report))
    if gains:
        print(f"Gains, for sluicectl advise: {base}.gains.csv")
    print(f"Table: {base}.md, {base}.json; page: {base}.html")
    return report


def compare(runner, report):
    """Puts the intervals of `sluice-learner compare` into the report: for each checkpoint, and for each row if there are
    rows, since an arm of one row is no control of another."""
    report["comparisons"] = {}
    metrics = matrix_report.compared_metrics(runner.matrix, report, runner.out)
    if not metrics:
        return
    for which in CHECKPOINTS:
        for row in [row.name for row in runner.matrix.rows] or [None]:
            arms = [arm for arm in report["arms"] if arm["runs"] and arm["row"] in (None, row)]
            if not any(arm["row"] == row for arm in arms):
                continue
            flags = ["--metrics", ",".join(metrics)]
            for name in runner.matrix.against:
                if name == START or name in [arm["label"] for arm in arms]:
                    flags += ["--against", name]
            key = which if row is None else f"{which}, {row}"
            answer = answer_of_compare(runner, report, key, which, {arm["label"]: arm for arm in arms}, flags)
            if answer is not None:
                report["comparisons"][key] = answer


def compare_cells(runner, report):
    """Where training changed what: the arms at their final checkpoint within each cell of the stratified analysis."""
    run = os.path.join(runner.cells_folder(), "run")
    results = read_json(run, "results.json") if runner.matrix.cells else None
    if results is None:
        return
    report["cells"] = {key.split("/")[1]: value for key, value in results["numbers"].items() if key.startswith("cell/")}
    arms = {arm["name"]: arm for arm in report["arms"] if arm["runs"]}
    answer = answer_of_compare(runner, report, CELLS, "final", arms,
                               ["--metrics", "hr@10", "--against", START, "--cells", run])
    if answer is not None:
        report["cell_comparisons"] = answer


def answer_of_compare(runner, report, key, which, arms, flags):
    """What `sluice-learner compare` says of the start and of {name: arm} at a checkpoint. None if it refuses: the values
    stand without it, and the page says why there are no intervals."""
    named = [f"{START}={os.path.join(runner.out, report['start']['folder'], 'run')}"]
    for name, arm in arms.items():
        runs = [os.path.join(runner.out, run["evaluations"][which], "run") for run in arm["runs"]]
        named.append(f"{name}={','.join(runs)}")
    path = os.path.join(runner.out, "logs", f"compare-{runner.evaluation}-{key.replace(', ', '-')}.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    argv = [os.path.join(BIN, "sluice-learner"), "compare", *named, "--json", path, "--resamples",
            str(runner.matrix.resamples), *flags]
    answer = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=TOP)
    if answer.returncode == 0:
        return read_json(path)
    report.setdefault("comparison_failures", {})[key] = answer.stderr.strip()
    return None


def validate(matrix):
    """Every spec, before anything runs: a typing error in the last arm must not show after hours."""
    stages = [("prepare", matrix.prepare), (START, matrix.start)]
    stages += [(f"evaluations.{name}", stage) for name, stage in matrix.evaluations.items()]
    stages += [(f"arms.{arm.name}", arm.stage) for arm in matrix.arms]
    if matrix.cells:
        stages.append((CELLS, matrix.cells.stage))
    for where, stage in stages:
        if stage is None:
            continue
        argv = [os.path.join(BIN, "sluicectl"), "validate", stage.spec]
        extra = [] if where == "prepare" else ["data=placeholder"]
        if where not in ("prepare", START):
            extra.append("model.path=placeholder")
        for override in [*stage.overrides, *extra]:
            argv += ["--set", override]
        answer = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=TOP)
        if answer.returncode != 0:
            raise wrong(matrix.path, f"{where}: {(answer.stderr or answer.stdout).strip()}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="./sluice matrix", description="Run arms of an experiment with several seeds.")
    parser.add_argument("file", help="the matrix, YAML (docs/results.md)")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2),
                        help="arms at the same time; each takes about two cores (default: half of the cores)")
    parser.add_argument("--out", help="folder of the results (default: .sluice/matrix/NAME)")
    parser.add_argument("--evaluation", help="which of the file's evaluations to make and to tabulate (default: the first)")
    parser.add_argument("--data", metavar="DIR", help="a prepared data set, in place of the file's prepare or data")
    parser.add_argument("--model", metavar="DIR", help="the start policy, in place of the file's start: an export or a run")
    parser.add_argument("--only", help="what to run, joined by commas: ARM, ROW or ROW.ARM (default: all)")
    parser.add_argument("--replicates", metavar="N,...", help="run everything once with each of these seeds, data set and "
                        "start included, and pool the tables")
    parser.add_argument("--dry-run", action="store_true", help="check all specs and list what would run")
    args = parser.parse_args(argv)
    try:
        matrix = Matrix(args.file)
        if args.data:
            matrix.data, matrix.prepare = os.path.abspath(args.data), None
        if args.model:
            matrix.model, matrix.start = os.path.abspath(args.model), None
        evaluation = args.evaluation or next(iter(matrix.evaluations))
        if evaluation not in matrix.evaluations:
            raise wrong(args.file, f"there is no evaluation {evaluation!r}; want one of {', '.join(matrix.evaluations)}")
        only = args.only.split(",") if args.only else []
        for name in only:
            if not any(name in names_of(arm) for arm in matrix.arms):
                raise Failure(f"--only: there is no arm and no row {name!r}", 2)
        if args.jobs < 1:
            raise Failure(f"--jobs: want at least 1, got {args.jobs}", 2)
        validate(matrix)
        if args.dry_run:
            print(f"{matrix.name}: {len(matrix.arms)} arms, {len(matrix.seeds)} seeds, evaluation {evaluation}")
            for arm in matrix.arms:
                print(f"  {arm.name}: {os.path.relpath(arm.stage.spec, TOP)} {' '.join(arm.stage.overrides)}")
            return 0
        out = args.out or os.path.join(TOP, ".sluice", "matrix", matrix.name)
        if args.replicates:
            if args.data or args.model:
                raise Failure("--replicates make their own data set and start; remove --data and --model", 2)
            run_replicates(args, replicates_of(args.replicates), os.path.abspath(out), evaluation, only)
            return 0
        runner = Runner(matrix, out, args.jobs, evaluation)
        failures = runner.run(only)
        write_tables(runner, failures)
        if failures:  # named in the table too
            print(f"{len(failures)} runs failed: {'; '.join(failures)}. The same command tries them again.", file=sys.stderr)
            return 1
        return 0
    except Failure as error:
        print(f"sluice: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("sluice: interrupted; the same command goes on", file=sys.stderr)
        return 130


def replicates_of(text):
    """The numbers of --replicates."""
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    most = max(matrix_report.T_975) + 1
    if not 2 <= len(numbers) <= most or len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise Failure(f"--replicates: want 2 to {most} different whole numbers joined by commas, got {text!r}", 2)
    return numbers


def run_replicates(args, numbers, out, evaluation, only):
    """The whole matrix once for each number: data set, start and arms have it as their seed. So what differs between
    replicates is everything that chance decides, and the pooled intervals speak of that."""
    reports = []
    for number in numbers:
        print(f"Replicate {number}", flush=True)
        matrix = Matrix(args.file)
        if matrix.prepare is None and matrix.start is None:
            raise wrong(args.file, "replicates make their own data set or start; want prepare or start.spec in the file")
        for stage in (matrix.prepare, matrix.start):
            if stage is not None:
                stage.overrides.append(f"seed={number}")
        matrix.seeds = [number]
        runner = Runner(matrix, os.path.join(out, f"replicate-{number}"), args.jobs, evaluation)
        failures = runner.run(only)
        report = write_tables(runner, failures)
        if failures:
            raise Failure(f"{len(failures)} runs of replicate {number} failed: {'; '.join(failures)}. The same command "
                          "tries them again.", 1)
        reports.append(report)
    pooled = matrix_report.pool_replicates(reports, numbers)
    base = os.path.join(out, f"{evaluation}.replicates")
    write_json(base + ".json", pooled)
    with open(base + ".md", "w", encoding="utf-8") as file:
        file.write(matrix_report.replicates_markdown(pooled))
    print("\n" + matrix_report.replicates_markdown(pooled))
    print(f"Table: {base}.md, {base}.json")


def on_signal(*unused):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, on_signal)
    sys.exit(main())
