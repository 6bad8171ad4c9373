"""The tables of a matrix: what its folders hold as JSON, as markdown and as one page. Standard library alone."""

import html
import json
import os
import re

# What outcomes.csv holds of every user by itself (learner/evaluate/outcome_file.h).
PER_USER = re.compile(r"^((sid_)?(hr|ndcg|mrr)@\d+|(sid_)?mrr|level_\d+_accuracy(@10)?|hallucination(@50)?|diversity)$")
KNOWN_COLUMNS = 14
CHECKPOINTS = ("best", "final")
# Student's t, two-sided 95 %, by degrees of freedom.
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def read_json(*names):
    with open(os.path.join(*names), encoding="utf-8") as file:
        return json.load(file)


def further_columns(folder):
    """Names of the numbers of every user that this evaluation has beyond the known ones."""
    with open(os.path.join(folder, "outcomes.csv"), encoding="utf-8") as file:
        file.readline()
        return file.readline().strip().split(",")[KNOWN_COLUMNS:]


def compared_metrics(matrix, report, out):
    """The metrics of the file that were measured and have a value for every user, so that the bootstrap can look at them."""
    further = further_columns(os.path.join(out, report["start"]["folder"], "run"))
    measured = report["start"]["metrics"]
    return [name for name in matrix.metrics if (PER_USER.match(name) and name in measured) or name in further]


def mean(values):
    return sum(values) / len(values) if values else None


def spread(values):
    """Standard deviation over seeds (ddof 1); None with one."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return (sum((v - centre) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def values_of(metrics, names):
    return {name: metrics[name] for name in names if isinstance(metrics.get(name), (int, float))}


def collect(matrix, out, evaluation, failures):
    """Everything that has ended, as one document; None without the start's evaluation or any arm."""
    start_folder = f"start-{evaluation}"
    if not os.path.exists(os.path.join(out, start_folder, "run", "results.json")):
        return None
    start = read_json(out, start_folder, "run", "results.json")
    report = {
        "name": matrix.name, "note": matrix.note, "evaluation": evaluation, "metrics": matrix.metrics,
        "against": matrix.against, "seeds": matrix.seeds, "file": matrix.text,
        "data": start["texts"].get("data_name", ""), "split": start["texts"].get("split", ""),
        "user_parity": start["texts"].get("user_parity", "all"), "users": start["numbers"]["metrics"]["prompts"],
        "failures": {what: str(why) for what, why in failures.items()},
        "start": {"folder": start_folder, "metrics": values_of(start["numbers"]["metrics"], matrix.metrics)},
        "rule": values_of(start["numbers"].get("baseline", {}), matrix.metrics),
        "rows": [{"name": row.name, "note": row.note, "error": row.error, "share": row.share} for row in matrix.rows],
        "arms": [],
    }
    for arm in matrix.arms:
        entry = {"name": arm.name, "label": arm.label, "row": arm.row.name if arm.row else None, "note": arm.note,
                 "gate": arm.gate, "lambda": arm.lambda_, "spec": os.path.basename(arm.stage.spec),
                 "set": arm.stage.overrides, "runs": []}
        for seed in matrix.seeds:
            folder = os.path.join("arms", arm.name, f"seed-{seed}")
            index = os.path.join(out, folder, f"{evaluation}.json")
            if not os.path.exists(index):
                continue
            evaluations = read_json(index)
            trained = read_json(out, folder, "run", "results.json")["numbers"]
            stages = [read_json(out, folder, "stage.json")]
            stages += [read_json(out, place, "stage.json") for place in sorted(set(evaluations.values()))
                       if place.startswith(folder)]
            run = {"seed": seed, "folder": folder, "evaluations": evaluations,
                   "wall_s": sum(one["wall_s"] for one in stages), "cpu_s": sum(one["cpu_s"] for one in stages),
                   "admission": trained.get("run", {}).get("admission_rate"), "metrics": {}, "step": {}}
            for which in CHECKPOINTS:
                run["step"][which] = trained[which].get("step")
                run["metrics"][which] = values_of(
                    read_json(out, evaluations[which], "run", "results.json")["numbers"]["metrics"], matrix.metrics)
            entry["runs"].append(run)
        entry["summary"] = {which: summary(entry["runs"], which, matrix.metrics) for which in CHECKPOINTS}
        entry["admission"] = mean([run["admission"] for run in entry["runs"] if run["admission"] is not None])
        report["arms"].append(entry)
    return report if any(arm["runs"] for arm in report["arms"]) else None


def summary(runs, which, names):
    """{metric: {mean, spread}} over the seeds that have it."""
    result = {}
    for name in names:
        values = [run["metrics"][which][name] for run in runs if name in run["metrics"][which]]
        if values:
            result[name] = {"mean": mean(values), "spread": spread(values)}
    return result


# ------------------------------------------------------------------------------------------------------ tables

def number(value, digits=4):
    return "-" if value is None else f"{value:.{digits}f}"


def with_spread(entry):
    if entry is None:
        return "-"
    return number(entry["mean"]) + ("" if entry["spread"] is None else f" ± {number(entry['spread'])}")


def seeds_text(report, arm):
    have, want = len(arm["runs"]), len(report["seeds"])
    return str(have) if have == want else f"{have} of {want}"


def result_rows(report):
    """(header, rows of cells): start, then every arm at its best and its final checkpoint."""
    header = ["arm", "checkpoint", "seeds", "step", *report["metrics"], "admission", "wall s", "CPU s"]
    rows = []
    if report["rule"]:
        rows.append(["co-occurrence rule", "", "", "", *(number(report["rule"].get(m)) for m in report["metrics"]), "-",
                     "-", "-"])
    rows.append(["start", "", "", "0", *(number(report["start"]["metrics"].get(m)) for m in report["metrics"]), "-", "-",
                 "-"])
    for arm in report["arms"]:
        for which in CHECKPOINTS:
            if not arm["runs"]:
                rows.append([arm["name"], which, seeds_text(report, arm), *["-"] * (len(header) - 3)])
                continue
            steps = [run["step"][which] for run in arm["runs"] if run["step"][which] is not None]
            rows.append([arm["name"], which, seeds_text(report, arm), number(mean(steps), 0),
                         *(with_spread(arm["summary"][which].get(m)) for m in report["metrics"]),
                         number(arm["admission"], 3), number(mean([run["wall_s"] for run in arm["runs"]]), 0),
                         number(mean([run["cpu_s"] for run in arm["runs"]]), 0)])
    return header, rows


def map_tables(report):
    """[(metric, header, rows)]: rows by arms at the final checkpoint, then the share of groups that each gate admitted.
    Empty without rows."""
    if not report["rows"]:
        return []
    labels = list(dict.fromkeys(arm["label"] for arm in report["arms"] if arm["runs"]))

    def table(name, cell):
        rows = []
        for row in report["rows"]:
            found = {arm["label"]: arm for arm in report["arms"] if arm["row"] in (None, row["name"]) and arm["runs"]}
            rows.append([row["name"], *(cell(found[label]) if label in found else "-" for label in labels)])
        return name, ["row", *labels], rows
    metrics = [name for name in report["metrics"] if any(name in arm["summary"]["final"] for arm in report["arms"])]
    return [table(name, lambda arm, name=name: with_spread(arm["summary"]["final"].get(name))) for name in metrics] + \
        [table("admission", lambda arm: number(arm["admission"], 3))]


def gains_csv(report):
    """What each gate of each row with a known error gained in the first metric over nll_only at the final checkpoint, as
    `sluicectl advise --gains` reads it. None if there is nothing to say."""
    lines = []
    for row in report["rows"]:
        comparison = report["comparisons"].get(f"final, {row['name']}")
        if row["error"] is None or comparison is None:
            continue
        found = {one["arm"]: one for one in comparison["differences"]
                 if one["metric"] == report["metrics"][0] and one["against"] == "nll_only"}
        for arm in report["arms"]:
            if arm["gate"] and arm["row"] == row["name"] and arm["label"] in found:
                one = found[arm["label"]]
                lines.append(f"{row['error']},{row['share']:g},{arm['gate']},{arm['lambda']:g},{one['mean']:.4f},"
                             f"{one['low']:.4f},{one['high']:.4f}\n")
    return "error,share,gate,lambda,gain,low,high\n" + "".join(lines) if lines else None


def difference_tables(report):
    """[(checkpoint and row, against, header, rows)]: every arm against one reference."""
    tables = []
    for which, comparison in report.get("comparisons", {}).items():
        for against in report["against"]:
            entries = [one for one in comparison["differences"] if one["against"] == against]
            if not entries:
                continue
            metrics = list(dict.fromkeys(one["metric"] for one in entries))
            arms = list(dict.fromkeys(one["arm"] for one in entries))
            found = {(one["arm"], one["metric"]): one for one in entries}
            rows = [[arm, *(difference_text(found[arm, metric]) for metric in metrics)] for arm in arms]
            tables.append((which, against, ["arm", *metrics], rows))
    return tables


# -------------------------------------------------------------------------------------------------- replicates

def over_replicates(values):
    """Mean and 95 % interval of what each replicate says (Student's t)."""
    half = T_975[len(values) - 1] * spread(values) / len(values) ** 0.5
    return {"mean": mean(values), "low": mean(values) - half, "high": mean(values) + half, "values": values}


def pool_replicates(reports, numbers):
    """One document of the final checkpoints of several replicates; arms that one of them lacks are left out.

    A replicate is one draw: data set, start and trainings together. So an interval says how another draw would come out,
    and needs no assumption about users."""
    first = reports[0]
    values = {}  # (arm, metric) -> one value a replicate
    for report in reports:
        found = {"start": report["start"]["metrics"]}
        for arm in report["arms"]:
            found[arm["name"]] = {name: entry["mean"] for name, entry in arm["summary"]["final"].items()}
        for arm, metrics in found.items():
            for metric, value in metrics.items():
                values.setdefault((arm, metric), []).append(value)
    values = {key: found for key, found in values.items() if len(found) == len(reports)}
    arms = [arm for arm in first["arms"] if any((arm["name"], metric) in values for metric in first["metrics"])]
    differences = []
    for arm in arms:
        # An arm that runs in every row is compared within its row.
        reference = {other["label"]: other["name"] for other in arms if other["row"] in (None, arm["row"])}
        reference["start"] = "start"
        for against in first["against"]:
            if reference.get(against, arm["name"]) == arm["name"]:
                continue
            for metric in first["metrics"]:
                pair = (arm["name"], metric), (reference[against], metric)
                if all(key in values for key in pair):
                    each = [a - b for a, b in zip(*(values[key] for key in pair))]
                    differences.append({"arm": arm["name"], "label": arm["label"], "row": arm["row"], "against": against,
                                        "metric": metric, **over_replicates(each)})
    return {"name": first["name"], "evaluation": first["evaluation"], "replicates": numbers, "metrics": first["metrics"],
            "against": first["against"], "rows": [row["name"] for row in first["rows"]],
            "arms": [{"name": arm["name"], "label": arm["label"], "row": arm["row"]} for arm in arms],
            "values": [{"arm": arm, "metric": metric, **over_replicates(found)} for (arm, metric), found in values.items()],
            "differences": differences}


def replicates_markdown(pooled):
    values = {(one["arm"], one["metric"]): one for one in pooled["values"]}
    labels = list(dict.fromkeys(arm["label"] for arm in pooled["arms"]))
    parts = [f"# {pooled['name']}: {pooled['evaluation']}, {len(pooled['replicates'])} replicates",
             f"Each of the seeds {', '.join(map(str, pooled['replicates']))} made its own data set, start and trainings. "
             "Means over them, final checkpoint; intervals of 95 % are Student's over replicates, not corrected for how "
             "many are shown."]

    def name_of(label, row):
        return next((arm["name"] for arm in pooled["arms"] if arm["label"] == label and arm["row"] in (None, row)), None)
    for metric in pooled["metrics"]:
        if ("start", metric) not in values:
            continue
        rows = [[row or "all", number(values["start", metric]["mean"]),
                 *(number(values[name_of(label, row), metric]["mean"]) if (name_of(label, row), metric) in values else "-"
                   for label in labels)] for row in pooled["rows"] or [None]]
        parts += [f"## {metric}", markdown_table(["row", "start", *labels], rows)]
    for metric in pooled["metrics"]:
        for against in pooled["against"]:
            found = {(one["row"], one["label"]): one for one in pooled["differences"]
                     if one["metric"] == metric and one["against"] == against}
            if not found:
                continue
            shown = [label for label in labels if any(key[1] == label for key in found)]
            rows = [[row or "all", *(interval_text(found.get((row, label))) for label in shown)]
                    for row in dict.fromkeys(key[0] for key in found)]
            parts += [f"## {metric} against {against}", markdown_table(["row", *shown], rows)]
    return "\n\n".join(parts) + "\n"


CELL_NAMES = {"all": "all", "d0_c0": "D0 C0", "d0_c1": "D0 C1", "d1_c0": "D1 C0", "d1_c1": "D1 C1"}


def cell_tables(report):
    """[(title, header, rows)] of the stratified analysis: what the start's groups look like in each cell, and how every
    arm changed HR@10 there. Empty without cells."""
    tables = []
    if "cells" in report:
        keys = ("share", "rank_correction", "random_share", "random_rank_correction")
        rows = [[CELL_NAMES[key], number(report["cells"][key].get("groups"), 0),
                 *(number(report["cells"][key].get(name), 2 if "correction" in name else 3) for name in keys)]
                for key in CELL_NAMES if key in report["cells"]]
        tables.append(("Cells: groups, and the mean rank correction of the ranker beside one that scores at random",
                       ["cell", "groups", "share", "rank correction", "share, random", "rank correction, random"], rows))
    cells = report.get("cell_comparisons", {})
    if cells:
        arms = list(dict.fromkeys(one["arm"] for comparison in cells.values() for one in comparison["differences"]))
        rows = []
        for cell, comparison in cells.items():
            found = {one["arm"]: one for one in comparison["differences"]}
            start = next(arm["metrics"]["hr@10"]["mean"] for arm in comparison["arms"] if arm["name"] == "start")
            rows.append([cell, str(comparison["users"]), number(start),
                         *(difference_text(found[arm]) if arm in found else "-" for arm in arms)])
        tables.append(("Cells: HR@10 of the start, and what training changed (final)",
                       ["cell", "users", "start", *arms], rows))
    return tables


def cell_plots(report):
    """One plot a cell: every arm's change of HR@10 with its interval."""
    return [(cell, plot(comparison["differences"], f"HR@10 in {cell}"))
            for cell, comparison in report.get("cell_comparisons", {}).items() if comparison["differences"]]


def interval_text(one):
    return "-" if one is None else f"{one['mean']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"


def difference_text(one):
    return interval_text(one) + (" **" if one["real"] else " *" if one["real_alone"] else "")


def introduction(report):
    lines = [f"{report['data']}, {report['split']} split, {int(report['users'])} users"
             + ("" if report["user_parity"] == "all" else f" with {report['user_parity']} numbers")
             + f", seeds {', '.join(map(str, report['seeds']))}."]
    if report["note"]:
        lines.append(report["note"])
    lines.append("Values are means over seeds, ± their standard deviation. `best` is the checkpoint with the best HR@10 on "
                 "validation users, update 0 included; `final` the last one.")
    return lines


def marks(report):
    looked = {which: one["differences_looked_at"] for which, one in report.get("comparisons", {}).items()}
    if not looked:
        return ""
    confidence = next(iter(report["comparisons"].values()))["confidence"]
    if report["rows"]:
        counts = f"{min(looked.values())} to {max(looked.values())} differences of a row and checkpoint"
    else:
        counts = ", ".join(f"{count} at `{which}`" for which, count in looked.items()) + " differences"
    return (f"Intervals of {100 * confidence:g} % by paired bootstrap over users, seeds averaged first. {counts} "
            "were looked at: ** is real after Holm's correction for all of them, * only if it had been the one "
            "that was looked at.")


def markdown_table(header, rows):
    def plain(cell):
        return str(cell).replace("**", "\\*\\*").replace(" *", " \\*") if "[" in str(cell) else str(cell)
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows])


def markdown(report):
    parts = [f"# {report['name']}: {report['evaluation']}", *introduction(report)]
    for name, header, rows in map_tables(report):
        parts += [f"## Map: {name}, final", markdown_table(header, rows)]
    parts.append(markdown_table(*result_rows(report)))
    for title, header, rows in cell_tables(report):
        parts += [f"## {title}", markdown_table(header, rows)]
    for which, against, header, rows in difference_tables(report):
        parts += [f"## {which} against {against}", markdown_table(header, rows)]
    if marks(report):
        parts.append(marks(report))
    for which, why in report.get("comparison_failures", {}).items():
        parts.append(f"No intervals at `{which}`: {why}")
    if report["failures"]:
        parts.append("## Failed\n\n" + "\n".join(f"- {what}: {why.splitlines()[0]}" for what, why in report["failures"].items()))
    return "\n\n".join(parts) + "\n"


STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5d6670;--line:#d9dde1;--page:#fff;--card:#f6f7f8;--mark:#0072b2;--real:#0a7a4b}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#9aa4ae;--line:#343a40;--page:#14171a;--card:#1d2125;--mark:#5ab4e8;--real:#57c793}}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:72rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.25rem;border-bottom:1px solid var(--line)}
p{color:var(--soft)}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.real{font-weight:700;color:var(--real)}
svg{display:block;width:100%;max-width:48rem;height:auto}svg text{font-size:12px;fill:var(--soft)}
.zero{stroke:var(--line)}.bar{stroke:var(--mark);stroke-width:2}.dot{fill:var(--mark)}
.real .bar,.bar.real{stroke:var(--real)}.dot.real{fill:var(--real)}
pre{padding:.9rem;overflow-x:auto;background:var(--card);border-radius:.5rem;font-size:13px}
"""


def html_table(header, rows):
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = ""
    for row in rows:
        cells = "".join(html_cell(cell) for cell in row)
        body += f"<tr>{cells}</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def html_cell(cell):
    css = ' class="real"' if str(cell).endswith("**") else ""
    return f"<td{css}>{html.escape(str(cell))}</td>"


def interval_plot(report, which, against, metric):
    """Every arm's difference in one metric with its interval, as SVG; empty without any."""
    return plot([one for one in report["comparisons"][which]["differences"]
                 if one["against"] == against and one["metric"] == metric], metric)


def plot(entries, what):
    if not entries:
        return ""
    low = min(0.0, *(one["low"] for one in entries))
    high = max(0.0, *(one["high"] for one in entries))
    width = (high - low) or 1.0
    left, right, row = 170, 20, 22

    def x(value):
        return left + (value - low) / width * (720 - left - right)

    height = row * len(entries) + 40
    parts = [f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="6" y2="{height - 26}"/>']
    for i, one in enumerate(entries):
        y = 18 + row * i
        css = " real" if one["real"] else ""
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{html.escape(one["arm"])}</text>'
                     f'<line class="bar{css}" x1="{x(one["low"]):.1f}" x2="{x(one["high"]):.1f}" y1="{y}" y2="{y}"/>'
                     f'<circle class="dot{css}" cx="{x(one["mean"]):.1f}" cy="{y}" r="4"/>')
    for value in (low, 0.0, high):
        parts.append(f'<text x="{x(value):.1f}" y="{height - 8}" text-anchor="middle">{value:+.4f}</text>')
    return f'<svg viewBox="0 0 720 {height}" role="img" aria-label="{html.escape(what)}">{"".join(parts)}</svg>'


def page(report):
    title = html.escape(f"{report['name']}: {report['evaluation']}")
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(line)}</p>" for line in introduction(report)),
             *(f"<h2>Map: {html.escape(name)}, final</h2>" + html_table(header, rows)
               for name, header, rows in map_tables(report)),
             html_table(*result_rows(report))]
    for heading, header, rows in cell_tables(report):
        parts.append(f"<h2>{html.escape(heading)}</h2>" + html_table(header, rows))
    parts += [f"<p>{html.escape(cell)}</p>{drawn}" for cell, drawn in cell_plots(report)]
    for which, against, header, rows in difference_tables(report):
        parts.append(f"<h2>{which} against {html.escape(against)}</h2>" + html_table(header, rows))
        metric = "hr@10" if "hr@10" in header and not report["rows"] else header[1]
        parts.append(f"<p>{html.escape(metric)}</p>" + interval_plot(report, which, against, metric))
    if marks(report):
        parts.append(f"<p>{html.escape(marks(report))}</p>")
    for which, why in report.get("comparison_failures", {}).items():
        parts.append(f"<p>No intervals at {which}: {html.escape(why)}</p>")
    if report["failures"]:
        parts.append("<h2>Failed</h2><ul>" + "".join(
            f"<li>{html.escape(what)}<pre>{html.escape(why)}</pre></li>" for what, why in report["failures"].items()) + "</ul>")
    parts.append(f"<h2>The matrix</h2><pre>{html.escape(report['file'])}</pre>")
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'"/>'
            f"<title>{title}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n")
