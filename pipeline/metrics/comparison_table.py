"""A comparison as people read it: a short table for the console, and files with a row per class and per case."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Any

from pipeline.io.atomic import write_text
from pipeline.metrics.comparison import Comparison, PairedCase, PairedResults


def format_comparison(results: PairedResults) -> str:
    """Aligned plain text: a line per measure and class, and a line below about cases that were not compared."""
    head = ("measure", "class", "N", "first", "second", "difference [95% interval]", "p", "better", "worse", "equal")
    lines: list[tuple[str, ...]] = [head]
    for line in results.comparisons:
        interval = "" if math.isnan(line.low) else f" [{line.low:+.4f}, {line.high:+.4f}]"
        lines.append(
            (
                line.measure,
                line.class_name,
                str(line.n),
                *("-" if math.isnan(mean) else f"{mean:.4f}" for mean in (line.mean_first, line.mean_second)),
                "-" if math.isnan(line.difference) else f"{line.difference:+.4f}{interval}",
                "-" if math.isnan(line.p) else f"{line.p:.3g}",
                *(str(count) for count in (line.wins, line.losses, line.ties)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = []
    for text in lines:
        cells = [*zip(text, widths, strict=True)]
        named = [cell.ljust(width) for cell, width in cells[:2]]
        table.append("  ".join([*named, *(cell.rjust(width) for cell, width in cells[2:])]))
    undefined = max(line.undefined for line in results.comparisons)
    if undefined:
        table.append(f"Up to {undefined} cases have no value in one of the two; a ..._penalised measure counts them.")
    for ids, name in ((results.only_first, "first"), (results.only_second, "second")):
        if ids:
            more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
            table.append(f"Only in the {name}, not compared: {', '.join(ids[:5])}{more}")
    return "\n".join(table)


def write_comparison(results: PairedResults, folder: str | PathLike[str]) -> None:
    """Writes ``comparison.csv``, a row per measure and class, and ``comparison_cases.csv``, one per case too.

    Raises:
        DataError: one can't be written.
    """
    for name, kind, found in (
        ("comparison.csv", Comparison, results.comparisons),
        ("comparison_cases.csv", PairedCase, results.cases),
    ):
        columns = [field.name for field in fields(kind)]
        write_text(Path(folder) / name, _csv(columns, [asdict(line) for line in found]))


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for line in lines:
        writer.writerow(["" if value != value else value for value in map(line.__getitem__, columns)])  # NaN
    return text.getvalue()
