"""From results per case to averages that can be believed.

How an average counts what is empty:

- a class that neither mask holds (``absent``) counts with Dice, IoU and NSD 1 and distances 0;
- a missed class or a false alarm counts with Dice, IoU and NSD 0. It has no distance: each distance is averaged once
  over the cases where it exists, and once, under ``..._penalised``, with the diagonal of the image in mm for those
  where it does not. So a miss never improves an average, and the counts of all three stand beside every mean;
- a rate that is 0/0 is left out, and ``Statistics.undefined`` says how often.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.metrics.rows import Row, rows_by_class

DISTANCES = ("hausdorff_mm", "hausdorff_95_mm", "assd_mm")
MEASURES = (
    *("dice", "iou", "nsd", "tpr", "tnr", "fpr", "fnr", "ppv"),
    *("volume_prediction_ml", "volume_reference_ml", "volume_difference_ml", "absolute_volume_difference_ml"),
    *("lesion_f1", "lesion_precision", "lesion_recall"),
    *("lesions_prediction", "lesions_reference", "absolute_lesion_count_difference"),
    *DISTANCES,
)
_RESAMPLES = 2000


@dataclass(frozen=True)
class Statistics:
    """One measure over the cases.

    ``n`` cases have a value, ``undefined`` have none. ``mean``, ``median`` and ``std`` (sample standard deviation, n
    - 1) are over the ``n``; ``low`` and ``high`` bound the 95% bootstrap interval of the mean over cases. NaN where
    too few cases have a value: none for mean and median, fewer than two for ``std``, ``low`` and ``high``.
    """

    n: int
    undefined: int
    mean: float
    median: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassSummary:
    """One class over the cases: counts, and statistics by measure (``MEASURES`` and each distance ``_penalised``)."""

    class_name: str
    cases: int
    missed: int
    false_alarms: int
    absent: int
    measures: dict[str, Statistics]


@dataclass(frozen=True)
class Summary:
    """Every class, and the mean over classes.

    In ``mean``, each mean is the plain mean of the classes' means, so that a reader can check it against the rows above
    it; its interval comes from resampling cases with all their classes; median and standard deviation are over the
    cases' own means over classes; the counts are sums, except ``cases``. Classes in ``outside_mean`` don't count in it.
    """

    classes: tuple[ClassSummary, ...]
    mean: ClassSummary
    outside_mean: tuple[str, ...] = ()
    length_unit: str = "mm"
    """Of the distances; ``px`` where a case is a section, whose pixels have no known size."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists for ``json.dump``; None where a value is undefined."""
        return _without_nan(asdict(self))


def summarise(rows: Iterable[Row], seed: int = 0, outside_mean: Collection[str] = ()) -> Summary:
    """Counts, means, medians, deviations and 95% bootstrap intervals, per class and over classes.

    Args:
        rows: every class of every case once; each case must have every class.
        seed: of the bootstrap (percentile method, 2000 resamples of the cases).
        outside_mean: names of classes that have their own line, but do not count in the mean over classes.

    Raises:
        DataError: no rows, a case and class twice, or a case without one of the classes.
    """
    by_class = rows_by_class(rows)
    if not by_class:
        raise DataError("no case to summarise")
    case_ids = list(next(iter(by_class.values())))

    table = [[cases[case_id] for case_id in case_ids] for cases in by_class.values()]
    names = (*MEASURES, *(f"{distance}_penalised" for distance in DISTANCES))
    values = np.array(
        [[[row.value(name) for name in names] for row in class_rows] for class_rows in table]
    )  # (K, N, M)
    num_classes, num_cases, num_measures = values.shape
    means = _mean_where_defined(values, axis=1)  # (K, M)

    # A resample is a count per case; one matrix product then averages every class and measure in every resample.
    counts = np.random.default_rng(seed).multinomial(num_cases, [1 / num_cases] * num_cases, size=_RESAMPLES)
    flat = values.transpose(1, 0, 2).reshape(num_cases, -1)
    with np.errstate(invalid="ignore"):
        resampled = (counts @ np.nan_to_num(flat)) / (counts @ np.isfinite(flat))
    resampled = resampled.reshape(_RESAMPLES, num_classes, num_measures)

    summaries = []
    for k, (class_name, class_rows) in enumerate(zip(by_class, table, strict=True)):
        measures = _statistics(names, values[k], means[k], resampled[:, k])
        statuses = Counter(row.result.status for row in class_rows)
        summaries.append(
            ClassSummary(
                class_name,
                cases=num_cases,
                missed=statuses["missed"],
                false_alarms=statuses["false_alarm"],
                absent=statuses["absent"],
                measures=measures,
            )
        )
    counted = [k for k, name in enumerate(by_class) if name not in outside_mean]
    over_classes = _statistics(
        names,
        _mean_where_defined(values[counted], axis=0),
        _mean_where_defined(means[counted], axis=0),
        _mean_where_defined(resampled[:, counted], axis=1),
    )
    mean = ClassSummary(
        "mean",
        cases=num_cases,
        missed=sum(summaries[k].missed for k in counted),
        false_alarms=sum(summaries[k].false_alarms for k in counted),
        absent=sum(summaries[k].absent for k in counted),
        measures=over_classes,
    )
    units = {row.length_unit for class_rows in table for row in class_rows}
    return Summary(
        tuple(summaries),
        mean,
        tuple(name for name in by_class if name in outside_mean),
        units.pop() if len(units) == 1 else "mm or px",
    )


def bootstrap(values: Mapping[str, Sequence[float]], seed: int = 0) -> dict[str, Statistics]:
    """Statistics of measures that have one value per case and no classes.

    Args:
        values: per measure a value for each case, in the same order; NaN where it is undefined.
        seed: of the bootstrap (percentile method, 2000 resamples of the cases).

    >>> bootstrap({"v_rand": [0.5, 0.75, float("nan")]})["v_rand"].mean
    0.625
    """
    table = np.array(list(values.values()), dtype=float).T  # (N, M)
    counts = np.random.default_rng(seed).multinomial(len(table), [1 / len(table)] * len(table), size=_RESAMPLES)
    with np.errstate(invalid="ignore"):
        resampled = (counts @ np.nan_to_num(table)) / (counts @ np.isfinite(table))
    return _statistics(list(values), table, _mean_where_defined(table, axis=0), resampled)


def _statistics(
    names: Sequence[str], values: np.ndarray, means: np.ndarray, resampled: np.ndarray
) -> dict[str, Statistics]:
    """Per measure; ``values`` (N, M) by case, ``means`` (M,), ``resampled`` (resamples, M) means."""
    statistics = {}
    for m, name in enumerate(names):
        defined = values[np.isfinite(values[:, m]), m]
        n = len(defined)
        low, high = np.nanpercentile(resampled[:, m], [2.5, 97.5]) if n > 1 else (np.nan, np.nan)
        statistics[name] = Statistics(
            n=n,
            undefined=len(values) - n,
            mean=float(means[m]),
            median=float(np.median(defined)) if n else math.nan,
            std=float(np.std(defined, ddof=1)) if n > 1 else math.nan,
            low=float(low),
            high=float(high),
        )
    return statistics


def _mean_where_defined(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over an axis without NaN; NaN where there is nothing else."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis) / defined.sum(axis)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
