"""A ResNet of bottleneck blocks whose last levels keep their resolution: strides turned into dilation.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385); the atrous levels are those of
Chen et al., DeepLab v3, 2017 (arXiv 1706.05587), section 3.1: where a level would go down by 2, it stays, and from
there on every kernel is spread by 2. What it computes at the voxels that the stride would have kept is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.blocks import activation_layer, norm_layer, per_level, require_maps, whole_numbers
from pipeline.networks.convolution3d import Convolution3d


class AtrousEncoder(nn.Module):
    """A list of feature maps, one per level, (B, channels[i], *S_i), from (B, in_channels, *S) of any size S.

    Level 0 is one convolution, level 1 begins with max pooling, the levels below with a strided block.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        channels: feature maps per level, multiples of 4 from level 1 on: a block's inner convolution has a quarter.
        kernel_sizes: odd kernel of each level; by default 7 on the first and 3.
        strides: stride into each level, the first included; 2 by default.
        blocks_per_stage: of each level but the first, one number or one per level; ResNet-101 has (3, 4, 23, 3).
        atrous_levels: how many of the last levels keep their resolution.
        dilations: factor for each block of the last level, repeated as needed: the multi-grid of DeepLab v3 is
            (1, 2, 4).
        norm, activation: as in :class:`~pipeline.networks.blocks.ConvNormAct`.

    Attributes:
        channels: of each level.
        strides: by how much each axis is smaller on each level, rounded up.
        kept_by_more_than_one: by how much finer the last grid is, per axis, than it would be with one atrous level.

    Raises:
        ConfigError: contradictory arguments.

    >>> encoder = AtrousEncoder(2, 1, channels=(8, 16, 16, 16), blocks_per_stage=1, atrous_levels=1)
    >>> [tuple(x.shape) for x in encoder(torch.zeros(1, 1, 33, 64))], encoder.strides[-1]
    ([(1, 8, 17, 32), (1, 16, 9, 16), (1, 16, 5, 8), (1, 16, 5, 8)], (8, 8))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int] = (64, 256, 512, 1024, 2048),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        blocks_per_stage: int | Sequence[int] = (3, 4, 23, 3),
        atrous_levels: int = 1,
        dilations: Sequence[int] = (1,),
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims {spatial_dims}", expected="2 or 3")
        channels = whole_numbers("channels", channels)
        levels = len(channels)
        if levels < 2 or min(channels) < 1 or any(c % 4 for c in channels[1:]):
            raise ConfigError(
                f"channels {list(channels)}", expected="two levels or more, multiples of 4 from the second on"
            )
        kernels = per_level("kernel_sizes", kernel_sizes, [7] + [3] * (levels - 1), spatial_dims)
        steps = per_level("strides", strides, [2] * levels, spatial_dims)
        if any(k % 2 == 0 for kernel in kernels for k in kernel):
            raise ConfigError(f"kernel_sizes {kernels}", expected="odd numbers, so that padding keeps the size")
        blocks = (
            [blocks_per_stage] * (levels - 1)
            if isinstance(blocks_per_stage, int)
            else whole_numbers("blocks_per_stage", blocks_per_stage)
        )
        if len(blocks) != levels - 1 or min(blocks) < 1:
            raise ConfigError(
                f"blocks_per_stage {blocks_per_stage}",
                expected=f"1 or more, or {levels - 1}: one per level but the first",
            )
        if atrous_levels not in range(levels - 1):
            raise ConfigError(f"atrous_levels {atrous_levels}", expected=f"0 to {levels - 2}: those below the pooling")
        if not dilations or min(dilations) < 1:
            raise ConfigError(f"dilations {list(dilations)}", expected="one number above 0 or more")

        self.channels = tuple(channels)
        one = (1,) * spatial_dims
        first = convolve(spatial_dims, in_channels, channels[0], kernels[0], steps[0], one)
        stem = nn.Sequential(first, norm_layer(norm, spatial_dims, channels[0]), activation_layer(activation))
        self.levels = nn.ModuleList([stem])
        grids, spread = [steps[0]], one
        for i in range(1, levels):
            # A block that trades its stride keeps the dilation that it comes in with, as the stride acts on its output.
            stride, entering = steps[i], spread
            layers: list[nn.Module] = []
            if i == 1 and stride != one:
                pool: Any = nn.MaxPool2d if spatial_dims == 2 else nn.MaxPool3d
                layers.append(pool(tuple(2 * s - 1 for s in stride), stride, tuple(s - 1 for s in stride)))
                grids.append(times(grids[-1], stride))
                stride = one
            elif i >= levels - atrous_levels:
                spread = times(spread, stride)
                grids.append(grids[-1])
                stride = one
            else:
                grids.append(times(grids[-1], stride))
            into = channels[i - 1]
            for block in range(blocks[i - 1]):
                dilation = entering if block == 0 else spread
                if i == levels - 1:
                    factor = dilations[block % len(dilations)]
                    dilation = times(dilation, (factor,) * spatial_dims)
                layers.append(
                    Bottleneck(
                        spatial_dims,
                        into,
                        channels[i],
                        kernels[i],
                        one if block else stride,
                        dilation,
                        norm,
                        activation,
                    )
                )
                into = channels[i]
            self.levels.append(nn.Sequential(*layers))
        self.strides = tuple(grids)
        last = steps[-1] if atrous_levels else one
        self.kept_by_more_than_one = tuple(kept // s for kept, s in zip(spread, last, strict=True))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features: list[torch.Tensor] = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features

    def deepest(self) -> list[nn.Module]:
        """The modules whose feature maps lie on the last level's grid."""
        return [level for level, grid in zip(self.levels, self.strides, strict=True) if grid == self.strides[-1]]


class Bottleneck(nn.Module):
    """act(F(x) + x), F a 1x1 convolution to a quarter of the maps, one with the kernel, and a 1x1 one back.

    (B, in_channels, *S) -> (B, out_channels, *S / stride), rounded up. The stride stands in the middle convolution;
    where size or channels change, x passes a 1x1 convolution with it and a norm.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        norm: str,
        activation: str,
    ) -> None:
        super().__init__()
        one, inner = (1,) * spatial_dims, out_channels // 4
        self.residual = nn.Sequential(
            convolve(spatial_dims, in_channels, inner, one, one, one),
            norm_layer(norm, spatial_dims, inner),
            activation_layer(activation),
            convolve(spatial_dims, inner, inner, kernel_size, stride, dilation),
            norm_layer(norm, spatial_dims, inner),
            activation_layer(activation),
            convolve(spatial_dims, inner, out_channels, one, one, one),
            norm_layer(norm, spatial_dims, out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or math.prod(stride) > 1:
            self.shortcut = nn.Sequential(
                convolve(spatial_dims, in_channels, out_channels, one, stride, one),
                norm_layer(norm, spatial_dims, out_channels),
            )
        self.act = activation_layer(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.residual(x).add_(self.shortcut(x)))


def convolve(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    bias: bool = False,
) -> nn.Module:
    """An atrous convolution, padded so that the size is divided by the stride, rounded up."""
    require_maps(in_channels, out_channels)
    kind: Any = nn.Conv2d if spatial_dims == 2 else Convolution3d
    padding = tuple(k // 2 * d for k, d in zip(kernel_size, dilation, strict=True))
    return kind(in_channels, out_channels, tuple(kernel_size), tuple(stride), padding, tuple(dilation), bias=bias)


def times(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """Axis by axis."""
    return tuple(x * y for x, y in zip(a, b, strict=True))
