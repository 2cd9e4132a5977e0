"""A label map, checked: on its image's grid, whole numbers, and ids that are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike

import numpy as np

from pipeline.data.onto_grid import on_grid, reordering
from pipeline.errors import GeometryError, LabelError
from pipeline.geometry import Grid
from pipeline.io import Volume, is_section, read_header, read_image
from pipeline.io.memory_order import copy_in_blocks
from pipeline.io.policy import STRICT, ReadPolicy

LABEL_ROUNDING = 1e-3
"""How far a stored label may lie from an integer: what scl_slope's rounding leaves, no interpolation."""

_ZERO_ROUNDING = 1e-6
"""How far a label of 0 may lie from 0, as a share of the largest: what scl_slope and scl_inter leave as float32."""

_MOST_NAMED = 8
"""Ids that a refusal lists: an image in place of a label has thousands."""

_HIGHEST_ID = 2**62
_EXACT_IN_FLOAT64 = 2**53


def require_label_grid(path: str | PathLike[str], own: Grid, grid: Grid) -> str | None:
    """What is said of a label whose voxels are the image's in another axis order; None where there is nothing to say.

    Raises:
        GeometryError: another grid than the image's. A label is never resampled: it would no longer be what was drawn.
    """
    if grid.same_grid(own):
        return None
    if reordering(own, grid) is not None:
        return f"label: axes reordered from {own.orientation} to {grid.orientation}, every value kept"
    raise GeometryError(
        f"a label on another grid ({own})",
        file=path,
        expected=f"the image's grid ({grid})",
        fix="check that label and image belong together; draw or resample the label on the image",
    )


def load_label(
    path: str | PathLike[str],
    grid: Grid,
    allowed: Iterable[int] | None = None,
    stored: Mapping[int, int] | None = None,
    policy: ReadPolicy = STRICT,
) -> Volume:
    """Read a label map that must lie on ``grid``, in whatever axis order.

    Args:
        allowed: ids that may occur; 0 always may. None allows every id.
        stored: id -> value that stands for it in the file, where that is another number; ids that it does not name
            stand for themselves.
        policy: how its header is read.

    Returns:
        Array (1, H, W, D), or (1, H, W), of ids in the smallest integer type, uint8 where it fits.

    Raises:
        GeometryError: another grid, see `require_label_grid`.
        LabelError: values that are not integers, or ids that are not allowed, with their voxel counts.
    """
    volume = _read_exactly(path, policy)
    remark = require_label_grid(path, volume.grid, grid)
    array = volume.array if remark is None else on_grid(volume, grid)
    ids, rounded = _whole_numbers(array, path)
    values, counts = _counted(ids)
    value_of = dict(stored or {})
    if allowed is None:  # all but an id that another value stands for: who knows which of the two it means
        known = set(values) - (set(value_of) - set(value_of.values()))
    else:
        known = {value_of.get(label, label) for label in (0, *allowed)}
    unknown = [f"{value} ({n} voxels)" for value, n in zip(values, counts, strict=True) if value not in known]
    if unknown:
        more = [f"and {len(unknown) - _MOST_NAMED} more"] if len(unknown) > _MOST_NAMED else []
        raise LabelError(
            f"label ids {', '.join([*unknown[:_MOST_NAMED], *more])}",
            file=path,
            expected=f"ids out of {', '.join(map(str, sorted(known)))}",
            fix="is this the image in place of its label?"
            if more
            else "map the ids to the bundle's, name them in its classes, or say in label_values what stands for them",
        )
    label_of = {value: label for label, value in value_of.items()}
    new = [label_of.get(value, value) for value in values]
    kind = next(kind for kind in (np.uint8, np.int32, np.int64) if _fits(new, kind))
    result = np.empty(ids.shape, kind)
    copy_in_blocks(result, ids)
    if new != values:
        found = result.copy()
        for value, label in zip(values, new, strict=True):
            if value != label:
                result[found == value] = label
    repairs = (
        *volume.repairs,
        *([remark] if remark else []),
        *(["label: rounded to whole numbers"] if rounded else []),
    )
    return Volume(result[None], grid if remark else volume.grid, repairs)


def _read_exactly(path: str | PathLike[str], policy: ReadPolicy) -> Volume:
    """In a type that holds every stored id: as float32, 2**24 + 1 would become another id."""
    if is_section(path):
        return read_image(path)
    header = read_header(path, policy)
    if (header.slope, header.intercept) == (1, 0):
        return read_image(path, header.dtype.newbyteorder("="), policy)
    volume = read_image(path, np.float64, policy)
    values = np.array([volume.array.min(), volume.array.max()])
    largest = max(np.abs(values).max(), np.abs((values - header.intercept) / header.slope).max())
    if largest >= _EXACT_IN_FLOAT64:
        raise LabelError(
            f"scaled label ids of more digits than float64 holds (scl_slope {header.slope:g}, "
            f"scl_inter {header.intercept:g}, up to {largest:.6g})",
            file=path,
            expected="ids below 2**53, or stored without scaling",
            fix="number anew",
        )
    return volume


def _whole_numbers(array: np.ndarray, path: str | PathLike[str]) -> tuple[np.ndarray, bool]:
    """The values as integers, and whether they had to be rounded."""
    if array.size and max(abs(float(array.min())), abs(float(array.max()))) >= _HIGHEST_ID:
        raise LabelError(f"label ids up to {array.max():.6g}", file=path, expected="ids below 2**62", fix="number anew")
    if array.dtype.kind != "f":
        return array, False
    ids = np.rint(array)
    distance = np.abs(array - ids)
    off = distance > LABEL_ROUNDING
    # A nonzero that became 0 would be a lesion lost: probabilities may all be small.
    off |= (ids == 0) & (distance > _ZERO_ROUNDING * np.abs(array).max(initial=0))
    if off.any():
        raise LabelError(
            f"{np.count_nonzero(off)} voxels whose label is no integer, such as {array[off].min():.6g}",
            file=path,
            expected="whole numbers",
            fix="export the segmentation, not probabilities or an interpolated label",
        )
    return ids.astype(np.int64), bool(distance.any())


def _counted(ids: np.ndarray) -> tuple[list[int], list[int]]:
    """The ids that occur, in order, and how often."""
    lowest, highest = int(ids.min()), int(ids.max())
    if highest - lowest >= 1 << 16:
        values, counts = np.unique(ids, return_counts=True)
        return values.tolist(), counts.tolist()
    # counting is thirty times as fast as the sorting of np.unique; in parts, because bincount makes int64 of them
    flat = ids.ravel(order="K")
    number = np.zeros(highest - lowest + 1, np.int64)
    for start in range(0, flat.size, 1 << 22):
        part = flat[start : start + (1 << 22)].astype(np.int64) - lowest
        number += np.bincount(part, minlength=len(number))
    values = np.flatnonzero(number)
    return (values + lowest).tolist(), number[values].tolist()


def label_ids(array: np.ndarray) -> list[int]:
    """The ids in a label map, in order.

    >>> label_ids(np.array([[2, 0, 2]], np.uint8))
    [0, 2]
    """
    return _counted(array)[0]


def _fits(values: list[int], kind: type) -> bool:
    limits = np.iinfo(kind)
    return not values or (limits.min <= min(values) and max(values) <= limits.max)
