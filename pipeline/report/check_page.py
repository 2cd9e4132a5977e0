"""The data doctor's page: what `pipeline check` found, with pictures of the worst cases, or else of some."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from os import PathLike
from pathlib import Path

import numpy as np

from pipeline.data.check import CaseLine, Check
from pipeline.data.findings import INFO, SEVERITIES, Finding
from pipeline.data.fingerprint import CaseFingerprint
from pipeline.data.stack_rules import StackRules
from pipeline.data.summary import summary_lines, verdict
from pipeline.errors import PipelineError
from pipeline.io import read_image
from pipeline.io.atomic import write_text
from pipeline.report.thumbnail import thumbnail

_MOST_PICTURED = 12
_EXAMPLES = 4
"""Cases that are pictured where none is odd, to see that left is left and the label is where it belongs."""
_MOST_CHANNELS = 4

_STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #d0d7de; }
td { overflow-wrap: anywhere; }
th[scope=row] { white-space: nowrap; font-weight: 600; }
.mark { display: inline-block; min-width: 5rem; padding: 0 .5rem; border-radius: .25rem; font-weight: 600; }
.refused { background: #ffd7d5; color: #82071e; } .warning { background: #fff1c2; color: #633c01; }
.repaired { background: #d3f0ff; color: #0a3069; } .info { background: #eaeef2; color: #424a53; }
.clean { background: #d8f5dd; color: #0f4b1e; }
ul { padding-left: 0; list-style: none; } li { margin: .3rem 0; }
.fix { color: #424a53; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; margin: .5rem 0; }
figure { margin: 0; } figcaption { font-size: .85rem; color: #424a53; max-width: 240px; }
img { background: #000; display: block; image-rendering: auto; }
article { border-top: 1px solid #d0d7de; padding: .6rem 0; break-inside: avoid; }
@media print {
  body { margin: 0; max-width: none; } .mark { border: 1px solid currentColor; } tr { break-inside: avoid; }
}
"""


def check_page(check: Check, path: str | PathLike[str], progress: Callable[[int, int], None] | None = None) -> Path:
    """Write the page.

    Args:
        path: of the HTML file; its folder is made. It exists only when whole.
        progress: called with how many cases are drawn, and of how many.

    Raises:
        DataError: it can't be written.
    """
    file, lines = Path(path), check.lines()
    worst = _worst(lines)
    pictured = worst or lines[:_EXAMPLES]
    drawn = []
    for number, line in enumerate(pictured):
        drawn.append(_article(line, check))
        if progress is not None:
            progress(number + 1, len(pictured))
    write_text(file, _page(check, lines, "The worst" if worst else "The first", drawn))
    return file


def _page(check: Check, lines: Sequence[CaseLine], which: str, drawn: Sequence[str]) -> str:
    name = escape(Path(check.fingerprint.dataset_dir).name)
    numbers = "".join(
        f'<tr><th scope="row">{escape(what)}</th><td>{escape(how)}</td></tr>' for what, how in summary_lines(check)
    )
    shared = "".join(f"<li>{_sentence(finding, True)}</li>" for finding in check.shared)
    rows = "".join(_row(line) for line in lines)
    pictures = f"<section><h2>{which} cases</h2>{''.join(drawn)}</section>" if drawn else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data check: {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Data check: {name}</h1>
<p>{verdict(check)}.</p>
<section><h2>The dataset</h2><table>{numbers}</table></section>
{f"<section><h2>What concerns many cases</h2><ul>{shared}</ul></section>" if shared else ""}
{pictures}
<section><h2>Every case</h2>
<table>
<thead><tr><th scope="col">case</th><th scope="col">image</th><th scope="col">label</th>
<th scope="col">what there is to say</th></tr></thead>
<tbody>{rows}</tbody>
</table></section>
</main>
</body>
</html>
"""


def _row(line: CaseLine) -> str:
    verdict = "clean" if line.verdict == INFO else line.verdict
    said = "<br>".join(map(_sentence, line.findings)) or f'<span class="mark {verdict}">{verdict}</span>'
    cells = "".join(f"<td>{text}</td>" for text in (escape(line.image), escape(line.label), said))
    return f'<tr><th scope="row">{escape(line.case_id)}</th>{cells}</tr>'


def _sentence(finding: Finding, name_cases: bool = False) -> str:
    expected = f"; expected {escape(finding.expected)}" if finding.expected else ""
    fix = f' <span class="fix">→ {escape(finding.fix)}</span>' if finding.fix else ""
    cases = f" ({escape(', '.join(finding.cases))})" if name_cases and finding.cases else ""
    mark = f'<span class="mark {finding.severity}">{finding.severity}</span>'
    return f"{mark} {escape(finding.found)}{expected}{fix}{cases}"


def _worst(lines: Sequence[CaseLine]) -> list[CaseLine]:
    """Refused ones first, then those with the most warnings; none that is merely repaired."""

    def badness(line: CaseLine) -> tuple[int, ...]:
        return tuple(-sum(f.severity == severity for f in line.findings) for severity in SEVERITIES[:2])

    odd = [line for line in lines if any(finding.severity in SEVERITIES[:2] for finding in line.findings)]
    return sorted(odd, key=badness)[:_MOST_PICTURED]


def _article(line: CaseLine, check: Check) -> str:
    case = next(case for case in check.fingerprint.cases if case.case_id == line.case_id)
    said = "".join(f"<li>{_sentence(finding)}</li>" for finding in line.findings)
    return f"<article><h3>{escape(line.case_id)}</h3><ul>{said}</ul>{_pictures(case, check.rules)}</article>"


def _pictures(case: CaseFingerprint, rules: StackRules) -> str:
    """A picture per channel that was measured; the label over those that lie on its grid."""
    figures = []
    label = None
    if case.label is not None:
        try:
            label = read_image(case.label.file, policy=rules.label_policy)
        except PipelineError as error:
            figures.append(f"<p>no outline: {escape(error.found)}</p>")
    for name, channel in list(case.channels.items())[:_MOST_CHANNELS]:
        try:
            volume = read_image(channel.file, policy=rules.policy_of(name))
        except PipelineError as error:  # it has changed since it was measured
            figures.append(f"<p>no picture of {escape(name)}: {escape(error.found)}</p>")
            continue
        on_it = label is not None and volume.grid.same_grid(label.grid)
        mask: np.ndarray | None = label.array if label is not None and on_it else None
        picture = base64.b64encode(thumbnail(volume, mask)).decode("ascii")
        outlined = ", the label outlined" if on_it and case.label is not None and case.label.components else ""
        figures.append(
            f'<figure><img src="data:image/png;base64,{picture}" alt="A slice of {escape(name)} of case '
            f'{escape(case.case_id)}{outlined}"><figcaption>{escape(name)}{outlined}; {escape(str(volume.grid))}'
            "</figcaption></figure>"
        )
    if not case.channels:
        figures.append("<p>no picture: no channel of it can be read</p>")
    return f'<div class="pictures">{"".join(figures)}</div>'
