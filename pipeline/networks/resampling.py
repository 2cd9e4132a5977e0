"""Down-sampling and up-sampling between the levels of a network, one class or function per way, in 2D and 3D.

Down: ``"max_pool"`` (Ronneberger 2015), ``"strided_convolution"`` (Springenberg et al., 2015, arXiv 1412.6806),
``"space_to_depth"`` (Sunkara & Luo, 2022, arXiv 2208.03641). Up: ``"transposed_convolution"`` (Ronneberger 2015),
``"nearest"`` and ``"linear"`` interpolation with a convolution (Odena et al., 2016, doi 10.23915/distill.00003),
``"pixel_shuffle"`` (Shi et al., 2016, arXiv 1609.05158; initialised as in Aitken et al., 2017, arXiv 1707.02937).

A *factor* is one whole number per spatial axis, so thick slices may keep theirs: ``(2, 2, 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.blocks import convolution, transposed_convolution

DOWNSAMPLING = ("max_pool", "strided_convolution", "space_to_depth")
UPSAMPLING = ("transposed_convolution", "nearest", "linear", "pixel_shuffle")


def space_to_depth(x: torch.Tensor, factor: list[int]) -> torch.Tensor:
    """Every block of voxels becomes channels: (B, C, *S) -> (B, C * prod(factor), *S / factor). Nothing is lost.

    Channel ``c * prod(factor) + k`` holds voxel k of each block, the last axis running fastest: in 2D with equal
    factors this is ``torch.nn.functional.pixel_unshuffle``.

    >>> space_to_depth(torch.arange(8.0).view(1, 1, 2, 4), [2, 2]).tolist()
    [[[[0.0, 2.0]], [[1.0, 3.0]], [[4.0, 6.0]], [[5.0, 7.0]]]]
    """
    # (B, C, H/f, f, W/g, g) -> (B, C, f, g, H/f, W/g), then f and g join the channels.
    blocks, order, size = [x.shape[0], x.shape[1]], [0, 1], [x.shape[0], x.shape[1]]
    for axis, f in enumerate(factor):
        coarse = x.shape[2 + axis] // f
        blocks += [coarse, f]
        order.append(3 + 2 * axis)
        size[1] *= f
        size.append(coarse)
    order += [2 + 2 * axis for axis in range(len(factor))]
    return x.reshape(blocks).permute(order).reshape(size)


def pixel_shuffle(x: torch.Tensor, factor: list[int]) -> torch.Tensor:
    """The inverse of :func:`space_to_depth`: (B, C * prod(factor), *S) -> (B, C, *S * factor).

    >>> x = torch.randn(2, 3, 4, 6, 2)
    >>> torch.equal(pixel_shuffle(space_to_depth(x, [2, 3, 1]), [2, 3, 1]), x)
    True
    """
    channels = x.shape[1]
    for f in factor:
        channels = channels // f
    # (B, C, f, g, H, W) -> (B, C, H, f, W, g), then H and f, W and g become one axis each.
    blocks, order, size = [x.shape[0], channels], [0, 1], [x.shape[0], channels]
    blocks += factor
    for axis, f in enumerate(factor):
        blocks.append(x.shape[2 + axis])
        order += [2 + len(factor) + axis, 2 + axis]
        size.append(x.shape[2 + axis] * f)
    return x.reshape(blocks).permute(order).reshape(size)


class SpaceToDepth(nn.Module):
    """:func:`space_to_depth` as a module."""

    def __init__(self, factor: Sequence[int]) -> None:
        super().__init__()
        self.factor = list(factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return space_to_depth(x, self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class Interpolate(nn.Module):
    """A 1x1 convolution, then interpolation: (B, in_channels, *S) -> (B, out_channels, *S * factor).

    The convolution acts on channels, the interpolation on space, so their order makes no difference to the result
    but a factor of ``prod(factor)`` to the work. Voxel centres are aligned, not corners.

    Args:
        mode: ``"nearest"`` or ``"linear"`` (bilinear, trilinear).
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, factor: Sequence[int], mode: str
    ) -> None:
        super().__init__()
        self.conv = convolution(spatial_dims, in_channels, out_channels, (1,) * spatial_dims)
        self.factor = [float(f) for f in factor]
        self.linear = mode == "linear"
        self.mode = ("bilinear" if spatial_dims == 2 else "trilinear") if self.linear else "nearest"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        align = False if self.linear else None
        return F.interpolate(self.conv(x), scale_factor=self.factor, mode=self.mode, align_corners=align)

    def extra_repr(self) -> str:
        return f"factor={[int(f) for f in self.factor]}, mode={self.mode!r}"


class PixelShuffle(nn.Module):
    """A convolution to ``out_channels * prod(factor)``, then :func:`pixel_shuffle`: (B, in_channels, *S) ->
    (B, out_channels, *S * factor).

    The kernels behind the voxels of one block start out equal (`initialise_he` sees ``sub_pixels``): at first the
    result is that of nearest interpolation. Started independently, they would print a checkerboard.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        factor: Sequence[int],
        kernel_size: Sequence[int],
    ) -> None:
        super().__init__()
        self.factor = list(factor)
        self.conv = convolution(spatial_dims, in_channels, out_channels * math.prod(factor), kernel_size)
        self.conv.sub_pixels = math.prod(factor)  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pixel_shuffle(self.conv(x), self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


def downsample(
    kind: str, spatial_dims: int, channels: int, factor: Sequence[int]
) -> tuple[nn.Module, int, tuple[int, ...]]:
    """What stands before the convolutions of a level, and what is left for them to do.

    Args:
        kind: of ``DOWNSAMPLING``.
        channels: of the level above.
        factor: by which each axis shrinks.

    Returns:
        The module; the channels that it gives; the stride that the level's first convolution must carry.

    Raises:
        ConfigError: another kind.
    """
    if kind not in DOWNSAMPLING:
        raise ConfigError(f"downsampling {kind!r}", expected=f"one of {', '.join(DOWNSAMPLING)}")
    one = (1,) * spatial_dims
    if kind == "strided_convolution" or tuple(factor) == one:
        return nn.Identity(), channels, tuple(factor)
    if kind == "space_to_depth":
        return SpaceToDepth(factor), channels * math.prod(factor), one
    pool = nn.MaxPool2d if spatial_dims == 2 else nn.MaxPool3d
    return pool(tuple(factor), tuple(factor)), channels, one


def upsample(
    kind: str,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    factor: Sequence[int],
    kernel_size: Sequence[int] | None = None,
) -> nn.Module:
    """(B, in_channels, *S) -> (B, out_channels, *S * factor).

    Args:
        kind: of ``UPSAMPLING``.
        kernel_size: of the convolution before a pixel shuffle; 3 by default.

    Raises:
        ConfigError: another kind.
    """
    if kind == "transposed_convolution":
        return transposed_convolution(spatial_dims, in_channels, out_channels, factor)
    if kind in ("nearest", "linear"):
        return Interpolate(spatial_dims, in_channels, out_channels, factor, kind)
    if kind == "pixel_shuffle":
        return PixelShuffle(spatial_dims, in_channels, out_channels, factor, kernel_size or (3,) * spatial_dims)
    raise ConfigError(f"upsampling {kind!r}", expected=f"one of {', '.join(UPSAMPLING)}")
