"""Draws a dashboard of deploy/grafana as SVG from series that Prometheus answered: a preview, not Grafana.

Used by tests/deploy/previews.py. Standard library alone. Panels stand where Grafana puts them; styles are simpler.
"""

from __future__ import annotations

import html
import math
from typing import Any

Series = tuple[str, list[tuple[float, float]]]  # legend, and (seconds, value)

COLUMN, UNIT, WIDTH = 50, 29, 1200  # pixels of a grid column, of a grid row, of the whole
COLORS = ("#3274d9", "#e0752d", "#299c46", "#a352cc", "#c4162a", "#d9a000", "#1f78a4", "#7a5c3e", "#6b7f00", "#bf1b8f")
NAMED = {"green": "#299c46", "yellow": "#d9a000", "red": "#c4162a", "blue": "#3274d9"}
MAX_LEGENDS = 5


def number(value: float, unit: str) -> str:
    """A value with its unit, short."""
    if math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        if value >= 3600:
            return f"{value / 3600:.3g} h"
        if value >= 60:
            return f"{value / 60:.3g} min"
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    if unit in ("bytes", "Bps"):
        size, names = abs(value), ("B", "KiB", "MiB", "GiB", "TiB")
        power = min(int(math.log(size, 1024)), 4) if size >= 1 else 0
        return f"{value / 1024 ** power:.3g} {names[power]}{'/s' if unit == 'Bps' else ''}"
    text = f"{value:.0f}" if 100 <= abs(value) < 1e6 or value == int(value) and abs(value) < 1e6 else f"{value:.3g}"
    return text + {"ops": "/s", "reqps": "/s"}.get(unit, "")


def segments(points: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Runs of measured points: a NaN is a gap, never a 0."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isnan(point[1]) or math.isinf(point[1]):
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def text(x: float, y: float, words: str, size: int = 11, color: str = "#333", anchor: str = "start", bold: bool = False) -> str:
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
            f'{" font-weight=" + chr(34) + "bold" + chr(34) if bold else ""}>{html.escape(words)}</text>')


def stat(panel: dict[str, Any], found: list[Series], box: tuple[int, int, int, int]) -> list[str]:
    x, y, w, h = box
    value = next((run[-1][1] for _, points in found for run in segments(points)[-1:]), math.nan)
    color = "#999"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if not math.isnan(value) and (step["value"] is None or value >= step["value"]):
            color = NAMED[step["color"]]
    return [text(x + w / 2, y + h / 2 + 18, number(value, panel["fieldConfig"]["defaults"]["unit"]), 22, color, "middle", True)]


def lines(panel: dict[str, Any], found: list[Series], box: tuple[int, int, int, int], span: tuple[float, float]) -> list[str]:
    x, y, w, h = box
    unit = panel["fieldConfig"]["defaults"]["unit"]
    found = sorted(found, key=lambda one: -max((v for run in segments(one[1]) for _, v in run), default=-math.inf))
    values = [v for _, points in found for run in segments(points) for _, v in run]
    if not values:
        return [text(x + w / 2, y + h / 2, "no data", 12, "#999", "middle")]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1
    left, top, wide, tall = x + 62, y + 28, w - 74, h - 44 - 14 * min(len(found), MAX_LEGENDS)

    def place(t: float, v: float) -> str:
        return f"{left + wide * (t - span[0]) / (span[1] - span[0]):.1f},{top + tall * (high - v) / (high - low):.1f}"
    out = []
    for part in (0.0, 0.5, 1.0):
        level = top + tall * part
        out.append(f'<path d="M{left} {level:.0f}h{wide}" stroke="#e5e5e5"/>')
        out.append(text(left - 5, level + 4, number(high - (high - low) * part, unit), 10, "#777", "end"))
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is not None and low < step["value"] <= high:
            level = top + tall * (high - step["value"]) / (high - low)
            out.append(f'<path d="M{left} {level:.0f}h{wide}" stroke="{NAMED[step["color"]]}" stroke-dasharray="5 4"/>')
    for n, (_, points) in enumerate(found):
        for run in segments(points):
            path = " ".join(place(t, v) for t, v in run)
            out.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[n % len(COLORS)]}" stroke-width="1.5"/>')
    for n, (legend, points) in enumerate(found[:MAX_LEGENDS]):
        last = next((run[-1][1] for run in segments(points)[-1:]), math.nan)
        more = f", and {len(found) - MAX_LEGENDS} more" if n == MAX_LEGENDS - 1 and len(found) > MAX_LEGENDS else ""
        level = top + tall + 18 + 14 * n
        out.append(f'<path d="M{x + 12} {level - 4}h14" stroke="{COLORS[n % len(COLORS)]}" stroke-width="3"/>')
        out.append(text(x + 32, level, f"{legend}: {number(last, unit)}{more}", 11))
    return out


def heatmap(found: list[Series], box: tuple[int, int, int, int], span: tuple[float, float]) -> list[str]:
    """Cells of a histogram: what is in a bucket and not in the one below."""
    x, y, w, h = box
    buckets = sorted(((float(legend), dict(points)) for legend, points in found), key=lambda bucket: bucket[0])
    times = sorted({t for _, points in buckets for t in points})
    counts = {(n, t): max(0.0, points.get(t, 0) - (buckets[n - 1][1].get(t, 0) if n else 0))
              for n, (_, points) in enumerate(buckets) for t in times}
    counts = {key: 0.0 if math.isnan(count) else count for key, count in counts.items()}
    most = max(counts.values(), default=0)
    if most == 0:
        return [text(x + w / 2, y + h / 2, "no data", 12, "#999", "middle")]
    left, top, wide, tall = x + 62, y + 28, w - 74, h - 40
    cell_w, cell_h = wide / len(times), tall / len(buckets)
    out = []
    for (n, t), count in counts.items():
        if count > 0:
            out.append(f'<rect x="{left + wide * (t - span[0]) / (span[1] - span[0]):.1f}" '
                       f'y="{top + tall - (n + 1) * cell_h:.1f}" width="{cell_w:.1f}" height="{cell_h:.1f}" '
                       f'fill="#1f60c4" opacity="{0.15 + 0.85 * count / most:.2f}"/>')
    for n, (bound, _) in enumerate(buckets):
        if n % 3 == 0:
            out.append(text(left - 5, top + tall - n * cell_h, "inf" if math.isinf(bound) else f"{bound:g}", 10, "#777", "end"))
    return out


def draw(board: dict[str, Any], data: dict[int, list[Series]], note: str) -> str:
    """The SVG of a dashboard's JSON. data: series of all queries of a panel, by the panel's id."""
    times = [t for found in data.values() for _, points in found for t, _ in points]
    span = (min(times), max(times)) if times and min(times) < max(times) else (0.0, 1.0)
    bottom = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    top = 56
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + bottom * UNIT + 8}" '
           'font-family="sans-serif">', '<rect width="100%" height="100%" fill="#f4f5f5"/>',
           text(12, 26, board["title"], 18, "#222", bold=True), text(12, 45, note, 11, "#777")]
    for panel in board["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN, top + place["y"] * UNIT
        w, h = place["w"] * COLUMN, place["h"] * UNIT
        if panel["type"] == "row":
            out.append(text(12, y + 20, panel["title"], 14, "#222", bold=True))
            continue
        out.append(f'<g><title>{html.escape(panel["description"])}</title>'
                   f'<rect x="{x + 3}" y="{y + 3}" width="{w - 6}" height="{h - 6}" rx="3" fill="#fff" stroke="#ddd"/>')
        out.append(text(x + 12, y + 20, panel["title"], 11 if panel["type"] == "stat" else 12, bold=True))
        found = data.get(panel["id"], [])
        if panel["type"] == "stat":
            out += stat(panel, found, (x, y, w, h))
        elif panel["type"] == "heatmap":
            out += heatmap(found, (x, y, w, h), span)
        else:
            out += lines(panel, found, (x, y, w, h), span)
        out.append("</g>")
    return "\n".join(out + ["</svg>"]) + "\n"
