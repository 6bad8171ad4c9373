"""The dashboards: files in step with their table, the rules that a linter of dashboards has, and nothing forgotten."""

import json
import os
import re
import sys
import unittest
import unittest.mock

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("deploy/prometheus", "deploy/grafana", "tools"):
    sys.path.insert(0, os.path.join(TOP, folder))
import alerts
import dashboards
import demo
import metrics_reference

UNITS = {"none", "s", "bytes", "Bps", "ops", "reqps", "percentunit", "sci"}


def exported():
    """The metrics of docs/reference/metrics.md, which the live test compares with real processes; name: type."""
    with open(metrics_reference.PAGE, encoding="utf-8") as file:
        return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", file.read(), re.MULTILINE))


def problems(board):
    """What is wrong with one dashboard's JSON, in words."""
    found = []
    if board["editable"] or board["schemaVersion"] != 39 or not board["uid"]:
        found.append("want a uid, schema 39 and editable false")
    names = [variable["name"] for variable in board["templating"]["list"]]
    if names[0] != "datasource" or board["templating"]["list"][0]["type"] != "datasource":
        found.append("want a variable for the data source first")
    for variable in board["templating"]["list"][1:]:
        if variable.get("refresh") != 2:
            found.append(f"variable {variable['name']}: want a reload when the time range changes")
    places = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if x >= 24 or (x, y) in places:
                    found.append(f"{panel['title']}: beyond the edge, or over {places.get((x, y))}")
                places[x, y] = panel["title"]
        if panel["type"] == "row":
            continue
        where = panel["title"]
        if len(panel["description"]) < 25:
            found.append(f"{where}: its description does not say what to do")
        if panel["datasource"] != dashboards.SOURCE or any(t["datasource"] != dashboards.SOURCE for t in panel["targets"]):
            found.append(f"{where}: want the data source of the variable")
        if panel["fieldConfig"]["defaults"]["unit"] not in UNITS:
            found.append(f"{where}: unknown unit {panel['fieldConfig']['defaults']['unit']}")
        if not panel["targets"]:
            found.append(f"{where}: no query")
        for target in panel["targets"]:
            expr = target["expr"]
            for window in re.findall(r"\[([^\]]+)\]", expr):
                if window not in ("$__rate_interval", "$__range"):
                    found.append(f"{where}: want $__rate_interval, got {window}")
            counters = re.findall(r"(\w*\(?)(\w+_total)\{", expr)
            if any(call not in ("rate(", "increase(") for call, _ in counters):
                found.append(f"{where}: a counter outside of rate and increase: {expr}")
            for selector in re.findall(r"\{([^}]*)\}", expr):
                if 'job="$job"' not in selector and 'job=~"$job"' not in selector:
                    found.append(f"{where}: a selector without the deployment: {selector}")
            if not target["legendFormat"]:
                found.append(f"{where}: a query without a legend")
            for used in re.findall(r"\$(\w+)", expr):
                if used not in names and not used.startswith("__"):
                    found.append(f"{where}: unknown variable {used}")
    return found


class DashboardsTest(unittest.TestCase):
    def boards(self):
        return [(path, json.loads(text)) for path, text in dashboards.files().items()]

    def test_files_are_what_the_table_makes_byte_for_byte(self):
        self.assertEqual(dashboards.out_of_date(), [], "run python3 deploy/grafana/dashboards.py")
        self.assertEqual(dashboards.files(), dashboards.files())

    def test_no_rule_of_the_linter_is_broken(self):
        for path, board in self.boards():
            self.assertEqual(problems(board), [], path)

    def test_the_linter_sees_what_is_planted(self):
        def plant(change):
            board = dashboards.dashboard_json(dashboards.PIPELINE)
            change(board, next(panel for panel in board["panels"] if panel["type"] == "timeseries"))
            return problems(board)

        plants = {
            "editable false": lambda b, p: b.update(editable=True),
            "data source first": lambda b, p: b["templating"]["list"].reverse(),
            "time range": lambda b, p: b["templating"]["list"][1].update(refresh=1),
            "beyond the edge": lambda b, p: p["gridPos"].update(w=25),
            "or over": lambda b, p: p["gridPos"].update(x=8),
            "what to do": lambda b, p: p.update(description="Groups."),
            "of the variable": lambda b, p: p.update(datasource={"type": "prometheus", "uid": "prometheus"}),
            "unknown unit": lambda b, p: p["fieldConfig"]["defaults"].update(unit="furlongs"),
            "no query": lambda b, p: p.update(targets=[]),
            "want $__rate_interval": lambda b, p: p["targets"][0].update(
                expr='rate(sluice_groups_total{job="$job"}[5m])'),
            "outside of rate": lambda b, p: p["targets"][0].update(expr='sum(sluice_groups_total{job="$job"})'),
            "without the deployment": lambda b, p: p["targets"][0].update(expr='up{instance="a"}'),
            "without a legend": lambda b, p: p["targets"][0].update(legendFormat=""),
            "unknown variable": lambda b, p: p["targets"][0].update(expr='up{job="$job",instance="$host"}'),
        }
        for words, change in plants.items():
            self.assertTrue(any(words in problem for problem in plant(change)), words)

    def test_every_exported_metric_is_on_a_panel_in_an_alert_or_excused(self):
        in_alerts = set()
        for rule in (*alerts.ALERTS, *alerts.RECORDS):
            in_alerts |= dashboards.metric_names(rule.expr)
        used = dashboards.shown() | in_alerts
        known = set(exported())
        self.assertEqual(used - known, set(), "asked for, and not exported")
        self.assertEqual(known - used - set(dashboards.NOT_SHOWN), set(), "exported, and shown nowhere")
        self.assertEqual(set(dashboards.NOT_SHOWN) - known, set(), "excused, and not exported")
        self.assertEqual(set(dashboards.NOT_SHOWN) & used, set(), "excused, and shown")

    def test_types_fit_what_is_asked_of_them(self):
        types = exported()
        for path, board in self.boards():
            for panel in board["panels"]:
                for target in panel.get("targets", []):
                    for name in re.findall(r"(?:rate|increase)\((\w+)\{", target["expr"]):
                        base = re.sub(r"_(bucket|sum|count)$", "", name)
                        self.assertIn(types.get(name, types.get(base)), ("counter", "histogram"), f"{path}: {name}")

    def test_metric_names_are_found_in_expressions(self):
        self.assertEqual(dashboards.metric_names('sum by (sluice_x) (rate(sluice_a_total{state="sluice_b"}[5m]))'
                                                 ' / sluice:c:ratio and on (job) process_d_seconds_bucket'),
                         {"sluice_a_total", "process_d_seconds"})

    def test_runbooks_that_panels_name_exist(self):
        names = {alert.name for alert in alerts.ALERTS}
        for board in dashboards.DASHBOARDS:
            for row in board.rows:
                for panel in row.panels:
                    for listed in re.findall(r"[Rr]unbooks? ((?:[A-Z][A-Za-z]+)(?: and [A-Z][A-Za-z]+)?)", panel.description):
                        for name in listed.split(" and "):
                            self.assertIn(name, names, panel.title)


class ReferenceTest(unittest.TestCase):
    PAGE = ("# HELP sluice_a_total Things | parts.\n# TYPE sluice_a_total counter\n"
            'sluice_a_total{state="x"} 1\nsluice_a_total{state="y"} 2\n'
            "# HELP sluice_b_seconds Time.\n# TYPE sluice_b_seconds histogram\n"
            'sluice_b_seconds_bucket{le="+Inf"} 1\nsluice_b_seconds_sum 1\nsluice_b_seconds_count 1\n')

    def test_a_page_becomes_rows(self):
        text = metrics_reference.reference({role: self.PAGE for role in metrics_reference.ROLES})
        self.assertIn("| `sluice_a_total` | counter | `state`: x, y | count | all | Things \\| parts. |\n", text)
        self.assertIn("| `sluice_b_seconds` | histogram | - | seconds | all | Time. |\n", text)
        self.assertEqual(metrics_reference.names_in(text), {"sluice_a_total", "sluice_b_seconds"})

    def test_a_role_that_is_missing_and_a_type_that_differs_are_errors(self):
        with self.assertRaisesRegex(ValueError, "none of rank, reward, actor"):
            metrics_reference.reference({"coordinator": self.PAGE})
        other = self.PAGE.replace("sluice_a_total counter", "sluice_a_total gauge")
        with self.assertRaisesRegex(ValueError, "sluice_a_total is a counter of"):
            metrics_reference.merge({"coordinator": self.PAGE, "rank": other})
        with self.assertRaisesRegex(ValueError, "neither TYPE nor HELP"):
            metrics_reference.parse("stray 1\n")


class TargetsTest(unittest.TestCase):
    def test_the_targets_are_the_metrics_ports_that_up_gives_by_default(self):
        class Recorded(demo.Cluster):
            """Useful for: the addresses that processes would get, without any process."""

            def launch(self, name, address, argv):
                self.found.setdefault(name.split("-")[0], []).append(f"127.0.0.1:{self.port()}")

        cluster = Recorded("place", "data", 2, 2, port=7070)
        cluster.found = {}
        with unittest.mock.patch("os.makedirs"), unittest.mock.patch("builtins.print"):
            cluster.start_all()
        with open(os.path.join(TOP, "deploy", "prometheus", "targets.json"), encoding="utf-8") as file:
            targets = {group["labels"]["role"]: group["targets"] for group in json.load(file)}
        self.assertEqual(targets, cluster.found)


if __name__ == "__main__":
    unittest.main()
