"""Which cases a report shows, and what it says of each: what is wrong with it, in words and in ml."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.metrics import Row

_WORST = 3
_ONE_SIDED = 2.0
"""So many times more missing than added voxels (or the reverse) make an error one of size; else it is one of place."""


@dataclass(frozen=True)
class RankedCase:
    """A case that is shown.

    Args:
        role: ``worst``, ``second worst``, ``median``, ``best``...
        case_id: of the case.
        dice: mean over its classes.
        rows: one per class.
    """

    role: str
    case_id: str
    dice: float
    rows: tuple[Row, ...]


def by_case(rows: Sequence[Row]) -> dict[str, tuple[Row, ...]]:
    """The rows of each case, the worst case first: by the mean Dice over classes, then by the distances."""
    cases: dict[str, tuple[Row, ...]] = {}
    for row in rows:
        cases[row.case_id] = (*cases.get(row.case_id, ()), row)

    def key(case_id: str) -> tuple[float, float]:
        far = sum(row.value("hausdorff_95_mm_penalised") for row in cases[case_id])
        return mean_dice(cases[case_id]), -far

    return {case_id: cases[case_id] for case_id in sorted(cases, key=key)}


def mean_dice(rows: Sequence[Row]) -> float:
    return sum(row.result.dice for row in rows) / len(rows)


def ranked(rows: Sequence[Row]) -> list[RankedCase]:
    """The worst three, the median and the best case, each once, worst first."""
    cases = by_case(rows)
    ids = list(cases)
    roles: dict[int, str] = {}
    for index in range(min(_WORST, len(ids))):
        roles[index] = ("worst", "second worst", "third worst")[index]
    for index, role in (((len(ids) - 1) // 2, "median"), (len(ids) - 1, "best")):
        if index >= 0:
            roles.setdefault(index, role)
    return [
        RankedCase(role, ids[index], mean_dice(cases[ids[index]]), cases[ids[index]])
        for index, role in sorted(roles.items())
    ]


def are_sections(rows: Sequence[Row]) -> bool:
    """Whether rows are of sections: they have no volumes, and their lengths are in pixels."""
    return bool(rows) and all(row.length_unit == "px" for row in rows)


def faults(row: Row) -> str:
    """What is wrong with one class of one case, in a sentence or two; of a section in pixels.

    Missing voxels and added ones say whether it is the size that is wrong or the place.
    """
    r = row.result
    flat = math.isnan(r.volume_reference_ml)
    if r.status == "absent":
        return "Neither there nor shown."
    if r.status == "missed":
        return "Missed altogether." if flat else f"Missed altogether: {ml(r.volume_reference_ml)} in the reference."
    if r.status == "false_alarm":
        shown = "" if flat else f": {ml(r.volume_prediction_ml)} shown"
        return f"A false alarm{shown}; the reference has none."
    words = [f"Dice {r.dice:.2f}."]
    if not flat:
        words.append(volume_words(r.volume_prediction_ml, r.volume_reference_ml))
    if r.fp or r.fn:
        per_voxel = 0.0 if flat else r.volume_reference_ml / (r.tp + r.fn)
        amounts = [f"{n} pixels" if flat else ml(n * per_voxel) for n in (r.fn, r.fp)]
        amounts = [amount if n else "nothing" for amount, n in zip(amounts, (r.fn, r.fp), strict=True)]
        if r.fn > _ONE_SIDED * r.fp:
            words.append(f"Mostly too little is shown: {amounts[0]} missing, {amounts[1]} added.")
        elif r.fp > _ONE_SIDED * r.fn:
            words.append(f"Mostly too much is shown: {amounts[1]} added, {amounts[0]} missing.")
        else:
            words.append(f"About as much is missing ({amounts[0]}) as added ({amounts[1]}): shape or place differ.")
        unit = row.length_unit
        words.append(
            f"95% of the outlines agree within {r.hausdorff_95_mm:.1f} {unit}; at most {r.hausdorff_mm:.1f} {unit} off."
        )
    if max(r.lesions_reference, r.lesions_prediction) > 1:
        words.append(f"Parts: {r.lesions_found} of {r.lesions_reference} found, {r.lesions_false} false.")
    return " ".join(words)


def volume_words(prediction_ml: float, reference_ml: float) -> str:
    """
    >>> volume_words(1.5, 2.0)
    'Volume 1.50 ml instead of 2.00 ml: 0.50 ml (25%) too small.'
    """
    difference = prediction_ml - reference_ml
    text = f"Volume {ml(prediction_ml)} instead of {ml(reference_ml)}"
    if ml(prediction_ml) == ml(reference_ml):
        return f"{text}: the same."
    share = f" ({abs(difference) / reference_ml:.0%})" if reference_ml > 0 else ""
    return f"{text}: {ml(abs(difference))}{share} too {'large' if difference > 0 else 'small'}."


def ml(volume: float) -> str:
    """
    >>> ml(0.0312), ml(4.26), ml(123.4)
    ('0.031 ml', '4.26 ml', '123 ml')
    """
    digits = 3 if abs(volume) < 0.1 else 2 if abs(volume) < 10 else 1 if abs(volume) < 100 else 0
    return f"{volume:.{digits}f} ml"


def anchors(rows: Sequence[Row]) -> Mapping[str, str]:
    """Case id -> the id of its place in the page: an id of a case may hold anything."""
    return {case_id: f"case-{number}" for number, case_id in enumerate(by_case(rows), start=1)}
