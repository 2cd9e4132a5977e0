"""The levels of a U-shaped network: how many, how wide, how each is sampled; checked once, for every architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.networks.blocks import convolutions_per_level, per_level, whole_numbers

WIDEST = {2: 512, 3: 320}
"""Where doubling the channels from level to level ends, by ``spatial_dims`` (nnU-Net's limits)."""


@dataclass(frozen=True)
class Levels:
    """Level 0 has full resolution. One entry per level; kernels and strides hold one number per spatial axis."""

    channels: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    convolutions: tuple[int, ...]

    @property
    def depth(self) -> int:
        """How often the network goes down: one less than there are levels."""
        return len(self.channels) - 1

    @property
    def total_stride(self) -> tuple[int, ...]:
        """By how much each axis is smaller at the deepest level."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))

    @property
    def coarsest(self) -> tuple[int, ...]:
        """The levels on the deepest level's grid: itself, and those above it that only strides of 1 lead down from."""
        return tuple(i for i in range(self.depth + 1) if all(s == 1 for step in self.strides[i + 1 :] for s in step))


def plan_levels(
    spatial_dims: int,
    depth: int | None = None,
    channels: Sequence[int] | None = None,
    kernel_sizes: Sequence[int | Sequence[int]] | None = None,
    strides: Sequence[int | Sequence[int]] | None = None,
    convolutions_per_stage: int | Sequence[int] = 2,
    *,
    default_depth: int = 3,
    first_channels: int = 32,
) -> Levels:
    """What the arguments of a network say, completed.

    Args:
        spatial_dims: 2 or 3.
        depth: how often the network goes down; by default as ``channels`` say, or ``default_depth``.
        channels: feature maps per level; by default ``first_channels``, doubled from level to level up to `WIDEST`.
        kernel_sizes: odd kernel of each level, ``3`` or ``[3, 3, 1]``; 3 by default.
        strides: stride into each level, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from level 1 on by default.
        convolutions_per_stage: on every level, or one number per level: most of the work is done on the first.

    Raises:
        ConfigError: they contradict each other, or a network can't be built so.

    >>> plan_levels(3, depth=4).channels
    (32, 64, 128, 256, 320)
    >>> plan_levels(3, channels=(8, 16, 32), strides=[1, [2, 2, 1], 2]).total_stride
    (4, 4, 2)
    >>> plan_levels(2, channels=(8, 16, 32), strides=[1, 2, 1]).coarsest
    (1, 2)
    """
    if spatial_dims not in (2, 3):
        raise ConfigError(f"spatial_dims {spatial_dims}", expected="2 or 3")
    channels = None if channels is None else whole_numbers("channels", channels)
    if channels is not None and depth is not None and len(channels) != depth + 1:
        raise ConfigError(
            f"depth {depth} and channels {list(channels)}",
            expected=f"channels for {depth + 1} levels, one more than the depth",
            fix="give one of the two",
        )
    if channels is None:
        deepest = default_depth if depth is None else depth
        channels = [min(first_channels * 2**i, max(first_channels, WIDEST[spatial_dims])) for i in range(deepest + 1)]
    levels = len(channels)
    if levels < 2 or min(channels) < 1:
        what = f"channels {list(channels)}" if depth is None else f"depth {depth}"
        raise ConfigError(what, expected="two levels or more (depth 1), each with one channel or more")
    kernels = per_level("kernel_sizes", kernel_sizes, [3] * levels, spatial_dims)
    steps = per_level("strides", strides, [1] + [2] * (levels - 1), spatial_dims)
    if any(k % 2 == 0 for kernel in kernels for k in kernel):
        raise ConfigError(f"kernel_sizes {kernels}", expected="odd numbers, so that padding keeps the size")
    if any(s != 1 for s in steps[0]):
        raise ConfigError(f"strides {steps}", expected="1 into the first level, so that logits have the input's size")
    convolutions = convolutions_per_level(convolutions_per_stage, levels)
    return Levels(tuple(channels), tuple(kernels), tuple(steps), convolutions)
