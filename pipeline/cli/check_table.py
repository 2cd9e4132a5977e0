"""What `pipeline check` prints: the dataset in numbers, what many cases share, and a table of the cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.data.check import Check
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
    from pipeline.data.summary import summary_lines

    console = console or Console(highlight=False)
    for name, text in summary_lines(check):
        console.print(f"[bold]{escape(name)}[/bold]  {escape(text)}")
    console.print()
    for finding in check.shared:
        console.print(f"{_mark(finding.severity)} {escape(sentence(finding))}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("case", "image", "label", "what there is to say"):
        table.add_column(heading, overflow="fold")
    for line in check.lines():
        if line.findings or every or len(check.fingerprint.cases) <= FEW:
            said = "\n".join(f"{_mark(f.severity)} {escape(sentence(f, line.case_id))}" for f in line.findings)
            table.add_row(escape(line.case_id), escape(line.image), escape(line.label), said or "[green]clean[/green]")
    if table.row_count:
        console.print()
        console.print(table)
    console.print()
    counts = check.counts
    words = f"{counts['warning']} with warnings, {counts['repaired']} repaired, {counts['refused']} refused"
    console.print(f"{len(check.fingerprint.cases)} cases: {counts['clean']} clean, {words}")


def sentence(finding: Finding, case_id: str | None = None) -> str:
    """A finding in a line; beside its case's name, without it."""
    text = finding.found
    if case_id is not None:
        text = text.removeprefix(f"case {case_id}, ").removeprefix(f"case {case_id}: ")
    expected = f"; expected {finding.expected}" if finding.expected else ""
    fix = f" → {finding.fix}" if finding.fix else ""
    return f"{text}{expected}{fix}" + ("" if case_id is not None else _named(finding.cases))


def _named(cases: Sequence[str]) -> str:
    if not cases:
        return ""
    more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
    return f" ({', '.join(cases[:_NAMED])}{more})"


def _mark(severity: str) -> str:
    return f"[{_COLOURS[severity]}]{severity}[/{_COLOURS[severity]}]"
