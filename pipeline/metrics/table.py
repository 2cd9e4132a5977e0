"""The results as people read them: files with a row per case and class, their summary, a short table for the console.

docs/measures.md says what each column means.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Any

from pipeline.io.atomic import write_text
from pipeline.metrics.case import ClassResult
from pipeline.metrics.rows import Row
from pipeline.metrics.summary import ClassSummary, Statistics, Summary

COLUMNS = ("case_id", *(field.name for field in fields(ClassResult)), "diagonal_mm")
"""Of ``cases.csv``, and the keys of each object in ``cases.json``."""
COUNTS = ("cases", "missed", "false_alarms", "absent")
"""Columns of ``summary.csv`` that say on what its averages rest."""


def write_tables(rows: Sequence[Row], summary: Summary, folder: str | PathLike[str]) -> None:
    """Writes ``cases.csv``, ``cases.json``, ``summary.csv`` and ``summary.json``, each whole or not at all.

    Raises:
        DataError: one can't be written.
    """
    write_cases(rows, Path(folder) / "cases.csv")
    cases = [{name: _or_none(value) for name, value in _cells(row).items()} for row in rows]
    write_text(Path(folder) / "cases.json", json.dumps(cases, indent=1, allow_nan=False) + "\n")
    write_summary(summary, Path(folder) / "summary.json")
    of_statistics = [field.name for field in fields(Statistics)]
    table = []
    for line in (*summary.classes, summary.mean):
        counts = {name: getattr(line, name) for name in COUNTS}
        table += [
            {"class_name": line.class_name, "measure": name} | counts | asdict(found)
            for name, found in line.measures.items()
        ]
    _write_csv(("class_name", "measure", *COUNTS, *of_statistics), table, Path(folder) / "summary.csv")


def write_cases(rows: Iterable[Row], path: str | PathLike[str]) -> None:
    """Writes ``cases.csv``: one row per case and class, an empty cell where a value is undefined.

    The file appears whole or not at all.

    Raises:
        DataError: it can't be written.
    """
    _write_csv(COLUMNS, map(_cells, rows), path)


def write_summary(summary: Summary, path: str | PathLike[str]) -> None:
    """Writes ``Summary.to_dict`` as JSON; the file appears whole or not at all.

    Raises:
        DataError: it can't be written.
    """
    write_text(path, json.dumps(summary.to_dict(), indent=2, allow_nan=False) + "\n")


def _cells(row: Row) -> dict[str, Any]:
    cells = {"case_id": row.case_id, "diagonal_mm": row.diagonal_mm} | asdict(row.result)
    return {name: cells[name] for name in COLUMNS}


def _write_csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]], path: str | PathLike[str]) -> None:
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for line in lines:
        values = (_or_none(line[name]) for name in columns)
        writer.writerow(["" if value is None else value for value in values])
    write_text(path, text.getvalue())


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def format_table(summary: Summary) -> str:
    """The summary for a console: aligned plain text, a line per class, and the mean where there are several classes.

    ``HD95 mm`` (of sections ``px``) is the mean where a distance exists, ``with misses`` has misses and false alarms at
    the diagonal. Cases that neither have nor show a class count as Dice 1: where there are some, a line below says what
    the Dice is on the others that have it. Classes that are not in the mean are named below.
    """
    head = (
        *("class", "N", "Dice [95% interval]", "IoU", f"HD95 {summary.length_unit}", "with misses"),
        *("missed", "false alarms", "absent"),
    )
    lines: list[tuple[str, ...]] = [head]
    for line in (*summary.classes, summary.mean) if len(summary.classes) > 1 else summary.classes:
        dice = line.measures["dice"]
        interval = "" if math.isnan(dice.low) else f" [{dice.low:.3f}, {dice.high:.3f}]"
        distances = (line.measures[name].mean for name in ("hausdorff_95_mm", "hausdorff_95_mm_penalised"))
        lines.append(
            (
                line.class_name,
                str(line.cases),
                f"{dice.mean:.3f}{interval}",
                f"{line.measures['iou'].mean:.3f}",
                *("-" if math.isnan(distance) else f"{distance:.2f}" for distance in distances),
                *(str(count) for count in (line.missed, line.false_alarms, line.absent)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths_and_cells = ([*zip(widths, line, strict=True)] for line in lines)
    table = [
        "  ".join([name.ljust(width), *(cell.rjust(width) for width, cell in rest)])
        for (width, name), *rest in widths_and_cells
    ]
    outside = [f"{name}: no reference has it, so it is not in the mean" for name in summary.outside_mean]
    return "\n".join(table + [_without_absent(line) for line in summary.classes if line.absent] + outside)


def _without_absent(line: ClassSummary) -> str:
    having = line.cases - line.absent - line.false_alarms
    if not having:
        return f"{line.class_name}: no case has it; its Dice is 1 where none is shown, 0 where one is"
    cases = "1 case that has" if having == 1 else f"{having} cases that have"
    dice = (line.measures["dice"].mean * line.cases - line.absent) / having
    return f"{line.class_name}: Dice {dice:.3f} on the {cases} it; {line.absent} neither have nor show it"
