"""What `pipeline check` prints: the dataset in numbers, what many cases share, and a table of the cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.data.findings import SHARED_FROM, alike

if TYPE_CHECKING:
    from pipeline.data.check import CaseLine, Check
    from pipeline.data.findings import Finding
    from pipeline.data.fingerprint import DatasetFingerprint

FEW = 25
"""Up to so many cases are all listed; of more, those with something to say."""

_COLOURS = {"refused": "red", "warning": "yellow", "repaired": "cyan", "info": "dim"}
_NAMED = 6


def show(check: Check, every: bool = False, console: Console | None = None) -> None:
    """Print it.

    Args:
        every: list clean cases too, however many there are.
    """
    from pipeline.data.summary import summary_lines, verdict

    console = console or Console(highlight=False)
    _print_rows(console, [(f"[bold]{escape(name)}[/bold]", escape(text)) for name, text in summary_lines(check)])
    folder, lines = check.fingerprint.dataset_dir, check.lines()
    listed = [line for line in lines if line.findings or every or len(lines) <= FEW]
    if listed:
        console.print()
        heads = tuple(f"[bold]{head}[/bold]" for head in ("case", "image", "label", "verdict"))
        _print_rows(console, [heads, *(_row(line) for line in listed)])
    said = [(f.severity, f"{sentence(f, folder)}{_named(f.cases)}") for f in check.shared]
    of_cases = [f for line in lines for f in line.findings if f in check.findings]  # not what is said above
    groups = alike(list(dict.fromkeys(of_cases)))
    said += [(group[0].severity, text) for group in groups for text in _of_group(group, folder)]
    if said:
        console.print()
        order = list(_COLOURS)
        said.sort(key=lambda entry: order.index(entry[0]))  # stable: what concerns many first, then case by case
        _print_rows(console, [(_mark(severity), escape(text)) for severity, text in said])
        if any(len(group) >= SHARED_FROM for group in groups):
            console.print("[dim]What else is said of alike cases: --json FILE, or --html FILE[/dim]")
    console.print()
    console.print(verdict(check))


def refused_lines(fingerprint: DatasetFingerprint) -> list[str]:
    """Why cases can't be used, a line each; what many of them share, once."""
    from pipeline.data.check import refused_once

    folder = fingerprint.dataset_dir
    found = refused_once(fingerprint)
    return [sentence(one, folder) + (_named(one.cases) if len(one.cases) > 1 else "") for one in found]


def _of_group(group: Sequence[Finding], folder: str) -> list[str]:
    """What is said alike of several cases: a line each, or of the first alone where these are many."""
    first, ids = group[0], list(dict.fromkeys(case_id for finding in group for case_id in finding.cases))
    if len(group) < SHARED_FROM:
        return [f"{', '.join(f.cases)}: {sentence(f, folder, f.cases[0])}" for f in group]
    others = _named([case_id for case_id in ids if case_id not in first.cases]).replace("(", "(alike: ", 1)
    return [f"{len(ids)} cases, such as {', '.join(first.cases)}: {sentence(first, folder, first.cases[0])}{others}"]


def sentence(finding: Finding, folder: str, case_id: str | None = None) -> str:
    """A finding in a line, files named from the dataset's folder; beside its case's name, without it."""
    text = finding.found.replace(f"{folder}{os.sep}", "")
    if case_id is not None:
        text = text.removeprefix(f"case {case_id}, ").removeprefix(f"case {case_id}: ")
    expected = f"; expected {finding.expected}" if finding.expected else ""
    return f"{text}{expected}" + (f" → {finding.fix}" if finding.fix else "")


def _row(line: CaseLine) -> tuple[str, ...]:
    verdict = "[green]clean[/green]" if line.verdict == "info" else _mark(line.verdict)
    return escape(line.case_id), escape(line.image), escape(line.label), verdict


def _print_rows(console: Console, rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for number in range(len(rows[0])):
        table.add_column(overflow="fold", no_wrap=number == 0 and len(rows[0]) == 2)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _named(cases: Sequence[str]) -> str:
    if not cases:
        return ""
    more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
    return f" ({', '.join(cases[:_NAMED])}{more})"


def _mark(severity: str) -> str:
    return f"[{_COLOURS[severity]}]{severity}[/{_COLOURS[severity]}]"
