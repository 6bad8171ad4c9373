"""Failpoints are in step with their page and their places, and are not in the programs that people run."""

import glob
import os
import re
import subprocess
import unittest

import failpoints
from failpoints import TOP

BIN = os.environ["SLUICE_BIN_DIR"]
PROGRAMS = ("sluice-learner", "sluice-actor", "sluice-reward")
# What every build has: it refuses the variable with a sentence.
# What refuses the variable, with what the compiler splits off it, and the initialisation of its file.
ALLOWED = re.compile(r"sluice::StartFailpoints(\[abi:cxx11\])?\(\)( \[clone [.\w]+\])?|_GLOBAL__sub_I_failpoint\.cc")


def traces(path):
    """Symbols and names of failpoints in a program."""
    symbols = subprocess.run(["nm", "-C", path], check=True, capture_output=True, text=True).stdout
    found = [line.split(" ", 2)[-1] for line in symbols.splitlines() if "failpoint" in line.lower()]
    with open(path, "rb") as file:
        content = file.read()
    return [symbol for symbol in found if not ALLOWED.fullmatch(symbol)] + [n for n in failpoints.names() if n.encode() in content]


class FailpointNamesTest(unittest.TestCase):
    def test_the_programs_hold_neither_a_symbol_nor_a_name_of_a_failpoint(self):
        for program in PROGRAMS:
            self.assertEqual(traces(os.path.join(BIN, program)), [], program)

    def test_what_holds_them_is_found_out(self):
        # The unit test has the machinery, and the list of names is in this program.
        test = os.path.join(os.path.dirname(BIN), "tests", "common_failpoint_test")
        found = traces(test)
        self.assertTrue([symbol for symbol in found if "FailpointPlan::Pass" in symbol], found)
        self.assertIn("actor/after_send", found)

    def test_the_page_lists_every_failpoint_and_no_other(self):
        with open(os.path.join(TOP, "docs", "failpoints.md"), encoding="utf-8") as file:
            listed = re.findall(r"^\| `(\w+/\w+)`", file.read(), re.MULTILINE)
        self.assertEqual(listed, failpoints.names())

    def test_every_failpoint_stands_in_one_place(self):
        places = {}
        for path in glob.glob(os.path.join(TOP, "*", "**", "*.cc"), recursive=True):
            top = os.path.relpath(path, TOP).split(os.sep)[0]
            if top not in ("actor", "learner", "reward_server", "common"):
                continue
            with open(path, encoding="utf-8") as file:
                for name in re.findall(r'SLUICE_FAILPOINT(?:_STATUS)?\("([^"]*)"\)', file.read()):
                    places.setdefault(name, []).append(os.path.relpath(path, TOP))
        self.assertEqual(sorted(places), sorted(failpoints.names()))
        self.assertEqual({name: where for name, where in places.items() if len(where) > 1}, {})

    def test_a_build_without_failpoints_refuses_the_variable(self):
        for program, *arguments in (("sluice-learner", "coordinator", "--address", "127.0.0.1:0"),
                                    ("sluice-actor", "--learner", "127.0.0.1:1"), ("sluice-reward", "--data", "nowhere")):
            done = subprocess.run([os.path.join(BIN, program), *arguments], capture_output=True, text=True, timeout=60,
                                  env=dict(os.environ, SLUICE_FAILPOINTS="actor/after_send=kill"))
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("SLUICE_FAILPOINTS is set, but this build cannot inject faults; unset it", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
