"""The commands of docs/tutorial.md and docs/howto.md do what they show: every `sh` block is run, in order, in one shell,
in a folder that looks like Sluice's. The notebook's cells are run as it would run them.

What is done smaller than the pages say, each with what it saves, is in SMALLER; nothing is left out.
"""
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import unittest

import support

support.require("grpc", "numpy")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import harness  # noqa: E402

if not os.path.exists(os.path.join(harness.BIN, "sluice-learner")):
    support.skip(f"there is no sluice-learner in {harness.BIN}")

PAGES = ("tutorial.md", "howto.md")
NOTEBOOK = os.path.join(support.TOP, "examples", "notebooks", "first_hour.ipynb")
# A hang must fail, a loaded machine must not.
LIMIT_S = 800
# (what a page says, what is run instead): the page's sizes take minutes.
SMALLER = (
    ("  passes: 30\n", "  passes: 3\n"),
    ("validation: {every: 5, beams: 20}", "validation: {every: 3, beams: 10}"),
    ("  steps: 60\n", "  steps: 3\n"),
    ("  groups_per_step: 32\n", "  groups_per_step: 16\n"),
    ("validation: {every: 20, beams: 20}", "validation: {every: 3, beams: 10}"),
    ("--set rl.steps=200", "--set rl.steps=40"),
    ("seeds: [1, 2]\n", "seeds: [1]\nresamples: 100\n"),
    ("  sids: {levels: 2, codes: 8, vector_dim: 8}\n",
     "  sids: {levels: 2, codes: 8, vector_dim: 8}\n  ranker: {hidden_size: 16, layers: 1, heads: 1, passes: 2}\n"),
)
UP = re.compile(r"^\./sluice up (.*)$", re.MULTILINE)


def blocks(page):
    """[(line, language, text)] of a page; a block may be part of a list."""
    with open(os.path.join(support.TOP, "docs", page), encoding="utf-8") as file:
        text = file.read()
    found = []
    for match in re.finditer(r"(?ms)^( *)```(\w*)\n(.*?)^\1```$", text):
        lines = [line.removeprefix(match.group(1)) for line in match.group(3).splitlines(keepends=True)]
        found.append((text.count("\n", 0, match.start(3)) + 1, match.group(2), "".join(lines)))
    return found


def free_ports(count=12):
    """The first of so many ports in a row that nobody listens at."""
    while True:
        first = int(harness.free_address().rpartition(":")[2])
        try:
            for port in range(first, first + count):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


class HomeTest(harness.SluiceTest):
    def make_home(self):
        """A folder like Sluice's after `./sluice build`, whose entry script sets nothing up and builds nothing."""
        home = self.path("home")
        os.makedirs(os.path.join(home, "build"))
        for name in ("client", "docs", "examples", "tools", "proto", "LICENSE"):
            os.symlink(os.path.join(support.TOP, name), os.path.join(home, name))
        os.symlink(os.path.realpath(harness.BIN), os.path.join(home, "build", "bin"))
        os.symlink(sys.prefix, os.path.join(home, ".venv"))
        with open(os.path.join(support.TOP, "sluice"), encoding="utf-8") as file:
            script = file.read()
        self.assertTrue(script.endswith('\nmain "$@"\n'))
        script = script.removesuffix('main "$@"\n') + 'setup() { :; }\nbuild_preset() { :; }\nmain "$@"\n'
        with open(os.path.join(home, "sluice"), "w", encoding="utf-8") as file:
            file.write(script)
        os.chmod(os.path.join(home, "sluice"), 0o755)
        self.port = free_ports()
        self.environment = dict(
            os.environ, NO_COLOR="1", OMP_NUM_THREADS="1", SLUICE_SERVER=f"127.0.0.1:{self.port}",
            # pip installs into a folder of the test, from what is here already.
            PIP_NO_INDEX="1", PIP_NO_DEPS="1", PIP_TARGET=self.path("site"), PYTHONPATH=support.SITE,
            PYTHONDONTWRITEBYTECODE="1", SLUICE_FLAGS=f"--port {self.port} --ranks 1 --actors 1")
        return home

    def run_all(self, argv, home, name):
        """What it said; its process group, with whatever it started, ends with it."""
        with open(self.path(f"{name}.log"), "w+b") as log:
            process = subprocess.Popen(argv, cwd=home, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, start_new_session=True,
                                       preexec_fn=harness.die_with_parent)
            try:
                code = process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                code = f"nothing within {LIMIT_S} s"
            finally:
                try:
                    os.killpg(process.pid, signal.SIGTERM)  # ./sluice up, which ends its own processes
                except ProcessLookupError:
                    pass
                process.kill()
                process.wait()
            log.seek(0)
            said = log.read().decode("utf-8", "replace")
        self.assertEqual(code, 0, f"{said[-6000:]}\n{self.service_log(home)}")
        return said

    def service_log(self, home):
        """The last lines of the service's processes."""
        logs = os.path.join(home, ".sluice", "up", "logs")
        said = []
        for name in sorted(os.listdir(logs)) if os.path.isdir(logs) else []:
            with open(os.path.join(logs, name), encoding="utf-8", errors="replace") as file:
                said.append(f"--- {name}\n" + "".join(file.readlines()[-12:]))
        return "\n".join(said)


class PagesTest(HomeTest):
    def script(self):
        """Every block of the pages as one script; the service runs beside it, from where a page starts it."""
        used = set()
        parts = ["set -euo pipefail\n"]
        for page in PAGES:
            for line, language, text in blocks(page):
                self.assertEqual(language, "sh", f"{page}:{line}: a block of a language that is not run")
                for page_says, smaller in SMALLER:
                    if page_says in text:
                        used.add(page_says)
                        text = text.replace(page_says, smaller)
                # The page's 5 s are for a machine that is not busy with other tests.
                text = re.sub(r"build/bin/sluicectl (submit|cancel|resume|watch|wait|describe|logs|mirror)\b",
                              r"build/bin/sluicectl --timeout 120 \1", text)
                text = UP.sub(r"./sluice up \1 $SLUICE_FLAGS >up.log 2>&1 &\nservice=$!\n"
                              r"until grep -q ^Ready up.log; do kill -0 $service; sleep 0.05; done", text)
                parts.append(f"echo {shlex.quote(f'== {page}:{line}')} after $SECONDS s\n{text}")
        self.assertEqual(used, {page_says for page_says, _ in SMALLER}, "a page no longer says what is made smaller")
        return "".join([*parts, "echo == done after $SECONDS s\nkill -INT $service\nwait $service\n"])

    def test_every_command_of_the_tutorial_and_the_recipes_runs(self):
        home = self.make_home()
        said = self.run_all(["bash", "-c", self.script()], home, "pages")
        if os.environ.get("SLUICE_SHOW_TIMES"):
            print("\n".join(line for line in said.splitlines() if line.startswith("== ")), file=sys.stderr)
        my = os.path.join(home, "runs", "my")
        for name in ("report.html", "policy/model.safetensors", "matrix/tune.md", "data-own/manifest.json"):
            self.assertTrue(os.path.isfile(os.path.join(my, name)), name)
        self.assertTrue(any("tfevents" in n for _, _, names in os.walk(os.path.join(my, "tensorboard")) for n in names))
        # What the pages promise of their output.
        for promise in ("colliding_items", "co-occurrence rule HR@10", "real after Holm's correction",
                        "resumed from the checkpoint of step", "points sent, up to step 3", "exit code 12",
                        "rl.gate.tau"):
            self.assertIn(promise, said)
        with open(os.path.join(my, "matrix", "tune.md"), encoding="utf-8") as file:
            table = file.read()
        for arm in ("nll_only", "combined", "random"):
            self.assertIn(f"| {arm} |", table)

    def test_the_pages_link_to_what_is_there(self):
        for page in (*PAGES, "concepts.md"):
            with open(os.path.join(support.TOP, "docs", page), encoding="utf-8") as file:
                text = file.read()
            for target in re.findall(r"\]\(([^)#]+)\)", text):
                self.assertTrue(os.path.exists(os.path.join(support.TOP, "docs", target)), f"{page}: {target}")
            for path in re.findall(r"`((?:learner|common|reward_server|examples|client|tools)/[\w./-]*)`", text):
                self.assertTrue(os.path.exists(os.path.join(support.TOP, path)), f"{page}: {path}")

    def test_the_metrics_that_a_recipe_explains_exist(self):
        with open(os.path.join(support.TOP, "docs", "howto.md"), encoding="utf-8") as file:
            rows = re.findall(r"(?m)^ *\| (`[^|]+) \|", file.read())
        named = {name for row in rows for name in re.findall(r"`([a-z_]+/[\w@]+)`", row)}
        self.assertGreater(len(named), 8)
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)
        learner, folder = self.start_rl(harness.rl_spec(data, steps=2))
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), harness.DONE, learner.said())
        measured = {name for row in harness.read_metrics(folder) for name in row}
        self.assertEqual(named - measured, set())


class NotebookTest(HomeTest):
    def notebook(self):
        with open(NOTEBOOK, encoding="utf-8") as file:
            return json.load(file)

    def test_it_is_stored_without_what_a_run_leaves(self):
        notebook = self.notebook()
        self.assertEqual((notebook["nbformat"], notebook["nbformat_minor"] >= 5), (4, True))
        self.assertEqual(set(notebook), {"cells", "metadata", "nbformat", "nbformat_minor"})
        ids = [cell["id"] for cell in notebook["cells"]]
        self.assertEqual(len(set(ids)), len(ids))
        for cell in notebook["cells"]:
            self.assertIn(cell["cell_type"], ("markdown", "code"))
            if cell["cell_type"] == "code":
                self.assertEqual((cell["outputs"], cell["execution_count"]), ([], None))
        self.assertLess(os.path.getsize(NOTEBOOK), 20_000)

    def test_it_runs_from_top_to_bottom(self):
        home = self.make_home()
        self.environment.update(SLUICE_HOME=home, SLUICE_QUICK="1")
        # Cell by cell in one namespace, as a kernel does, without Jupyter. A traceback names the cell.
        runner = ("import json, sys\n"
                  "names = {'__name__': '__main__'}\n"
                  "for number, cell in enumerate(json.load(open(sys.argv[1]))['cells']):\n"
                  "    if cell['cell_type'] == 'code':\n"
                  "        text = ''.join(cell['source'])\n"
                  "        print(f'== cell {number}', flush=True)\n"
                  "        exec(compile(text, f'cell {number}', 'exec'), names)\n")
        said = self.run_all([sys.executable, "-B", "-c", runner, NOTEBOOK], home, "notebook")
        work = os.path.join(home, "runs", "first_hour")
        self.assertTrue(os.path.isfile(os.path.join(work, "policy", "model.safetensors")))
        self.assertRegex(said, r"HR@10 of the policy before \d\.\d+ and after \d\.\d+")
        self.assertIn("real after Holm's correction", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
