"""The report of a run: one HTML page that holds all it shows, for people who were not there."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path

from pipeline.data.case_volumes import CaseVolumes
from pipeline.errors import ConfigError
from pipeline.io.atomic import write_text
from pipeline.metrics import Row, summarise
from pipeline.report.case_table import case_table
from pipeline.report.charts import agreement_chart, curve_chart, distribution_chart
from pipeline.report.pictured_cases import pictured_cases
from pipeline.report.ranking import RankedCase, anchors, are_sections, faults, ranked
from pipeline.report.run_facts import digests, facts
from pipeline.report.run_results import Curve, RunResults
from pipeline.report.viewer import viewer

_FILES = Path(__file__).parent / "page"
# What the page may do, whatever a name in it tries: nothing is loaded from elsewhere, nothing is sent.
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; font-src data:; connect-src data: blob:; "
    "script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
)
_MARK = re.compile(r'<meta name="dataset" content="(\w+)">')
_HEAD = 4096  # characters, within which the mark stands


def report_page(
    run: RunResults,
    path: str | PathLike[str],
    volumes: Mapping[str, CaseVolumes] | None = None,
    problems: Mapping[str, str] | None = None,
    predicted_again: bool = False,
    dataset: str | PathLike[str] | None = None,
) -> Path:
    """Write the page.

    Args:
        run: what is reported.
        path: of the HTML file; its folder is made. It exists only when whole.
        volumes: of the cases that are shown, by case id.
        problems: case id -> why it is not shown.
        predicted_again: whether the predictions shown were made for this, by the weights that the run has kept.
        dataset: where references and pictures come from; of it the page holds a digest, see `require_same_dataset`.

    Raises:
        DataError: it can't be written.
    """
    file = Path(path)
    write_text(file, _page(run, volumes or {}, problems or {}, predicted_again, dataset))
    return file


def require_same_dataset(path: str | PathLike[str], dataset: str | PathLike[str]) -> None:
    """Refuses to write a page in the place of one on the same run and another dataset.

    Raises:
        ConfigError: such a page.
    """
    file = Path(path)
    if not file.is_file():
        return
    with open(file, encoding="utf-8", errors="replace") as page:
        found = _MARK.search(page.read(_HEAD))
    if found and found[1] != _mark(dataset):
        other = file.with_name(f"{file.stem}_{Path(dataset).resolve().name}{file.suffix}")
        raise ConfigError(
            "a report on another dataset, which this one would replace",
            file=file,
            expected="a page of its own for each dataset",
            fix=f"name the page: --out {shlex.quote(str(other))}; or remove the one that is there",
        )


def _mark(dataset: str | PathLike[str]) -> str:
    """What tells one dataset from another: a digest, because the page names no folder."""
    return hashlib.sha256(os.fsencode(Path(dataset).resolve())).hexdigest()[:16]


def _page(
    run: RunResults,
    volumes: Mapping[str, CaseVolumes],
    problems: Mapping[str, str],
    again: bool,
    dataset: str | PathLike[str] | None,
) -> str:
    name = escape(run.name)
    cases = ranked(run.rows) if run.rows else []
    classes = {row.result.class_id: row.result.class_name for row in run.rows}
    in_3d = [(f"{case.role}: {case.case_id}", volumes[case.case_id]) for case in cases if case.case_id in volumes]
    sections = [
        ("cases", "Worst, median and best", pictured_cases(run.rows, cases, volumes, problems, again) if cases else ""),
        ("in-3d", "In 3D", viewer(in_3d, classes)),
        ("volumes", "Volumes: prediction against reference", _agreement(run.rows)),
        ("distributions", "All cases, by class", _distributions(run.rows)),
        ("curves", "Over the training", _curves(run.curves, run.rows)),
        ("table", "Every case", case_table(run.rows) if run.rows else ""),
        ("run", "What was run", _facts(run)),
    ]
    there = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in there)
    body = "".join(f'<section id="{key}"><h2>{escape(title)}</h2>{inner}</section>\n' for key, title, inner in there)
    style, table_script, viewer_script = (
        (_FILES / file).read_text(encoding="utf-8") for file in ("report.css", "report.js", "viewer.js")
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{"" if dataset is None else f'<meta name="dataset" content="{_mark(dataset)}">'}
<title>Report: {name}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{name}</h1>
{_lead(run, cases)}
<nav aria-label="Parts of this page"><ul>{links}</ul></nav>
</header>
<main>
{body}</main>
<footer><p class="hint">For research only, not a medical device.</p></footer>
<script>{table_script}</script>
<script>{viewer_script}</script>
</body>
</html>
"""


def _lead(run: RunResults, cases: Sequence[RankedCase]) -> str:
    """The result in two sentences, the worst case by name, and the table of the classes."""
    if not cases:
        return (
            '<p class="lead">Nothing here was measured against references: <code>pipeline report ... --data DATASET'
            "</code> measures predictions; <code>pipeline evaluate</code> a bundle.</p>"
        )
    summary, sections = summarise(run.rows), are_sections(run.rows)
    worst = cases[0]
    lines = (*summary.classes, summary.mean) if len(summary.classes) > 1 else summary.classes
    rows = []
    for line in lines:
        dice, distance = line.measures["dice"], line.measures["hausdorff_95_mm"]
        amounts = [distance, line.measures["hausdorff_95_mm_penalised"]]
        amounts += [] if sections else [line.measures["absolute_volume_difference_ml"]]
        cells = [
            str(line.cases),
            f"{dice.mean:.3f}" + (f" [{dice.low:.3f}, {dice.high:.3f}]" if dice.n > 1 else ""),
            f"{line.measures['iou'].mean:.3f}",
            *("–" if v.n == 0 else f"{v.mean:.2f}" for v in amounts),  # noqa: RUF001
            *(str(count) for count in (line.missed, line.false_alarms, line.absent)),
        ]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(line.class_name)}</th>{numbers}</tr>')
    lengths = (f"HD95 {summary.length_unit}", "with misses", *([] if sections else ["volume off by, ml"]))
    heads = ("N", "Dice [95% interval]", "IoU", *lengths, "missed", "false alarms", "absent")
    head = "".join(f'<th scope="col" class="number">{text}</th>' for text in heads)
    place = anchors(run.rows)[worst.case_id]
    n, mean = summary.mean.cases, summary.mean.measures["dice"].mean
    return (
        f'<p class="lead">{n} {"case" if n == 1 else "cases"}, mean Dice <strong>{mean:.3f}</strong>; '
        f"{summary.mean.missed} missed, {summary.mean.false_alarms} false alarms. The worst is "
        f'<a href="#{place}">{escape(worst.case_id)}</a> with a Dice of {worst.dice:.2f}. {escape(_gravest(worst))}</p>'
        f'<div class="scroll free" tabindex="0" role="region" aria-label="Summary"><table><thead><tr>'
        f'<th scope="col">class</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _gravest(case: RankedCase) -> str:
    row = min(case.rows, key=lambda row: row.result.dice)
    return f"Its {row.result.class_name}: {faults(row)}"


def _agreement(rows: Sequence[Row]) -> str:
    if not rows or are_sections(rows):
        return ""
    classes = list(dict.fromkeys(row.result.class_name for row in rows))
    charts = (f"<figure><h3>{escape(n)}</h3>{agreement_chart(rows, n, i)}</figure>" for i, n in enumerate(classes))
    return f'<div class="charts">{"".join(charts)}</div>'


def _distributions(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    measures = _measures(rows)
    charts = (f"<figure><h3>{words}</h3>{distribution_chart(rows, m, words)}</figure>" for m, words in measures)
    return (
        f'<div class="charts">{"".join(charts)}</div><p class="hint">A point is a case, and leads to its row. Boxes: '
        "quartiles and median.</p>"
    )


def _measures(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    unit = rows[0].length_unit if rows else "mm"
    return (("dice", "Dice"), ("iou", "IoU"), ("hausdorff_95_mm", f"Hausdorff 95, {unit}"))


def _curves(curves: Mapping[str, Curve], rows: Sequence[Row]) -> str:
    panels = []
    for prefix, words in (("train/loss", "loss"), *_measures(rows), ("train/learning_rate", "learning rate")):
        parts = {name: curve for name, curve in curves.items() if name.startswith(f"{prefix}_")}
        own = {name.removeprefix(f"{prefix}_"): curve for name, curve in parts.items() if "penalised" not in name}
        if prefix in curves:
            own = {"all" if prefix == "train/loss" else "mean": curves[prefix], **own}
        if own:
            panels.append(f"<figure><h3>{words[:1].upper() + words[1:]}</h3>{curve_chart(own, words)}</figure>")
    return f'<div class="charts">{"".join(panels)}</div>' if panels else ""


def _facts(run: RunResults) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(a)}</th><td>{escape(b)}</td></tr>' for a, b in facts(run))
    hashes = "".join(f'<tr><th scope="row">{escape(a)}</th><td><code>{b}</code></td></tr>' for a, b in digests(run))
    if not rows:
        return "<p>There is no run.json beside these results.</p>"
    listed = f"<details><summary>Digests of {len(digests(run))} files</summary><table>{hashes}</table></details>"
    return f'<table class="facts">{rows}</table>{listed if hashes else ""}'
