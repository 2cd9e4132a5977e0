"""DeepLab v3+: an atrous encoder, a pyramid of atrous kernels, and a short decoder with one skip.

Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018 (arXiv
1802.02611), figure 2; the encoder on its ResNet-101, see ``atrous_encoder.py``, the pyramid in ``aspp.py``::

    image -- level 0 -- level 1 -- level 2 -- level 3 -- level 4, atrous -- ASPP
     (1/1)    (1/2)      (1/4)      (1/8)      (1/16)     (1/16)              |
                           |                                                up by 4
                       1x1 to 48 maps ------------------- concatenate --------+
                                                               |
                                               two 3x3 -- 1x1 to logits -- up by 4
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.any_size import check_any_size, resize
from pipeline.networks.aspp import ASPP, atrous, rates_of_one_reach
from pipeline.networks.atrous_encoder import AtrousEncoder
from pipeline.networks.blocks import (
    LEAKY_SLOPE,
    ConvNormAct,
    activation_layer,
    convolution,
    initialise_he,
    norm_layer,
    norms_take_one_voxel,
    whole_numbers,
)

RATES = {2: (6, 12, 18), 3: (2, 4, 6)}
"""By ``spatial_dims``. The paper's are made for maps 33 pixels across; a volume's patch has about a third of that."""


class DeepLabV3Plus(nn.Module):
    """DeepLab v3+ in 2D or 3D.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        channels, kernel_sizes, strides, blocks_per_stage: of the encoder, per level, see
            :class:`~pipeline.networks.atrous_encoder.AtrousEncoder`; by default ResNet-101's.
        atrous_levels: how many of the last levels keep their resolution: 1 makes the paper's output stride of 16, 2
            the one of 8.
        rates: of the pyramid, in voxels of the deepest grid, each a number or one per axis; by default 6, 12 and 18 in
            2D and 2, 4 and 6 in 3D, doubled with every atrous level after the first.
        spacing_mm: voxel size of the image, for rates of one number each: they hold along the finest axis of the
            deepest grid, and the other axes reach as far in mm. By default a rate counts voxels along every axis, which
            is the same where the strides make up for thick slices.
        pyramid_channels: feature maps of the pyramid and the decoder.
        skip_channels: feature maps of the skip from level 1.
        separable: atrous and decoder convolutions as one per map, then a 1x1 one: fewer parameters and operations;
            as in the paper's Xception variant.
        norm: ``"batch"``, ``"instance"``, ``"group"`` or ``"none"``.
        dropout: probability of dropping whole channels of the pyramid's result, in training.
        activation: ``"relu"`` or ``"leaky_relu"``.

    Shape:
        - Input: (B, in_channels, *S), of any size.
        - Output: (B, out_channels, *S) logits.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level, rounded up: the output stride.
        rates: those of the pyramid, one number per axis.

    Raises:
        ConfigError: contradictory arguments; in ``forward`` one voxel at the deepest level where a norm needs more, or
            a single sample where batch norm trains.

    >>> network = DeepLabV3Plus(3, 1, 2, channels=(8, 16, 16, 16), strides=[1, 2, 2, [2, 2, 1]], blocks_per_stage=1,
    ...                         pyramid_channels=8, norm="instance")
    >>> network(torch.zeros(1, 1, 24, 17, 9)).shape, network.total_stride, network.rates
    (torch.Size([1, 2, 24, 17, 9]), (4, 4, 4), [(2, 2, 2), (4, 4, 4), (6, 6, 6)])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 256, 512, 1024, 2048),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        blocks_per_stage: int | Sequence[int] = (3, 4, 23, 3),
        atrous_levels: int = 1,
        rates: Sequence[int | Sequence[int]] | None = None,
        spacing_mm: Sequence[float] | None = None,
        pyramid_channels: int = 256,
        skip_channels: int = 48,
        separable: bool = False,
        norm: str = "batch",
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.encoder = AtrousEncoder(
            spatial_dims,
            in_channels,
            channels,
            kernel_sizes,
            strides,
            blocks_per_stage,
            atrous_levels,
            norm=norm,
            activation=activation,
        )
        self.total_stride = self.encoder.strides[-1]
        self.rates = self._rates(rates, spacing_mm)
        maps = self.encoder.channels
        self.pyramid = ASPP(spatial_dims, maps[-1], pyramid_channels, self.rates, separable, norm, dropout, activation)
        one, three = (1,) * spatial_dims, (3,) * spatial_dims
        self.skip = ConvNormAct(spatial_dims, maps[1], skip_channels, one, None, norm, 0.0, activation)
        layers: list[nn.Module] = []
        for into in (pyramid_channels + skip_channels, pyramid_channels):
            layers += atrous(spatial_dims, into, pyramid_channels, three, one, separable)
            layers += [norm_layer(norm, spatial_dims, pyramid_channels), activation_layer(activation)]
        self.decoder = nn.Sequential(*layers)
        self.head = convolution(spatial_dims, pyramid_channels, out_channels, one, bias=True)

        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(
            [*self.encoder.deepest(), self.pyramid.branches, self.pyramid.join]
        )
        self.pairs_needed = norm == "batch"
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_any_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)
            check_batch(alone and self.pairs_needed)
        features = self.encoder(x)
        skip = self.skip(features[1])
        deep = resize(self.pyramid(features[-1]), list(skip.shape[2:]))
        logits = self.head(self.decoder(torch.cat([deep, skip], dim=1)))
        return resize(logits, list(x.shape[2:]))

    def _rates(
        self, rates: Sequence[int | Sequence[int]] | None, spacing_mm: Sequence[float] | None
    ) -> list[tuple[int, ...]]:
        """One rate per axis each; the default ones follow the resolution that the atrous levels keep."""
        given = RATES[self.spatial_dims] if rates is None else rates
        if not isinstance(given, Sequence) or not given:
            raise ConfigError(f"rates {given!r}", expected="a list of one or more, each a number or one per axis")
        if spacing_mm is not None:
            numbers = [r for r in given if isinstance(r, int)]
            if len(numbers) < len(given):
                raise ConfigError(f"rates {list(given)} and spacing_mm", expected="one number each, or no spacing_mm")
            if not isinstance(spacing_mm, Sequence) or not all(map(math.isfinite, spacing_mm)):
                raise ConfigError(f"spacing_mm {spacing_mm!r}", expected=f"a list of {self.spatial_dims} lengths")
            if len(spacing_mm) != self.spatial_dims:
                raise ConfigError(f"spacing_mm {list(spacing_mm)}", expected=f"{self.spatial_dims} lengths")
            per_axis = rates_of_one_reach(numbers, spacing_mm, self.total_stride)
        else:
            per_axis = [
                (r,) * self.spatial_dims if isinstance(r, int) else tuple(whole_numbers("rates", r)) for r in given
            ]
        if rates is not None:
            return per_axis
        finer = self.encoder.kept_by_more_than_one
        return [tuple(r * f for r, f in zip(rate, finer, strict=True)) for rate in per_axis]


def check_batch(alone_with_batch_norm: bool) -> None:
    """Refuse to train batch norm on one sample's mean.

    Raises:
        ConfigError: says what to change.
    """
    if alone_with_batch_norm:
        raise ConfigError(
            "a batch of one sample, in training with batch norm",
            expected="two samples or more: the mean over the whole map is one number, which has no statistics",
            fix="batch_size=2, or norm: instance",
        )
