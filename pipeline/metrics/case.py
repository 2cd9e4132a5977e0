"""All measures of one case: two label maps in, one typed result per class out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.errors import ConfigError, DataError
from pipeline.metrics.class_boxes import class_boxes
from pipeline.metrics.label_maps import class_names, label_map_of, spacing_of
from pipeline.metrics.lesions import lesion_measures
from pipeline.metrics.overlap import overlap_measures
from pipeline.metrics.surface import SurfaceMeasures, surface_measures

Status = Literal["ok", "absent", "missed", "false_alarm"]

_NAN = float("nan")
_ABSENT = SurfaceMeasures(hausdorff_mm=0.0, hausdorff_95_mm=0.0, assd_mm=0.0, nsd=1.0)
# No distance exists to an empty mask; the share of the surfaces within the tolerance does, and is nought.
_ONE_EMPTY = SurfaceMeasures(hausdorff_mm=_NAN, hausdorff_95_mm=_NAN, assd_mm=_NAN, nsd=0.0)


@dataclass(frozen=True)
class ClassResult:
    """One class of one case.

    ``status`` says which masks hold the class: ``ok`` both, ``absent`` neither (dice, iou and nsd are 1, distances 0),
    ``missed`` the reference alone, ``false_alarm`` the prediction alone (dice, iou and nsd are 0, distances NaN).
    ``tp fp fn tn`` count voxels; volumes are in ml (NaN for a 2D image, which has none), distances in mm; rates lie
    between 0 and 1 and are NaN where they are 0/0. ``volume_difference_ml`` is prediction minus reference. The fields
    from ``lesions_prediction`` on count connected components, see ``LesionMeasures``.
    """

    class_id: int
    class_name: str
    status: Status
    tp: int
    fp: int
    fn: int
    tn: int
    dice: float
    iou: float
    tpr: float
    tnr: float
    fpr: float
    fnr: float
    ppv: float
    volume_prediction_ml: float
    volume_reference_ml: float
    volume_difference_ml: float
    absolute_volume_difference_ml: float
    hausdorff_mm: float
    hausdorff_95_mm: float
    assd_mm: float
    nsd: float
    lesions_prediction: int
    lesions_reference: int
    lesions_found: int
    lesions_false: int
    lesion_precision: float
    lesion_recall: float
    lesion_f1: float
    absolute_lesion_count_difference: int


def measure_case(
    prediction: Any,
    reference: Any,
    spacing_mm: Sequence[float],
    classes: Mapping[int, str] | Mapping[str, str],
    tolerance_mm: float = 1.0,
    lesion_overlap: float = 0.0,
) -> list[ClassResult]:
    """Measures a predicted label map against the reference.

    Args:
        prediction: integer label map, numpy array or torch tensor, (H, W, D) or (H, W). Floating point is accepted
            where every value is whole; logits, probabilities and NaN are refused, not rounded.
        reference: same shape.
        spacing_mm: distance between voxel centres along each axis; one number per axis.
        classes: id -> name of the classes to measure, ids from 1 (0 is the background); text ids, as JSON has them,
            will do.
        tolerance_mm: distance up to which a surface counts as found in ``nsd``, at least 0.
        lesion_overlap: share of a lesion that must be covered for it to be found, 0 to 1; 0 asks for one voxel.

    Returns:
        One result per class, in the order of ``classes``. Definitions stand in ``overlap_measures``,
        ``surface_measures`` and ``lesion_measures``; what empty masks give stands in ``ClassResult``.

    Raises:
        DataError: label maps or spacing that can't be measured.
        ConfigError: class ids that are not whole numbers from 1, or a tolerance or an overlap that is none.

    >>> reference = np.zeros((4, 4, 2), dtype=int)
    >>> reference[1:3, 1:3] = 1
    >>> [result] = measure_case(np.roll(reference, 1, axis=0), reference, (1.0, 1.0, 5.0), {1: "lesion"})
    >>> result.status, result.dice, result.hausdorff_mm, result.volume_reference_ml
    ('ok', 0.5, 1.0, 0.04)
    """
    maps = [label_map_of(prediction, "prediction"), label_map_of(reference, "reference")]
    if maps[0].shape != maps[1].shape:
        raise DataError(
            f"a prediction of shape {maps[0].shape} and a reference of shape {maps[1].shape}",
            expected="one shape",
            fix="bring the prediction back to the case's own grid",
        )
    spacing = spacing_of(spacing_mm, maps[0].ndim)
    ids = class_names(classes)
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ConfigError(f"a tolerance of {tolerance_mm} mm", expected="a distance in mm, at least 0")

    # Axes in the order of memory: a map that nibabel read (Fortran order) is then scanned as fast as any other.
    order = np.argsort([-abs(stride) for stride in maps[0].strides], kind="stable")
    maps = [label_map.transpose(order) for label_map in maps]
    in_order = tuple(spacing[axis] for axis in order)
    results = []
    for (class_id, name), box in zip(ids.items(), class_boxes(maps, list(ids)), strict=True):
        if box is None:
            results.append(absent_class(class_id, name, maps[0].shape, in_order))
            continue
        masks = [label_map[box] == class_id for label_map in maps]
        results.append(_measure_class(class_id, name, masks, maps[0].size, in_order, tolerance_mm, lesion_overlap))
    return results


def absent_class(class_id: int, name: str, shape: Sequence[int], spacing_mm: Sequence[float]) -> ClassResult:
    """The result of a class that neither label map of a case holds; ``shape`` is theirs."""
    nothing = np.zeros((0,) * len(shape), dtype=bool)
    return _measure_class(class_id, name, [nothing, nothing], math.prod(shape), tuple(spacing_mm), 0.0, 0.0)


def _measure_class(
    class_id: int,
    name: str,
    masks: Sequence[np.ndarray],
    num_voxels: int,
    spacing_mm: tuple[float, ...],
    tolerance_mm: float,
    lesion_overlap: float,
) -> ClassResult:
    """Measures two masks that are cropped to a box around both; ``num_voxels`` counts the whole image."""
    prediction, reference = masks
    num_prediction, num_reference = (int(np.count_nonzero(mask)) for mask in masks)
    voxel_ml = math.prod(spacing_mm) / 1000 if len(spacing_mm) == 3 else _NAN
    tp = int(np.count_nonzero(prediction & reference))
    fp, fn = num_prediction - tp, num_reference - tp
    tn = num_voxels - tp - fp - fn
    status: Status
    if num_prediction and num_reference:
        status, surface = "ok", surface_measures(prediction, reference, spacing_mm, tolerance_mm)
    elif num_reference:
        status, surface = "missed", _ONE_EMPTY
    elif num_prediction:
        status, surface = "false_alarm", _ONE_EMPTY
    else:
        status, surface = "absent", _ABSENT
    return ClassResult(
        class_id=class_id,
        class_name=name,
        status=status,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        **vars(overlap_measures(tp, fp, fn, tn)),
        volume_prediction_ml=num_prediction * voxel_ml,
        volume_reference_ml=num_reference * voxel_ml,
        volume_difference_ml=(num_prediction - num_reference) * voxel_ml,
        absolute_volume_difference_ml=abs(num_prediction - num_reference) * voxel_ml,
        **vars(surface),
        **vars(lesion_measures(prediction, reference, lesion_overlap)),
    )
