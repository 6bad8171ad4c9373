#!/usr/bin/env python3
"""Draws the curves of docs/scale.md: runs scale_simulator over numbers of actors and ranks, writes SVG pictures and a
table. Standard library only.

    tests/bench/scale/curves.py build/benchmarks/scale_simulator docs/scale [--actors 1,10,100]
"""

import argparse
import json
import math
import os
import subprocess

# A policy of half a billion parameters in bf16, ranks on GPUs, actors on CPUs (docs/scale.md says where from).
BASE = {
    "steps": 6, "warmup_steps": 2, "group_size": 2, "lease_groups": 8, "staleness": 2,
    "prompt_s": 0.5, "score_call_s": 0.0046, "score_group_s": 0.00015, "jitter": 0.2, "lease_deadline_s": 600,
    "take_in_s": 50e-6, "judge_s": 20e-6, "train_s": 0.00054, "update_s": 0.05,
    "weight_bytes": 1e9, "gradient_bytes": 2e9, "encode_bandwidth": 8e9, "verify_bandwidth": 8e9,
    "rank_bandwidth": 12.5e9, "actor_bandwidth": 1.25e9, "reduce_bandwidth": 50e9, "round_trip_s": 0.0005,
}
RANKS = (1, 4, 16, 64)
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4f9d", "#8a6d3b", "#444444", "#c0397b", "#2aa198")


def simulate(program, actors, ranks, fan_out, **other):
    """The results of one run; a step has one lease for every actor, and every rank at least one."""
    spec = dict(BASE, actors=actors, ranks=ranks, fan_out=fan_out, rankers=max(1, actors // 200), **other)
    unit = spec["lease_groups"] * ranks
    spec["groups_per_step"] = unit * max(1, math.ceil(actors * spec["lease_groups"] / unit))
    words = [f"{key}={json.dumps(value)}" for key, value in spec.items()]
    out = subprocess.run([program, "--timing", *words], check=True, capture_output=True, text=True).stdout
    return json.loads(out)["result"]


def ticks(low, high):
    """Powers of ten that cover [low, high]."""
    return [10.0 ** k for k in range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9) + 1)]


def number(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def draw(path, title, x_name, y_name, series, log_y=True):
    """series: (name, [(x, y)], dashed). x is logarithmic; y is too, or a share from 0 to 1."""
    width, height, left, top, right, bottom = 720, 400, 70, 40, 190, 50
    xs = [x for _, points, _ in series for x, _ in points]
    ys = [y for _, points, _ in series for _, y in points]
    x_ticks = ticks(min(xs), max(xs))
    y_ticks = ticks(min(ys), max(ys)) if log_y else [k / 5 * max(1.0, math.ceil(max(ys))) for k in range(6)]

    def place(x, y):
        u = (math.log10(x) - math.log10(x_ticks[0])) / max(1e-9, math.log10(x_ticks[-1]) - math.log10(x_ticks[0]))
        f = math.log10 if log_y else float
        v = (f(y) - f(y_ticks[0])) / max(1e-9, f(y_ticks[-1]) - f(y_ticks[0]))
        return left + u * (width - left - right), height - bottom - v * (height - top - bottom)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
           f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="22" font-size="15">{title}</text>']
    for tick in x_ticks:
        x, y = place(tick, y_ticks[0])
        out.append(f'<path d="M{x:.1f} {y:.1f}V{top}" stroke="#ddd"/>'
                   f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{number(tick)}</text>')
    for tick in y_ticks:
        x, y = place(x_ticks[0], tick)
        out.append(f'<path d="M{x:.1f} {y:.1f}H{width - right}" stroke="#ddd"/>'
                   f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    middle = (left + width - right) / 2
    out.append(f'<text x="{middle}" y="{height - 12}" text-anchor="middle">{x_name}</text>'
               f'<text transform="translate(16 {(height - bottom + top) / 2}) rotate(-90)" text-anchor="middle">'
               f'{y_name}</text>')
    for index, (name, points, dashed) in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (place(*p) for p in points)]
        y = top + 14 + 20 * index
        out.append(f'<path d="M{width - right + 12} {y - 4}h22" stroke="{colour}" stroke-width="2"{dash}/>'
                   f'<text x="{width - right + 40}" y="{y}">{name}</text>')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built scale_simulator")
    parser.add_argument("folder", help="where the pictures and the table go")
    parser.add_argument("--actors", default="1,3,10,30,100,300,1000,3000,10000")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    numbers = [int(word) for word in options.actors.split(",")]
    results = {}
    for ranks in RANKS:
        for fan_out in (0, 2):
            for actors in numbers:
                # One rank with very many actors is far past its end, and slow to simulate.
                if ranks <= actors <= 320 * ranks:
                    results[ranks, fan_out, actors] = simulate(options.program, actors, ranks, fan_out)

    def series(value, want=lambda ranks, fan_out: True):
        found = []
        for ranks in RANKS:
            for fan_out in (0, 2):
                points = [(a, value(r)) for (w, f, a), r in sorted(results.items()) if (w, f) == (ranks, fan_out)]
                if points and want(ranks, fan_out):
                    name = f"{ranks} rank{'s' if ranks > 1 else ''}, {'tree of 2' if fan_out else 'flat'}"
                    found.append((name, points, fan_out > 0))
        return found

    draw(os.path.join(options.folder, "throughput.svg"), "Groups trained a second", "actors", "groups/s",
         series(lambda r: r["groups_per_s"]))
    draw(os.path.join(options.folder, "fetch.svg"), "From offer to verified weights, mean", "actors", "seconds",
         series(lambda r: r["weights"]["fetch_s_mean"]))
    draw(os.path.join(options.folder, "staleness.svg"), "Mean staleness at training (S = 2)", "actors", "versions",
         series(lambda r: r["staleness_mean"]), log_y=False)
    shares = (("actors sampling", "actor_sampling"), ("ranks training", "rank_training"),
              ("rankers", "ranker"), ("ranks' links", "rank_link"), ("intake", "rank_intake"))
    draw(os.path.join(options.folder, "utilisation.svg"), "Busy share, 4 ranks, flat", "actors", "share",
         [(name, [(a, r["utilisation"][key]) for (w, f, a), r in sorted(results.items()) if (w, f) == (4, 0)], False)
          for name, key in shares], log_y=False)

    hub = [(actors, simulate(options.program, actors, 1, 0, steps=4, warmup_steps=1)["hub_cpu_us_per_group"])
           for actors in numbers if actors <= 1000]
    draw(os.path.join(options.folder, "hub.svg"), "CPU time of the real hub a group, this machine",
         "actors of one rank", "microseconds", [("one rank", hub, False)])

    lines = ["| ranks | fan-out | actors | groups/s | step s | staleness 0, 1, 2 | actors busy | ranks busy | bound |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for (ranks, fan_out, actors), r in sorted(results.items()):
        total = sum(r["staleness"].values())
        behind = ", ".join(f"{r['staleness'].get(str(k), 0) / total:.2f}" for k in range(3))
        lines.append(f"| {ranks} | {'tree' if fan_out else 'flat'} | {actors:,} | {r['groups_per_s']:,.1f} | "
                     f"{r['step_s']:.1f} | {behind} | {r['utilisation']['actor_sampling']:.2f} | "
                     f"{r['utilisation']['rank_training']:.2f} | {r['bounds']['lowest']} |")
    lines += ["", "| actors of one rank | CPU of the hub a group, microseconds |", "| --- | --- |"]
    lines += [f"| {actors:,} | {cost:.1f} |" for actors, cost in hub]
    with open(os.path.join(options.folder, "curves.md"), "w", encoding="utf-8") as file:
        file.write("# Results of the simulator\n\nWritten by `tests/bench/scale/curves.py`; "
                   "what they mean: [scale.md](../scale.md).\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
