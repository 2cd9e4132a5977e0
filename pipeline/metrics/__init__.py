"""Measures of a segmentation: integer label maps and a spacing in mm in, typed results out.

A measure is a pure function of masks, one concept per file; `measure_case` gathers them per class and `summarise` per
cohort. To add one: write the function with its definition and its rule for empty masks, add its field to
`ClassResult`, its name to `MEASURES`, and a brute-force check to tests/metrics. Needs NumPy and SciPy alone; torch
tensors are accepted, not imported. `membrane_scores` stands apart: it compares sections as partitions into cells.
"""

from pipeline.metrics.case import ClassResult, class_names, measure_case
from pipeline.metrics.membranes import (
    MEMBRANE_SCORES,
    MembraneScores,
    membrane_scores,
    partition_scores,
    thin_membranes,
)
from pipeline.metrics.overlap import OverlapMeasures, overlap_measures
from pipeline.metrics.summary import (
    MEASURES,
    ClassSummary,
    Row,
    Statistics,
    Summary,
    bootstrap,
    diagonal_mm,
    summarise,
)
from pipeline.metrics.surface import SurfaceMeasures, surface_distances, surface_measures, surface_of
from pipeline.metrics.table import format_table, write_cases, write_summary

__all__ = [
    "MEASURES",
    "MEMBRANE_SCORES",
    "ClassResult",
    "ClassSummary",
    "MembraneScores",
    "OverlapMeasures",
    "Row",
    "Statistics",
    "Summary",
    "SurfaceMeasures",
    "bootstrap",
    "class_names",
    "diagonal_mm",
    "format_table",
    "measure_case",
    "membrane_scores",
    "overlap_measures",
    "partition_scores",
    "summarise",
    "surface_distances",
    "surface_measures",
    "surface_of",
    "thin_membranes",
    "write_cases",
    "write_summary",
]
