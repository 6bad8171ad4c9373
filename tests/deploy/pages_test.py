"""Numbers of operators' pages are those of the code and of the pages that they are taken from."""

import os
import re
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What docs/upgrade.md calls it, and where the code has its number.
FORMATS = (("job store", "learner/job/job_store.cc", r"kSchemaVersion = (\d+);"),
           ("checkpoint", "learner/train/checkpoint.cc", r"kFormat = (\d+);"),
           ("prepared data set", "common/catalog/dataset.cc", r"kFormatVersion = (\d+);"),
           ("recorded groups", "learner/record/group_record.h", r"kRecordVersion = (\d+);"),
           ("outcomes of an evaluation", "learner/evaluate/outcome_file.cc", r"kFormat = (\d+);"))
# What docs/cost.md reckons with -> how the page that it comes from writes it.
MEASURED = {"0.266": ("docs/benchmarks.md", "266 (258 to 274) ms a step of 64 prompts"),
            "6.54": ("docs/benchmarks.md", "against 6.54 (6.12 to 6.96) s"),
            "0.00413": ("docs/speed_notes.md", "rank 2.0 ms, actor 1.7 ms, reward server 0.25 ms, coordinator 0.18 ms"),
            "0.0452": ("docs/benchmarks.md", "| S h20 | 45.2 |"), "0.230": ("docs/benchmarks.md", "| M h20 | 230 |"),
            "0.418": ("docs/benchmarks.md", "| M h50 | 418 |"),
            "0.0729": ("docs/benchmarks.md", "| beams M h20, 1 thread | 72.9 "),
            "0.139": ("docs/benchmarks.md", "| beams M h50, 1 thread | 139 ")}


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


class UpgradePageTest(unittest.TestCase):
    def test_formats_are_those_of_the_code(self):
        page = read("docs/upgrade.md")
        for name, path, pattern in FORMATS:
            self.assertIn(f"| {name} | {re.search(pattern, read(path))[1]} |", page)
        protocol = re.search(r'kProtocol\[\] = "(\d+)"', read("learner/rpc/rollout_service.cc"))[1]
        self.assertIn(f"| actor and rank | one protocol, `{protocol}`;", page)


class CostPageTest(unittest.TestCase):
    def test_the_last_column_follows_from_the_others_and_those_from_their_pages(self):
        rows = re.findall(r"^\| .* \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", read("docs/cost.md"), re.MULTILINE)
        self.assertEqual({seconds for _, _, seconds, _ in rows}, set(MEASURED))
        for cores, groups, seconds, hours in rows:
            with self.subTest(seconds):
                self.assertEqual(hours, f"{1000 / 3600 * int(cores) * float(seconds) / int(groups):.5f}")
                path, said = MEASURED[seconds]
                self.assertIn(said, read(path))
        self.assertAlmostEqual(2.0 + 1.7 + 0.25 + 0.18, 4.13)  # of the third

    def test_queries_ask_for_what_is_there(self):
        exported = set()
        for name, kind in re.findall(r"^\| `(sluice_\w+)` \| (\w+) \|", read("docs/reference/metrics.md"), re.MULTILINE):
            exported |= {name} if kind != "histogram" else {name + suffix for suffix in ("_sum", "_count", "_bucket")}
        recorded = set(re.findall(r"record: (\S+)", read("deploy/prometheus/rules.yml")))
        asked = set(re.findall(r"\bsluice[_:][\w:]+", read("docs/cost.md")))
        self.assertGreater(len(asked), 8)
        self.assertEqual(asked - exported - recorded, set())


if __name__ == "__main__":
    unittest.main()
