"""Sampling a patch: the voxels that its map looks at, every channel interpolated once, a label looked up or voted on.

`sample_patch` does it with the compiled loop where it runs (see resampling.py), otherwise with torch; the torch version
below is the one to read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch.nn.functional import grid_sample

from pipeline.transforms.patch_map import SpatialPatchParameters, border_index, patch_map, source_coordinates
from pipeline.transforms.patch_window import Window, crop_patch
from pipeline.transforms.resampling import compiled_loop, resample


def read_box(volume: torch.Tensor, start: Sequence[int], shape: Sequence[int], border: str) -> torch.Tensor:
    """A box of a volume (C, H, W[, D]) that may reach beyond it: a view where it lies inside, else a copy.

    Nothing outside the box is touched: the volume may be a file's, mapped.
    """
    indices = {}
    for axis, (first, count) in enumerate(zip(start, shape, strict=True), start=1):
        size = volume.shape[axis]
        if first < 0 or first + count > size:
            voxels = border_index(first, count, size, border)
            first, count = int(voxels.min()), int(voxels.max() - voxels.min() + 1)
            indices[axis] = torch.from_numpy(voxels - first)
        volume = volume.narrow(axis, first, count)
    for axis, index in indices.items():
        volume = volume.index_select(axis, index)
    return volume


def interpolate_patch(
    volume: torch.Tensor, coordinates: torch.Tensor, border: str, interpolation: str = "linear"
) -> torch.Tensor:
    """The volume at ``coordinates``, by torch; only the box that they span is read.

    Args:
        volume: (C, H, W, D), or (C, H, W).
        coordinates: (axes, *patch_size), voxels.
        interpolation: see `sample_patch`.

    Returns:
        (C, *patch_size), float32 where linear, otherwise of the volume's type.
    """
    axes, *patch_size = coordinates.shape
    flat = coordinates.reshape(axes, -1)
    low = flat.amin(1).floor()
    shape = (flat.amax(1).ceil() - low + 1).int().tolist()
    box = read_box(volume, low.int().tolist(), shape, border)
    local = flat - low[:, None]
    if interpolation == "nearest":
        return _at((local + 0.5).long(), box).reshape(-1, *patch_size)
    if interpolation == "majority":
        return _majority(local, box).reshape(-1, *patch_size)
    # grid_sample wants -1 at the first voxel, +1 at the last, and the last axis first.
    scale = torch.tensor([2 / max(1, size - 1) for size in shape])
    grid = torch.stack(local.mul_(scale[:, None]).sub_(1).unbind()[::-1], dim=-1).reshape(1, *patch_size, axes)
    sampled = grid_sample(box[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled[0]


def _at(voxel: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Values (C, N) of a box at voxels (axes, N)."""
    index = voxel[0]
    for axis in range(1, len(voxel)):
        index = index * box.shape[axis + 1] + voxel[axis]
    return box.reshape(len(box), -1).index_select(1, index)


def _majority(local: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Of the voxels around, the value with the largest sum of linear weights; of equal sums, the first corner's."""
    last = torch.tensor(box.shape[1:])[:, None] - 1
    below = local.long()
    above = (below + 1).minimum(last)
    share = local - below
    corners = list(itertools.product((0, 1), repeat=len(local)))
    weights, values = [], []
    for corner in corners:
        up = torch.tensor(corner)[:, None]
        weights.append(torch.where(up == 1, share, 1 - share).prod(0))
        values.append(_at(torch.where(up == 1, above, below), box))
    best, largest = values[0], torch.full(values[0].shape, -1.0)
    for value in values:
        total = sum(weight * (other == value) for weight, other in zip(weights, values, strict=True))
        better = total > largest
        best, largest = torch.where(better, value, best), torch.where(better, total, largest)
    return best


class PatchSampler:
    """Makes the patches of several volumes on one grid, of an image and its label, by one map.

    Args:
        parameters: where the patch lies and how it is deformed.
        patch_size: voxels per axis.
        spacing_mm: voxel size of the volumes.
        shape: of the volumes, without channels.
        border: how they go on beyond their ends, ``"mirror"`` or ``"edge"``.
        compiled: by the compiled loop where it runs; False for torch always.
    """

    def __init__(
        self,
        parameters: SpatialPatchParameters,
        patch_size: Sequence[int],
        spacing_mm: Sequence[float],
        shape: Sequence[int],
        border: str = "mirror",
        compiled: bool = True,
    ) -> None:
        self.parameters, self.patch_size, self.border = parameters, tuple(patch_size), border
        self._loop = None if parameters.is_crop or not compiled else compiled_loop()
        if parameters.is_crop:
            self._window = Window.of_crop(parameters, patch_size, shape, border)
        elif self._loop is not None:
            self._map = patch_map(parameters, patch_size, spacing_mm)
            self._window = Window.of_map(self._map, shape, border)
        else:
            self._coordinates = source_coordinates(parameters, patch_size, spacing_mm)

    def __call__(self, volume: torch.Tensor, interpolation: str = "linear") -> torch.Tensor:
        """One patch (C, *patch_size) of a volume (C, H, W[, D]): a crop where nothing is deformed, else interpolated.

        Args:
            volume: any; where linear, the result of an interpolation is float32.
            interpolation: ``"linear"``; for labels ``"nearest"``, the nearest voxel, or ``"majority"``, the value that
                the linearly interpolated masks of all values have most of.
        """
        if self.parameters.is_crop:
            return crop_patch(self._window.read(volume), self._window, self.parameters, self.patch_size)
        if self._loop is None:
            return interpolate_patch(volume, self._coordinates, self.border, interpolation)
        box = self._window.read(volume)
        return resample(self._loop, box, self._window, self._map, self.patch_size, interpolation)


def sample_patch(
    volume: torch.Tensor,
    parameters: SpatialPatchParameters,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    border: str = "mirror",
    interpolation: str = "linear",
    compiled: bool = True,
) -> torch.Tensor:
    """One patch (C, *patch_size) of one volume (C, H, W[, D]); arguments as of `PatchSampler`."""
    sampler = PatchSampler(parameters, patch_size, spacing_mm, volume.shape[1:], border, compiled)
    return sampler(volume, interpolation)
