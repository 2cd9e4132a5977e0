"""UNet 3+: a U-Net in which every decoder level sees every level, finer, equal and coarser.

Huang et al., UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation, ICASSP 2020 (arXiv 2004.08790),
whose symbols this page keeps: ``X_En^i`` and ``X_De^i`` are the features of encoder and decoder at level i, 1 the
finest, N the deepest, where both are the same. With C a convolution to 64 feature maps, D max pooling and U linear
up-sampling, equation 1 for N = 5 and i = 3 reads::

    X_En^1 -- D by 4 -- C --+
    X_En^2 -- D by 2 -- C --+
    X_En^3 ------------ C --+-- concatenate to 5 x 64 = 320 -- norm, ReLU -- H: convolution, norm, ReLU -- X_De^3
    X_De^4 -- U by 2 -- C --+
    X_De^5 -- U by 4 -- C --+

The decoder is this page's `DecoderStage`; how C follows U without the cost of an up-sampled tensor,
``up_convolution.py``; the classification-guided module, `ClassificationGuide`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.networks.blocks import (
    LEAKY_SLOPE,
    ConvNormAct,
    activation_layer,
    check_input_size,
    convolution,
    initialise_he,
    norm_layer,
    norms_take_one_voxel,
)
from pipeline.networks.encoders import make_encoder
from pipeline.networks.levels import plan_levels
from pipeline.networks.up_convolution import UpConvolution


class UNet3Plus(nn.Module):
    """UNet 3+ in 2D or 3D.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included; 1 for a single sigmoid channel.
        channels: feature maps of the encoder per level; as many levels N as there are numbers.
        kernel_sizes: odd kernel of each level, ``3`` or ``[3, 3, 1]``; 3 by default.
        strides: stride into each level, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from the second on by default.
        convolutions_per_stage: of the encoder, one number or one per level; a decoder level has one after its
            concatenation.
        skip_channels: feature maps that each skip brings, N times as many after the concatenation; by default
            ``channels[0]``, as in the paper.
        norm: ``"batch"``, ``"instance"`` or ``"group"``.
        activation: ``"relu"`` or ``"leaky_relu"``.
        dropout: probability of dropping whole channels after each activation, in training.
        encoder: of what the encoder's levels are made, see ``encoders.py``.
        downsampling: how the encoder goes down a level, see ``resampling.py``.
        deep_supervision: in training mode return logits of every level, each up-sampled to full resolution.
        classification_guided: hold back classes that a second head finds nowhere in the image (`ClassificationGuide`).

    Shape:
        - Input: (B, in_channels, *S), each axis a multiple of ``total_stride``.
        - Output: (B, out_channels, *S) logits. In training mode with ``deep_supervision``: a list of N such logits, all
          of the input's size, that of X_De^1 first. In eval mode and under TorchScript always one tensor, X_De^1's.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level.

    The paper supervises all levels alike (``pipeline.losses.DeepSupervision`` does so at equal sizes). Its 26.97 M
    parameters are those of 2D and one head, with a bias in each convolution: 26,971,777 for 3 -> 1 channels. A norm
    takes any such bias away again, so there is none here: 26,965,249.

    Raises:
        ConfigError: contradictory arguments; in ``forward`` a size that the strides do not divide, or one voxel at the
            deepest level, where a norm needs more. It names the nearest sizes to use.

    >>> network = UNet3Plus(spatial_dims=3, in_channels=3, out_channels=2, channels=[4, 8, 16],
    ...                     kernel_sizes=[[3, 3, 1], 3, 3], strides=[1, [2, 2, 1], 2])
    >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 3, 16, 16, 6))]
    [(1, 2, 16, 16, 6), (1, 2, 16, 16, 6), (1, 2, 16, 16, 6)]
    >>> network.eval()(torch.zeros(1, 3, 16, 16, 6)).shape
    torch.Size([1, 2, 16, 16, 6])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        convolutions_per_stage: int | Sequence[int] = 2,
        skip_channels: int | None = None,
        norm: str = "batch",
        activation: str = "relu",
        dropout: float = 0.0,
        encoder: str = "plain",
        downsampling: str = "max_pool",
        deep_supervision: bool = True,
        classification_guided: bool = False,
    ) -> None:
        super().__init__()
        levels = plan_levels(spatial_dims, None, channels, kernel_sizes, strides, convolutions_per_stage)
        maps, kernels, steps = levels.channels, levels.kernel_sizes, levels.strides
        per_skip = maps[0] if skip_channels is None else skip_channels
        fused = len(maps) * per_skip

        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.total_stride = levels.total_stride
        self.deep_supervision = deep_supervision
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"

        self.encoder = make_encoder(
            encoder,
            spatial_dims,
            in_channels,
            maps,
            kernels,
            steps,
            levels.convolutions,
            downsampling,
            norm,
            dropout,
            activation,
        )
        # From level N - 1 up to full resolution, the order in which they run.
        self.decoder = nn.ModuleList()
        for i in reversed(range(levels.depth)):
            skips = nn.ModuleList()
            for k in range(len(maps)):
                fine, coarse = min(i, k), max(i, k)
                factor = [math.prod(s[axis] for s in steps[fine + 1 : coarse + 1]) for axis in range(spatial_dims)]
                into = maps[k] if k <= i or k == levels.depth else fused
                if k > i:
                    skips.append(UpConvolution(spatial_dims, into, per_skip, kernels[i], factor))
                else:
                    skips.append(PooledConvolution(spatial_dims, into, per_skip, kernels[i], factor))
            self.decoder.append(DecoderStage(spatial_dims, skips, fused, kernels[i], norm, dropout, activation))
        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(
            stage
            for stages in (self.encoder, self.decoder[::-1])
            for i, stage in enumerate(stages)
            if i in levels.coarsest
        )
        # Full resolution first, as the logits are returned.
        supervised = [fused] * levels.depth + [maps[-1]] if deep_supervision else [fused]
        self.heads = nn.ModuleList(
            convolution(spatial_dims, into, out_channels, kernel, bias=True)
            for into, kernel in zip(supervised, kernels, strict=False)
        )
        self.guide = ClassificationGuide(maps[-1], out_channels) if classification_guided else None
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    def forward(self, x: torch.Tensor):  # no return type: TorchScript infers Tensor, eager mode may return a list
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_input_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)
        size = x.shape[2:]

        # features[k] is X_En^{k+1}, until the decoder, on its way up, puts X_De^{k+1} in its place.
        features: list[torch.Tensor] = []
        for encode in self.encoder:
            x = encode(x)
            features.append(x)
        deepest = x
        i = len(features) - 1
        for decode in self.decoder:
            i -= 1
            features[i] = decode(features)

        logits: list[torch.Tensor] = []
        for k, head in enumerate(self.heads):
            if k == 0 or (self.training and not torch.jit.is_scripting()):
                level = head(features[k])
                if k > 0:
                    level = F.interpolate(level, size, mode=self.mode, align_corners=False)
                if self.guide is not None:
                    level = level + self.guide(deepest)
                logits.append(level)
        if not torch.jit.is_scripting() and self.training and self.deep_supervision:
            return logits
        return logits[0]


class DecoderStage(nn.Module):
    """X_De^i from the features of all levels (equation 1): a list of N tensors -> (B, N * skip_channels, *S_i).

    Norm and activation work channel by channel, so they come after the concatenation, once, instead of once per skip:
    the same result with a third less to keep for the backward pass.
    """

    def __init__(
        self,
        spatial_dims: int,
        skips: nn.ModuleList,
        channels: int,
        kernel_size: Sequence[int],
        norm: str,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        self.skips = skips
        self.norm = norm_layer(norm, spatial_dims, channels)
        self.act = activation_layer(activation)
        self.fuse = ConvNormAct(spatial_dims, channels, channels, kernel_size, None, norm, dropout, activation)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for k, skip in enumerate(self.skips):
            parts.append(skip(features[k]))
        return self.fuse(self.act(self.norm(torch.cat(parts, dim=1))))


class PooledConvolution(nn.Module):
    """C(D(x)), or C(x) where the factor is 1: (B, in_channels, *S) -> (B, out_channels, *S / factor)."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, kernel_size: Sequence[int], factor: Sequence[int]
    ) -> None:
        super().__init__()
        pool = nn.MaxPool2d if spatial_dims == 2 else nn.MaxPool3d
        self.pool = nn.Identity() if math.prod(factor) == 1 else pool(tuple(factor), tuple(factor))
        self.conv = convolution(spatial_dims, in_channels, out_channels, kernel_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.pool(x))


class ClassificationGuide(nn.Module):
    """The classification-guided module (section 2.3): deepest features (B, C, *S) -> what logits gain, (B, K, 1...).

    Dropout, a 1x1 convolution and a global maximum give, for each class but the background, the probability s that
    the image holds any of it; the odds of the class are multiplied by s at every voxel (log s is added to its logits).

    Where this departs from the paper: there s is trained by a cross-entropy of its own against "an organ is in the
    image", rounded to 0 or 1, and multiplied with the output. A rounded s has no gradient. Here s is never rounded and
    learns from the segmentation loss itself, per class. A patch or a sliding window is an image of its own: s speaks of
    what is in the window, so windows should be large enough to tell.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.presence = nn.Linear(channels, max(out_channels - 1, 1))
        self.background = 1 if out_channels > 1 else 0

    def forward(self, deepest: torch.Tensor) -> torch.Tensor:
        scores = self.presence(self.dropout(deepest.flatten(2)).mT).amax(1)  # (B, classes without background)
        gate = F.pad(F.logsigmoid(scores), [self.background, 0])
        for _ in range(deepest.dim() - 2):
            gate = gate.unsqueeze(-1)
        return gate
