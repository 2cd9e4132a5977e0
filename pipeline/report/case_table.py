"""Every case and class in a table that can be sorted and filtered; without scripts it is a plain table, worst first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pipeline.metrics import Row
from pipeline.report.ranking import anchors, are_sections, by_case, ml

_STATUS = {"ok": "", "absent": "neither", "missed": "missed", "false_alarm": "false alarm"}


def _heads(sections: bool, length: str) -> list[tuple[str, str]]:
    """Words and kind of each column; a section's amounts are areas."""
    amount = "px" if sections else "ml"
    numbers = [f"HD95 {length}", *(f"{what} {amount}" for what in ("reference", "prediction", "difference"))]
    return [
        ("case", "text"),
        ("class", "text"),
        *((words, "number") for words in ("Dice", *numbers, "difference %", "parts found")),
        ("remark", "text"),
    ]


def case_table(rows: Sequence[Row]) -> str:
    """The table with what filters it."""
    sections = are_sections(rows)
    classes = list(dict.fromkeys(row.result.class_name for row in rows))
    options = "".join(f"<option>{escape(name)}</option>" for name in classes)
    heads = "".join(
        f'<th scope="col" class="{kind}" data-head="{head}">'
        f'<button type="button" data-kind="{kind}">{head}</button></th>'
        for head, kind in _heads(sections, rows[0].length_unit)
    )
    places = anchors(rows)
    first: set[str] = set()
    body = []
    for case_id, own in by_case(rows).items():
        for row in sorted(own, key=lambda row: row.result.class_id):
            body.append(_row(row, places[case_id], case_id not in first, sections))
            first.add(case_id)
    choose = f'<label>class <select id="by-class"><option value="">all</option>{options}</select></label>'
    return f"""<form class="filters" id="filters" role="search" hidden>
<label>case <input id="by-name" type="search" autocomplete="off" spellcheck="false"></label>
{choose if len(classes) > 1 else ""}
<label><input id="by-fault" type="checkbox"> only missed and false alarms</label>
<output id="counted" aria-live="polite"></output>
</form>
<div class="scroll" tabindex="0" role="region" aria-label="Every case">
<table id="all-cases"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>
</div>"""


def _row(row: Row, place: str, first: bool, section: bool) -> str:
    r = row.result
    reference, prediction = (r.tp + r.fn, r.tp + r.fp) if section else (r.volume_reference_ml, r.volume_prediction_ml)
    difference = prediction - reference
    share = difference / reference * 100 if reference > 0 else math.nan
    amount = _pixels if section else _millilitres
    cells = [
        (r.dice, f"{r.dice:.3f}"),
        (row.value("hausdorff_95_mm"), f"{r.hausdorff_95_mm:.2f}"),
        (reference, amount(reference)),
        (prediction, amount(prediction)),
        (difference, _signed(amount(difference))),
        (share, _signed(f"{share:.0f}")),
        (r.lesions_found, f"{r.lesions_found} of {r.lesions_reference}"),
    ]
    numbers = "".join(
        f'<td class="number" data-v="{value:.6g}">{text}</td>'
        if math.isfinite(value)
        else '<td class="number" data-v="">–</td>'  # noqa: RUF001
        for value, text in cells
    )
    status = _STATUS[r.status]
    mark = f'<span class="mark {r.status}">{status}</span>' if status else ""
    name = escape(row.case_id)
    identity = f' id="{place}"' if first else ""
    return (
        f'<tr{identity} data-case="{place}" data-status="{r.status}"><th scope="row" data-v="{name}">{name}</th>'
        f'<td data-v="{escape(r.class_name)}">{escape(r.class_name)}</td>{numbers}'
        f'<td data-v="{status}">{mark}</td></tr>'
    )


def _millilitres(volume: float) -> str:
    return ml(volume).removesuffix(" ml")


def _pixels(area: float) -> str:
    return f"{area:.0f}"


def _signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else f"+{text}"
