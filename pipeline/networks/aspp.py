"""Atrous spatial pyramid pooling: the same features through kernels of several reaches, and their mean.

Chen et al., DeepLab v3, 2017 (arXiv 1706.05587), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.any_size import resize
from pipeline.networks.atrous_encoder import convolve
from pipeline.networks.blocks import ConvNormAct, activation_layer, norm_layer
from pipeline.networks.pyramid_pooling import averages, pooled_projection


class ASPP(nn.Module):
    """A 1x1 convolution, a 3x3 one per rate, the mean over the whole map; concatenated, and a 1x1 convolution.

    (B, in_channels, *S) -> (B, out_channels, *S).

    Args:
        spatial_dims: 2 or 3.
        rates: by how many voxels of its grid each atrous kernel is spread: a number, or one per axis.
        separable: each atrous convolution as one per map, then a 1x1 one.
        norm: of the pooled mean ``"batch"`` alone, see :func:`~pipeline.networks.pyramid_pooling.pooled_projection`.
        dropout: probability of dropping whole channels of the result, in training.

    Raises:
        ConfigError: a rate below 1, or not one per axis.

    >>> ASPP(3, 8, 4, rates=[1, [4, 4, 2]])(torch.zeros(2, 8, 9, 9, 5)).shape
    torch.Size([2, 4, 9, 9, 5])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int | Sequence[int]],
        separable: bool = False,
        norm: str = "batch",
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        one, three = (1,) * spatial_dims, (3,) * spatial_dims
        per_axis = [(r,) * spatial_dims if isinstance(r, int) else tuple(r) for r in rates]
        if any(len(r) != spatial_dims or min(r) < 1 for r in per_axis):
            raise ConfigError(f"rates {list(rates)}", expected=f"each a number above 0, or {spatial_dims} of them")
        self.branches = nn.ModuleList(
            [ConvNormAct(spatial_dims, in_channels, out_channels, one, None, norm, 0.0, activation)]
        )
        for rate in per_axis:
            self.branches.append(
                nn.Sequential(
                    *atrous(spatial_dims, in_channels, out_channels, three, rate, separable),
                    norm_layer(norm, spatial_dims, out_channels),
                    activation_layer(activation),
                )
            )
        self.mean = pooled_projection(spatial_dims, in_channels, out_channels, norm, activation)
        joined = (len(per_axis) + 2) * out_channels
        self.join = ConvNormAct(spatial_dims, joined, out_channels, one, None, norm, dropout, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for branch in self.branches:
            parts.append(branch(x))
        parts.append(resize(self.mean(averages(x, 1)), list(x.shape[2:])))
        return self.join(torch.cat(parts, dim=1))


def atrous(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    rate: Sequence[int],
    separable: bool,
) -> list[nn.Module]:
    """An atrous convolution that keeps the size, whole or separated into one per map and a 1x1 one."""
    one = (1,) * spatial_dims
    if not separable:
        return [convolve(spatial_dims, in_channels, out_channels, kernel_size, one, rate)]
    kind: Any = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
    padding = tuple(k // 2 * r for k, r in zip(kernel_size, rate, strict=True))
    depthwise = kind(
        in_channels, in_channels, tuple(kernel_size), 1, padding, tuple(rate), groups=in_channels, bias=False
    )
    return [depthwise, convolve(spatial_dims, in_channels, out_channels, one, one, one)]


def rates_of_one_reach(
    rates: Sequence[int], spacing_mm: Sequence[float], strides: Sequence[int]
) -> list[tuple[int, ...]]:
    """Rates per axis that reach equally far in mm: as given along the finest axis of the grid, fewer voxels elsewhere.

    Args:
        rates: in voxels of the grid.
        spacing_mm: voxel size of the image, per axis.
        strides: how many of them a voxel of the grid is, per axis.

    >>> rates_of_one_reach((6, 12, 18), (1.0, 1.0, 5.0), (16, 16, 4))
    [(6, 6, 5), (12, 12, 10), (18, 18, 14)]
    """
    voxel_mm = [mm * stride for mm, stride in zip(spacing_mm, strides, strict=True)]
    if min(voxel_mm) <= 0:
        raise ConfigError(f"spacing_mm {list(spacing_mm)}", expected="lengths above 0, one per axis")
    return [tuple(max(1, round(rate * min(voxel_mm) / mm)) for mm in voxel_mm) for rate in rates]
