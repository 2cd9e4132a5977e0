"""U2-Net: a U-Net whose every block is a small U-Net, so that each sees far without losing resolution.

Qin et al., U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection, Pattern Recognition 2020 (arXiv
2005.09007), figures 2 and 5. The block of level i goes down to the grid of the deepest level, whatever i is; the two
deepest levels spread their kernels instead (RSU-4F)::

    En_1: RSU-7 --------------------------------- De_1: RSU-7 -- S_side^1 -+
      En_2: RSU-6 ------------------------------ De_2: RSU-6 -- S_side^2 --+
        En_3: RSU-5 --------------------------- De_3: RSU-5 -- S_side^3 ---+-- 1x1: S_fuse
          En_4: RSU-4 ------------------------ De_4: RSU-4 -- S_side^4 ----+
            En_5: RSU-4F -------------------- De_5: RSU-4F -- S_side^5 ----+
              En_6: RSU-4F --------------------------------- S_side^6 -----+
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.any_size import check_any_size, pool_rounding_up, resize
from pipeline.networks.atrous_encoder import convolve
from pipeline.networks.blocks import (
    LEAKY_SLOPE,
    activation_layer,
    convolution,
    initialise_he,
    norm_layer,
    norms_take_one_voxel,
    whole_numbers,
)
from pipeline.networks.levels import Levels, plan_levels


class U2Net(nn.Module):
    """U2-Net in 2D or 3D; :meth:`small` is the paper's U2-Net-dagger.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included; 1 for a single sigmoid channel.
        channels: feature maps that each encoder level gives; a decoder level gives those of the level above it.
        kernel_sizes: odd kernel on each level's grid, ``3`` or ``[3, 3, 1]``; 3 by default.
        strides: stride into each level, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from level 1 on by default.
        inner_channels: feature maps within the block of each encoder level, one number or one per level; by default
            half of ``channels`` on the first level and the two deepest, a quarter between.
        decoder_inner_channels: the same of the decoder levels; by default as the encoder's, on the first level half of
            it.
        norm: ``"batch"``, ``"instance"``, ``"group"`` or ``"none"``.
        deep_supervision: in training mode return the side outputs too.
        activation: ``"relu"`` or ``"leaky_relu"``.

    Shape:
        - Input: (B, in_channels, *S), of any size.
        - Output: (B, out_channels, *S) logits: S_fuse. In training mode with ``deep_supervision``: a list of S_fuse and
          the side outputs of the levels 1 to N, all of the input's size. In eval mode and under TorchScript always one
          tensor.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level, rounded up.

    The paper's sizes are those of the stored weights, 176.3 MB and 4.7 MB (table 1), which have a bias in each
    convolution. A norm takes any such bias away again, so there is none here. The paper weighs all outputs alike
    (``pipeline.losses.DeepSupervision`` does so at equal sizes).

    Raises:
        ConfigError: contradictory arguments; in ``forward`` one voxel at the deepest level, where a norm needs more.

    >>> network = U2Net(3, 1, 2, channels=(8, 8, 16), strides=[1, 2, [2, 2, 1]])
    >>> len(network(torch.zeros(2, 1, 24, 17, 9))), network.total_stride
    (4, (4, 4, 2))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256, 512, 512, 512),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        inner_channels: int | Sequence[int] | None = None,
        decoder_inner_channels: int | Sequence[int] | None = None,
        norm: str = "batch",
        deep_supervision: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        levels = plan_levels(spatial_dims, None, channels, kernel_sizes, strides)
        maps, depth = levels.channels, levels.depth
        halves = [max(m // (2 if i == 0 or i >= depth - 1 else 4), 1) for i, m in enumerate(maps)]
        inner = feature_maps("inner_channels", inner_channels, halves)
        decoder_inner = feature_maps(
            "decoder_inner_channels", decoder_inner_channels, [max(inner[0] // 2, 1), *inner[1:depth]]
        )
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.total_stride = levels.total_stride
        self.deep_supervision = deep_supervision

        self.encoder = nn.ModuleList()
        for i in range(depth + 1):
            pool = pool_rounding_up(spatial_dims, levels.strides[i])
            block = make_block(levels, i, maps[i - 1] if i else in_channels, inner[i], maps[i], norm, activation)
            self.encoder.append(nn.Sequential(pool, block))
        # From level N - 1 up to full resolution, the order in which they run.
        decoded = [maps[max(i - 1, 0)] for i in range(depth)] + [maps[-1]]
        self.decoder = nn.ModuleList(
            make_block(levels, i, decoded[i + 1] + maps[i], decoder_inner[i], decoded[i], norm, activation)
            for i in reversed(range(depth))
        )
        # Full resolution first, as the logits are returned.
        self.sides = nn.ModuleList(
            convolution(spatial_dims, into, out_channels, kernel, bias=True)
            for into, kernel in zip(decoded, levels.kernel_sizes, strict=True)
        )
        self.fuse = convolution(spatial_dims, len(maps) * out_channels, out_channels, (1,) * spatial_dims, bias=True)
        # Every block has layers on the deepest grid.
        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel([self.encoder, self.decoder])
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    @staticmethod
    def small(spatial_dims: int, in_channels: int, out_channels: int) -> U2Net:
        """The small variant: 64 feature maps between the blocks on all six levels and 16 within.

        >>> sum(p.numel() for p in U2Net.small(2, 3, 1).parameters()) < 1.14e6
        True
        """
        return U2Net(spatial_dims, in_channels, out_channels, [64] * 6, inner_channels=16, decoder_inner_channels=16)

    def forward(self, x: torch.Tensor):  # no return type: TorchScript infers Tensor, eager mode may return a list
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_any_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)
        size = list(x.shape[2:])

        # features[i] is En_{i+1}, until the decoder, on its way up, puts De_{i+1} in its place.
        features: list[torch.Tensor] = []
        for encode in self.encoder:
            x = encode(x)
            features.append(x)
        i = len(features) - 1
        for decode in self.decoder:
            i -= 1
            below = resize(features[i + 1], list(features[i].shape[2:]))
            features[i] = decode(torch.cat([below, features[i]], dim=1))

        sides: list[torch.Tensor] = []
        for k, side in enumerate(self.sides):
            sides.append(resize(side(features[k]), size))
        fused = self.fuse(torch.cat(sides, dim=1))
        if not torch.jit.is_scripting() and self.training and self.deep_supervision:
            return [fused, *sides]
        return fused


def feature_maps(name: str, given: int | Sequence[int] | None, default: Sequence[int]) -> list[int]:
    """One number per level, from one for all or one for each.

    Raises:
        ConfigError: not as many as levels, or a level without any.
    """
    maps = (
        list(default)
        if given is None
        else [given] * len(default)
        if isinstance(given, int)
        else whole_numbers(name, given)
    )
    if len(maps) != len(default) or min(maps) < 1:
        raise ConfigError(f"{name} {given}", expected=f"a number above 0, or {len(default)} of them, one per level")
    return maps


def make_block(
    levels: Levels, level: int, in_channels: int, inner: int, out_channels: int, norm: str, activation: str
) -> RSU:
    """The block of a level: down to the deepest grid by pooling, or dilated on the two deepest levels."""
    kernels, strides = levels.kernel_sizes[level:], levels.strides[level:]
    spatial_dims = len(kernels[0])
    one = (1,) * spatial_dims
    if level >= levels.depth - 1:
        rates = (1, 2, 4, 8)
        return RSU(
            [kernels[0]] * 4,
            [one] * 4,
            [(r,) * spatial_dims for r in rates],
            in_channels,
            inner,
            out_channels,
            norm,
            activation,
        )
    # One more layer on the deepest grid, its kernel spread by 2.
    kernels, strides = (*kernels, kernels[-1]), (one, *strides[1:], one)
    dilations = [one] * (len(kernels) - 1) + [(2,) * spatial_dims]
    return RSU(kernels, strides, dilations, in_channels, inner, out_channels, norm, activation)


class RSU(nn.Module):
    """A residual U-block: F_1(x) + U(F_1(x)), (B, in_channels, *S) -> (B, out_channels, *S).

    F_1 is a convolution to ``out_channels``, U a U-Net of ``inner`` feature maps, one layer per entry of the lists:
    its kernel, the stride that leads to it, its dilation; the decoder's layers have the same.
    """

    def __init__(
        self,
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        dilations: Sequence[Sequence[int]],
        in_channels: int,
        inner: int,
        out_channels: int,
        norm: str,
        activation: str,
    ) -> None:
        super().__init__()
        spatial_dims, last = len(kernel_sizes[0]), len(kernel_sizes) - 1

        def layer(into: int, out: int, i: int) -> nn.Sequential:
            return nn.Sequential(
                convolve(spatial_dims, into, out, kernel_sizes[i], (1,) * spatial_dims, dilations[i], norm == "none"),
                norm_layer(norm, spatial_dims, out),
                activation_layer(activation),
            )

        one = (1,) * spatial_dims
        self.first = nn.Sequential(
            convolve(spatial_dims, in_channels, out_channels, kernel_sizes[0], one, one, norm == "none"),
            norm_layer(norm, spatial_dims, out_channels),
            activation_layer(activation),
        )
        self.down = nn.ModuleList(
            nn.Sequential(pool_rounding_up(spatial_dims, strides[i]), layer(inner if i else out_channels, inner, i))
            for i in range(last + 1)
        )
        self.up = nn.ModuleList(layer(2 * inner, inner if i else out_channels, i) for i in reversed(range(last)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        x = first
        skips: list[torch.Tensor] = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = skips.pop()
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([resize(x, list(skip.shape[2:])), skip], dim=1))
        return x + first
