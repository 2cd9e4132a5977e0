"""The encoders that a U-shaped network can be built on: an ``nn.ModuleList`` of stages, one per level.

Stage 0 takes the image at full resolution, stage i the features of stage i - 1; stage i gives ``channels[i]`` feature
maps on a grid ``strides[i]`` times coarser. What a stage does on its own level is the choice:

- ``"plain"``: two convolutions (Ronneberger et al., U-Net, 2015, arXiv 1505.04597), or as many as asked for;
- ``"vgg"``: two on the first two levels, three below (Simonyan & Zisserman, VGG-16, 2015, arXiv 1409.1556);
- ``"residual"``: pairs of convolutions with a shortcut (He et al., ResNet, 2016, arXiv 1512.03385);
- ``"dense"``: each convolution sees all before it on its level (Huang et al., DenseNet, 2017, arXiv 1608.06993).

Every convolution is followed by norm and activation, in the order of the U-Net; ResNet's and DenseNet's own is kept
where it is what makes them: the shortcut is added before the last activation, the dense layers are concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.blocks import (
    ConvNormAct,
    ConvStage,
    activation_layer,
    convolution,
    convolutions_per_level,
    norm_layer,
)
from pipeline.networks.resampling import downsample

ENCODERS = ("plain", "vgg", "residual", "dense")


def make_encoder(
    kind: str,
    spatial_dims: int,
    in_channels: int,
    channels: Sequence[int],
    kernel_sizes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    convolutions_per_stage: int | Sequence[int] = 2,
    downsampling: str = "strided_convolution",
    norm: str = "instance",
    dropout: float = 0.0,
    activation: str = "leaky_relu",
) -> nn.ModuleList:
    """One stage per level.

    Args:
        kind: of ``ENCODERS``.
        in_channels: channels of the image.
        channels, kernel_sizes, strides: one entry per level, kernels and strides one number per axis.
        convolutions_per_stage: for all levels, or one number per level; of ``"plain"`` and ``"dense"`` any, of
            ``"residual"`` two for each block; ``"vgg"`` has its own.
        downsampling: of :data:`~pipeline.networks.resampling.DOWNSAMPLING`.
        norm, dropout, activation: as in :class:`~pipeline.networks.blocks.ConvNormAct`.

    Raises:
        ConfigError: an unknown kind; an odd number of convolutions in residual stages, none at all, or not one number
            per level.

    >>> stages = make_encoder("dense", 2, 1, (8, 16), [(3, 3), (3, 3)], [(1, 1), (2, 2)], downsampling="max_pool")
    >>> x = torch.zeros(1, 1, 8, 8)
    >>> for stage in stages:
    ...     x = stage(x)
    ...     print(tuple(x.shape))
    (1, 8, 8, 8)
    (1, 16, 4, 4)
    """
    if kind not in ENCODERS:
        raise ConfigError(f"encoder {kind!r}", expected=f"one of {', '.join(ENCODERS)}")
    counts = convolutions_per_level(convolutions_per_stage, len(channels))
    if kind == "residual" and any(count % 2 for count in counts):
        wanted = "2, 4, ...: two for each residual block"
        raise ConfigError(f"convolutions_per_stage {convolutions_per_stage}", expected=wanted)

    stages = nn.ModuleList()
    for level, (out, kernel) in enumerate(zip(channels, kernel_sizes, strict=True)):
        down, into, stride = downsample(downsampling, spatial_dims, in_channels, strides[level])
        rest = (norm, dropout, activation)
        stage: nn.Module
        if kind == "residual":
            stage = residual_stage(spatial_dims, into, out, kernel, stride, counts[level] // 2, *rest)
        elif kind == "dense":
            stage = DenseStage(spatial_dims, into, out, kernel, stride, counts[level], *rest)
        else:
            count = counts[level] if kind == "plain" else 2 + (level >= 2)
            stage = ConvStage(spatial_dims, into, out, kernel, stride, count, *rest)
        stages.append(stage if isinstance(down, nn.Identity) else nn.Sequential(down, stage))
        in_channels = out
    return stages


class ResidualBlock(nn.Module):
    """act(F(x) + x), F two convolutions: (B, in_channels, *S) -> (B, out_channels, *S / stride).

    Where the size or the channels change, x passes a 1x1 convolution with that stride and a norm (He 2016, option B).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        norm: str,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        self.first = ConvNormAct(
            spatial_dims, in_channels, out_channels, kernel_size, stride, norm, dropout, activation
        )
        self.second = nn.Sequential(
            convolution(spatial_dims, out_channels, out_channels, kernel_size),
            norm_layer(norm, spatial_dims, out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or any(s != 1 for s in stride):
            self.shortcut = nn.Sequential(
                convolution(spatial_dims, in_channels, out_channels, (1,) * spatial_dims, stride),
                norm_layer(norm, spatial_dims, out_channels),
            )
        self.act = activation_layer(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.second(self.first(x)).add_(self.shortcut(x)))


def residual_stage(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    blocks: int,
    norm: str,
    dropout: float,
    activation: str,
) -> nn.Sequential:
    """``blocks`` times :class:`ResidualBlock`; the first one changes the channels and carries the stride."""
    one = (1,) * spatial_dims
    return nn.Sequential(
        *(
            ResidualBlock(
                spatial_dims,
                out_channels if i else in_channels,
                out_channels,
                kernel_size,
                one if i else stride,
                norm,
                dropout,
                activation,
            )
            for i in range(blocks)
        )
    )


class DenseStage(nn.Module):
    """Layer j sees the stage's input and the output of every layer before it; a 1x1 convolution sums them all up.

    (B, in_channels, *S) -> (B, out_channels, *S / stride). The ``layers`` layers grow by ``out_channels / layers``
    feature maps each (rounded up), so that together they bring as many new ones as the stage gives.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        layers: int,
        norm: str,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        rest = (norm, dropout, activation)
        one = (1,) * spatial_dims
        growth = -(-out_channels // layers)
        # A stride can't stand in a layer: its input and output are concatenated and must have one size.
        self.down: nn.Module = nn.Identity()
        if any(s != 1 for s in stride):
            self.down = ConvNormAct(spatial_dims, in_channels, in_channels, kernel_size, stride, *rest)
        self.layers = nn.ModuleList(
            ConvNormAct(spatial_dims, in_channels + j * growth, growth, kernel_size, None, *rest) for j in range(layers)
        )
        self.join = ConvNormAct(spatial_dims, in_channels + layers * growth, out_channels, one, None, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return self.join(x)
