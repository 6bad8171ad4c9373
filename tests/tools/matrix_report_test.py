"""The tables of ./sluice matrix from a document made by hand."""

import os
import sys
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import matrix_report


def difference(arm, mean, low, high, real=False):
    return {"arm": arm, "against": "start", "metric": "hr@10", "mean": mean, "low": low, "high": high, "real": real,
            "real_alone": low > 0 or high < 0}


def run(hits):
    return {"seed": 1, "admission": 0.25, "wall_s": 20, "cpu_s": 30, "step": {"best": 0, "final": 8},
            "metrics": {"best": {"hr@10": 0.1}, "final": {"hr@10": hits}}}


def document():
    arms = [{"name": "a<b", "runs": [run(0.2), run(0.4)], "admission": 0.25},
            {"name": "none", "runs": [], "admission": None}]
    for arm in arms:
        arm.update({"label": arm["name"], "row": None, "note": "", "gate": None, "lambda": None})
        arm["summary"] = {which: matrix_report.summary(arm["runs"], which, ["hr@10"]) for which in ("best", "final")}
    return {"name": "m", "note": "", "evaluation": "test", "metrics": ["hr@10"], "against": ["start"], "seeds": [1, 2],
            "file": "name: m & n", "data": "d", "split": "test", "user_parity": "odd", "users": 10.0, "rule": {}, "rows": [],
            "start": {"folder": "", "metrics": {"hr@10": 0.1}}, "arms": arms,
            "failures": {"none, seed 1": "exit code 13\nthe log"},
            "comparison_failures": {"best": "some users have no value"},
            "comparisons": {"final": {"confidence": 0.95, "differences_looked_at": 2,
                                      "differences": [difference("a<b", 0.2, 0.1, 0.3, real=True),
                                                      difference("c", -0.1, -0.2, 0.0)]}}}


def document_with_rows():
    report = document()
    report["metrics"] = ["mass@10"]
    report["rows"] = [{"name": "r1", "note": "", "error": "pop", "share": 0.5},
                      {"name": "r2", "note": "", "error": None, "share": None}]

    def arm(label, row, mass, gate=None):
        one = {"seed": 1, "admission": 0.25, "wall_s": 1, "cpu_s": 1, "step": {"best": 1, "final": 1},
               "metrics": {which: {"mass@10": mass} for which in ("best", "final")}}
        return {"name": f"{row}.{label}" if row else label, "label": label, "row": row, "note": "", "runs": [one],
                "gate": gate, "lambda": 3 if gate else None, "admission": 0.25,
                "summary": {which: matrix_report.summary([one], which, ["mass@10"]) for which in ("best", "final")}}
    report["arms"] = [arm("nll_only", None, 0.1), arm("gate", "r1", 0.2, "history"), arm("gate", "r2", 0.3, "history")]
    entry = {"arm": "gate", "against": "nll_only", "metric": "mass@10", "mean": 0.1, "low": 0.05, "high": 0.15,
             "real": True, "real_alone": True}
    report["comparisons"] = {f"final, {row}": {"confidence": 0.95, "differences_looked_at": 1, "differences": [entry]}
                             for row in ("r1", "r2")}
    report["comparison_failures"] = {}
    return report


class MatrixReportTest(unittest.TestCase):
    def test_rows_become_a_map_with_arms_that_run_once_in_each(self):
        tables = matrix_report.map_tables(document_with_rows())
        self.assertEqual(tables[0], ("mass@10", ["row", "nll_only", "gate"],
                                     [["r1", "0.1000", "0.2000"], ["r2", "0.1000", "0.3000"]]))
        self.assertEqual(tables[1][0], "admission")
        self.assertIn("## Map: mass@10, final", matrix_report.markdown(document_with_rows()))
        self.assertIn("<h2>Map: mass@10, final</h2>", matrix_report.page(document_with_rows()))
        self.assertEqual(matrix_report.map_tables(document()), [])

    def test_gains_are_of_gates_in_rows_whose_error_is_known(self):
        self.assertEqual(matrix_report.gains_csv(document_with_rows()),
                         "error,share,gate,lambda,gain,low,high\npop,0.5,history,3,0.1000,0.0500,0.1500\n")
        self.assertIsNone(matrix_report.gains_csv(document()))

    def test_rows_hold_means_over_seeds_and_their_spread(self):
        header, rows = matrix_report.result_rows(document())
        self.assertEqual(header[:5], ["arm", "checkpoint", "seeds", "step", "hr@10"])
        final = rows[2]
        # (.2 + .4) / 2, and sqrt((.1^2 + .1^2) / 1).
        self.assertEqual(final, ["a<b", "final", "2", "8", "0.3000 ± 0.1414", "0.250", "20", "30"])
        self.assertEqual(rows[3][:4], ["none", "best", "0 of 2", "-"])
        self.assertIsNone(matrix_report.spread([0.5]))

    def test_markdown_marks_what_is_real_and_says_what_failed(self):
        text = matrix_report.markdown(document())
        self.assertIn("| a<b | +0.2000 [+0.1000, +0.3000] \\*\\* |", text)
        self.assertIn("| c | -0.1000 [-0.2000, +0.0000] |", text)
        self.assertIn("10 users with odd numbers", text)
        self.assertIn("2 at `final` differences were looked at", text)
        self.assertIn("No intervals at `best`: some users have no value", text)
        self.assertIn("- none, seed 1: exit code 13\n", text)

    def test_the_page_is_well_formed_and_its_plot_is_to_scale(self):
        page = matrix_report.page(document())
        root = xml.etree.ElementTree.fromstring(page.split("\n", 1)[1])
        bars = [line.attrib for line in root.iter("line") if line.attrib["class"].startswith("bar")]
        # From -.2 to .3 over 530 units from 170 on.
        self.assertEqual([(bar["x1"], bar["x2"]) for bar in bars], [("488.0", "700.0"), ("170.0", "382.0")])
        self.assertEqual(bars[0]["class"], "bar real")
        for what in ("<script", "src=", "href=", "url("):
            self.assertNotIn(what, page)


class ReplicatesTest(unittest.TestCase):
    def replicates(self, *masses):
        reports = []
        for start, nll, first, second in masses:
            report = document_with_rows()
            report["against"] = ["start", "nll_only"]
            report["start"]["metrics"] = {"mass@10": start}
            for arm, mass in zip(report["arms"], (nll, first, second)):
                arm["summary"]["final"]["mass@10"]["mean"] = mass
            reports.append(report)
        return reports

    def test_differences_are_taken_within_a_replicate_and_a_row(self):
        # Starts that differ by far more than arms do: pairing within the replicate is what shows the arms.
        pooled = matrix_report.pool_replicates(
            self.replicates((0.1, 0.2, 0.3, 0.2), (0.5, 0.6, 0.72, 0.6), (0.9, 1.0, 1.11, 1.0)), [1, 2, 3])
        found = {(one["row"], one["label"], one["against"]): one for one in pooled["differences"]}
        one = found["r1", "gate", "nll_only"]
        # By hand: .1, .12, .11: mean .11, deviation .01, t(2 degrees of freedom) 4.303.
        self.assertAlmostEqual(one["mean"], 0.11)
        self.assertAlmostEqual(one["high"] - one["mean"], 4.303 * 0.01 / 3 ** 0.5)
        self.assertAlmostEqual(found["r2", "gate", "nll_only"]["mean"], 0)
        self.assertAlmostEqual(found[None, "nll_only", "start"]["mean"], 0.1)
        self.assertNotIn((None, "nll_only", "nll_only"), found)
        text = matrix_report.replicates_markdown(pooled)
        self.assertIn("| r1 | 0.5000 | 0.6000 | 0.7100 |", text)
        self.assertIn("+0.1100 [+0.0852, +0.1348]", text)

    def test_an_arm_that_one_replicate_lacks_is_left_out(self):
        reports = self.replicates((0.1, 0.2, 0.3, 0.2), (0.5, 0.6, 0.72, 0.6))
        del reports[1]["arms"][2]
        pooled = matrix_report.pool_replicates(reports, [1, 2])
        self.assertEqual([arm["name"] for arm in pooled["arms"]], ["nll_only", "r1.gate"])
        self.assertIn("| r2 | 0.3000 | 0.4000 | - |", matrix_report.replicates_markdown(pooled))


if __name__ == "__main__":
    unittest.main(verbosity=2)
