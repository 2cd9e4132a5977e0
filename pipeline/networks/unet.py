"""The U-Net as it is used today: padded convolutions, instance norm, LeakyReLU, strides that follow the voxel spacing.

Ronneberger et al., U-Net, MICCAI 2015 (arXiv 1505.04597); Cicek et al., 3D U-Net, MICCAI 2016 (arXiv 1606.06650);
the padded form with instance norm, LeakyReLU, strided convolutions and deep supervision follows Isensee et al.,
nnU-Net, Nature Methods 2021 (arXiv 1904.08128).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.blocks import (
    LEAKY_SLOPE,
    ConvStage,
    check_input_size,
    convolution,
    initialise_he,
    norms_take_one_voxel,
)
from pipeline.networks.encoders import make_encoder
from pipeline.networks.levels import Levels, plan_levels
from pipeline.networks.resampling import upsample
from pipeline.networks.unet_as_published import UNetAsPublished

SKIPS = ("concatenate", "add")


class UNet(nn.Module):
    """A padded U-Net in 2D or 3D.

    Level 0 has full resolution. Level i of the encoder has ``channels[i]`` feature maps on a grid ``strides[i]`` times
    coarser than the one above; the decoder comes back up, joins the encoder's features of the same level, and
    convolves. A 1x1 convolution per decoder level turns features into logits. :meth:`as_published` builds the networks
    of the two papers instead.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        channels: feature maps per level, two levels or more; by default 32, doubled from level to level up to 512 in
            2D and 320 in 3D.
        kernel_sizes: odd kernel of each level, ``3`` or ``[3, 3, 1]``; 3 by default. Thick slices want a 1 across
            slices on the levels where the in-plane spacing is still finer.
        strides: stride into each level, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from level 1 on by default.
        convolutions_per_stage: convolutions on each level of the encoder, and of the decoder; one number, or one per
            level: most of the work is done on the first.
        norm: ``"instance"``, ``"batch"`` or ``"group"``.
        dropout: probability of dropping whole channels after each activation, in training.
        deep_supervision: in training mode return logits of every decoder level.
        depth: how often the network goes down; by default 3, or as ``channels`` say.
        encoder: ``"plain"``, ``"vgg"``, ``"residual"`` or ``"dense"`` (``encoders.py``).
        downsampling: ``"strided_convolution"``, ``"max_pool"`` or ``"space_to_depth"`` (``resampling.py``).
        upsampling: ``"transposed_convolution"``, ``"nearest"``, ``"linear"`` or ``"pixel_shuffle"``.
        skip: ``"concatenate"`` the encoder's features, or ``"add"`` them, which spares a third of the decoder's work.
        activation: ``"leaky_relu"`` or ``"relu"``.

    Shape:
        - Input: (B, in_channels, *S), each axis a multiple of ``total_stride``.
        - Output: (B, out_channels, *S) logits. In training mode with ``deep_supervision``: a list of logits, full
          resolution first, each following one smaller by that level's stride. In eval mode and under TorchScript
          always one tensor.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level.
        last_convolution: the module whose answer ``forward`` returns in eval mode, see `pipeline.inference.Features`.

    Raises:
        ConfigError: unknown or contradictory arguments; in ``forward`` a size that the strides do not divide, or one
            voxel at the deepest level where a norm needs more. It names the nearest sizes to use.

    >>> network = UNet(spatial_dims=3, in_channels=3, out_channels=2, channels=[8, 16, 32],
    ...                kernel_sizes=[[3, 3, 1], 3, 3], strides=[1, [2, 2, 1], 2])
    >>> network.total_stride
    (4, 4, 2)
    >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 3, 16, 16, 6))]
    [(1, 2, 16, 16, 6), (1, 2, 8, 8, 6)]
    >>> network.eval()(torch.zeros(1, 3, 16, 16, 6)).shape
    torch.Size([1, 2, 16, 16, 6])
    """

    last_convolution = "heads.0"

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] | None = None,
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        convolutions_per_stage: int | Sequence[int] = 2,
        norm: str = "instance",
        dropout: float = 0.0,
        deep_supervision: bool = True,
        depth: int | None = None,
        encoder: str = "plain",
        downsampling: str = "strided_convolution",
        upsampling: str = "transposed_convolution",
        skip: str = "concatenate",
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        levels = plan_levels(spatial_dims, depth, channels, kernel_sizes, strides, convolutions_per_stage)
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.total_stride = levels.total_stride
        self.deep_supervision = deep_supervision

        self.encoder = make_encoder(
            encoder,
            spatial_dims,
            in_channels,
            levels.channels,
            levels.kernel_sizes,
            levels.strides,
            levels.convolutions,
            downsampling,
            norm,
            dropout,
            activation,
        )
        self.decoder = make_decoder(spatial_dims, levels, upsampling, skip, norm, dropout, activation)
        self.heads = make_heads(spatial_dims, levels, out_channels, deep_supervision)
        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(
            stage
            for stages in (self.encoder, self.decoder[::-1])
            for i, stage in enumerate(stages)
            if i in levels.coarsest
        )
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    @staticmethod
    def as_published(spatial_dims: int, in_channels: int, out_channels: int) -> UNetAsPublished:
        """The network of Ronneberger et al. 2015 in 2D, of Cicek et al. 2016 in 3D (``unet_as_published.py``).

        Unpadded: it returns logits for the middle of its input, ``output_margin`` voxels smaller on each side.

        >>> sum(p.numel() for p in UNet.as_published(2, 1, 2).parameters())
        31030658
        """
        return UNetAsPublished(spatial_dims, in_channels, out_channels)

    def forward(self, x: torch.Tensor):  # no return type: TorchScript infers Tensor, eager mode may return a list
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_input_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)

        skips: list[torch.Tensor] = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        features: list[torch.Tensor] = []
        x = skips.pop()
        for decode in self.decoder:
            x = decode(x, skips.pop())
            features.append(x)

        if not torch.jit.is_scripting() and self.training and self.deep_supervision:
            return [head(level) for head, level in zip(self.heads, reversed(features), strict=True)]
        return self.heads[0](x)


def make_decoder(
    spatial_dims: int,
    levels: Levels,
    upsampling: str = "transposed_convolution",
    skip: str = "concatenate",
    norm: str = "instance",
    dropout: float = 0.0,
    activation: str = "leaky_relu",
) -> nn.ModuleList:
    """One :class:`DecoderLevel` per level but the deepest, from there up to full resolution: the order they run in.

    Raises:
        ConfigError: an unknown ``upsampling`` or ``skip``.
    """
    if skip not in SKIPS:
        raise ConfigError(f"skip {skip!r}", expected=f"one of {', '.join(SKIPS)}")
    concatenate = skip == "concatenate"
    decoder = nn.ModuleList()
    for i in reversed(range(levels.depth)):
        maps, kernel = levels.channels[i], levels.kernel_sizes[i]
        # The convolution of a pixel shuffle runs on the level below, with that level's kernel.
        up = upsample(
            upsampling, spatial_dims, levels.channels[i + 1], maps, levels.strides[i + 1], levels.kernel_sizes[i + 1]
        )
        into = 2 * maps if concatenate else maps
        convolve = ConvStage(spatial_dims, into, maps, kernel, None, levels.convolutions[i], norm, dropout, activation)
        decoder.append(DecoderLevel(up, convolve, concatenate))
    return decoder


def make_heads(spatial_dims: int, levels: Levels, out_channels: int, deep_supervision: bool) -> nn.ModuleList:
    """A 1x1 convolution to logits per supervised decoder level, full resolution first, as the logits are returned."""
    supervised = levels.channels[:-1] if deep_supervision else levels.channels[:1]
    one = (1,) * spatial_dims
    return nn.ModuleList(convolution(spatial_dims, maps, out_channels, one, bias=True) for maps in supervised)


class DecoderLevel(nn.Module):
    """Up-sample, join the skip, convolve: (B, C_deep, *S), (B, C, *S * stride) -> (B, C, *S * stride)."""

    def __init__(self, up: nn.Module, convolve: nn.Module, concatenate: bool = True) -> None:
        super().__init__()
        self.up, self.convolve, self.concatenate = up, convolve, concatenate

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        return self.convolve(torch.cat([x, skip], dim=1) if self.concatenate else x + skip)
