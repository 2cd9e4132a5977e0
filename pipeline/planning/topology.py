"""The shape of the network: how often each axis is pooled, and where a kernel reaches across it.

After nnU-Net's rules (Isensee et al., Nature Methods 2021, supplementary note 2): an axis is pooled as long as its
feature map keeps 4 voxels and its voxels are not twice as long as the finest axis's; a kernel is 1 along an axis whose
voxels are still twice as long as the finest ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SMALLEST_MAP = 4
"""Voxels that a pooled axis keeps."""
WIDEST = 320
"""Feature maps at most (nnU-Net's limit in 3D)."""

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Topology:
    """A U-Net's levels, from full resolution down; and the patch that its strides divide.

    Args:
        patch_size: voxels per axis, rounded up to the total stride.
        strides, kernel_sizes: one triple per level.
    """

    patch_size: Triple
    strides: tuple[Triple, ...]
    kernel_sizes: tuple[Triple, ...]

    @property
    def total_stride(self) -> Triple:
        x, y, z = (math.prod(axis) for axis in zip(*self.strides, strict=True))
        return x, y, z

    def channels(self, first: int) -> tuple[int, ...]:
        """Feature maps per level, ``first`` at full resolution, doubled from level to level.

        >>> topology((40, 56, 40), (1.0, 1.0, 1.0)).channels(32)
        (32, 64, 128, 256)
        """
        return tuple(min(first * 2**level, max(first, WIDEST)) for level in range(len(self.strides)))


def topology(patch_size: Sequence[int], spacing_mm: Sequence[float], never_pooled: Collection[int] = ()) -> Topology:
    """The levels for a patch.

    Args:
        patch_size: voxels per axis that are wanted; the result may have a few more.
        spacing_mm: voxel size per axis.
        never_pooled: axes that keep their resolution throughout: those of few slices.

    >>> topology((64, 80, 10), (1.0, 1.0, 5.0), never_pooled=[2]).strides
    ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
    >>> topology((64, 80, 10), (1.0, 1.0, 5.0), never_pooled=[2]).kernel_sizes
    ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    >>> topology((35, 51, 36), (1.0, 1.0, 1.0)).patch_size
    (40, 56, 40)
    """
    size, spacing = list(patch_size), list(spacing_mm)
    strides, kernels, reaches = [(1, 1, 1)], [], [1, 1, 1]
    while True:
        # Once a kernel reaches across an axis it goes on to: pooled or not, what was near stays near.
        reaches = [3 if reach == 3 or spacing[i] < 2 * min(spacing) else 1 for i, reach in enumerate(reaches)]
        if any(size[i] == 1 for i in never_pooled):
            reaches = [1 if i in never_pooled and size[i] == 1 else reach for i, reach in enumerate(reaches)]
        kernels.append((reaches[0], reaches[1], reaches[2]))
        large = [i for i in range(3) if size[i] >= 2 * SMALLEST_MAP and i not in never_pooled]
        finest = min((spacing[i] for i in large), default=0.0)
        pooled = [i for i in large if spacing[i] < 2 * finest]
        if not pooled or (len(pooled) == 1 and size[pooled[0]] < 3 * SMALLEST_MAP):
            break
        x, y, z = (2 if i in pooled else 1 for i in range(3))
        strides.append((x, y, z))
        size = [-(-n // s) for n, s in zip(size, (x, y, z), strict=True)]
        spacing = [mm * s for mm, s in zip(spacing, (x, y, z), strict=True)]
    if len(strides) == 1:  # a U-Net has a level below the first, however small the image
        pooled = [i for i in range(3) if i not in never_pooled] or [0, 1]
        strides.append(tuple(2 if i in pooled else 1 for i in range(3)))  # type: ignore[arg-type]
        kernels.append(kernels[0])
    total = [math.prod(axis) for axis in zip(*strides, strict=True)]
    x, y, z = (max(1, -(-n // t)) * t for n, t in zip(patch_size, total, strict=True))
    if (x, y, z) == tuple(total):  # one voxel at the deepest level: a norm has no statistics of it
        x, y, z = (n * 2 if t > 1 else n for n, t in zip((x, y, z), total, strict=True))
    return Topology((x, y, z), tuple(strides), tuple(kernels))


def shrinking(
    patch_size: Sequence[int], whole: Sequence[int], spacing_mm: Sequence[float], never_pooled: Collection[int] = ()
) -> list[Topology]:
    """Ever smaller patches: each time the axis that covers most of the volume loses one step of the total stride.

    Args:
        patch_size: the first one wanted.
        whole: voxels of a median case.

    Returns:
        The largest first; the last one can't be made smaller.
    """
    found = [topology(patch_size, spacing_mm, never_pooled)]
    while True:
        size, total = list(found[-1].patch_size), found[-1].total_stride
        free = [i for i in range(3) if i not in never_pooled and size[i] - total[i] >= 2 * SMALLEST_MAP]
        if not free:
            return found
        axis = max(free, key=lambda i: size[i] / whole[i])
        size[axis] -= total[axis]
        smaller = topology(size, spacing_mm, never_pooled)
        if math.prod(smaller.patch_size) >= math.prod(found[-1].patch_size):
            return found
        found.append(smaller)
