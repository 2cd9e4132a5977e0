"""Two results on the same cases: is one better, or is it luck?

Cases differ from each other far more than methods do, so what is looked at are differences within cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError, DataError
from pipeline.metrics.rows import Row, rows_by_class
from pipeline.metrics.signed_rank import signed_rank_p
from pipeline.metrics.summary import DISTANCES, MEASURES, bootstrap

HIGHER_IS_BETTER = ("dice", "iou", "nsd", "tpr", "tnr", "ppv", "lesion_f1", "lesion_precision", "lesion_recall")
LOWER_IS_BETTER = (
    *("fpr", "fnr", "absolute_volume_difference_ml", "absolute_lesion_count_difference", *DISTANCES),
    *(f"{distance}_penalised" for distance in DISTANCES),
)
MEAN = "mean"
"""Stands for the mean over a case's classes in the place of a class's name."""
_ROUNDING = 1e-9
"""Share of a value that the same voxels, summed in another order, may make."""


@dataclass(frozen=True)
class Comparison:
    """One measure of one class in two results, over the cases that both have.

    ``n`` cases have a value in both, ``undefined`` lack one in either. ``mean_first`` and ``mean_second`` are over the
    ``n``; ``difference`` is their difference, second minus first, with its 95% bootstrap interval ``low`` to ``high``
    over cases. ``p`` is that of the two-sided Wilcoxon signed-rank test (`signed_rank_p`), without the ties; NaN where
    there are only ties. The second result is better in ``wins`` cases, worse in ``losses``, equal in ``ties``.
    """

    class_name: str
    measure: str
    n: int
    undefined: int
    mean_first: float
    mean_second: float
    difference: float
    low: float
    high: float
    p: float
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True)
class PairedCase:
    """One measure of one class in one case of two results; ``outcome``: the second is a win, loss, tie or undefined."""

    case_id: str
    class_name: str
    measure: str
    first: float
    second: float
    difference: float
    outcome: str


@dataclass(frozen=True)
class PairedResults:
    """Two results: by class and measure, by case, and the ids of cases that only one of them has."""

    comparisons: tuple[Comparison, ...]
    cases: tuple[PairedCase, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare_rows(
    first: Sequence[Row], second: Sequence[Row], measures: Sequence[str] = ("dice", "hausdorff_95_mm_penalised")
) -> PairedResults:
    """Compares two results case by case.

    Args:
        first: rows of the one that is compared with.
        second: rows of the other; the same classes.
        measures: names out of `HIGHER_IS_BETTER` and `LOWER_IS_BETTER`.

    Returns:
        Per measure every class, and with several classes the mean over a case's classes.

    Raises:
        ConfigError: an unknown measure, or one without a better direction.
        DataError: no case in common, other classes, a case and class twice or a case without one of the classes.
    """
    for measure in measures:
        if measure not in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER):
            known = f"{measure}, of which neither more nor less is better" if measure in MEASURES else measure
            raise ConfigError(f"the measure {known}", expected=", ".join((*HIGHER_IS_BETTER, *LOWER_IS_BETTER)))
    tables = [rows_by_class(rows, of) for rows, of in ((first, "the first result"), (second, "the second result"))]
    ids = [{row.case_id for row in rows} for rows in (first, second)]
    classes = [list(table) for table in tables]
    if set(classes[0]) != set(classes[1]):
        raise DataError(
            f"results of the classes {', '.join(classes[0])} and of {', '.join(classes[1])}",
            expected="the same classes in both",
            fix="measure both with the same classes: pipeline measure PREDICTIONS REFERENCES --bundle RUN",
        )
    shared = sorted(ids[0] & ids[1])
    if not shared:
        raise DataError("two results without a case in common", expected="results on the same cases")
    comparisons, cases = [], []
    for measure in measures:
        values = np.array(
            [[[table[name][case].value(measure) for case in shared] for name in classes[0]] for table in tables]
        )  # (2, K, N)
        names = [*classes[0], MEAN] if len(classes[0]) > 1 else classes[0]
        if len(classes[0]) > 1:
            values = np.concatenate([values, _mean_of_both(values)], axis=1)
        for k, name in enumerate(names):
            comparisons.append(_compared(name, measure, values[0, k], values[1, k]))
            cases += [
                _case(case, name, measure, a, b) for case, a, b in zip(shared, *values[:, k].tolist(), strict=True)
            ]
    only = [tuple(sorted(own - set(shared))) for own in ids]
    return PairedResults(tuple(comparisons), tuple(cases), *only)


def _mean_of_both(values: np.ndarray) -> np.ndarray:
    """The means over classes of (2, K, N), (2, 1, N): over those with a value in both, so that like meets like."""
    defined = np.isfinite(values).all(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1, keepdims=True) / defined.sum(axis=0)


def _compared(name: str, measure: str, first: np.ndarray, second: np.ndarray) -> Comparison:
    defined = np.isfinite(first) & np.isfinite(second)
    first, second = first[defined], second[defined]
    differences = second - first
    found = bootstrap({"difference": differences.tolist()})["difference"] if len(differences) else None
    outcomes = [_outcome(measure, a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return Comparison(
        name,
        measure,
        n=len(differences),
        undefined=int((~defined).sum()),
        mean_first=float(first.mean()) if found else math.nan,
        mean_second=float(second.mean()) if found else math.nan,
        difference=found.mean if found else math.nan,
        low=found.low if found else math.nan,
        high=found.high if found else math.nan,
        p=signed_rank_p(
            differences[[outcome != "tie" for outcome in outcomes]],
            tolerance=_ROUNDING * float(np.abs([first, second]).max(initial=0)),
        ),
        wins=outcomes.count("win"),
        losses=outcomes.count("loss"),
        ties=outcomes.count("tie"),
    )


def _case(case: str, name: str, measure: str, first: float, second: float) -> PairedCase:
    return PairedCase(case, name, measure, first, second, second - first, _outcome(measure, first, second))


def _outcome(measure: str, first: float, second: float) -> str:
    if math.isnan(first) or math.isnan(second):
        return "undefined"
    if math.isclose(first, second, rel_tol=_ROUNDING, abs_tol=1e-12):
        return "tie"
    return "win" if (second > first) == (measure in HIGHER_IS_BETTER) else "loss"
