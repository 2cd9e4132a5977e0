"""`LoadImageStackd`: the named channels of a case become one stack on one grid, or the case is refused."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from pipeline.errors import ConfigError, DataError, GeometryError, LabelError, PipelineError
from pipeline.geometry import Grid
from pipeline.io import Volume, read_image, section_of

LEAST_OVERLAP = 0.5
"""Share of the reference channel's voxels that another channel must cover to be resampled onto its grid."""

LABEL_ROUNDING = 1e-3
"""How far a stored label may lie from an integer: what scl_slope's rounding leaves, no interpolation."""


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
            volumes = len(grid.shape) == len(volume.grid.shape) == 3
            covered = _covered_share(grid, volume.grid) if volumes else 0.0
            if on_other_grid == "refuse" or covered < LEAST_OVERLAP:
                raise GeometryError(
                    f"channel {name} on another grid ({volume.grid}; it covers {covered:.0%} of the reference)",
                    file=path,
                    expected=f"the grid of {next(iter(paths))} ({grid})",
                    fix="register and resample it to the reference channel",
                )
            array = _resampled(volume, grid)
            repairs.append(
                f"{name}: resampled from {volume.grid} to {grid}, {1 - covered:.0%} of which it does not cover"
            )
        stack[index] = array
    if grid is None:
        raise ConfigError("no channel", expected="at least one")
    return Volume(stack, grid, tuple(repairs))


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
    if not grid.same_grid(volume.grid):
        raise GeometryError(
            f"a label on another grid ({volume.grid})",
            file=path,
            expected=f"the image's grid ({grid})",
            fix="check that label and image belong together; draw or resample the label on the image",
        )
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


def _covered_share(reference: Grid, other: Grid) -> float:
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


class LoadImageStackd(MapTransform):
    """Load the channels of a case, by name, into one MetaTensor (C, H, W, D), of sections (C, H, W), on the first
    channel's grid; and its label.

    ``item[image_key]`` is a dict of named paths (others than ``channels`` are ignored), a list of paths in the order of
    ``channels``, or one path where there is one channel. The label, where the item has one, becomes (1, H, W, D)
    integers. The meta of both holds ``case_id``, ``original_affine``, ``spatial_shape``, ``filename_or_obj`` (of the
    first channel; of the label) and ``repairs``: one text, a line per repair, because lists of unequal length do not
    collate into a batch.

    Args:
        keys: what to load; an item may lack the label.
        channels: names in the order in which the network sees them.
        image_key, label_key: which of the keys is which.
        labels: ids that a label may hold, 0 is always among them; a class map (id -> name) does too. None allows any.
        label_values: id -> value that stands for it in the label files, such as ``{1: 255}`` for masks that are made to
            be looked at; other ids stand for themselves.
        allow_missing_keys: whether an item may lack the label.
        on_other_grid: ``"resample"`` or ``"refuse"`` a channel on another grid, see `load_stack`.

    Raises:
        DataError, GeometryError, LabelError: each names case and file.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        *,
        channels: Sequence[str],
        image_key: str = "image",
        label_key: str = "label",
        labels: Iterable[int | str] | None = None,
        label_values: Mapping[int, int] | Mapping[str, int] | None = None,
        allow_missing_keys: bool = True,
        on_other_grid: str = "resample",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not channels or isinstance(channels, str):
            raise ConfigError(f"channels={channels!r}", expected="a list of channel names")
        if on_other_grid not in ("resample", "refuse"):
            raise ConfigError(f"on_other_grid={on_other_grid!r}", expected="resample or refuse")
        if image_key not in self.keys or not set(self.keys) <= {image_key, label_key}:
            raise ConfigError(f"keys {self.keys}", expected=f"{image_key} and {label_key}")
        self.channels = [name.lower() for name in channels]
        self.image_key, self.label_key = image_key, label_key
        self.labels = None if labels is None else [int(label) for label in labels]
        self.label_values = {int(label): int(value) for label, value in (label_values or {}).items()}
        if len(set(self.label_values.values())) < len(self.label_values):
            raise ConfigError(f"label_values={dict(label_values or {})}", expected="another value for each id")
        self.on_other_grid = on_other_grid

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        case_id = str(item["case_id"]) if "case_id" in item else None
        try:
            paths = self._named_paths(item.get(self.image_key))
            first = paths[self.channels[0]]
            case_id = case_id or _id_from(first, self.channels[0])
            image = load_stack(paths, self.on_other_grid)
            item[self.image_key] = _tensor(image, first, case_id)
            if self.label_key in self.keys and item.get(self.label_key) is not None:
                label = load_label(item[self.label_key], image.grid, self.labels, self.label_values)
                item[self.label_key] = _tensor(label, item[self.label_key], case_id)
            elif self.label_key in self.keys and not self.allow_missing_keys:
                raise DataError("no label", expected="a label for every case", fix="add it, or allow_missing_keys")
        except PipelineError as error:
            raise error.for_case(case_id or "(without an id)") from error
        return item

    def _named_paths(self, image: Any) -> dict[str, str]:
        if isinstance(image, str | PathLike):
            image = [image]
        if isinstance(image, Mapping):
            named = {str(name).lower(): path for name, path in image.items()}
        elif isinstance(image, list | tuple) and len(image) == len(self.channels):
            named = dict(zip(self.channels, image, strict=True))
        else:
            found = f"{len(image)} files" if isinstance(image, list | tuple) else f"{type(image).__name__} as image"
            raise DataError(
                found, expected=f"the channels {', '.join(self.channels)}", fix="name a file for each channel"
            )
        missing = [name for name in self.channels if name not in named]
        if missing:
            close = difflib.get_close_matches(missing[0], named, n=1)
            raise DataError(
                f"the channels {', '.join(named) or '(none)'}; no {', '.join(missing)}",
                expected=f"{', '.join(self.channels)}",
                fix=f"is {close[0]} meant to be {missing[0]}?" if close else "add the missing files",
            )
        return {name: fspath(named[name]) for name in self.channels}


def _id_from(path: str, channel: str) -> str:
    file, section = section_of(path)
    if section is not None:
        return f"{file.stem}_{section:03d}"
    name = file.name
    stem = name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else Path(path).stem
    return stem[: -len(channel) - 1] if stem.lower().endswith(f"_{channel}") else stem


def _tensor(volume: Volume, path: str | PathLike[str], case_id: str) -> MetaTensor:
    meta = {
        "case_id": case_id,
        "original_affine": volume.grid.affine.copy(),
        "spatial_shape": np.array(volume.grid.shape),
        "filename_or_obj": fspath(path),
        "repairs": "\n".join(volume.repairs),
    }
    return MetaTensor(torch.from_numpy(volume.array), affine=torch.from_numpy(volume.grid.affine.copy()), meta=meta)
