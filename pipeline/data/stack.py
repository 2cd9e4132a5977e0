"""A case's files as one stack on one grid, and its label beside it; or the case is refused.

Loading for a network and the data doctor use the same functions, so that no case is judged twice in two ways. What a
grid alone decides stands apart (`resampling_remark`, `require_label_grid`): headers are enough for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike

import numpy as np
from scipy import ndimage

from pipeline.errors import ConfigError, GeometryError, LabelError
from pipeline.geometry import Grid
from pipeline.io import Volume, read_image
from pipeline.io.policy import STRICT, ReadPolicy

LEAST_OVERLAP = 0.5
"""Share of the reference channel's voxels that another channel must cover to be resampled onto its grid."""

LABEL_ROUNDING = 1e-3
"""How far a stored label may lie from an integer: what scl_slope's rounding leaves, no interpolation."""


@dataclass(frozen=True)
class StackRules:
    """What a bundle asks of the files of a case. The default takes any label, and refuses all that has two meanings.

    Args:
        labels: ids that a label may hold, 0 is always among them; None allows any.
        label_values: id -> value that stands for it in the files, see `load_label`.
        on_other_grid: see `load_stack`.
        missing_channels: ``"refuse"`` a case that lacks a channel, or take it as ``"zero"``.
        policy: how headers are read.
    """

    labels: tuple[int, ...] | None = None
    label_values: Mapping[int, int] = field(default_factory=dict)
    on_other_grid: str = "resample"
    missing_channels: str = "refuse"
    policy: ReadPolicy = STRICT


def load_stack(paths: Mapping[str, str | PathLike[str]], on_other_grid: str = "resample") -> Volume:
    """Read channels into one array on the grid of the first.

    Args:
        paths: channel -> file, in the order of the stack.
        on_other_grid: what to do with a channel on another grid in the same space: ``"resample"`` it linearly
            (outside its own volume it gets its lowest value), or ``"refuse"`` it.

    Returns:
        Array (C, H, W, D) float32, of sections (C, H, W), the first channel's grid, and what was put right, each with
        the channel's name.

    Raises:
        DataError, GeometryError: as `read_image`; a channel that covers less than half of the reference; a section on
            another grid, always: it has no space in which it could be resampled.
    """
    stack, repairs, grid = np.empty(0, np.float32), [], None
    for index, (name, path) in enumerate(paths.items()):
        volume = read_image(path)
        repairs += [f"{name}: {repair}" for repair in volume.repairs]
        array = volume.array
        if grid is None:
            grid = volume.grid
            stack = np.empty((len(paths), *grid.shape), np.float32)
        elif not grid.same_grid(volume.grid):
            repairs.append(resampling_remark(name, path, volume.grid, next(iter(paths)), grid, on_other_grid))
            array = _resampled(volume, grid)
        stack[index] = array
    if grid is None:
        raise ConfigError("no channel", expected="at least one")
    return Volume(stack, grid, tuple(repairs))


def resampling_remark(
    name: str, path: str | PathLike[str], own: Grid, reference: str, grid: Grid, on_other_grid: str = "resample"
) -> str:
    """What is said of a channel that has to be resampled from its ``own`` grid onto that of the reference channel.

    Raises:
        GeometryError: it must not be, or covers less than half of the reference; a section on another grid.
    """
    volumes = len(grid.shape) == len(own.shape) == 3
    covered = covered_share(grid, own) if volumes else 0.0
    if on_other_grid == "refuse" or covered < LEAST_OVERLAP:
        raise GeometryError(
            f"channel {name} on another grid ({own}; it covers {covered:.0%} of the reference)",
            file=path,
            expected=f"the grid of {reference} ({grid})",
            fix="register and resample it to the reference channel",
        )
    return f"{name}: resampled from {own} to {grid}, {1 - covered:.0%} of which it does not cover"


def require_label_grid(path: str | PathLike[str], own: Grid, grid: Grid) -> None:
    """Raises GeometryError for a label on another grid than its image's: it is never resampled."""
    if not grid.same_grid(own):
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
) -> Volume:
    """Read a label map that must lie on ``grid``.

    Args:
        allowed: ids that may occur; 0 always may. None allows every id.
        stored: id -> value that stands for it in the file, where that is another number; ids that it does not name
            stand for themselves.

    Returns:
        Array (1, H, W, D), or (1, H, W), of ids in the smallest integer type, uint8 where it fits.

    Raises:
        GeometryError: another grid. A label is never resampled: it would no longer be what was drawn.
        LabelError: values that are not integers, or ids that are not allowed, with their voxel counts.
    """
    volume = read_image(path)
    require_label_grid(path, volume.grid, grid)
    ids = np.rint(volume.array)
    distance = np.abs(volume.array - ids)
    if distance.max(initial=0) > LABEL_ROUNDING:
        wrong = np.unique(volume.array[distance > LABEL_ROUNDING])
        raise LabelError(
            f"{np.count_nonzero(distance > LABEL_ROUNDING)} voxels whose label is no integer, such as {wrong[0]:.6g}",
            file=path,
            expected="whole numbers",
            fix="export the segmentation, not probabilities or an interpolated label",
        )
    values, counts = np.unique(ids, return_counts=True)
    value_of = dict(stored or {})
    if allowed is None:  # all but an id that another value stands for: who knows which of the two it means
        known = set(values.astype(int).tolist()) - (set(value_of) - set(value_of.values()))
    else:
        known = {value_of.get(label, label) for label in (0, *allowed)}
    unknown = [f"{int(v)} ({n} voxels)" for v, n in zip(values, counts, strict=True) if int(v) not in known]
    if unknown:
        raise LabelError(
            f"label ids {', '.join(unknown)}",
            file=path,
            expected=f"ids out of {', '.join(map(str, sorted(known)))}",
            fix="map the ids to the bundle's, name them in its classes, or say in label_values what stands for them",
        )
    if value_of:
        found = ids.copy()
        for label, value in value_of.items():
            ids[found == value] = label
        values = np.unique(ids)
    kind = np.uint8 if values[0] >= 0 and values[-1] <= 255 else np.int32
    repairs = (*volume.repairs, *(["label: rounded to whole numbers"] if distance.any() else []))
    return Volume(np.ascontiguousarray(ids.astype(kind))[None], volume.grid, repairs)


def covered_share(reference: Grid, other: Grid) -> float:
    """Share of the reference's voxel centres that lie inside the other volume's box, on at most 33 points per axis."""
    points = [np.linspace(0, n - 1, min(n, 33)) for n in reference.shape]
    index = np.stack(np.meshgrid(*points, indexing="ij"), axis=-1).reshape(-1, 3)
    to_other = np.linalg.inv(other.affine) @ reference.affine
    there = index @ to_other[:3, :3].T + to_other[:3, 3]
    inside = (there >= -0.5 - 1e-3) & (there <= np.array(other.shape) - 0.5 + 1e-3)
    return float(inside.all(axis=1).mean())


def _resampled(volume: Volume, grid: Grid) -> np.ndarray:
    to_volume = np.linalg.inv(volume.grid.affine) @ grid.affine
    return ndimage.affine_transform(
        volume.array,
        to_volume[:3, :3],
        to_volume[:3, 3],
        output_shape=grid.shape,
        output=np.float32,
        order=1,
        mode="grid-constant",
        cval=float(volume.array.min()),
    )
