"""Measures of a segmentation: integer label maps and a spacing in mm in, typed results out.

A measure is a pure function of masks, one concept per file; `measure_case` gathers them per class and `summarise` per
cohort. To add one: write the function with its definition and its rule for empty masks, add its field to
`ClassResult`, its name to `MEASURES`, its line to docs/measures.md, and a brute-force check to tests/metrics. Needs
NumPy and SciPy alone, and numba for its speed; torch tensors are accepted, not imported. `membrane_scores` and
`instance_measures` compare sections as partitions into cells, `calibration_measures` takes probabilities.
"""

from pipeline.metrics.calibration import CalibrationMeasures, calibration_measures
from pipeline.metrics.case import ClassResult, absent_class, measure_case
from pipeline.metrics.comparison import Comparison, PairedCase, PairedResults, compare_rows
from pipeline.metrics.comparison_table import format_comparison, write_comparison
from pipeline.metrics.instances import IOU_THRESHOLDS, InstanceMeasures, instance_measures
from pipeline.metrics.label_maps import class_names
from pipeline.metrics.lesions import LesionMeasures, lesion_measures
from pipeline.metrics.membranes import (
    MEMBRANE_SCORES,
    MembraneScores,
    membrane_scores,
    partition_scores,
    thin_membranes,
)
from pipeline.metrics.overlap import OverlapMeasures, overlap_measures
from pipeline.metrics.reading import read_cases
from pipeline.metrics.rows import Row, diagonal_mm
from pipeline.metrics.summary import (
    MEASURES,
    ClassSummary,
    Statistics,
    Summary,
    bootstrap,
    summarise,
)
from pipeline.metrics.surface import SurfaceMeasures, surface_distances, surface_measures, surface_of
from pipeline.metrics.table import format_table, write_cases, write_summary, write_tables

__all__ = [
    "IOU_THRESHOLDS",
    "MEASURES",
    "MEMBRANE_SCORES",
    "CalibrationMeasures",
    "ClassResult",
    "ClassSummary",
    "Comparison",
    "InstanceMeasures",
    "LesionMeasures",
    "MembraneScores",
    "OverlapMeasures",
    "PairedCase",
    "PairedResults",
    "Row",
    "Statistics",
    "Summary",
    "SurfaceMeasures",
    "absent_class",
    "bootstrap",
    "calibration_measures",
    "class_names",
    "compare_rows",
    "diagonal_mm",
    "format_comparison",
    "format_table",
    "instance_measures",
    "lesion_measures",
    "measure_case",
    "membrane_scores",
    "overlap_measures",
    "partition_scores",
    "read_cases",
    "summarise",
    "surface_distances",
    "surface_measures",
    "surface_of",
    "thin_membranes",
    "write_cases",
    "write_comparison",
    "write_summary",
    "write_tables",
]
