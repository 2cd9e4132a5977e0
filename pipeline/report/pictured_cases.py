"""The part of a report that shows cases: words on what is wrong with each, and pictures of it in three planes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from pipeline.data.case_volumes import CaseVolumes
from pipeline.handlers.panel import PREDICTION_COLOURS, REFERENCE_COLOURS
from pipeline.metrics import Row, measure_case
from pipeline.report.montage import Plane, montage
from pipeline.report.ranking import RankedCase, anchors, are_sections, faults

_SAME_DICE = 0.005
_SHOWN = {
    False: "Each plane goes through the most wrong voxels, at true proportions; the patient's right is on the left.",
    True: "Each section as it is stored, and the part of it in which most is wrong.",
}
_HIGHEST_REM = 24
"""Of a picture: three planes and the words on them are to fit on one screen."""


def pictured_cases(
    rows: Sequence[Row],
    cases: Sequence[RankedCase],
    volumes: Mapping[str, CaseVolumes],
    problems: Mapping[str, str],
    again: bool,
) -> str:
    """A part of the page: each case with what is wrong with it in words, and in pictures where there are volumes.

    Args:
        rows: of all cases.
        cases: those that are shown.
        volumes, problems: by case id; why one has no picture.
        again: whether the predictions were made for this.
    """
    classes = {row.result.class_id: row.result.class_name for row in rows}
    legend = "".join(
        f"<li>{role}: "
        + ", ".join(f"{_swatch(colours[(i - 1) % len(colours)])} {escape(n)}" for i, n in classes.items())
        + "</li>"
        for role, colours in (("reference", REFERENCE_COLOURS), ("prediction", PREDICTION_COLOURS))
    )
    parts = []
    if volumes:
        parts.append(
            '<form class="filters" hidden><label><input type="checkbox" id="outlines" checked> show the outlines'
            f'</label></form><ul class="legend">{legend}</ul><p class="hint">{_SHOWN[are_sections(rows)]} '
            f"The channel is {escape(', '.join(sorted({case.channel for case in volumes.values()})))}.</p>"
        )
        if again:
            parts.append(
                '<p class="hint">Runs keep no label maps: these predictions were made again, by the weights that the '
                "run has kept.</p>"
            )
    elif not problems:
        parts.append(
            '<p class="note screen">For pictures of these cases, give the report their images: '
            "<code>--data DATASET</code>, and for a measurement also <code>--predictions DIR</code>.</p>"
        )
    places = anchors(rows)
    for case in cases:
        words = "".join(
            f"<li>{f'<strong>{escape(row.result.class_name)}</strong>: '}{escape(faults(row))}</li>"
            for row in case.rows
        )
        pictures = ""
        if case.case_id in volumes:
            pictures = _other_dice(case, volumes[case.case_id]) + _planes(case.case_id, montage(volumes[case.case_id]))
        elif case.case_id in problems:
            pictures = f'<p class="note">No picture: {escape(problems[case.case_id])}.</p>'
        parts.append(
            f'<article class="case"><h3><span class="role">{case.role}</span> <a href="#{places[case.case_id]}">'
            f'{escape(case.case_id)}</a> <span class="role">Dice {case.dice:.3f}</span></h3><ul>{words}</ul>{pictures}'
            "</article>"
        )
    return "".join(parts)


def _other_dice(case: RankedCase, volumes: CaseVolumes) -> str:
    """What is said where the prediction in the picture is not the one in the table: of other weights, or edited."""
    if volumes.reference is None or volumes.prediction is None:
        return ""
    classes = {row.result.class_id: row.result.class_name for row in case.rows}
    shown = measure_case(volumes.prediction, volumes.reference, volumes.grid.spacing_mm, classes)
    own = {row.result.class_id: row.result.dice for row in case.rows}
    if max(abs(result.dice - own[result.class_id]) for result in shown) <= _SAME_DICE:
        return ""
    dice = ", ".join(f"{escape(r.class_name)} {r.dice:.3f} (table: {own[r.class_id]:.3f})" for r in shown)
    return f'<p class="note">The prediction in the picture is another than the one in the tables. Its Dice: {dice}.</p>'


def _planes(case_id: str, planes: Sequence[Plane]) -> str:
    if planes[0].name == "section":
        return _row(case_id, planes)
    return "".join(_row(case_id, [p for p in planes if p.close_up == close_up]) for close_up in (False, True))


def _row(case_id: str, planes: Sequence[Plane]) -> str:
    """Side by side, planes at one scale, a section and a part of it at one height."""
    figures = []
    heights = [plane.size_mm[1] if plane.name == "section" else 1.0 for plane in planes]
    widths = [plane.size_mm[0] / height for plane, height in zip(planes, heights, strict=True)]
    for plane, width in zip(planes, widths, strict=True):
        what = f"{'Close-up of the ' if plane.close_up else ''}{plane.name} {plane.words}".strip()
        alt = f"{what} of case {case_id}, reference and prediction outlined"
        size = f'width="{plane.size[0]}" height="{plane.size[1]}"'
        layers = [
            f'<img src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}" {size} alt="{escape(said)}">'
            for png, said in ((plane.grey, alt), (plane.outlines, ""))
        ]
        caption = what[:1].upper() + what[1:]
        if plane.close_up:
            caption = "Close-up" if plane.name == "section" else f"Close-up, {plane.name}"
        figures.append(
            f'<figure style="flex:{width:.3f} 1 0"><span class="slice">{"".join(layers)}</span>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    if not figures:
        return ""
    proportion = sum(widths) / max(p.size_mm[1] / height for p, height in zip(planes, heights, strict=True))
    return f'<div class="planes" style="--widest:{_HIGHEST_REM * proportion:.1f}rem">{"".join(figures)}</div>'


def _swatch(colour: tuple[int, int, int]) -> str:
    return f'<span class="swatch" style="background:rgb{colour}"></span>'
