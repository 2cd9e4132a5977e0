"""All measures of one case: two label maps in, one typed result per class out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from pipeline.errors import ConfigError, DataError
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
    between 0 and 1 and are NaN where they are 0/0. ``volume_difference_ml`` is prediction minus reference.
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
    hausdorff_mm: float
    hausdorff_95_mm: float
    assd_mm: float
    nsd: float


def measure_case(
    prediction: Any,
    reference: Any,
    spacing_mm: Sequence[float],
    classes: Mapping[int, str] | Mapping[str, str],
    tolerance_mm: float = 1.0,
) -> list[ClassResult]:
    """Measures a predicted label map against the reference.

    Args:
        prediction: integer label map, numpy array or torch tensor, (H, W, D) or (H, W). Floating point is accepted
            where every value is whole; logits, probabilities and NaN are refused, not rounded.
        reference: same shape.
        spacing_mm: distance between voxel centres along each axis; one number per axis.
        classes: id -> name of the classes to measure, ids from 1 (0 is the background); text ids, as JSON has them,
        will do. tolerance_mm: tolerance of ``nsd``.

    Returns:
        One result per class, in the order of ``classes``. Definitions stand in ``overlap_measures`` and
        ``surface_measures``; what empty masks give stands in ``ClassResult``.

    Raises:
        DataError: label maps or spacing that can't be measured.
        ConfigError: class ids that are not whole numbers from 1.

    >>> reference = np.zeros((4, 4, 2), dtype=int)
    >>> reference[1:3, 1:3] = 1
    >>> [result] = measure_case(np.roll(reference, 1, axis=0), reference, (1.0, 1.0, 5.0), {1: "lesion"})
    >>> result.status, result.dice, result.hausdorff_mm, result.volume_reference_ml
    ('ok', 0.5, 1.0, 0.04)
    """
    maps = [_label_map(prediction, "prediction"), _label_map(reference, "reference")]
    if maps[0].shape != maps[1].shape:
        raise DataError(
            f"a prediction of shape {maps[0].shape} and a reference of shape {maps[1].shape}",
            expected="one shape",
            fix="bring the prediction back to the case's own grid",
        )
    spacing = _spacing(spacing_mm, maps[0].ndim)
    ids = class_names(classes)
    num_voxels = maps[0].size
    voxel_ml = float(np.prod(spacing)) / 1000 if len(spacing) == 3 else _NAN

    # Axes in the order of memory: a map that nibabel read (Fortran order) is then scanned as fast as any other.
    order = np.argsort([-abs(stride) for stride in maps[0].strides], kind="stable")
    maps = [label_map.transpose(order) for label_map in maps]
    spacing = tuple(spacing[axis] for axis in order)
    box = _bounding_box(maps)
    maps = [label_map[box] for label_map in maps]
    boxes = [ndimage.find_objects(label_map, max_label=max(ids)) for label_map in maps]

    results = []
    for class_id, name in ids.items():
        own_box = _union(boxes[0][class_id - 1], boxes[1][class_id - 1])
        masks = [label_map[own_box] == class_id for label_map in maps]
        results.append(_measure_class(class_id, name, masks[0], masks[1], num_voxels, spacing, voxel_ml, tolerance_mm))
    return results


def class_names(classes: Mapping[int, str] | Mapping[str, str]) -> dict[int, str]:
    """The class map with whole numbers as keys.

    >>> class_names({"1": "anterior", "2": "posterior"})
    {1: 'anterior', 2: 'posterior'}
    """
    try:
        ids = {int(key): str(name) for key, name in classes.items()}
    except (TypeError, ValueError):
        ids = {}
    if not ids or min(ids) < 1:
        raise ConfigError(
            f"classes {dict(classes)}", expected='ids from 1 (0 is the background) with names, such as {1: "lesion"}'
        )
    return ids


def _measure_class(
    class_id: int,
    name: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    num_voxels: int,
    spacing_mm: tuple[float, ...],
    voxel_ml: float,
    tolerance_mm: float,
) -> ClassResult:
    """Measures two masks that are cropped to a box around both; ``num_voxels`` counts the whole image."""
    num_prediction, num_reference = (int(np.count_nonzero(mask)) for mask in (prediction, reference))
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
        **vars(surface),
    )


def _label_map(values: Any, role: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, on whatever device
        values = values.detach().cpu().numpy()
    label_map = np.asarray(values)
    if label_map.ndim not in (2, 3) or not label_map.size:
        raise DataError(
            f"a {role} of shape {label_map.shape}", expected="a label map (H, W, D) or (H, W), without channels"
        )
    if label_map.dtype == bool:
        return label_map.view(np.uint8)
    if np.issubdtype(label_map.dtype, np.integer):
        return label_map
    expected = "whole class ids"
    if not np.issubdtype(label_map.dtype, np.floating):
        raise DataError(f"a {role} of type {label_map.dtype}", expected=expected)
    if not np.isfinite(label_map).all():
        raise DataError(
            f"a {role} with {np.count_nonzero(~np.isfinite(label_map))} NaN or infinite voxels", expected=expected
        )
    fractional = label_map != np.rint(label_map)
    if fractional.any():
        raise DataError(
            f"a {role} with {fractional.sum()} fractional values, such as {label_map[fractional][0]:.4g}",
            expected=expected,
            fix="take the argmax of logits or probabilities first",
        )
    return label_map.astype(np.int32 if np.abs(label_map).max() < 2**31 else np.int64)


def _spacing(spacing_mm: Sequence[float], dims: int) -> tuple[float, ...]:
    spacing = () if spacing_mm is None else tuple(float(value) for value in spacing_mm)
    if len(spacing) != dims or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise DataError(f"spacing {spacing_mm} for {dims} axes", expected=f"{dims} positive distances in mm")
    return spacing


def _bounding_box(maps: list[np.ndarray]) -> tuple[slice, ...]:
    """The box around everything that is not background in either map; one voxel where there is nothing."""
    box: list[slice] = []
    for axis in range(maps[0].ndim):
        others = tuple(other for other in range(maps[0].ndim) if other != axis)
        hit = np.flatnonzero(maps[0][tuple(box)].any(axis=others) | maps[1][tuple(box)].any(axis=others))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 1))
    return tuple(box)


def _union(first: tuple[slice, ...] | None, second: tuple[slice, ...] | None) -> tuple[slice, ...]:
    """The box around two boxes; the empty box at the origin where there is neither."""
    if first is None or second is None:
        return first or second or (slice(0, 0),)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
