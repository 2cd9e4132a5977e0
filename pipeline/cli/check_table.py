"""What `pipeline check` prints: the dataset in numbers, what many cases share, and a table of the cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.data.check import CaseLine, Check
    from pipeline.data.findings import Finding

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
    for line in lines:
        own = [f for f in line.findings if f in check.findings]  # not what is said above, with many others
        said += [(f.severity, f"{line.case_id}: {sentence(f, folder, line.case_id)}") for f in own]
    if said:
        console.print()
        order = list(_COLOURS)
        said.sort(key=lambda entry: order.index(entry[0]))  # stable: what concerns many first, then case by case
        _print_rows(console, [(_mark(severity), escape(text)) for severity, text in said])
    console.print()
    console.print(verdict(check))


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
