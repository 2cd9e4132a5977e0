"""Pooling into a few bins, whatever the size: of fixed length before a classifier, or as context beside features.

``SpatialPyramidPooling``: He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, ECCV 2014 (arXiv
1406.4729). ``PyramidPooling``: the module of Zhao et al., PSPNet, CVPR 2017 (arXiv 1612.01105).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.any_size import resize
from pipeline.networks.blocks import activation_layer, convolution, norm_layer, whole_numbers


class SpatialPyramidPooling(nn.Module):
    """The maximum in each bin of each grid of a pyramid: (B, C, *S) of any size -> (B, C * sum(bins ** dims)).

    Bin i of b along an axis of n voxels reaches from floor(i n / b) up to ceil((i + 1) n / b), so that all voxels are
    in one, and a bin repeats voxels where there are fewer than bins.

    Args:
        bins: per axis, of each grid; by default the paper's 6x6, 3x3, 2x2 and 1x1: 50 numbers per map in 2D.

    >>> spp = SpatialPyramidPooling()
    >>> [tuple(spp(torch.zeros(1, 256, *size)).shape) for size in ((13, 13), (10, 7), (1, 40))]
    [(1, 12800), (1, 12800), (1, 12800)]
    """

    def __init__(self, bins: Sequence[int] = (6, 3, 2, 1)) -> None:
        super().__init__()
        self.bins = check_bins(bins)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for b in self.bins:
            if x.dim() == 4:
                parts.append(F.adaptive_max_pool2d(x, [b, b]).flatten(1))
            else:
                parts.append(F.adaptive_max_pool3d(x, [b, b, b]).flatten(1))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        return f"bins={self.bins}"


class PyramidPooling(nn.Module):
    """Features and, beside them, what they are on average in each bin of each grid: (B, C, *S) -> (B, C + n C', *S).

    For each of the n grids: averages, a 1x1 convolution to C' = out_channels maps, interpolation back to S.

    Args:
        bins: per axis, of each grid.
        norm: after each convolution, ``"batch"`` alone: a few bins have no statistics of their own, so that in its
            place a bias stands for every other norm.

    Attributes:
        channels: C + n C'.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.bins = check_bins(bins)
        self.channels = in_channels + len(self.bins) * out_channels
        self.grids = nn.ModuleList(
            pooled_projection(spatial_dims, in_channels, out_channels, norm, activation) for _ in self.bins
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x]
        for i, project in enumerate(self.grids):
            parts.append(resize(project(averages(x, self.bins[i])), list(x.shape[2:])))
        return torch.cat(parts, dim=1)


def check_bins(bins: Sequence[int]) -> list[int]:
    """``bins`` as a list.

    Raises:
        ConfigError: none, or none along an axis.
    """
    numbers = whole_numbers("bins", bins)
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"bins {numbers}", expected="one number above 0 or more: bins per axis of each grid")
    return numbers


def pooled_projection(
    spatial_dims: int, in_channels: int, out_channels: int, norm: str, activation: str
) -> nn.Sequential:
    """A 1x1 convolution of pooled features with batch norm, or without a norm and with a bias, and an activation."""
    one = (1,) * spatial_dims
    batch = norm == "batch"
    return nn.Sequential(
        convolution(spatial_dims, in_channels, out_channels, one, bias=not batch),
        norm_layer("batch" if batch else "none", spatial_dims, out_channels),
        activation_layer(activation),
    )


def averages(x: torch.Tensor, bins: int) -> torch.Tensor:
    """The mean of each of ``bins`` bins per axis (those of :class:`SpatialPyramidPooling`): (B, C, *S) -> (B, C, b...).

    A mean over a box is one of means along its axes, so each axis is a matrix: what every exporter knows.

    >>> averages(torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 3, 5), 2)[0, 0]
    tensor([[1., 3.],
            [1., 3.]])
    """
    if bins == 1:
        for axis in range(2, x.dim()):
            x = x.mean(axis, keepdim=True)
        return x
    for axis in range(2, x.dim()):
        means = bin_means(x.shape[axis], bins, x)
        x = torch.matmul(x.transpose(axis, -1), means.mT).transpose(axis, -1)
    return x


def bin_means(n: int, bins: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix (bins, n) that averages n voxels in a row.

    >>> bin_means(3, 2, torch.zeros(1))
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    """
    i, at = torch.arange(bins, device=like.device)[:, None], torch.arange(n, device=like.device)
    # Whole numbers: floor(i n / bins) <= at < ceil((i + 1) n / bins).
    inside = ((at + 1) * bins > i * n) & (at * bins < (i + 1) * n)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)
