"""./sluice bench --compare hf: Sluice and Hugging Face's transformers on the same work, in turn, and their ratios.

Each row of work runs in two processes, one a side, that stay and do it once whenever they are told: ours, theirs,
ours, theirs. Both read the same model and the same work file, and what came of the first time is compared before
anything is timed. docs/benchmarks.md says what the rows are.
"""

import fcntl
import glob
import json
import os
import select
import shutil
import subprocess
import time

import bench_loop
import bench_report
import bench_work
import demo
from bench_report import TOP, Failure

PLACE = os.path.join(TOP, "build", "bench")
DRIVER = os.path.join(TOP, "build", "benchmarks", "compare_driver")
HF_SIDE = os.path.join(TOP, "tests", "bench", "hf", "hf_side.py")
START_SECONDS = 300   # for a side to load and do its work the first time
SAMPLE_SECONDS = 300  # for one sample
TOLERANCE = 1e-3      # of losses and gradient norms, relative; of beam scores, absolute
EVAL_USERS = {"S": 32, "M": 16}

YARDSTICKS = ("sgemm", "shapes")  # torch's own products, timed beside the update
ROWS = {  # name -> title
    "beams": "16 constrained beams, 8 prompts",
    "samples": "16 constrained samples, 8 prompts",
    "eval": "50 beams, users as they come",
    "update": "update, 8 prompts x 16 (ours with the NLL target too)",
    "sft": "sft step, 64 sequences as users come",
    "loop": "whole step: sample, score, update, publish; 64 prompts x 16",
}
# What the project wants to reach, by row, size and history; absent: no figure was set.
REACH = {("beams", 20): 12, ("beams", 50): 18, ("samples", 20): 12, ("samples", 50): 18, ("eval", 20): 15,
         ("update", 20): 9, ("update", 50): 13}
REACH_LOOP = {1: 13, 2: 8}  # by cores of each side
REACH_SFT = {"S": 4.0, "M": 3.6}
REACH_MEMORY = 4
REACH_EFFICIENCY = {"S": 0.69, "M": 0.78}
REACH_TWO_THREADS = 1.6


def reach(row, size, history, threads):
    if row == "loop":
        return REACH_LOOP.get(threads) if (size, history) == ("S", 20) else None
    if row == "sft":
        return REACH_SFT.get(size) if history == 20 else None
    return REACH.get((row, history))


# ------------------------------------------------------------------------------------------------ the sides

def python_environment():
    """Variables with which .venv's Python can import the CUDA wheel of torch on a machine without CUDA."""
    found = glob.glob(os.path.join(TOP, ".venv", "lib", "python3*", "site-packages"))
    if not found or not os.path.isdir(os.path.join(found[0], "transformers")):
        raise Failure("transformers is not installed in .venv: ./sluice bench --compare hf does that first", 3)
    for tool in ("cc", "readelf", "nm"):
        if shutil.which(tool) is None:
            raise Failure(f"{tool} is not installed: Debian packages gcc and binutils", 4)
    cuda = os.path.join(found[0], "nvidia", "cu13", "lib")
    stand_ins = os.path.join(PLACE, "cuda_stand_ins")
    subprocess.run([os.path.join(TOP, ".venv", "bin", "python"), os.path.join(TOP, "tests", "oracle", "cuda_stand_ins.py"),
                    os.path.join(found[0], "torch", "lib"), cuda, stand_ins], check=True, stdout=subprocess.DEVNULL)
    environment = dict(os.environ, HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, [stand_ins, cuda, os.environ.get("LD_LIBRARY_PATH", "")]))
    return environment


def busy_seconds():
    """CPU seconds that all processes of the machine have used."""
    with open("/proc/stat", encoding="utf-8") as file:
        ticks = [int(x) for x in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


class Side:
    """A process that answers lines: the first by itself, then one for every "run"."""

    def __init__(self, name, argv, environment, log):
        self.name, self.log = name, log
        with open(log, "a", encoding="utf-8") as file:
            self.process = subprocess.Popen(argv, cwd=TOP, env=environment, stdin=subprocess.PIPE, text=True,
                                            stdout=subprocess.PIPE, stderr=file, preexec_fn=demo.die_with_parent)

    def answer(self, seconds):
        # One line is asked for at a time, so nothing can wait in the pipe's buffer while select sees none.
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            why = "did not answer in time" if not ready else "ended"
            self.close()
            tail = demo.tail(self.log) if os.path.exists(self.log) else ""
            raise Failure(f"{self.name} {why}; the last lines of {os.path.relpath(self.log, TOP)}:\n{tail}", 11)
        return json.loads(line)

    def sample(self):
        busy = busy_seconds()
        started = time.monotonic()
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        sample = self.answer(SAMPLE_SECONDS)
        elapsed = time.monotonic() - started
        # Cores that other processes used meanwhile: on a shared machine wall time lies.
        sample["others"] = max(0.0, (busy_seconds() - busy - sample["cpu"] * sample["calls"]) / elapsed)
        return sample

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# ------------------------------------------------------------------------------------------------ work

def prepare_ml_100k():
    """The demo's data set with semantic IDs of 256 codes a level, by the project's own prepare; its folder, or None."""
    events = glob.glob(os.path.join(TOP, ".venv", "lib", "python3*", "site-packages", "recbole", "dataset_example",
                                    "ml-100k", "ml-100k.inter"))
    learner = os.path.join(TOP, "build", "bin", "sluice-learner")
    folder = os.path.join(PLACE, "ml-100k")
    if os.path.isdir(folder):
        return folder
    if not events or not os.access(learner, os.X_OK):
        return None
    spec = os.path.join(PLACE, "prepare.yaml")
    with open(spec, "w", encoding="utf-8") as file:
        file.write(f"name: ml-100k\nkind: prepare\nprepare:\n  events: {json.dumps(events[0])}\n"
                   f"  output: {json.dumps(folder)}\n  sids:\n    levels: 3\n    codes: 256\n"
                   "  ranker:\n    sequential: false\n")
    print("Preparing ML-100K", flush=True)
    runs = os.path.join(PLACE, "ml-100k.run")
    shutil.rmtree(runs, ignore_errors=True)
    with open(os.path.join(PLACE, "prepare.log"), "w", encoding="utf-8") as log:
        status = subprocess.run([learner, "run", spec, "--run-folder", runs], stdout=log, stderr=log).returncode
    if status != 0:
        raise Failure(f"prepare failed:\n{demo.tail(log.name)}", 3)
    return folder


def read_events(data):
    """The folder that was asked for, Beauty beside the project, ML-100K, or synthetic events: the first that is there."""
    places = [data] if data else [os.path.join(TOP, *up, "shared", "data", "beauty") for up in ((os.pardir,), (os.pardir,) * 2)]
    for place in places:
        if all(os.path.isfile(os.path.join(place, name)) for name in ("inter.json", "index_rqvae.json")):
            return bench_work.Events.beauty(place)
    if data:
        raise Failure(f"there is no inter.json and index_rqvae.json in {data}; docs/data.md says where they come from", 3)
    folder = prepare_ml_100k()
    if folder:
        return bench_work.Events.prepared(folder, "MovieLens 100K, semantic IDs by residual quantised k-means")
    return bench_work.Events.synthetic()


# ------------------------------------------------------------------------------------------------ one row

def relative(a, b):
    return abs(a - b) / max(abs(a), abs(b), 1e-12)


def disagreement(row, ours, theirs):
    """What the two sides' first results say of each other: (sentence, whether they agree)."""
    if row == "samples":
        return f"all of the catalog: {ours['valid']:.0%}, theirs {theirs['valid']:.0%}", ours["valid"] == theirs["valid"] == 1
    if row == "beams":
        worst, same, total = 0.0, 0, 0
        for mine, scores, other, other_scores in zip(ours["beams"], ours["scores"], theirs["beams"], theirs["scores"]):
            mine, other = dict(zip(map(tuple, mine), scores)), dict(zip(map(tuple, other), other_scores))
            same += len(mine.keys() & other.keys())
            total += len(other)
            worst = max([worst, abs(len(mine) - len(other))] + [abs(a - b) for a, b in zip(
                sorted(mine.values(), reverse=True), sorted(other.values(), reverse=True))])
        # Two beams of almost one score may change places at the edge; the scores then still agree.
        return f"{same} of {total} beams the same, scores to {worst:.1e}", worst < TOLERANCE and same >= 0.98 * total
    if row == "eval":
        # An untrained model seldom finds the target, so the first ten beams are compared too.
        same = sum(a == b for a, b in zip(ours["ranks"], theirs["ranks"]))
        common = sum(len(set(map(tuple, a)) & set(map(tuple, b))) for a, b in zip(ours["beams"], theirs["beams"]))
        total = sum(map(len, theirs["beams"]))
        return (f"{same} of {len(theirs['ranks'])} ranks and {common} of {total} first ten beams the same",
                len(ours["ranks"]) == len(theirs["ranks"]) and same >= 0.98 * len(theirs["ranks"])
                and common >= 0.98 * total)
    worst = {key: relative(ours[key], value) for key, value in theirs.items()}
    return ", ".join(f"{key} to {value:.1e}" for key, value in worst.items()), max(worst.values()) < TOLERANCE


def quiet(samples, threads):
    """Whether wall time can be believed: other processes left this row's threads their cores."""
    return all(s["others"] <= max(os.cpu_count() - threads - 0.1, 0.08) for s in samples)


def measure(row, size, history, threads, pairs, files, environment):
    """One row's record: samples of both sides in turn."""
    common = ["--work", files["work"], "--model", files["model"], "--threads", str(threads)]
    own = dict(environment, OMP_NUM_THREADS=str(threads))
    log = os.path.join(PLACE, "compare.log")
    python = os.path.join(TOP, ".venv", "bin", "python")
    sides = []
    try:
        ours = Side("Sluice", [DRIVER, row, *common], dict(os.environ, OMP_NUM_THREADS=str(threads)), log)
        sides.append(ours)
        result_ours = ours.answer(START_SECONDS)["result"]
        theirs = Side("transformers", [python, "-B", HF_SIDE, "run", row, *common], own, log)
        sides.append(theirs)
        facts = theirs.answer(START_SECONDS)
        words, agree = disagreement(row, result_ours, facts["result"])
        record = {"row": row, "size": size, "history": history, "threads": threads, "agreement": words, "agree": agree,
                  "transformers": facts["transformers"], "ours": [], "theirs": []}
        if row == "update":
            record["flops"] = result_ours["flops"]
            for name in YARDSTICKS:
                side = Side(name, [DRIVER, name, *common], dict(os.environ, OMP_NUM_THREADS=str(threads)), log)
                sides.append(side)
                record.update({f"{name}_flops": side.answer(START_SECONDS)["result"]["flops"], name: []})
        names = ("ours", "theirs", *YARDSTICKS)[:len(sides)]
        for number in range(pairs + 1):
            for name, side in zip(names, sides):
                sample = side.sample()
                if number > 0:  # the first real step still makes optimizer state and fills caches
                    record[name].append(sample)
        return record
    finally:
        for side in sides:
            side.close()


def measure_loop(size, history, threads, pairs, events, files, environment):
    """The same for row loop, whose own side is a cluster of processes."""
    place = os.path.join(PLACE, "loop")
    data = bench_loop.prepare(events, place, history)
    work = os.path.join(place, "work.json")
    bench_loop.write_json(work, bench_work.make_loop_work(events, history))
    python = os.path.join(TOP, ".venv", "bin", "python")
    theirs = Side("transformers", [python, "-B", HF_SIDE, "run", "loop", "--work", work, "--model", files["model"], "--threads",
                                   str(threads)], dict(environment, OMP_NUM_THREADS=str(threads)),
                  os.path.join(PLACE, "compare.log"))
    try:
        facts = theirs.answer(START_SECONDS)
        record = {"row": "loop", "size": size, "history": history, "threads": threads, "ours": [], "theirs": [],
                  "transformers": facts["transformers"]}
        loop = bench_loop.Loop(place, data, files["model"], threads)
        try:
            for _ in range(pairs):
                record["ours"].append(loop.sample(busy_seconds))
                record["theirs"].append(theirs.sample())
        finally:
            loop.close()
    finally:
        theirs.close()
    unsampled = sum(s["unsampled"] for s in record["ours"])
    zero = max(s["zero_advantage"] for s in record["ours"])
    record["agreement"] = f"{unsampled:.0f} groups unsampled, {zero:.1%} without advantages"
    record["agree"] = unsampled == 0 and zero < 0.01
    return record


def summarise(record, basis):
    """Adds the ratios, by wall or CPU seconds, to a record."""
    samples = record["ours"] + record["theirs"] + [s for name in YARDSTICKS for s in record.get(name, [])]
    record["basis"] = basis if basis != "auto" else "wall" if quiet(samples, record["threads"]) else "cpu"
    record["others"] = round(max(s["others"] for s in samples), 2)
    key = record["basis"]
    record["ratio"] = bench_report.spread([b[key] / a[key] for a, b in zip(record["ours"], record["theirs"])])
    for side in ("ours", "theirs"):
        record[f"{side}_seconds"] = bench_report.spread([s[key] for s in record[side]])
        record[f"{side}_peak_mib"] = max(s["peak_mib"] for s in record[side])
    if record["row"] == "update":
        record["efficiency"] = bench_report.spread([
            (record["flops"] / a[key]) / (record["sgemm_flops"] / g[key]) for a, g in zip(record["ours"], record["sgemm"])])
        for name in YARDSTICKS:
            record[f"{name}_gflops"] = bench_report.spread([record[f"{name}_flops"] / g[key] / 1e9 for g in record[name]])
    return record


# ------------------------------------------------------------------------------------------------ the command

def name_of(record):
    return f"{record['row']} {record['size']} h{record['history']}, {record['threads']} thread" + (
        "s" if record["threads"] > 1 else "")


def target(value, wanted, higher=True):
    if wanted is None:
        return "-"
    met = value >= wanted if higher else value <= wanted
    return f"{wanted:g} ({'reached' if met else 'short'})"


def report_lines(records):
    text, seconds = bench_report.spread_text, bench_report.seconds_text
    rows = [[f"{ROWS[r['row']]}: {name_of(r)}", seconds(r["ours_seconds"]), seconds(r["theirs_seconds"]), text(r["ratio"]),
             target(r["ratio"]["median"], reach(r["row"], r["size"], r["history"], r["threads"])), r["basis"], r["others"],
             r["agreement"] if r["agree"] else f"DISAGREE: {r['agreement']}"] for r in records]
    lines = bench_report.table(["time: median (min to max)", "ours", "transformers", "times as fast", "reach", "basis",
                                "cores used by others, at most", "first results"], rows)
    updates = [r for r in records if r["row"] == "update"]
    if updates:
        rows = [[name_of(r), figure_mib(r["ours_peak_mib"]), figure_mib(r["theirs_peak_mib"]),
                 f"{r['theirs_peak_mib'] / r['ours_peak_mib']:.1f}",
                 target(r["theirs_peak_mib"] / r["ours_peak_mib"], REACH_MEMORY), text(r["sgemm_gflops"]),
                 text(r["shapes_gflops"]), text(r["efficiency"]), target(r["efficiency"]["median"], REACH_EFFICIENCY[r["size"]])] for r in updates]
        lines += [""] + bench_report.table(
            ["update", "our peak MiB", "their peak MiB", "times less", "reach", "torch's sgemm 1024, GFLOP/s",
             "torch's sgemm at the update's shapes",
             "our efficiency: share of it", "reach"], rows)
    lines += two_thread_lines(updates)
    return lines


def figure_mib(value):
    return f"{value:.0f}"


def two_thread_lines(updates):
    """Speed-up of two threads where both were measured by wall time."""
    by_place = {(r["size"], r["history"], r["threads"]): r for r in updates if r["basis"] == "wall"}
    rows = []
    for (size, history, threads), two in by_place.items():
        one = by_place.get((size, history, 1))
        if threads == 2 and one:
            gain = one["ours_seconds"]["median"] / two["ours_seconds"]["median"]
            theirs = one["theirs_seconds"]["median"] / two["theirs_seconds"]["median"]
            rows.append([f"update {size} h{history}", f"{gain:.2f}", target(gain, REACH_TWO_THREADS), f"{theirs:.2f}"])
    return [""] + bench_report.table(["two threads over one, wall", "ours", "reach", "transformers"], rows) if rows else []


def choose(text, known, what):
    chosen = text.split(",") if text else list(map(str, known))
    for name in chosen:
        if name not in map(str, known):
            raise Failure(f"there is no {what} '{name}'; want {', '.join(map(str, known))}", 2)
    return chosen


def add_arguments(parser):
    group = parser.add_argument_group("with --compare hf")
    group.add_argument("--rows", help=f"comma-separated, of {','.join(ROWS)} (default all)")
    group.add_argument("--sizes", help="of S,M (default both)")
    group.add_argument("--histories", help="of 20,50 (default both)")
    group.add_argument("--threads", default="1", help="of 1,2: torch threads of each side (default 1)")
    group.add_argument("--pairs", type=int, default=5, help="samples of each side, in turn (default 5)")
    group.add_argument("--basis", choices=("auto", "wall", "cpu"), default="auto",
                       help="seconds that ratios are made of; auto: wall where no other process took a core, else CPU")
    group.add_argument("--data", metavar="DIR", help="folder with inter.json and index_rqvae.json (default: Beauty beside "
                       "the project if it is there, else ML-100K)")
    group.add_argument("--add", action="store_true", help="keep rows of the last result that are not measured now")


def run(arguments):
    rows = choose(arguments.rows, ROWS, "row")
    sizes = choose(arguments.sizes, ("S", "M"), "size")
    histories = [int(x) for x in choose(arguments.histories, (20, 50), "history")]
    threads = [int(x) for x in choose(arguments.threads, (1, 2), "number of threads")]
    if arguments.pairs < 1:
        raise Failure(f"want at least one pair, got {arguments.pairs}", 2)
    if not os.access(DRIVER, os.X_OK):
        raise Failure("build/benchmarks/compare_driver is not built; ./sluice bench builds it", 3)
    os.makedirs(PLACE, exist_ok=True)
    lock = open(os.path.join(PLACE, "compare.lock"), "w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure("another comparison is running in build/bench: they would take each other's cores", 11) from None
    with lock:
        return run_alone(arguments, rows, sizes, histories, threads)


def run_alone(arguments, rows, sizes, histories, threads):
    prefix = os.path.join(PLACE, "compare-hf")
    facts = bench_report.context(",".join(map(str, threads)))
    environment = python_environment()
    events = read_events(arguments.data)
    print(f"Work: {events.name}", flush=True)
    records = earlier_records(prefix + ".json") if arguments.add else {}  # read first: a bad file is told at once
    for count in threads:
        for size in sizes:
            for history in histories:
                for row in rows:
                    if row == "eval" and history == 50 and not arguments.rows:
                        continue  # users as they come seldom have more than 20 items: the same work as at 20
                    if row == "loop" and (size, history) != ("S", 20) and not arguments.rows:
                        continue  # minutes a step on the other side
                    files = make_files(events, size, history, environment)
                    if row == "loop":
                        record = measure_loop(size, history, count, arguments.pairs, events, files, environment)
                    else:
                        record = measure(row, size, history, count, arguments.pairs, files, environment)
                    summarise(record, arguments.basis)
                    record.update(data=events.name, commit=facts["versions"]["commit"])
                    print(f"{name_of(record):<26} {bench_report.spread_text(record['ratio'])} times as fast "
                          f"[{record['basis']}]; {record['agreement']}", flush=True)
                    records[name_of(record)] = record
    records = sorted(records.values(), key=lambda r: (r["threads"], list(ROWS).index(r["row"]), r["size"] != "S", r["history"]))
    lines = ["# Sluice and transformers on the same work", ""] + bench_report.context_lines(facts) + [
        f"transformers {records[0]['transformers']}. Data: {', '.join(sorted({r['data'] for r in records}))}. "
        f"Rows of commit {', '.join(sorted({r['commit'] for r in records}))}.", ""]
    lines += report_lines(records)
    print("\n" + "\n".join(lines))
    benchmarks = [{"name": name_of(r), "cpu": bench_report.spread([s["cpu"] for s in r["ours"]]),
                   "real": bench_report.spread([s["wall"] for s in r["ours"]])} for r in records]
    bench_report.write_results(prefix, {**facts, "benchmarks": benchmarks, "records": records}, lines)
    wrong = [name_of(r) for r in records if not r["agree"]]
    if wrong:
        raise Failure(f"the two sides disagree, so their times say nothing: {'; '.join(wrong)}", 1)
    return {entry["name"]: entry for entry in benchmarks}


def earlier_records(path):
    try:
        with open(path, encoding="utf-8") as file:
            return {name_of(r): r for r in json.load(file)["records"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise Failure(f"cannot add to {path}: {error!r}", 3) from None


def make_files(events, size, history, environment):
    model = os.path.join(PLACE, "models", size)
    if not os.path.isdir(model):
        aside = model + ".partial"
        shutil.rmtree(aside, ignore_errors=True)
        os.makedirs(aside)
        with open(os.path.join(PLACE, "compare.log"), "a", encoding="utf-8") as log:
            status = subprocess.run([os.path.join(TOP, ".venv", "bin", "python"), "-B", HF_SIDE, "model", size, aside],
                                    env=environment, stdout=log, stderr=log).returncode
        if status != 0:
            raise Failure(f"transformers could not make the model:\n{demo.tail(log.name)}", 1)
        os.rename(aside, model)
    work = os.path.join(PLACE, f"work-{size}-{history}.json")
    with open(work, "w", encoding="utf-8") as file:
        json.dump(bench_work.make_work(events, history, EVAL_USERS[size]), file)
    return {"model": model, "work": work}
