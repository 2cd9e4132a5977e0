"""`Window`: the part of a volume in which all lies that a patch looks at, and where the patch's border stands in it.

A window is a view of its volume, or a copy that has travelled: to another process, or to a GPU. A patch is sampled
from either with the same numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.transforms.patch_map import PatchMap, SpatialPatchParameters, border_index


@dataclass(frozen=True)
class Window:
    """A box inside a volume.

    Args:
        first: voxel of the volume at which it begins, per axis.
        size: its voxels per axis.
        shape: of the volume, without channels.
        border: how the volume goes on beyond its ends, ``"mirror"`` or ``"edge"``.
    """

    first: tuple[int, ...]
    size: tuple[int, ...]
    shape: tuple[int, ...]
    border: str

    @classmethod
    def of_crop(
        cls, parameters: SpatialPatchParameters, patch_size: Sequence[int], shape: Sequence[int], border: str
    ) -> Window:
        """The voxels of an undeformed patch of a volume of this shape."""
        return cls._around(parameters.start, patch_size, shape, border)

    @classmethod
    def of_map(cls, patch: PatchMap, shape: Sequence[int], border: str) -> Window:
        """What a patch of a volume of this shape looks at."""
        low, high = (ends[-len(shape) :] for ends in (patch.low, patch.high))
        return cls._around(low, [last - first + 2 for first, last in zip(low, high, strict=True)], shape, border)

    @classmethod
    def _around(cls, starts: Sequence[int], counts: Sequence[int], shape: Sequence[int], border: str) -> Window:
        first, size = [], []
        for start, count, whole in zip(starts, counts, shape, strict=True):
            voxels = border_index(start, count, whole, border)
            first.append(int(voxels.min()))
            size.append(int(voxels.max()) - first[-1] + 1)
        return cls(tuple(first), tuple(size), tuple(shape), border)

    def read(self, volume: torch.Tensor) -> torch.Tensor:
        """A view of a volume (C, H, W[, D]): nothing else of it is touched, it may be a file's, mapped."""
        for axis, (first, count) in enumerate(zip(self.first, self.size, strict=True), start=1):
            volume = volume.narrow(axis, first, count)
        return volume

    def index(self, axis: int, start: int, count: int) -> np.ndarray:
        """Voxels of the window that stand at ``start``, ``start + 1``... of the continued volume."""
        return border_index(start, count, self.shape[axis], self.border) - self.first[axis]

    def seen_from(self, patch: PatchMap) -> PatchMap:
        """A map of the volume as one of this window."""
        flat = (0,) * (3 - len(self.first))
        return patch.moved((*flat, *self.first))


def crop_patch(
    box: torch.Tensor, window: Window, parameters: SpatialPatchParameters, patch_size: Sequence[int]
) -> torch.Tensor:
    """The undeformed patch of a window (C, ...), its voxels bit for bit those of the volume; always a copy."""
    for axis, (start, count) in enumerate(zip(parameters.start, patch_size, strict=True)):
        voxels = window.index(axis, start, count)
        if box.shape[axis + 1] != count or any(b - a != 1 for a, b in itertools.pairwise(voxels.tolist())):
            box = box.index_select(axis + 1, torch.from_numpy(voxels).to(box.device))
    axes = [axis for axis, flipped in enumerate(parameters.flips, start=1) if flipped]
    return box.flip(axes) if axes else box.clone(memory_format=torch.contiguous_format)
