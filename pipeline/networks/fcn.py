"""FCN: a classification network made fully convolutional, its coarse scores up-sampled and joined with finer ones.

Long, Shelhamer, Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015 (arXiv 1411.4038); the
layers, paddings and crops are those of the FCN-VGG16 that the authors released. Level l has stride 2^l::

    image -- convolutions -- pool1 -- ... -- pool3 -- ... -- pool4 -- ... -- pool5 -- fc6 (7x7) -- fc7 (1x1) -- score
                                               |               |                                                  |
                                             score           score -----------(+)------------------------- up by 2
                                               |                               |
                                               +------------(+)------------ up by 2
                                                             |
                              up by 8 (FCN-8s: ``skips=2``) -+         FCN-16s: ``skips=1``        FCN-32s: ``skips=0``
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.any_size import check_any_size, pool_rounding_up
from pipeline.networks.bilinear_deconvolution import FixedDeconvolution, initialise_bilinear, learned_deconvolution
from pipeline.networks.blocks import (
    LEAKY_SLOPE,
    ConvNormAct,
    ConvStage,
    convolution,
    initialise_he,
    norms_take_one_voxel,
)
from pipeline.networks.levels import plan_levels

PUBLISHED_PADDING = 100


class FCN(nn.Module):
    """FCN-32s, -16s or -8s in 2D or 3D, on the convolutions of VGG-16; weights start from He's distribution.

    The last level holds what were the fully connected layers: one convolution with the level's kernel, then 1x1
    convolutions, with dropout. A 1x1 convolution scores its features, and those of each skip after their pooling.
    Scores are up-sampled by a learned transposed convolution that starts as interpolation, cropped so that voxel
    centres meet, and added; the last up-sampling is interpolation and stays so.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        channels: feature maps per level, the last one's are those of fc6 and fc7.
        kernel_sizes: odd kernel of each level, by default 3, and 7 on the last.
        strides: of the pooling into each level, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from level 1 on by
            default.
        convolutions_per_stage: one number, or one per level; by default VGG-16's: two on the first two levels and on
            the last, three between.
        skips: how many finer levels add their scores: 0 makes FCN-32s, 1 FCN-16s, 2 FCN-8s, if there are six levels.
        padding: ``"same"``: every convolution keeps the size. ``"published"``: the first convolution pads the image by
            100 on each side, and fc6 not at all, so that any image is large enough.
        norm: after each convolution; ``"none"`` as published, ``"instance"``, ``"batch"`` or ``"group"``.
        dropout: probability of dropping whole channels after fc6 and fc7, in training.
        activation: ``"relu"`` or ``"leaky_relu"``.

    Shape:
        - Input: (B, in_channels, *S), of any size.
        - Output: (B, out_channels, *S) logits.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level, rounded up.

    The paper counts 134 M parameters for 21 classes (table 1), 32s, without the up-sampling: 134,346,581. It starts
    them from VGG-16 trained on ImageNet, and the scores from zero; without such weights zeros would teach nothing to
    what lies before them.

    Raises:
        ConfigError: contradictory arguments; in ``forward`` one voxel at the deepest level, where a norm needs more.

    >>> network = FCN(2, 3, 21, channels=[2, 2, 2, 2, 2, 4], padding="published")
    >>> network.uncropped(torch.zeros(1, 3, 500, 500)).shape, network(torch.zeros(1, 3, 500, 500)).shape
    (torch.Size([1, 21, 568, 568]), torch.Size([1, 21, 500, 500]))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256, 512, 512, 4096),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        convolutions_per_stage: int | Sequence[int] | None = None,
        skips: int = 2,
        padding: str = "same",
        norm: str = "none",
        dropout: float = 0.5,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if kernel_sizes is None:
            kernel_sizes = [3] * (len(channels) - 1) + [7]
        if convolutions_per_stage is None:
            convolutions_per_stage = [2 if i < 2 or i == len(channels) - 1 else 3 for i in range(len(channels))]
        levels = plan_levels(spatial_dims, None, channels, kernel_sizes, strides, convolutions_per_stage)
        maps, kernels, steps = levels.channels, levels.kernel_sizes, levels.strides
        if not 0 <= skips < levels.depth:
            raise ConfigError(
                f"skips {skips}",
                expected=f"0 to {levels.depth - 1}: below the {levels.depth} poolings of {len(maps)} levels",
            )
        if padding not in ("same", "published"):
            raise ConfigError(f"padding {padding!r}", expected="'same' or 'published'")
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.total_stride = levels.total_stride
        published = padding == "published"

        self.encoder = nn.ModuleList()
        for i in range(levels.depth):
            into = in_channels if i == 0 else maps[i - 1]
            pool = pool_rounding_up(spatial_dims, steps[i + 1])
            count = levels.convolutions[i]
            stage = ConvStage(spatial_dims, into, maps[i], kernels[i], None, count, norm, 0.0, activation)
            self.encoder.append(nn.Sequential(stage, pool))
        if published:
            first: Any = self.encoder[0][0][0].conv  # type: ignore[index]
            first.padding = (PUBLISHED_PADDING,) * spatial_dims
        self.fully_connected = FullyConnected(
            spatial_dims, maps[-2], maps[-1], kernels[-1], levels.convolutions[-1], published, norm, dropout, activation
        )
        one = (1,) * spatial_dims
        # Of the deepest level, then of the skips from there up.
        self.score = convolution(spatial_dims, maps[-1], out_channels, one, bias=True)
        self.joins = nn.ModuleList()
        # How many voxels of their level the scores begin behind its features: what an unpadded fc6 takes off.
        behind = [k // 2 if published else 0 for k in kernels[-1]]
        for i in reversed(range(levels.depth - skips, levels.depth)):
            # A pooled voxel's centre lies (f - 1) / 2 behind the first of its f; that of the kernel, (taps - 1) / 2.
            ahead = [f // 2 - f * b for f, b in zip(steps[i + 1], behind, strict=True)]
            behind = [max(-a, 0) for a in ahead]
            self.joins.append(
                Join(
                    learned_deconvolution(spatial_dims, out_channels, steps[i + 1]),
                    convolution(spatial_dims, maps[i - 1], out_channels, one, bias=True),
                    ahead,
                )
            )
        factor = [1] * spatial_dims
        for step in steps[1 : levels.depth - skips + 1]:
            factor = [f * s for f, s in zip(factor, step, strict=True)]
        self.up = FixedDeconvolution(factor)
        # `ahead` once more, at full resolution, and what the first convolution has added in front of the image.
        added = [PUBLISHED_PADDING - k // 2 if published else 0 for k in kernels[0]]
        self.crop = [f // 2 - f * b + a for f, b, a in zip(factor, behind, added, strict=True)]
        if min(self.crop) < 0:
            raise ConfigError(
                f"a deepest kernel of {kernels[-1]} with padding 'published'",
                expected=f"one that the {PUBLISHED_PADDING} voxels around the image make up for",
                fix="a smaller kernel (the paper's is 7), or padding: same",
            )
        last = [self.fully_connected, *(stage for i, stage in enumerate(self.encoder) if i in levels.coarsest)]
        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(last)
        if published:  # the padding alone makes more voxels
            self.one_voxel_allowed = self.one_voxel_alone = True
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)
        for join in self.joins:
            initialise_bilinear(join.up)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_any_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)
        scores = self.uncropped(x)
        for axis, start in enumerate(self.crop):
            scores = scores.narrow(2 + axis, start, x.shape[2 + axis])
        return scores

    def uncropped(self, x: torch.Tensor) -> torch.Tensor:
        """The up-sampled scores before they are cropped to the image: as published, 500 gives 544, 560, 568."""
        pooled: list[torch.Tensor] = []
        for encode in self.encoder:
            x = encode(x)
            pooled.append(x)
        x = self.score(self.fully_connected(pooled.pop()))
        for join in self.joins:
            x = join(x, pooled.pop())
        return self.up(x)


class FullyConnected(nn.Module):
    """fc6, fc7...: (B, in_channels, *S) -> (B, out_channels, *S), or *(S - kernel + 1) where ``unpadded``."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        count: int,
        unpadded: bool,
        norm: str,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        one = (1,) * spatial_dims
        self.layers = nn.Sequential(
            ConvNormAct(spatial_dims, in_channels, out_channels, kernel_size, None, norm, dropout, activation),
            *(
                ConvNormAct(spatial_dims, out_channels, out_channels, one, None, norm, dropout, activation)
                for _ in range(count - 1)
            ),
        )
        if unpadded:
            first: Any = self.layers[0].conv
            first.padding = (0,) * spatial_dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Join(nn.Module):
    """Scores of a coarse level, up-sampled, plus scores of a finer level's features, where both have voxels.

    (B, K, *S_coarse), (B, C, *S) -> (B, K, *min(...)). ``ahead``, per axis: how many voxels the up-sampled scores begin
    before the finer ones, negative where they begin after them.
    """

    def __init__(self, up: nn.Module, score: nn.Module, ahead: Sequence[int]) -> None:
        super().__init__()
        self.up, self.score, self.ahead = up, score, list(ahead)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        coarse, fine = self.up(coarse), self.score(fine)
        for axis, ahead in enumerate(self.ahead):
            begin, skip = max(ahead, 0), max(-ahead, 0)
            size = min(coarse.shape[2 + axis] - begin, fine.shape[2 + axis] - skip)
            coarse, fine = coarse.narrow(2 + axis, begin, size), fine.narrow(2 + axis, skip, size)
        return coarse + fine
