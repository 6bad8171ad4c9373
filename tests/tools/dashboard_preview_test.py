"""The drawing of previews: gaps stay gaps, values carry their units, and the picture is well-formed."""

import math
import os
import sys
import unittest
import xml.etree.ElementTree as xml

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("tools", "deploy/grafana"):
    sys.path.insert(0, os.path.join(TOP, folder))
import dashboard_preview as preview
import dashboards

SVG = "{http://www.w3.org/2000/svg}"


class PreviewTest(unittest.TestCase):
    def test_values_have_their_units(self):
        for value, unit, want in ((0.25, "percentunit", "25 %"), (0.0125, "s", "12.5 ms"), (90, "s", "1.5 min"),
                                  (7200, "s", "2 h"), (1536, "bytes", "1.5 KiB"), (3 << 20, "Bps", "3 MiB/s"),
                                  (12, "none", "12"), (1010.4, "ops", "1010/s"), (12100.0, "none", "12100"), (2.5e7, "none", "2.5e+07"), (2.5, "ops", "2.5/s"), (math.nan, "s", "-"), (0, "bytes", "0 B")):
            self.assertEqual(preview.number(value, unit), want)

    def test_what_was_not_measured_is_a_gap(self):
        points = [(1, 5.0), (2, math.nan), (3, 7.0), (4, 8.0), (5, math.inf)]
        self.assertEqual(preview.segments(points), [[(1, 5.0)], [(3, 7.0), (4, 8.0)]])
        self.assertEqual(preview.segments([(1, math.nan)]), [])

    def drawn(self, dashboard, data):
        return xml.fromstring(preview.draw(dashboards.dashboard_json(dashboard), data, "a note"))

    def test_every_dashboard_is_drawn_with_and_without_data(self):
        for dashboard in dashboards.DASHBOARDS:
            board = dashboards.dashboard_json(dashboard)
            legends = {panel["id"]: "0.5" if panel["type"] == "heatmap" else "a < b" for panel in board["panels"]}
            data = {n: [(legends[n], [(1.0, 2.0), (2.0, 3.0)])] for n in legends}
            full, empty = self.drawn(dashboard, data), self.drawn(dashboard, {})
            words = [element.text for element in full.iter(f"{SVG}text")]
            for panel in board["panels"]:
                self.assertIn(panel["title"], words)
            self.assertNotIn("no data", words)
            drawn = [panel for panel in board["panels"] if panel["type"] in ("timeseries", "heatmap")]
            self.assertEqual([element.text for element in empty.iter(f"{SVG}text")].count("no data"), len(drawn))

    def test_a_gap_makes_two_lines_and_the_scale_fits_the_values(self):
        panel = next(p for p in dashboards.dashboard_json(dashboards.FLEET)["panels"] if p["type"] == "timeseries")
        found = [("x", [(0.0, 10.0), (1.0, 10.0), (2.0, math.nan), (3.0, 0.0), (4.0, 0.0)])]
        tree = self.drawn(dashboards.FLEET, {panel["id"]: found})
        points = [line.get("points") for line in tree.iter(f"{SVG}polyline")]
        self.assertEqual(len(points), 2)
        high = {point.split(",")[1] for point in points[0].split()}
        low = {point.split(",")[1] for point in points[1].split()}
        self.assertEqual((len(high), len(low)), (1, 1))
        self.assertLess(float(high.pop()), float(low.pop()))  # SVG counts downwards

    def test_a_heatmap_shows_what_is_in_a_bucket_and_not_below(self):
        box = (0, 0, 400, 200)
        found = [("1", [(0.0, 3.0)]), ("2", [(0.0, 3.0)]), ("+Inf", [(0.0, 4.0)])]
        cells = [cell for cell in preview.heatmap(found, box, (0.0, 1.0)) if cell.startswith("<rect")]
        self.assertEqual(len(cells), 2)  # 3 up to 1, none up to 2, 1 above
        self.assertIn('opacity="1.00"', cells[0])


if __name__ == "__main__":
    unittest.main()
