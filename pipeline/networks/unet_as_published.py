"""The U-Nets of the two papers, layer by layer: unpadded convolutions, max-pooling, crop and concatenate.

2D: Ronneberger, Fischer, Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015 (arXiv
1505.04597). 3D: Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger, 3D U-Net: Learning Dense Volumetric Segmentation from
Sparse Annotation, MICCAI 2016 (arXiv 1606.06650).

The size along one axis after each double convolution, down the left side and up the right (figure 1 and figure 2):

    2D   572 -> 568               388        3D   132 -> 128           44
                  280           196                         60       24
                    136       100                             26   14
                       64   52                                   9
                         28
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.blocks import initialise_he, transposed_convolution
from pipeline.networks.convolution3d import Convolution3d


class UNetAsPublished(nn.Module):
    """The original U-Net in 2D, the original 3D U-Net in 3D; ``UNet.as_published`` builds them as well.

    In 2D, 23 convolutions: on every level two unpadded 3x3 convolutions with ReLU; going down, 2x2 max-pooling, after
    which the feature maps double; going up, a 2x2 up-convolution that halves them, and the cropped features of the same
    level beside its result; at last a 1x1 convolution. "At the end of the contracting path" there is dropout: here, as
    in the network that the authors released, after the two deepest double convolutions. (That network also has a ReLU
    after each up-convolution, of which the paper says nothing; it is not here.)

    In 3D, 18 convolutions: one level less; batch norm before each ReLU; to avoid bottlenecks the feature maps double
    before the pooling, within the double convolution, and the up-convolution keeps them; no dropout. The paper counts
    19,069,955 parameters for 3 channels and 3 classes: the kernels and one offset per feature map. The scales of the
    batch norms come on top.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        features: feature maps of the very first convolution; 64 in 2D and 32 in 3D.
        depth: number of poolings; 4 in 2D and 3 in 3D.
        dropout: probability of dropping a value at the end of the contracting path, in training; 0.5 in 2D, 0 in 3D.

    Shape:
        - Input: (B, in_channels, *S), each axis n = -4 mod 2^depth: 188, 204, ..., 572, ... in 2D, 92, 100, ..., 132,
          ... in 3D.
        - Output: (B, out_channels, *(S - 2 output_margin)) logits for the middle of the input.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level, but for the margins.
        output_margin: voxels per side and axis that the input has and the output has not: 92 in 2D, 44 in 3D.

    Raises:
        ConfigError: an argument out of range; in ``forward`` a size that can't be halved ``depth`` times, or that
            leaves nothing. It names the nearest sizes to use.

    >>> network = UNetAsPublished(2, in_channels=1, out_channels=2, features=4)
    >>> network(torch.zeros(1, 1, 188, 204)).shape, network.output_margin
    (torch.Size([1, 2, 4, 20]), (92, 92))
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features: int | None = None,
        depth: int | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims {spatial_dims}", expected="2 or 3")
        planar = spatial_dims == 2
        features = (64 if planar else 32) if features is None else features
        depth = (4 if planar else 3) if depth is None else depth
        dropout = (0.5 if planar else 0.0) if dropout is None else dropout
        if features < 1 or depth < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"features {features}, depth {depth}, dropout {dropout}",
                expected="features and depth of 1 or more, dropout from 0 to below 1",
            )
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.depth, self.total_stride = depth, (2**depth,) * spatial_dims
        # A double convolution takes 2 voxels per side of its own level, 2 * 2^i of the input's. There are two of them
        # on level i < depth and one at the bottom: 4 (1 + 2 + ... + 2^(depth - 1)) + 2 * 2^depth.
        self.output_margin = (6 * 2**depth - 4,) * spatial_dims

        # Level i: features * 2^i maps in 2D; in 3D that many after the first convolution, twice as many after the next.
        first = [features * 2**i for i in range(depth + 1)]
        last = first if planar else [2 * f for f in first]
        inputs = [in_channels, *last[:-1]]
        norm = not planar

        # On the left side of the U, the bottom included.
        self.contracting = nn.ModuleList(
            nn.Sequential(
                double_convolution(spatial_dims, inputs[i], first[i], last[i], norm),
                nn.Dropout(dropout if i >= depth - 1 else 0.0),
            )
            for i in range(depth + 1)
        )
        self.pool = nn.MaxPool2d(2) if planar else nn.MaxPool3d(2)
        # On its right side, from the bottom up to full resolution.
        self.expanding = nn.ModuleList()
        crop = 0
        for i in reversed(range(depth)):
            up = last[i + 1] // 2 if planar else last[i + 1]
            # Per side: what the level below lost to its crop and to the double convolutions on both sides of it (at
            # the bottom there is one), in voxels of this level, which are half as wide. 4, 16, 40, 88.
            crop = 4 if i == depth - 1 else 2 * (crop + 4)
            self.expanding.append(
                ExpandingLevel(
                    transposed_convolution(spatial_dims, last[i + 1], up, (2,) * spatial_dims, bias=planar),
                    crop,
                    double_convolution(spatial_dims, up + last[i], last[i], last[i], norm),
                )
            )
        one_by_one: Any = nn.Conv2d if planar else nn.Conv3d
        self.head = one_by_one(last[0], out_channels, 1)
        # Section 3 of the 2D paper: standard deviation sqrt(2 / N), N the number of values that a neuron sums.
        initialise_he(self, slope=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            self.check_input_size(x.shape[2:])

        skips: list[torch.Tensor] = []
        for i, convolve in enumerate(self.contracting):
            x = convolve(x if i == 0 else self.pool(x))
            skips.append(x)
        x = skips.pop()
        for level in self.expanding:
            x = level(x, skips.pop())
        return self.head(x)

    def input_size_for(self, output_size: Sequence[int]) -> tuple[int, ...]:
        """The smallest valid input whose output covers ``output_size``, voxels per axis.

        >>> UNetAsPublished(2, 1, 2, features=1).input_size_for((388, 300))
        (572, 492)
        """
        step = 2**self.depth
        wanted = zip(output_size, self.output_margin, strict=True)
        return tuple(-(-(max(n, 1) + 2 * margin + 4) // step) * step - 4 for n, margin in wanted)

    def check_input_size(self, size: Sequence[int]) -> None:
        """Refuse a spatial size that can't be halved at each pooling, or that leaves no voxel.

        Raises:
            ConfigError: names the nearest sizes to use.
        """
        step = 2**self.depth
        if len(size) != self.spatial_dims:
            raise ConfigError(
                f"an input with {len(size)} spatial axes",
                expected=f"a batch (B, C, *spatial) with {self.spatial_dims} of them",
            )
        smallest = self.input_size_for((1,) * self.spatial_dims)
        smaller = [max((n + 4) // step * step - 4, least) for n, least in zip(size, smallest, strict=True)]
        larger = [max(-(-(n + 4) // step) * step - 4, least) for n, least in zip(size, smallest, strict=True)]
        if list(size) != larger:
            choices = [larger] if smaller == larger else [smaller, larger]
            raise ConfigError(
                f"an input of {' x '.join(map(str, size))} voxels",
                expected=f"each axis {-4 % step} more than a multiple of {step}, {smallest[0]} or more",
                fix=f"use a patch or window of {' or '.join(' x '.join(map(str, c)) for c in choices)}",
            )


def double_convolution(spatial_dims: int, in_channels: int, first: int, last: int, norm: bool) -> nn.Sequential:
    """Two unpadded convolutions, each followed by batch norm, where there is one, and ReLU.

    (B, in_channels, *S) -> (B, last, *(S - 4)). Batch norm has an offset, so that the convolution needs no bias.
    """
    convolution: Any = nn.Conv2d if spatial_dims == 2 else Convolution3d
    batch_norm: Any = nn.BatchNorm2d if spatial_dims == 2 else nn.BatchNorm3d
    layers: list[nn.Module] = []
    for into, out in ((in_channels, first), (first, last)):
        layers.append(convolution(into, out, 3, bias=not norm))
        if norm:
            layers.append(batch_norm(out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class ExpandingLevel(nn.Module):
    """Up-convolve, put the cropped skip in front, convolve twice.

    (B, C_deep, *S), (B, C, *(2 S + 2 crop)) -> (B, C, *(2 S - 4)).
    """

    def __init__(self, up: nn.Module, crop: int, convolve: nn.Module) -> None:
        super().__init__()
        self.up, self.crop, self.convolve = up, crop, convolve

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        for axis in range(2, x.dim()):
            skip = skip.narrow(axis, self.crop, x.shape[axis])
        return self.convolve(torch.cat([skip, x], dim=1))
