"""SegNet: a decoder that up-samples by where each maximum stood, and fills in the rest.

Badrinarayanan, Kendall, Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation,
IEEE TPAMI 2017 (arXiv 1511.00561), figure 2: the 13 convolutions of VGG-16, and the same mirrored. A skip carries no
features but two bits for each pooled pixel (three per voxel)::

    convolutions 64 -- pool ------------- indices ------------- unpool -- convolutions 64 -- logits
                        |                                          |
                   convolutions 128 -- pool -- indices -- unpool -- convolutions 128 -> 64
                                        |                    |
                                       ...  down to 1/32  ...
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.networks.any_size import check_any_size
from pipeline.networks.blocks import (
    LEAKY_SLOPE,
    ConvNormAct,
    ConvStage,
    convolution,
    initialise_he,
    norms_take_one_voxel,
)
from pipeline.networks.levels import plan_levels
from pipeline.networks.unpooling import PoolWithIndices, unpool


class SegNet(nn.Module):
    """SegNet in 2D or 3D.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        channels: feature maps per level; the pooling after the last level leads to a grid without convolutions.
        kernel_sizes: odd kernel of each level; 3 by default.
        strides: stride into each level, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from level 1 on by default. The
            pooling after the last level repeats that level's stride.
        convolutions_per_stage: of each level, on both sides, one number or one per level; VGG-16's by default: two on
            the first two levels, three below.
        norm: ``"batch"``, ``"instance"``, ``"group"`` or ``"none"``.
        dropout: probability of dropping whole channels after each activation, in training.
        activation: ``"relu"`` or ``"leaky_relu"``.

    Shape:
        - Input: (B, in_channels, *S), of any size.
        - Output: (B, out_channels, *S) logits.

    Attributes:
        total_stride: by how much each axis is smaller after the last pooling, rounded up.

    The paper counts 29.45 M parameters (table 5, 11 classes).

    Raises:
        ConfigError: contradictory arguments; in ``forward`` one voxel at the deepest level, where a norm needs more.

    >>> SegNet(3, 1, 2, channels=(4, 8), strides=[1, [2, 2, 1]])(torch.zeros(2, 1, 9, 8, 3)).shape
    torch.Size([2, 2, 9, 8, 3])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        convolutions_per_stage: int | Sequence[int] | None = None,
        norm: str = "batch",
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if convolutions_per_stage is None:
            convolutions_per_stage = [2 if i < 2 else 3 for i in range(len(channels))]
        levels = plan_levels(spatial_dims, None, channels, kernel_sizes, strides, convolutions_per_stage)
        maps, kernels, counts = levels.channels, levels.kernel_sizes, levels.convolutions
        steps = [*levels.strides[1:], levels.strides[-1]]
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.total_stride = tuple(n * s for n, s in zip(levels.total_stride, steps[-1], strict=True))

        rest = (norm, dropout, activation)
        self.encoder = nn.ModuleList(
            EncoderLevel(
                ConvStage(spatial_dims, maps[i - 1] if i else in_channels, maps[i], kernels[i], None, counts[i], *rest),
                PoolWithIndices(steps[i]),
            )
            for i in range(len(maps))
        )
        # From the deepest level up, the order in which they run. The last convolution of a level goes to the maps of
        # the one above it, as its counterpart came from there; the very last one gives the logits.
        self.decoder = nn.ModuleList()
        for i in reversed(range(len(maps))):
            same = counts[i] - 1
            layers: list[nn.Module] = [
                ConvNormAct(spatial_dims, maps[i], maps[i], kernels[i], None, *rest) for _ in range(same)
            ]
            if i > 0:
                layers.append(ConvNormAct(spatial_dims, maps[i], maps[i - 1], kernels[i], None, *rest))
            else:
                layers.append(convolution(spatial_dims, maps[0], out_channels, kernels[0], bias=True))
            self.decoder.append(DecoderLevel(nn.Sequential(*layers)))

        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(
            stage
            for stages in (self.encoder, self.decoder[::-1])
            for i, stage in enumerate(stages)
            if i in levels.coarsest
        )
        self.coarsest_stride = levels.total_stride
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            allowed = self.one_voxel_alone if alone else self.one_voxel_allowed
            check_any_size(x.shape[2:], self.coarsest_stride, allowed)
        indices: list[torch.Tensor] = []
        sizes: list[list[int]] = []
        for encode in self.encoder:
            sizes.append(list(x.shape[2:]))
            x, where = encode(x)
            indices.append(where)
        for decode in self.decoder:
            x = decode(x, indices.pop(), sizes.pop())
        return x


class EncoderLevel(nn.Module):
    """Convolve, pool: (B, C_above, *S) -> (B, C, *ceil(S / stride)) and the indices of the maxima."""

    def __init__(self, convolve: nn.Module, pool: PoolWithIndices) -> None:
        super().__init__()
        self.convolve, self.pool = convolve, pool

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pool(self.convolve(x))


class DecoderLevel(nn.Module):
    """Unpool, convolve: (B, C, *S_coarse), the indices, S -> (B, C_above, *S)."""

    def __init__(self, convolve: nn.Module) -> None:
        super().__init__()
        self.convolve = convolve

    def forward(self, x: torch.Tensor, indices: torch.Tensor, size: list[int]) -> torch.Tensor:
        return self.convolve(unpool(x, indices, size))
