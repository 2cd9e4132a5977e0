"""PSPNet: an atrous encoder, and beside its features what they are on average in coarser and coarser regions.

Zhao et al., Pyramid Scene Parsing Network, CVPR 2017 (arXiv 1612.01105), figure 3; the encoder is the dilated
ResNet-101 of ``atrous_encoder.py``, the module ``PyramidPooling`` of ``pyramid_pooling.py``::

    image -- level 0 -- level 1 -- level 2 -- level 3 -- level 4 -- PyramidPooling -- 3x3 -- 1x1 -- up by 8
     (1/1)    (1/2)      (1/4)      (1/8)      (1/8)      (1/8)     bins 1, 2, 3, 6
                                               atrous     atrous
                                                 |
                                               3x3 -- 1x1: auxiliary logits, in training
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.networks.any_size import check_any_size, resize
from pipeline.networks.atrous_encoder import AtrousEncoder
from pipeline.networks.blocks import LEAKY_SLOPE, ConvNormAct, convolution, initialise_he, norms_take_one_voxel
from pipeline.networks.deeplab import check_batch
from pipeline.networks.pyramid_pooling import PyramidPooling, check_bins


class PSPNet(nn.Module):
    """PSPNet in 2D or 3D.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        channels, kernel_sizes, strides, blocks_per_stage: of the encoder, per level, see
            :class:`~pipeline.networks.atrous_encoder.AtrousEncoder`; by default ResNet-101's.
        atrous_levels: how many of the last levels keep their resolution: 2 makes the paper's output stride of 8.
        bins: per axis, of each grid of the pyramid. They are parts of what the network sees at once, so a window should
            be as large as a patch in training.
        pyramid_channels: feature maps of each grid; by default the last level's over the number of grids.
        head_channels: feature maps of the 3x3 convolution before the logits.
        norm: ``"batch"``, ``"instance"``, ``"group"`` or ``"none"``.
        dropout: probability of dropping whole channels before the logits, in training.
        deep_supervision: in training mode return auxiliary logits too.
        activation: ``"relu"`` or ``"leaky_relu"``.

    Shape:
        - Input: (B, in_channels, *S), of any size.
        - Output: (B, out_channels, *S) logits. In training mode with ``deep_supervision``: a list of two, the second
          on the grid of the last level but one. In eval mode and under TorchScript always one tensor.

    Attributes:
        total_stride: by how much each axis is smaller at the deepest level, rounded up.

    The paper weighs the auxiliary loss by 0.4, ``pipeline.losses.DeepSupervision`` by 1/2 of the other where it is
    coarser (``weights: [1.0, 0.4]`` is the paper's).

    Raises:
        ConfigError: contradictory arguments; in ``forward`` one voxel at the deepest level where a norm needs more, or
            a single sample where batch norm trains.

    >>> network = PSPNet(2, 1, 2, channels=(8, 16, 16, 16), blocks_per_stage=1, head_channels=8, norm="instance")
    >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 1, 24, 17))], network.total_stride
    ([(1, 2, 24, 17), (1, 2, 6, 5)], (4, 4))
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
        atrous_levels: int = 2,
        bins: Sequence[int] = (1, 2, 3, 6),
        pyramid_channels: int | None = None,
        head_channels: int = 512,
        norm: str = "batch",
        dropout: float = 0.1,
        deep_supervision: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.deep_supervision = deep_supervision
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
        maps = self.encoder.channels
        bins = check_bins(bins)
        per_grid = max(maps[-1] // len(bins), 1) if pyramid_channels is None else pyramid_channels
        self.pyramid = PyramidPooling(spatial_dims, maps[-1], per_grid, bins, norm, activation)
        one, three = (1,) * spatial_dims, (3,) * spatial_dims
        rest = (three, None, norm, dropout, activation)
        self.head = nn.Sequential(
            ConvNormAct(spatial_dims, self.pyramid.channels, head_channels, *rest),
            convolution(spatial_dims, head_channels, out_channels, one, bias=True),
        )
        self.auxiliary: nn.Module = nn.Identity()
        if deep_supervision:
            inner = max(maps[-2] // 4, 1)
            self.auxiliary = nn.Sequential(
                ConvNormAct(spatial_dims, maps[-2], inner, *rest),
                convolution(spatial_dims, inner, out_channels, one, bias=True),
            )
        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(
            [*self.encoder.deepest(), self.head, self.auxiliary]
        )
        self.pairs_needed = norm == "batch" and 1 in self.pyramid.bins
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    def forward(self, x: torch.Tensor):  # no return type: TorchScript infers Tensor, eager mode may return a list
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_any_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)
            check_batch(alone and self.pairs_needed)
        features = self.encoder(x)
        logits = resize(self.head(self.pyramid(features[-1])), list(x.shape[2:]))
        if not torch.jit.is_scripting() and self.training and self.deep_supervision:
            return [logits, self.auxiliary(features[-2])]
        return logits
