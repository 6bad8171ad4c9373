"""Real processes at work, scraped by a real Prometheus: pages, rules, and every query of every dashboard.

SLUICE_WRITE_REFERENCE=1 writes docs/reference/metrics.md instead of comparing it.
"""

import math
import os
import re
import subprocess
import unittest
import urllib.parse

import monitoring
import certificates
from monitoring import harness, wait_until
import alerts  # noqa: E402  # the folders of these are known once monitoring is imported
import dashboards  # noqa: E402
import metrics_reference  # noqa: E402

# What Grafana puts in for its variables, for a Prometheus that scrapes once a second.
VARIABLES = {"$__rate_interval": "15s", "$__interval": "5s", "$__range": "60s", "$job": "sluice", "$instance": ".*"}
STEPS = 100000  # never done: the test ends the job


def filled(expr):
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def shortcoming(prometheus, panel, query):
    """What is wrong with the answer to a query; None: nothing."""
    found = prometheus.query(filled(query.expr))
    numbers = [(labels, value) for labels, value in found if not math.isnan(value)]
    wanted = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    for labels, _ in found:
        if not wanted <= set(labels):
            return f"want labels {sorted(wanted)}, got {labels}"
    if not numbers and not panel.may_be_empty:
        return "no series" if not found else "NaN alone"
    return None


@unittest.skipIf(monitoring.SKIP, monitoring.SKIP)
class LiveTest(harness.SluiceTest):
    def setUp(self):
        data = self.prepare(ranker={"sequential": False})
        self.cluster = harness.Cluster(self, data, ranks=1)
        self.cluster.certificates = certificates.Certificates(self.path("tls"))  # what they tell of TLS too
        coordinator = self.cluster.start_coordinator()
        reward = self.cluster.start_reward()
        rank = self.cluster.start_rank()
        actor = self.cluster.start_actor()
        self.processes_by_role = {"coordinator": coordinator, "rank": rank, "reward": reward, "actor": actor}
        self.prometheus = monitoring.Prometheus(
            self, [(role, process.metrics) for role, process in self.processes_by_role.items()], alerts.rules())
        self.submit = self.cluster.submit(harness.rl_spec(data, steps=STEPS, checkpoint={"every": 20}))
        wait_until(lambda: (self.prometheus.value("sluice_checkpoints_total") or 0) > 1, "Prometheus saw two checkpoints",
                   alive=[self.submit, rank, actor, reward])

    def test_pages_rules_and_dashboards_hold_on_a_live_run(self):
        self.check_pages()
        self.check_rules()
        self.check_variables()
        self.check_panels()

    def check_pages(self):
        pages = {role: metrics_reference.fetch(process.metrics) for role, process in self.processes_by_role.items()}
        for role, page in pages.items():
            answer = subprocess.run([monitoring.PROMTOOL, "check", "metrics"], input=page, capture_output=True, text=True,
                                    timeout=60)
            self.assertEqual((answer.returncode, answer.stdout + answer.stderr), (0, ""), role)
        text = metrics_reference.reference(pages)
        if os.environ.get("SLUICE_WRITE_REFERENCE") == "1":
            os.makedirs(os.path.dirname(metrics_reference.PAGE), exist_ok=True)
            with open(metrics_reference.PAGE, "w", encoding="utf-8") as file:
                file.write(text)
        with open(metrics_reference.PAGE, encoding="utf-8") as file:
            self.assertEqual(file.read(), text, "the metrics have changed: run this test with SLUICE_WRITE_REFERENCE=1, "
                             "look at the difference, and write it into the changelog")

    def check_rules(self):
        def evaluated():
            rules = [rule for group in self.prometheus.get("rules")["groups"] for rule in group["rules"]]
            self.assertEqual(len(rules), len(alerts.ALERTS) + len(alerts.RECORDS))
            return rules if all(rule["health"] != "unknown" for rule in rules) else None
        for rule in wait_until(evaluated, "all rules are evaluated"):
            self.assertEqual(rule["health"], "ok", rule)
        self.assertEqual(self.prometheus.firing(), set(), "an alert fires in a healthy run")

        def scraped():  # "unknown": not yet
            targets = self.prometheus.get("targets")["activeTargets"]
            health = {target["labels"]["role"]: target["health"] for target in targets}
            return None if "unknown" in health.values() else health
        self.assertEqual(wait_until(scraped, "all targets are scraped"), dict.fromkeys(metrics_reference.ROLES, "up"))

    def check_variables(self):
        for dashboard in dashboards.DASHBOARDS:
            for variable in dashboards.variables(dashboard)[1:]:
                series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                values = self.prometheus.get(f"label/{urllib.parse.quote(label)}/values", **{"match[]": filled(series)})
                want = {"job": ["sluice"], "instance": sorted(p.metrics for p in self.processes_by_role.values())}
                self.assertEqual(sorted(values), want[label], f"{dashboard.title}: {variable['name']}")
        for name, _, expr in dashboards.ANNOTATIONS:
            self.prometheus.query(filled(expr))  # an error of Prometheus fails the test; that none happens is no error
            self.assertTrue(name)

    def check_panels(self):
        todo = [(f"{dashboard.title}: {panel.title}: {query.expr}", panel, query) for dashboard in dashboards.DASHBOARDS
                for row in dashboard.rows for panel in row.panels for query in panel.queries]
        self.assertGreater(len(todo), 60)
        wrong = {}

        def all_answered():
            wrong.clear()
            for where, panel, query in todo:
                said = shortcoming(self.prometheus, panel, query)
                if said:
                    wrong[where] = said
            todo[:] = [entry for entry in todo if entry[0] in wrong]
            return not wrong
        try:
            wait_until(all_answered, "every panel has data", limit_s=60, alive=[self.submit])
        except AssertionError as error:
            self.fail(f"{error}: {wrong}")


@unittest.skipIf(monitoring.SKIP, monitoring.SKIP)
class PlantedTest(harness.SluiceTest):
    """That the checks above can fail."""

    def test_a_panel_without_data_with_other_labels_or_with_a_mistake_is_seen(self):
        prometheus = monitoring.Prometheus(self, [], alerts.rules())
        prometheus.write("targets.json", '[{"targets": ["%s"], "labels": {"role": "self"}}]' % prometheus.address)
        wait_until(lambda: prometheus.value("up") == 1, "Prometheus scrapes itself", alive=[prometheus.process])

        def said(expr, legend, **options):
            panel = dashboards.panel("t", "d", "none", (expr, legend), **options)
            return shortcoming(prometheus, panel, panel.queries[0])
        self.assertIsNone(said("up", "{{role}}"))
        self.assertEqual(said("sluice_absent", "x"), "no series")
        self.assertIsNone(said("sluice_absent", "x", may_be_empty="a reason"))
        self.assertEqual(said("up * NaN", "x"), "NaN alone")
        self.assertIn("want labels ['rank']", said("up", "{{rank}}"))
        self.assertIn("want labels ['rank']", said("up", "{{rank}}", may_be_empty="a reason"))
        with self.assertRaisesRegex(AssertionError, "parse error"):
            said("rate(up[", "x", may_be_empty="a reason")


if __name__ == "__main__":
    harness.main()
