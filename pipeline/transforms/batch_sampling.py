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
from pipeline.transforms.patch_sampling import sample_window
from pipeline.transforms.resampling import compiled_loop

_OVER_CONTROL_POINTS = ("bxl,balmn->baxmn", "bym,baxmn->baxyn", "bzn,baxyn->baxyz")


def sample_batch(
    boxes: Sequence[torch.Tensor],
    patches: Sequence[DrawnPatch],
    patch_size: Sequence[int],
    interpolation: str,
    device: torch.device,
    compiled: bool = True,
) -> torch.Tensor:
    """All patches of a batch, (B, C, *patch_size) on the device.

    Args:
        boxes: per sample (C, ...), what lies in its window.
        patches: what was drawn for each; all with one border.
        interpolation: ``"linear"``, ``"nearest"`` or ``"majority"``, see `pipeline.transforms.sample_patch`.
        compiled: on a CPU, by the compiled loop where it runs; False for torch always.
    """
    loop = compiled_loop() if compiled and device.type == "cpu" else None
    if loop is not None:
        made = [
            sample_window(box, patch.window, patch.parameters, patch_size, patch.spacing_mm, interpolation, loop)
            for box, patch in zip(boxes, patches, strict=True)
        ]
        return torch.stack(made)
    maps = [p.window.seen_from(patch_map(p.parameters, patch_size, p.spacing_mm)) for p in patches]
    where = coordinates(maps, (1, *patch_size)[-3:], device)
    flat = torch.cat([box.to(device, non_blocking=True).reshape(-1) for box in boxes])
    places = _Places(boxes, patches, where)
    if interpolation == "linear":
        values = _linear(flat.float(), places)
    else:
        values = _nearest(flat, places) if interpolation == "nearest" else _majority(flat, places)
    return values.reshape(len(boxes), len(boxes[0]), *patch_size)


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
    """Between which voxels of the windows each coordinate lies, as places in the array that holds all of them.

    Attributes:
        around: per axis two tensors (B, 1, voxels) int64, to be added up over the axes.
        share: per axis (B, 1, voxels), the distance from the first of the two, 0 to 1.
    """

    def __init__(self, boxes: Sequence[torch.Tensor], patches: Sequence[DrawnPatch], where: torch.Tensor) -> None:
        # Axes that sections lack have one voxel.
        sizes = [(len(box), *((1,) * (4 - box.ndim)), *box.shape[1:]) for box in boxes]
        begins = np.cumsum([0, *(box.numel() for box in boxes)])[:-1]
        strides = [[n2 * n1 * n0, n2 * n1, n2, 1] for _, n0, n1, n2 in sizes]
        flat = 4 - boxes[0].ndim
        numbers = torch.tensor(
            [
                [*size[1:], *stride[1:], *(0,) * flat, *patch.window.first, *(1,) * flat, *patch.window.shape]
                for size, stride, patch in zip(sizes, strides, patches, strict=True)
            ],
            device=where.device,
        )[:, :, None, None]
        mirrored = patches[0].window.border == "mirror"
        self.around: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.share: list[torch.Tensor] = []
        for axis in range(3):
            size, stride, first, shape = (numbers[:, part + axis] for part in (0, 3, 6, 9))
            at = where[:, axis].reshape(len(boxes), 1, -1)
            below = at.floor()
            self.share.append(at - below)
            voxel = below.long() + first
            places = []
            for step in (0, 1):
                there = self._continued(voxel + step, shape, mirrored) - first
                # What a whole coordinate has above it may lie beyond the window: it has no weight.
                places.append(there.clamp_(min=torch.zeros_like(size), max=size - 1).mul_(stride))
            self.around.append((places[0], places[1]))
        offsets = np.array(strides)[:, :1] * np.arange(len(boxes[0])) + begins[:, None]
        self.channels = torch.from_numpy(offsets).to(where.device)[:, :, None]
        self.is_flat = all(size[1] == 1 for size in sizes)

    @staticmethod
    def _continued(voxel: torch.Tensor, shape: torch.Tensor, mirrored: bool) -> torch.Tensor:
        """`pipeline.transforms.patch_map.border_index` of any voxels."""
        if not mirrored:
            return voxel.clamp(min=torch.zeros_like(shape), max=shape - 1)
        last = shape - 1
        return last - (voxel.remainder((2 * last).clamp(min=1)) - last).abs()

    def of(self, x: int, y: int, z: int) -> torch.Tensor:
        """One of the eight voxels around, (B, C, voxels)."""
        return self.channels + (self.around[0][x] + self.around[1][y] + self.around[2][z])


def _linear(flat: torch.Tensor, places: _Places) -> torch.Tensor:
    x, y, z = places.share

    def between(first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return second.sub_(first).mul_(share).add_(first)

    def plane(i: int) -> torch.Tensor:
        first, second = (between(flat[places.of(i, j, 0)], flat[places.of(i, j, 1)], z) for j in (0, 1))
        return between(first, second, y)

    return plane(0) if places.is_flat else between(plane(0), plane(1), x)


def _nearest(flat: torch.Tensor, places: _Places) -> torch.Tensor:
    nearer = [torch.where(s < 0.5, *pair) for s, pair in zip(places.share, places.around, strict=True)]
    return flat[places.channels + sum(nearer)]


def _majority(flat: torch.Tensor, places: _Places) -> torch.Tensor:
    """As in patch_sampling.py, but voted on only where the eight voxels around are not all alike."""
    corners = list(itertools.product((0, 1), repeat=3))
    values = [flat[places.of(*corner)] for corner in corners]
    best = values[0].clone()
    differ = torch.stack([value != values[0] for value in values[1:]]).any(0)
    shares = [share.expand_as(differ)[differ] for share in places.share]
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
    best[differ] = chosen
    return best
