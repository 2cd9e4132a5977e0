"""Where windows lie: as few as cover an image, in the order in which their results become final."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Placement:
    """The windows of one image.

    They are run through with the longest axis slowest: what lies before the window that comes next on that axis is then
    final, and need not be kept.

    Args:
        window: voxels per axis that the network sees at once.
        tile: voxels per axis that it has logits for: the window without its margins.
        starts: per axis the first voxels of the tiles, ascending from 0.
        inside: the image, within what the tiles cover together.
    """

    window: tuple[int, ...]
    tile: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    inside: Box

    def __len__(self) -> int:
        return prod(len(starts) for starts in self.starts)

    @property
    def order(self) -> tuple[int, ...]:
        """The axes, longest first."""
        covered = [starts[-1] + size for starts, size in zip(self.starts, self.tile, strict=True)]
        return tuple(sorted(range(len(covered)), key=lambda axis: -covered[axis]))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Every window by its number on each axis, in the order in which windows are run."""
        order = self.order
        for numbers in product(*(range(len(self.starts[axis])) for axis in order)):
            yield tuple(number for _, number in sorted(zip(order, numbers, strict=True)))

    def corner(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """The first voxel of a window."""
        return tuple(starts[number] for starts, number in zip(self.starts, numbers, strict=True))

    def final(self, axis: int, number: int) -> int:
        """How many voxels, from the start of a tile, no later tile on ``axis`` reaches."""
        starts = self.starts[axis]
        return starts[number + 1] - starts[number] if number + 1 < len(starts) else self.tile[axis]


def box(corner: Sequence[int], size: Sequence[int]) -> Box:
    """One slice per axis."""
    return tuple(slice(start, start + n) for start, n in zip(corner, size, strict=True))


def window_corners(size: Sequence[int], window: Sequence[int], overlap: Sequence[float]) -> list[tuple[int, ...]]:
    """The first voxel of every window, last axis fastest: as few windows as cover the image with at least ``overlap``.

    Args:
        size: of the image, voxels per axis, not below ``window``.
        window: voxels per axis.
        overlap: share of the window per axis, in [0, 1).

    >>> window_corners([10, 4], [4, 4], [0.5, 0.5])
    [(0, 0), (2, 0), (4, 0), (6, 0)]
    >>> window_corners([11], [4], [0.25])
    [(0,), (2,), (5,), (7,)]
    """
    return list(product(*window_starts(size, window, overlap)))


def window_starts(size: Sequence[int], window: Sequence[int], overlap: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """`window_corners`, per axis."""
    starts = []
    for n, w, share in zip(size, window, overlap, strict=True):
        step = max(1, int(w * (1 - share) + 1e-6))  # 10 * (1 - 0.9) is a little below 1
        steps = ceil((n - w) / step)
        starts.append(tuple(round(i * (n - w) / steps) for i in range(steps + 1)) if steps else (0,))
    return tuple(starts)


def tile_corners(
    size: Sequence[int], tile: Sequence[int], overlap: Sequence[float], stride: Sequence[int]
) -> list[tuple[int, ...]]:
    """The first voxel of every tile, last axis fastest, at multiples of ``stride``; the last ones may reach beyond the
    image.

    Args:
        size: of the image, voxels per axis.
        tile: voxels per axis that one pass labels. One below the stride can't be laid without gaps at its multiples,
            and is laid at any voxel.
        overlap: share of the tile per axis, in [0, 1).
        stride: voxels.

    >>> tile_corners([512], [388], [0.0], [16])
    [(0,), (128,)]
    >>> tile_corners([5], [8], [0.5], [4]), tile_corners([9], [4], [0.0], [16])
    ([(0,)], [(0,), (2,), (5,)])
    """
    return list(product(*tile_starts(size, tile, overlap, stride)))


def tile_starts(
    size: Sequence[int], tile: Sequence[int], overlap: Sequence[float], stride: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """`tile_corners`, per axis."""
    starts = []
    for n, t, share, multiple in zip(size, tile, overlap, stride, strict=True):
        unit = multiple if t >= multiple else 1
        step = max(1, int((t * (1 - share) + 1e-6) / unit))
        last = max(0, ceil((n - t) / unit))
        steps = ceil(last / step)
        starts.append(tuple(round(i * last / steps) * unit for i in range(steps + 1)) if steps else (0,))
    return tuple(starts)
