"""The U-Net as it is used today: padded convolutions, instance norm, LeakyReLU, strides that follow the voxel spacing.

Ronneberger et al., U-Net, MICCAI 2015 (arXiv 1505.04597); Cicek et al., 3D U-Net, MICCAI 2016 (arXiv 1606.06650);
the padded form with instance norm, LeakyReLU, strided convolutions and deep supervision follows Isensee et al., nnU-Net,
Nature Methods 2021 (arXiv 1904.08128).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.blocks import (
    ConvStage,
    check_input_size,
    convolution,
    initialise_he,
    per_level,
    transposed_convolution,
)


class UNet(nn.Module):
    """A padded U-Net in 2D or 3D.

    Level 0 has full resolution. Level i of the encoder has ``channels[i]`` feature maps and divides the size by
    ``strides[i]`` in its first convolution; the decoder comes back by transposed convolutions and concatenates the
    encoder's features of the same level. A 1x1 convolution per decoder level turns features into logits.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        channels: feature maps per level; as many levels as there are numbers, two or more.
        kernel_sizes: odd kernel of each level, ``3`` or ``[3, 3, 1]``; 3 by default. Thick slices want a 1 across slices
            on the levels where the in-plane spacing is still finer.
        strides: stride into each level, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from level 1 on by default.
        convolutions_per_stage: convolutions on each level of the encoder, and of the decoder.
        norm: ``"instance"`` or ``"batch"``.
        dropout: probability of dropping whole channels after each activation, in training.
        deep_supervision: in training mode return logits of every decoder level.

    Shape:
        - Input: (B, in_channels, *S), each axis a multiple of ``total_stride``.
        - Output: (B, out_channels, *S) logits. In training mode with ``deep_supervision``: a list of logits, full
          resolution first, each following one smaller by that level's stride. In eval mode and under TorchScript
          always one tensor.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level.

    Raises:
        ConfigError: contradictory arguments; in ``forward`` a size that the strides do not divide, or one voxel at the
            deepest level under instance norm. It names the nearest sizes to use.

    >>> network = UNet(spatial_dims=3, in_channels=3, out_channels=2, channels=[8, 16, 32],
    ...                kernel_sizes=[[3, 3, 1], 3, 3], strides=[1, [2, 2, 1], 2])
    >>> network.total_stride
    (4, 4, 2)
    >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 3, 16, 16, 6))]
    [(1, 2, 16, 16, 6), (1, 2, 8, 8, 6)]
    >>> network.eval()(torch.zeros(1, 3, 16, 16, 6)).shape
    torch.Size([1, 2, 16, 16, 6])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        convolutions_per_stage: int = 2,
        norm: str = "instance",
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims {spatial_dims}", expected="2 or 3")
        levels = len(channels)
        if levels < 2:
            raise ConfigError(f"channels {list(channels)}", expected="two levels or more")
        kernels = per_level("kernel_sizes", kernel_sizes, [3] * levels, spatial_dims)
        steps = per_level("strides", strides, [1] + [2] * (levels - 1), spatial_dims)
        if any(k % 2 == 0 for kernel in kernels for k in kernel):
            raise ConfigError(f"kernel_sizes {kernels}", expected="odd numbers, so that padding keeps the size")
        if any(s != 1 for s in steps[0]):
            raise ConfigError(f"strides {steps}", expected="1 into the first level, so that logits have the input's size")

        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.total_stride = tuple(math.prod(axis) for axis in zip(*steps, strict=True))
        self.deep_supervision = deep_supervision
        # One voxel at the deepest level is a constant to instance norm; batch norm has the rest of the batch.
        self.one_voxel_allowed = norm != "instance"

        def stage(into: int, out: int, level: int, stride: Sequence[int] | None) -> ConvStage:
            return ConvStage(spatial_dims, into, out, kernels[level], stride, convolutions_per_stage, norm, dropout)

        inputs = [in_channels, *channels[:-1]]
        self.encoder = nn.ModuleList(stage(inputs[i], channels[i], i, steps[i]) for i in range(levels))
        # From the deepest decoder level up to full resolution, the order in which they run.
        self.decoder = nn.ModuleList(
            DecoderLevel(
                transposed_convolution(spatial_dims, channels[i + 1], channels[i], steps[i + 1]),
                stage(2 * channels[i], channels[i], i, None),
            )
            for i in reversed(range(levels - 1))
        )
        # Full resolution first, as the logits are returned.
        supervised = range(levels - 1) if deep_supervision else range(1)
        self.heads = nn.ModuleList(
            convolution(spatial_dims, channels[i], out_channels, (1,) * spatial_dims, bias=True) for i in supervised
        )
        initialise_he(self)

    def forward(self, x: torch.Tensor):  # no return type: TorchScript infers Tensor, eager mode may return a list
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            check_input_size(x.shape[2:], self.total_stride, self.one_voxel_allowed)

        skips: list[torch.Tensor] = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        features: list[torch.Tensor] = []
        x = skips.pop()
        for decode in self.decoder:
            x = decode(x, skips.pop())
            features.append(x)

        if not torch.jit.is_scripting():
            if self.training and self.deep_supervision:
                return [head(level) for head, level in zip(self.heads, reversed(features), strict=True)]
        return self.heads[0](x)


class DecoderLevel(nn.Module):
    """Up-sample, concatenate the encoder's features, convolve: (B, C_deep, *S), (B, C, *S * stride) -> (B, C, *S * stride)."""

    def __init__(self, up: nn.Module, convolve: nn.Module) -> None:
        super().__init__()
        self.up, self.convolve = up, convolve

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.convolve(torch.cat([self.up(x), skip], dim=1))
