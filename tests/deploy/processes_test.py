"""The reference of exit codes and flags says what the code and the binaries say."""

import os
import sys
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("tools", "tests/integration"):
    sys.path.insert(0, os.path.join(TOP, folder))
import harness
import process_reference


class ProcessesTest(unittest.TestCase):
    def header(self):
        with open(os.path.join(TOP, "common", "status", "exit_code.h"), encoding="utf-8") as file:
            return file.read()

    def test_the_page_is_in_step_with_the_code(self):
        with open(process_reference.PAGE, encoding="utf-8") as file:
            self.assertEqual(file.read(), process_reference.page(self.header(), harness.BIN),
                             "run python3 tools/process_reference.py")

    def test_the_codes_are_those_that_the_tests_of_processes_know(self):
        known = {code: name for code, name, _ in process_reference.exit_codes(self.header())}
        self.assertEqual({name: code for code, name in known.items()},
                         {"Done": harness.DONE, "Failed": harness.FAILED, "Usage": harness.USAGE,
                          "Integrity": harness.INTEGRITY, "Permission": harness.PERMISSION, "Preempted": harness.PREEMPTED,
                          "Transient": harness.TRANSIENT, "Cancelled": harness.CANCELLED, "Held": harness.HELD,
                          "NoSpace": harness.NO_SPACE})

    def test_a_header_without_the_enum_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "want enum class ExitCode"):
            process_reference.exit_codes("enum Other { kA = 1, };")


if __name__ == "__main__":
    unittest.main()
