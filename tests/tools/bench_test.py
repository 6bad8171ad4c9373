"""The parts of the benchmark tools that need no build: spreads, verdicts, what is collected, the work both sides get."""

import json
import os
import struct
import sys
import tempfile
import unittest
from unittest import mock

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tools"))
import bench
import bench_compare
import bench_loop
import bench_report
import bench_work


def spread(*values):
    return bench_report.spread(values)


class ReportTest(unittest.TestCase):
    def test_ranges_that_do_not_overlap_are_a_change_and_others_are_noise(self):
        change, words = bench_report.verdict(spread(10, 11, 12), spread(7, 8, 9.9))
        self.assertAlmostEqual(change, 100 * (8 / 11 - 1))
        self.assertEqual(words, "faster, beyond the spread")
        self.assertEqual(bench_report.verdict(spread(10, 11, 12), spread(12.1, 13, 14))[1], "slower, beyond the spread")
        self.assertEqual(bench_report.verdict(spread(10, 11, 12), spread(5, 8, 10))[1], "within the spread")

    def test_one_repetition_has_no_known_noise(self):
        self.assertEqual(bench_report.verdict(spread(10), spread(5, 5, 5))[1], "noise unknown: one repetition")

    def test_the_baseline_table_names_what_only_one_file_has(self):
        def entry(*values):
            return {"cpu": spread(*values)}
        lines = bench_report.baseline_lines({"a": entry(.002, .002), "old": entry(1, 1)},
                                            {"a": entry(.001, .001), "new": entry(1, 1)})
        self.assertIn("| a | 2.00 (2.00 to 2.00) ms | 1.00 (1.00 to 1.00) ms | -50.0 % | faster, beyond the spread |", lines)
        self.assertIn("Only now: new.", lines)
        self.assertIn("Only before: old.", lines)

    def test_figures_have_three_digits(self):
        self.assertEqual([bench_report.figure(x) for x in (0, 0.012345, 1.5, 23.456, 999.6, 12345678)],
                         ["0", "0.0123", "1.50", "23.5", "1 000", "12 345 678"])

    def test_seconds_and_counts_are_scaled_for_people(self):
        self.assertEqual(bench_report.seconds_text(spread(0.0152)), "15.2 (15.2 to 15.2) ms")
        self.assertEqual(bench_report.seconds_text(spread(3.21e-8)), "32.1 (32.1 to 32.1) ns")
        self.assertEqual(bench_report.seconds_text(spread(12.0)), "12.0 (12.0 to 12.0) s")
        self.assertEqual([bench_report.count_text(x) for x in (500, 24201144, 6.6e10)], ["500", "24.2 M", "66.0 G"])

    def test_a_baseline_that_is_no_result_is_refused_by_name(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.json")
            with open(path, "w", encoding="utf-8") as file:
                file.write("[1, 2]")
            with self.assertRaisesRegex(bench_report.Failure, "x.json") as caught:
                bench_report.read_results(path)
            self.assertEqual(caught.exception.code, 3)


class CollectTest(unittest.TestCase):
    @staticmethod
    def entry(name, real, **more):
        return {"name": name, "run_name": name, "run_type": "iteration", "real_time": real, "cpu_time": real / 2,
                "time_unit": "ms", "iterations": 1, "threads": 1, **more}

    def test_repetitions_become_one_spread_and_aggregates_are_left_out(self):
        document = {"benchmarks": [
            self.entry("A/1", 4.0, items_per_second=10.0), self.entry("A/1", 2.0, items_per_second=30.0),
            self.entry("A/1", 3.0, items_per_second=20.0), {**self.entry("A/1", 99.0), "run_type": "aggregate"},
            self.entry("B", 8.0)]}
        a, b = bench.collect("x", document)
        self.assertEqual(a["name"], "x: A/1")
        self.assertEqual(a["cpu"], {"min": 0.001, "median": 0.0015, "max": 0.002, "n": 3})
        self.assertEqual(a["counters"], {"items_per_second": {"min": 10.0, "median": 20.0, "max": 30.0, "n": 3}})
        self.assertEqual(b["real"]["n"], 1)
        self.assertNotIn("counters", b)

    def test_a_benchmark_that_failed_fails_the_run(self):
        broken = self.entry("A", 0.0, error_occurred=True, error_message="no weights")
        with self.assertRaisesRegex(bench_report.Failure, "x: A failed: no weights"):
            bench.collect("x", {"benchmarks": [broken]})


class RunTest(unittest.TestCase):
    """run_binaries on shell scripts in place of benchmark binaries."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        os.makedirs(os.path.join(self.top, "build", "benchmarks"))
        patch = mock.patch.object(bench, "TOP", self.top)
        patch.start()
        self.addCleanup(patch.stop)

    def script(self, name, text):
        path = os.path.join(self.top, "build", "benchmarks", f"{name}_benchmark")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/bash\n" + text)
        os.chmod(path, 0o755)

    def test_arguments_reach_each_binary_and_take_the_place_of_defaults(self):
        self.script("a", 'printf "%s\\n" "$@" >' + os.path.join(self.top, "seen") + '\n'
                    'for x in "$@"; do case $x in --benchmark_out=*) echo \'{"benchmarks": [{"name": "A", "real_time": 1, '
                    '"cpu_time": 1, "time_unit": "ns"}]}\' >"${x#*=}" ;; esac; done\n')
        found = bench.run_binaries(["--benchmark_min_time=0.01"], 60)
        self.assertEqual([entry["name"] for entry in found], ["a: A"])
        with open(os.path.join(self.top, "seen"), encoding="utf-8") as file:
            seen = file.read().split("\n")
        self.assertIn("--benchmark_min_time=0.01", seen)
        self.assertNotIn("--benchmark_min_time=0.2", seen)
        self.assertIn("--benchmark_repetitions=3", seen)

    def test_a_binary_that_fails_or_takes_too_long_is_named(self):
        self.script("a", "exit 5\n")
        with self.assertRaisesRegex(bench_report.Failure, "a ended with exit code 5"):
            bench.run_binaries([], 60)
        self.script("a", "exec sleep 60\n")
        with self.assertRaisesRegex(bench_report.Failure, "a was still running when the limit of 0.1 s"):
            bench.run_binaries([], 0.1)

    def test_a_filter_that_matches_nothing_is_an_error(self):
        self.script("a", "exit 0\n")
        with self.assertRaisesRegex(bench_report.Failure, "does the filter match"):
            bench.run_binaries(["--benchmark_filter=Nothing"], 60)


class WorkTest(unittest.TestCase):
    def test_prompts_fill_the_history_and_nothing_that_is_predicted_is_in_it_by_position(self):
        events = bench_work.Events.synthetic()
        for history in (20, 50):
            work = bench_work.make_work(events, history, 16)
            self.assertEqual([len(prompt) for prompt in work["prompts"]], [history] * 8)
            self.assertEqual([len(row) for row in work["completions"]], [16] * 8)
            for prompt, target in zip(work["prompts"], work["targets"]):
                self.assertTrue(any(user[-history - 1:] == prompt + [target] for user in events.users))
            for row in work["advantages"]:
                self.assertAlmostEqual(sum(row), 0)
            self.assertTrue(all(2 <= len(sequence) <= history + 1 for sequence in work["sequences"]))
            self.assertTrue(all(1 <= len(user["history"]) <= history for user in work["eval"]))
        self.assertEqual(json.dumps(work), json.dumps(bench_work.make_work(events, 50, 16)))

    def test_a_loop_draws_training_events_with_their_histories_alone(self):
        events = bench_work.Events("x", [list(range(u, u + 30)) for u in range(40)], [[0, 0, 0, i] for i in range(70)], 256)
        work = bench_work.make_loop_work(events, 20)
        self.assertEqual(len(work["loop_prompts"]), bench_work.LOOP_PROMPTS)
        for prompt in work["loop_prompts"]:
            self.assertTrue(1 <= len(prompt) <= 20)
            self.assertTrue(any(training[end - len(prompt):end] == prompt for training in work["training"]
                                for end in range(len(prompt), len(training))))
        self.assertEqual(work["training"][3], list(range(3, 31)))

    def test_too_few_long_users_are_refused(self):
        events = bench_work.Events("tiny", [[0, 1, 2, 3, 4]] * 100, [[0, 0, 0, 0]] * 5, 256)
        with self.assertRaisesRegex(ValueError, "tiny has 0 users with more than 20 events, want 8"):
            bench_work.make_work(events, 20, 16)

    def test_a_prepared_folder_is_read(self):
        def npy(path, kind, shape, values):
            header = str({"descr": kind, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
            with open(path, "wb") as file:
                file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
                file.write(struct.pack("<" + {"<i8": "q", "<i4": "i"}[kind] * len(values), *values))
        with tempfile.TemporaryDirectory() as folder:
            npy(os.path.join(folder, "first_event.npy"), "<i8", (3,), [0, 2, 5])
            npy(os.path.join(folder, "event_item.npy"), "<i4", (5,), [1, 0, 0, 1, 1])
            npy(os.path.join(folder, "item_codes.npy"), "<i4", (2, 4), list(range(8)))
            events = bench_work.Events.prepared(folder, "x")
        self.assertEqual(events.users, [[1, 0], [0, 1, 1]])
        self.assertEqual(events.sids, [[0, 1, 2, 3], [4, 5, 6, 7]])


def samples(*seconds, others=0.0):
    return [{"wall": 2 * s, "cpu": s, "calls": 1, "peak_mib": 100 * s, "others": others} for s in seconds]


class LoopTest(unittest.TestCase):
    def test_a_line_that_is_still_being_written_is_not_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "metrics.jsonl")
            self.assertEqual(bench_loop.lines_of(path), {})
            with open(path, "w", encoding="utf-8") as file:
                file.write('{"step": 0, "validation/hr@10": 0.1}\n{"step": 1, "gradient_norm": 2.0}\n{"step": 2, "grad')
            self.assertEqual(bench_loop.lines_of(path), {1: {"step": 1, "gradient_norm": 2.0}})

    def test_cpu_seconds_of_a_process_are_its_own(self):
        times = os.times()
        self.assertAlmostEqual(bench_loop.cpu_seconds(os.getpid()), times.user + times.system, delta=0.05)
        self.assertGreater(bench_loop.peak_mib(os.getpid()), 1)


class CompareTest(unittest.TestCase):
    RECORD = {"row": "update", "size": "S", "history": 20, "threads": 1, "agreement": "equal", "agree": True,
              "transformers": "5", "flops": 2e9, "sgemm_flops": 1e9, "shapes_flops": 1e9}

    def record(self, others=0.0, **changes):
        record = {**self.RECORD, "ours": samples(1.0, 2.0, 4.0, others=others), "theirs": samples(10.0, 30.0, 20.0),
                  "sgemm": samples(0.25, 0.25, 0.5), "shapes": samples(1.0, 1.0, 1.0), **changes}
        return bench_compare.summarise(record, "auto")

    def test_ratios_are_of_neighbouring_samples(self):
        record = self.record()
        self.assertEqual(record["ratio"], {"min": 5.0, "median": 10.0, "max": 15.0, "n": 3})
        self.assertEqual(record["theirs_peak_mib"], 3000)
        # 2 GFLOP in 1, 2 and 4 CPU seconds against 1 GFLOP in a quarter, a quarter and a half, both of double wall time.
        self.assertEqual(record["efficiency"], {"min": 0.25, "median": 0.25, "max": 0.5, "n": 3})

    def test_wall_time_is_believed_only_if_others_left_the_cores(self):
        with mock.patch.object(os, "cpu_count", return_value=2):
            self.assertEqual(self.record(others=0.8)["basis"], "wall")
            self.assertEqual(self.record(others=1.2)["basis"], "cpu")
            self.assertEqual(self.record(others=0.2, threads=2)["basis"], "cpu")

    def test_the_table_says_what_was_reached_and_what_not(self):
        lines = bench_compare.report_lines([self.record(), self.record(row="beams")])
        self.assertTrue(any("update S h20" in line and "9 (reached)" in line for line in lines))
        self.assertTrue(any("beams S h20" in line and "12 (short)" in line for line in lines))

    def test_beams_agree_by_set_and_scores(self):
        ours = {"beams": [[[3, 4], [3, 5]]], "scores": [[-1.0, -2.0]]}
        swapped = {"beams": [[[3, 5], [3, 4]]], "scores": [[-2.0, -1.0]]}
        other = {"beams": [[[3, 4], [3, 6]]], "scores": [[-1.0, -2.0]]}
        far = {"beams": [[[3, 4], [3, 5]]], "scores": [[-1.0, -2.1]]}
        self.assertTrue(bench_compare.disagreement("beams", ours, swapped)[1])
        self.assertFalse(bench_compare.disagreement("beams", ours, other)[1])
        self.assertFalse(bench_compare.disagreement("beams", ours, far)[1])

    def test_losses_agree_to_a_thousandth(self):
        self.assertTrue(bench_compare.disagreement("sft", {"loss": 6.93, "flops": 1}, {"loss": 6.931})[1])
        self.assertFalse(bench_compare.disagreement("sft", {"loss": 6.93}, {"loss": 6.95})[1])

    def test_unknown_rows_are_refused(self):
        with self.assertRaisesRegex(bench_report.Failure, "there is no row 'beam'; want beams"):
            bench_compare.choose("update,beam", bench_compare.ROWS, "row")

    def test_both_requirement_files_pin_the_same(self):
        def pins(*path):
            with open(os.path.join(TOP, *path), encoding="utf-8") as file:
                return {line.split("==")[0]: line.strip() for line in file if "==" in line and not line.startswith("#")}
        oracle, ours = pins("tests", "oracle", "requirements.txt"), pins("tests", "bench", "hf", "requirements.txt")
        self.assertEqual(ours, {**oracle, "torch": pins("requirements.txt")["torch"]})


if __name__ == "__main__":
    unittest.main()
