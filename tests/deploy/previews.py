#!/usr/bin/env python3
"""Previews of the dashboards from a live run: ./sluice proof dashboards writes docs/dashboards/*.svg and its page.

The same cluster, Prometheus and queries as deploy.live, over more time.
"""

import datetime
import os
import re
import sys
import time
import unittest

import monitoring
from monitoring import harness, wait_until
import alerts  # noqa: E402  # the folders of these are known once monitoring is imported
import dashboard_preview  # noqa: E402
import dashboards  # noqa: E402
import live_test  # noqa: E402

FOLDER = os.path.join(monitoring.TOP, "docs", "dashboards")
SECONDS = 75
POINTS = 50


def legend(pattern, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match.group(1), ""), pattern)


def series(prometheus, panel, end):
    """What a panel shows: (legend, points) of all its queries over the last SECONDS."""
    found = []
    for query in panel.queries:
        answer = prometheus.get("query_range", query=live_test.filled(query.expr), start=end - SECONDS, end=end,
                                step=SECONDS / POINTS)
        found += [(legend(query.legend, entry["metric"]), [(float(t), float(v)) for t, v in entry["values"]])
                  for entry in answer["result"]]
    return found


@unittest.skipIf(monitoring.SKIP, monitoring.SKIP)
class Previews(harness.SluiceTest):
    def test_write(self):
        data = self.prepare(ranker={"sequential": False})
        cluster = harness.Cluster(self, data, ranks=1)
        processes = [("coordinator", cluster.start_coordinator()), ("reward", cluster.start_reward()),
                     ("rank", cluster.start_rank()), ("actor", cluster.start_actor("actor-0")),
                     ("actor", cluster.start_actor("actor-1"))]
        prometheus = monitoring.Prometheus(self, [(role, p.metrics) for role, p in processes], alerts.rules())
        submit = cluster.submit(harness.rl_spec(
            data, steps=live_test.STEPS, checkpoint={"every": 200}, optimizer={"learning_rate": 0.0003},
            validation={"every": 100, "users": 20, "beams": 10}))
        wait_until(lambda: (prometheus.value('max(count_over_time(up{role="rank"}[10m]))') or 0) > SECONDS + 5,
                   "Prometheus has seen enough", 10 * SECONDS, [submit])
        end = time.time()
        os.makedirs(FOLDER, exist_ok=True)
        note = (f"Drawn by tools/dashboard_preview.py from a small run on one machine, {datetime.date.today():%Y-%m-%d}; "
                "a preview, not Grafana.")
        names = []
        for dashboard in dashboards.DASHBOARDS:
            board = dashboards.dashboard_json(dashboard)
            panels = [panel for row in dashboard.rows for panel in row.panels]
            ids = [panel["id"] for panel in board["panels"] if panel["type"] != "row"]
            self.assertEqual(len(ids), len(panels))
            drawn = dashboard_preview.draw(board, {n: series(prometheus, p, end) for n, p in zip(ids, panels)}, note)
            names.append(f"{dashboard.uid}.svg")
            with open(os.path.join(FOLDER, names[-1]), "w", encoding="utf-8") as file:
                file.write(drawn)
        with open(os.path.join(FOLDER, "README.md"), "w", encoding="utf-8") as file:
            file.write(page())


def page():
    lines = ["# Dashboards", "", "Previews, drawn from what a real Prometheus answered on a small live run "
             "(`./sluice proof dashboards`). Hover over a panel to", "read what it says and what to do. Grafana draws them with "
             "more care; the JSON is in [deploy/grafana](../../deploy/grafana)."]
    for dashboard in dashboards.DASHBOARDS:
        lines += ["", f"## {dashboard.title.split(' / ')[1]}", "", dashboard.description, "",
                  f"![{dashboard.title}]({dashboard.uid}.svg)"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(
        unittest.defaultTestLoader.loadTestsFromTestCase(Previews)).wasSuccessful())
