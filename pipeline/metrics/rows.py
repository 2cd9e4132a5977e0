"""What a table of results is made of: a row per case and class, every case with every class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike

from pipeline.errors import DataError
from pipeline.geometry import length_unit
from pipeline.metrics.case import ClassResult


@dataclass(frozen=True)
class Row:
    """The result of one class in one case, with what a table needs to count it.

    Args:
        case_id: id of the case.
        diagonal_mm: diagonal of the image (of a section in pixels), see ``diagonal_mm``: what a miss costs in the
            penalised means.
        result: the measures.
    """

    case_id: str
    diagonal_mm: float
    result: ClassResult

    @property
    def length_unit(self) -> str:
        """Of its distances: a section has no volume (NaN), and no millimetres."""
        return length_unit(2 if math.isnan(self.result.volume_reference_ml) else 3)

    def value(self, measure: str) -> float:
        """One of ``MEASURES``; with ``_penalised`` behind a distance, the diagonal where there is no distance."""
        if measure.endswith("_penalised"):
            value = getattr(self.result, measure.removesuffix("_penalised"))
            return self.diagonal_mm if math.isnan(value) else value
        return getattr(self.result, measure)


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """The diagonal of an image, mm: no two voxel centres in it lie further apart.

    >>> diagonal_mm((30, 40), (1.0, 1.0))
    50.0
    """
    return math.hypot(*(size * spacing for size, spacing in zip(shape, spacing_mm, strict=True)))


def rows_by_class(
    rows: Iterable[Row], of: str = "", file: str | PathLike[str] | None = None
) -> dict[str, dict[str, Row]]:
    """Class -> case -> row, every case with every class; ``of`` and ``file`` say in an error whose rows they are.

    Raises:
        DataError: a case and class twice, or a case without one of the classes.
    """
    where, expected = f" of {of}" if of else "", "one row per case and class"
    by_class: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases = by_class.setdefault(row.result.class_name, {})
        if row.case_id in cases:
            found = f"class {row.result.class_name} twice{where}"
            raise DataError(found, case=row.case_id, file=file, expected=expected)
        cases[row.case_id] = row
    case_ids = {case_id for cases in by_class.values() for case_id in cases}
    for name, cases in by_class.items():
        if lacking := case_ids - cases.keys():
            found = f"no row of class {name}{where}, which other cases have"
            raise DataError(found, case=min(lacking), file=file, expected=expected)
    return by_class
