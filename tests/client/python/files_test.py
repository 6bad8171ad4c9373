"""Specs as YAML, event files, metrics and run folders: what needs no server."""
import json
import os
import tempfile
import unittest

import support

support.require("grpc", "numpy")
import numpy  # noqa: E402
import sluice  # noqa: E402


class ToYamlTest(unittest.TestCase):
    def test_sections_nest_and_scalars_are_quoted_where_yaml_would_read_them_otherwise(self):
        self.assertEqual(
            sluice.to_yaml({
                "name": "no",
                "seed": 3,
                "data": "a: b # c",
                "rl": {
                    "lambda": 0.5,
                    "gate": {
                        "use_head": True
                    }
                }
            }), 'name: "no"\nseed: 3\ndata: "a: b # c"\nrl:\n  lambda: 0.5\n  gate:\n    use_head: true\n')

    def test_what_it_writes_another_parser_reads_back(self):
        try:
            import yaml
        except ImportError:
            self.skipTest("PyYAML is not installed")
        spec = {
            "name": 'q"\\\té\u4f60\U0001f600\n',
            "empty": {},
            "list": [1, -2.5, None, "x"],
            "odd key": {
                "a": [{
                    "b": False
                }]
            }
        }
        self.assertEqual(yaml.safe_load(sluice.to_yaml(spec)), spec)

    def test_numbers_of_numpy_are_numbers(self):
        self.assertEqual(sluice.to_yaml({"a": numpy.float64(0.25), "b": numpy.int32(7)}), "a: 0.25\nb: 7\n")

    def test_what_yaml_has_no_form_for_is_refused_with_its_key(self):
        deep = value = {}
        for _ in range(100):
            value["a"] = {}
            value = value["a"]
        for spec, text in (({"rl": {"steps": object()}}, "rl.steps"), ({"rl": {"lambda": float("nan")}}, "rl.lambda"),
                           ({1: 2}, "want text as key"), (deep, "levels deep"), ({"a": b"x"}, "bytes")):
            with self.assertRaises(sluice.InvalidRequestError) as raised:
                sluice.to_yaml(spec)
            self.assertIn(text, str(raised.exception))


class WriteEventsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "events.csv")

    def test_rows_become_a_csv_with_a_header(self):
        self.assertEqual(sluice.write_events(self.path, [("u1", "i,1", 5), ("u2", 7, 6)]), 2)
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(file.read(), 'user,item,timestamp\nu1,"i,1",5\nu2,7,6\n')

    def test_a_bad_row_leaves_no_file(self):
        for rows, text in (([], "at least one event"), ([("u",)], "row 0"), ([("u", "i"), ("u", "i", 3)], "row 1"),
                           ([5], "row 0: .* got 5"), ([("u", "i"), "ui"], "row 1: .* got 'ui'"),
                           ([("u", None)], "item is missing"), ([("u", "i", float("nan"))], "timestamp is missing")):
            with self.assertRaises(sluice.InvalidRequestError) as raised:
                sluice.write_events(self.path, rows)
            self.assertRegex(str(raised.exception), text.replace("(", r"\("))
            self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

    def test_rows_of_arrays_are_rows(self):
        self.assertEqual(sluice.write_events(self.path, numpy.array([[1, 2, 3], [4, 5, 6]])), 2)

    def test_a_path_that_cannot_be_written_is_said_and_the_events_own_errors_stay(self):
        nowhere = os.path.join(os.path.dirname(self.path), "no", "events.csv")
        with self.assertRaisesRegex(sluice.InvalidRequestError, "cannot be written: No such file or directory; name"):
            sluice.write_events(nowhere, [("u", "i")])
        with self.assertRaises(FileNotFoundError):  # not ours: the file that events are read from
            sluice.write_events(self.path, (line.split(",") for line in open(nowhere, encoding="utf-8")))


class RunFolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def test_metrics_are_rows_series_and_a_frame(self):
        self.write("metrics.jsonl",
                   '{"step": 0, "hr": 0.5}\n{"step": 1, "nll": 2.0}\n{"step": 2, "nll": 1.5}\n{"step": 3, "n')
        metrics = sluice.RunFolder(self.folder).metrics()
        self.assertEqual(len(metrics), 3)  # the line being written does not count
        self.assertEqual(metrics.names, ["hr", "nll"])
        self.assertEqual(metrics.series("nll"), [(1, 2.0), (2, 1.5)])
        self.assertEqual(metrics.last("nll"), 1.5)
        with self.assertRaisesRegex(KeyError, "no metric 'loss'; it has hr, nll"):
            metrics.last("loss")
        try:
            import pandas
        except ImportError:
            self.skipTest("pandas is not installed")
        frame = metrics.to_pandas()
        self.assertEqual(list(frame.columns), ["step", "hr", "nll"])
        self.assertTrue(pandas.isna(frame["nll"][0]))  # not measured is not 0
        self.assertEqual(frame["nll"][2], 1.5)

    def test_damaged_metrics_are_named_by_their_line(self):
        for text, place in (('{"step": 1}\nnot json\n', ":2: "), ("[1]\n", ":1: "), ('{"nll": 1}\n', ":1: ")):
            self.write("metrics.jsonl", text)
            with self.assertRaisesRegex(sluice.RunFolderError, place):
                sluice.RunFolder(self.folder).metrics()

    def test_what_is_there_is_found_and_what_is_not_is_said(self):
        run = sluice.RunFolder(self.folder)
        for read in (run.results, run.metrics, run.report, run.export, run.tensorboard, lambda: run.spec_yaml):
            with self.assertRaisesRegex(sluice.RunFolderError, "not there"):
                read()
        self.write("results.json", json.dumps({"numbers": {"hr@10": 0.25}}))
        self.write("spec.yaml", "kind: sft\n")
        self.write("report.html", "<html>")
        self.write("export/best/config.json", "{}")
        self.write("tensorboard/events.out.tfevents.1700000000.sluice", "")
        for name in ("step-00000004/manifest.json", "step-00000002/manifest.json", "step-00000006.tmp/manifest.json",
                     "step-00000008/model"):
            self.write(f"checkpoints/{name}", "")
        self.assertEqual(run.results()["numbers"]["hr@10"], 0.25)
        self.assertEqual(run.spec_yaml, "kind: sft\n")
        self.assertTrue(run.report().is_file())
        self.assertTrue(run.tensorboard().is_dir())
        self.assertTrue(run.export("best").is_dir())
        self.assertEqual([c.name for c in run.checkpoints()], ["step-00000002", "step-00000004"])
        self.assertTrue(run.ended())
        self.write("results.json", "{")
        with self.assertRaisesRegex(sluice.RunFolderError, "damaged"):
            run.results()
        os.remove(os.path.join(self.folder, "results.json"))
        os.mkdir(os.path.join(self.folder, "results.json"))
        with self.assertRaisesRegex(sluice.RunFolderError, "cannot be read: Is a directory"):
            run.results()
        with open(os.path.join(self.folder, "spec.yaml"), "wb") as file:
            file.write(b"\xff")
        with self.assertRaisesRegex(sluice.RunFolderError, "not a text in UTF-8"):
            run.spec_yaml
        with self.assertRaisesRegex(sluice.RunFolderError, "no such run folder here"):
            sluice.RunFolder(os.path.join(self.folder, "nowhere"))


if __name__ == "__main__":
    support.main()
