"""The patches of a whole batch out of their windows, each with a map of its own: on a GPU, or on a CPU in threads.

On a CPU the compiled loop makes one patch after the other, each with all threads: the very numbers of `sample_patch`.
Elsewhere, and where it does not run, torch makes all patches and channels together, each operation one for the whole
batch: the map of `patch_map` evaluated at every voxel, the border by arithmetic, the eight voxels around gathered from
one array that holds all windows, one after the other. A crop is an interpolation there too, all of whose weights are 0
or 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.transforms.deferred import DrawnPatch
from pipeline.transforms.patch_map import PatchMap, patch_map
from pipeline.transforms.patch_window import Window, crop_patch
from pipeline.transforms.resampling import compiled_loop, resample

_OVER_CONTROL_POINTS = ("bxl,balmn->baxmn", "bym,baxmn->baxyn", "bzn,baxyn->baxyz")


class BatchSampler:
    """Makes all patches of a batch, each by a map of its own, of image and label alike.

    Args:
        patches: what was drawn for each sample; all with one border.
        patch_size: voxels per axis.
        device: where they are made.
        compiled: on a CPU, by the compiled loop where it runs; False for torch always.
    """

    def __init__(
        self, patches: Sequence[DrawnPatch], patch_size: Sequence[int], device: torch.device, compiled: bool = True
    ) -> None:
        self.patches, self.patch_size, self.device = patches, tuple(patch_size), device
        self._loop = compiled_loop() if compiled and device.type == "cpu" else None
        self._maps = [patch_map(patch.parameters, patch_size, patch.spacing_mm) for patch in patches]
        if self._loop is None:
            maps = [patch.window.seen_from(one) for patch, one in zip(patches, self._maps, strict=True)]
            where = coordinates(maps, (1, *patch_size)[-3:], device)
            self._places = _Places([patch.window for patch in patches], where)

    def __call__(self, boxes: Sequence[torch.Tensor], interpolation: str) -> torch.Tensor:
        """All patches, (B, C, *patch_size) on the device.

        Args:
            boxes: per sample (C, ...), what lies in its window; on any device.
            interpolation: ``"linear"``, ``"nearest"`` or ``"majority"``, see `PatchSampler`.
        """
        if self._loop is not None:
            samples = zip(boxes, self.patches, self._maps, strict=True)
            return torch.stack([self._by_loop(*sample, interpolation) for sample in samples])
        channels = len(boxes[0])
        flat = torch.cat([box.to(self.device, non_blocking=True).reshape(-1) for box in boxes])
        at = _Lookup(flat.float() if interpolation == "linear" else flat, self._places, channels)
        values = {"linear": _linear, "nearest": _nearest, "majority": _majority}[interpolation](at)
        return values.reshape(len(boxes), channels, *self.patch_size)

    def _by_loop(self, box: torch.Tensor, patch: DrawnPatch, drawn: PatchMap, interpolation: str) -> torch.Tensor:
        if patch.parameters.is_crop:
            return crop_patch(box, patch.window, patch.parameters, self.patch_size)
        assert self._loop is not None
        return resample(self._loop, box, patch.window, drawn, self.patch_size, interpolation)


def coordinates(maps: Sequence[PatchMap], size: Sequence[int], device: torch.device) -> torch.Tensor:
    """Where each voxel of every patch looks, (B, 3, *size) float32."""
    affine = np.stack([one.affine for one in maps])[..., None]
    lines = [affine[:, :, axis] * np.arange(count) for axis, count in enumerate(size)]
    lines[0] = lines[0] + affine[:, :, 3]
    first, second, third = (torch.from_numpy(line.astype(np.float32)).to(device) for line in lines)
    where = first[:, :, :, None, None] + second[:, :, None, :, None] + third[:, :, None, None, :]
    points = np.max([one.control.shape[1:] for one in maps], axis=0)
    if points.min() > 0:
        # A sample with fewer control points, or none, gets some that move nothing.
        field = np.zeros((len(maps), 3, *points), np.float32)
        weights = [np.zeros((len(maps), count, n), np.float32) for count, n in zip(size, points, strict=True)]
        for sample, one in enumerate(maps):
            n0, n1, n2 = one.control.shape[1:]
            field[sample, :, :n0, :n1, :n2] = one.control
            for whole, own in zip(weights, one.weights, strict=True):
                whole[sample, :, : own.shape[1]] = own
        moved = torch.from_numpy(field).to(device)
        # The widest axis last: most of the work is done on few points.
        for equation, weight in zip(_OVER_CONTROL_POINTS, weights, strict=True):
            moved = torch.einsum(equation, torch.from_numpy(weight).to(device), moved)
        where += moved
    return where


class _Places:
    """Between which voxels of its window each coordinate lies, counted in the window's memory.

    Attributes:
        around: per axis two tensors (B, 1, voxels) of whole numbers, to be added up over the axes.
        share: per axis (B, 1, voxels), the distance from the first of the two, 0 to 1.
        voxels: of each window.
    """

    def __init__(self, windows: Sequence[Window], where: torch.Tensor) -> None:
        missing = 3 - len(windows[0].size)  # axes of sections, of one voxel here
        sizes = np.array([(*(1,) * missing, *window.size) for window in windows])
        firsts = np.array([(*(0,) * missing, *window.first) for window in windows])
        shapes = np.array([(*(1,) * missing, *window.shape) for window in windows])
        strides = np.stack([sizes[:, 1] * sizes[:, 2], sizes[:, 2], np.ones_like(sizes[:, 0])], axis=1)
        self.voxels = sizes.prod(1)
        self.is_flat = bool((sizes[:, 0] == 1).all())
        self.around: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.share: list[torch.Tensor] = []
        for axis in range(3):
            size, first, shape, stride = (
                torch.from_numpy(numbers[:, axis].astype(np.int32)).to(where.device)[:, None, None]
                for numbers in (sizes, firsts, shapes, strides)
            )
            at = where[:, axis].reshape(len(windows), 1, -1)
            below = at.floor()
            self.share.append(at - below)
            voxel = below.to(torch.int32) + first
            places = []
            for step in (0, 1):
                there = _continued(voxel + step, shape, windows[0].border) - first
                # What a whole coordinate has above it may lie beyond the window: it has no weight.
                places.append(there.clamp_(min=torch.zeros_like(size), max=size - 1).mul_(stride))
            self.around.append((places[0], places[1]))


def _continued(voxel: torch.Tensor, shape: torch.Tensor, border: str) -> torch.Tensor:
    """`pipeline.transforms.patch_map.border_index` of any voxels."""
    last = shape - 1
    if border == "edge":
        return voxel.clamp(min=torch.zeros_like(last), max=last)
    return last - (voxel.remainder((2 * last).clamp(min=1)) - last).abs_()


class _Lookup:
    """Values of the voxels around, from one array that holds all windows with their channels, one after the other."""

    def __init__(self, flat: torch.Tensor, places: _Places, channels: int) -> None:
        self.flat, self.places = flat, places
        begins = np.cumsum([0, *channels * places.voxels[:-1]])
        offsets = begins[:, None] + places.voxels[:, None] * np.arange(channels)
        # 32 bits where they do: half of the memory that is moved.
        offsets = offsets.astype(np.int32 if len(flat) < 2**31 else np.int64)
        self.channels = torch.from_numpy(offsets).to(flat.device)[:, :, None]

    def __call__(self, x: int, y: int, z: int) -> torch.Tensor:
        """One of the eight voxels around, (B, C, voxels)."""
        around = self.places.around
        return self.at(around[0][x] + around[1][y] + around[2][z])

    def at(self, place: torch.Tensor) -> torch.Tensor:
        place = self.channels + place
        return self.flat.index_select(0, place.reshape(-1)).reshape(place.shape)


def _linear(at: _Lookup) -> torch.Tensor:
    x, y, z = at.places.share

    def between(first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return second.sub_(first).mul_(share).add_(first)

    def plane(i: int) -> torch.Tensor:
        first, second = (between(at(i, j, 0), at(i, j, 1), z) for j in (0, 1))
        return between(first, second, y)

    return plane(0) if at.places.is_flat else between(plane(0), plane(1), x)


def _nearest(at: _Lookup) -> torch.Tensor:
    x, y, z = (torch.where(share < 0.5, *pair) for share, pair in zip(at.places.share, at.places.around, strict=True))
    return at.at(x + y + z)


def _majority(at: _Lookup) -> torch.Tensor:
    """As in patch_sampling.py, but voted on only where the eight voxels around are not all alike."""
    corners = list(itertools.product((0, 1), repeat=3))
    values = [at(*corner) for corner in corners]
    differ = torch.stack([value != values[0] for value in values[1:]]).any(0)
    shares = [share.expand_as(differ)[differ] for share in at.places.share]
    voters = [value[differ] for value in values]
    weights = [
        torch.stack([share if up else 1 - share for share, up in zip(shares, corner, strict=True)]).prod(0)
        for corner in corners
    ]
    chosen, largest = voters[0], torch.full_like(shares[0], -1.0)
    for value in voters:
        total = sum(weight * (other == value) for weight, other in zip(weights, voters, strict=True))
        better = total > largest
        chosen, largest = torch.where(better, value, chosen), torch.where(better, total, largest)
    best = values[0]
    best[differ] = chosen
    return best
