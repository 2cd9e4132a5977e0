r"""U-Net++: U-Nets of every depth in one network, their decoders linked by dense skip connections.

Zhou et al., UNet++: A Nested U-Net Architecture for Medical Image Segmentation, DLMIA 2018 (arXiv 1807.10165) and
Zhou et al., UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image Segmentation, IEEE TMI 2020
(arXiv 1912.05074), whose symbols this page keeps. ``X^{i,j}`` is node j of row i; row i has the resolution of level i::

    X00 -- X01 -- X02 -- X03 -- X04      X00 X10 X20 X30 X40: the encoder, each from the one above it
      \   /  \   /  \   /  \   /         every other node: from all nodes to its left, and from the one
       X10 -- X11 -- X12 -- X13            below it (X11 for X02), up-sampled
         \   /  \   /  \   /
          X20 -- X21 -- X22              The diagonal that ends in X0d is the decoder of a U-Net with d + 1
            \   /  \   /                 levels, L^d. L^d needs nothing below its diagonal: cut there, and the
             X30 -- X31                  smaller network gives the same result at X0d (``prune``).
               \   /
                X40
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
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
from pipeline.networks.levels import plan_levels
from pipeline.networks.resampling import upsample

SKIP_CONNECTIONS = ("dense", "short", "long")
INFERENCE_MODES = ("accurate", "fast")


class UNetPlusPlus(nn.Module):
    """U-Net++ in 2D or 3D, with the paper's two ablations.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included; 1 for a single sigmoid channel.
        channels: feature maps per row; N + 1 rows make branches L^1 to L^N.
        kernel_sizes: odd kernel of each row, ``3`` or ``[3, 3, 1]``; 3 by default.
        strides: stride into each row, ``2`` or ``[2, 2, 1]``; the first must be 1; 2 from row 1 on by default.
        convolutions_per_stage: convolutions in each node, one number or one per row.
        norm: ``"batch"``, ``"instance"``, ``"group"`` or ``"none"``; without one, convolutions have a bias.
        activation: ``"relu"`` or ``"leaky_relu"``.
        dropout: probability of dropping whole channels after each activation, in training.
        encoder: of what the nodes X^{i,0} are made, see :mod:`pipeline.networks.encoders`.
        downsampling: how a row gets its size from the one above, see :mod:`pipeline.networks.resampling`.
        upsampling: U of the paper's equation 1, likewise.
        skip_connections: what a node sees of its own row. ``"dense"``: all nodes to its left (U-Net++). ``"short"``:
            the one beside it (U-Net+). ``"long"``: X^{i,0} alone, which makes decoders that share nothing but the
            encoder (the ensemble U-Net^e, that learns by deep supervision only).
        deep_supervision: a head on each of X^{0,1} ... X^{0,N}; without it, on X^{0,N} alone.
        inference_depth: d, the deepest branch L^d that answers in eval mode; N by default. Nodes below it are not
            computed. It changes no weights: set it beside trained ones to trade accuracy for speed.
        inference_mode: ``"accurate"``: the mean of the probabilities of L^1 ... L^d; ``"fast"``: L^d alone.

    Shape:
        - Input: (B, in_channels, *S), each axis a multiple of ``total_stride``.
        - Output: (B, out_channels, *S) logits. In training mode with ``deep_supervision``: a list of N such logits,
          of L^N first and L^1 last. In eval mode and under TorchScript always one tensor; in accurate mode these
          logits are log-probabilities, so that softmax gives back the mean.

    Attributes:
        depth: N.
        total_stride: by how much each axis is smaller in the last row.

    The papers weigh all branches alike (``pipeline.losses.DeepSupervision`` does so where sizes are equal). Their
    9.04 M parameters (2018) are those of two convolutions per node without a norm, of one channel in and out and one
    head; pruned, L^1 ... L^3 have 0.10, 0.51 and 2.20 M.

    Raises:
        ConfigError: contradictory arguments; in ``forward`` a size that the strides do not divide, or one voxel in the
            last row, where a norm needs more. It names the nearest sizes to use.

    >>> network = UNetPlusPlus(spatial_dims=3, in_channels=3, out_channels=2, channels=[4, 8, 16],
    ...                        kernel_sizes=[[3, 3, 1], 3, 3], strides=[1, [2, 2, 1], 2])
    >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 3, 16, 16, 6))]
    [(1, 2, 16, 16, 6), (1, 2, 16, 16, 6)]
    >>> list(network.nodes), list(network.prune(1).nodes)
    (['X_0_1', 'X_1_1', 'X_0_2'], ['X_0_1'])

    The published count:

    >>> published = UNetPlusPlus(2, 1, 1, norm="none", deep_supervision=False)
    >>> sum(p.numel() for p in published.parameters())
    9041601
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        convolutions_per_stage: int | Sequence[int] = 2,
        norm: str = "batch",
        activation: str = "relu",
        dropout: float = 0.0,
        encoder: str = "plain",
        downsampling: str = "max_pool",
        upsampling: str = "transposed_convolution",
        skip_connections: str = "dense",
        deep_supervision: bool = True,
        inference_depth: int | None = None,
        inference_mode: str = "accurate",
    ) -> None:
        super().__init__()
        levels = plan_levels(spatial_dims, None, channels, kernel_sizes, strides, convolutions_per_stage)
        maps, kernels, steps = levels.channels, levels.kernel_sizes, levels.strides
        if skip_connections not in SKIP_CONNECTIONS:
            raise ConfigError(
                f"skip_connections {skip_connections!r}", expected=f"one of {', '.join(SKIP_CONNECTIONS)}"
            )
        if inference_mode not in INFERENCE_MODES:
            raise ConfigError(f"inference_mode {inference_mode!r}", expected=f"one of {', '.join(INFERENCE_MODES)}")

        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.depth, self.total_stride = levels.depth, levels.total_stride
        self.skip_connections, self.deep_supervision = skip_connections, deep_supervision
        # What `prune` makes the smaller network of.
        self._levels = levels
        other_arguments: dict[str, Any] = {
            "norm": norm,
            "activation": activation,
            "dropout": dropout,
            "encoder": encoder,
            "downsampling": downsampling,
            "upsampling": upsampling,
            "skip_connections": skip_connections,
            "deep_supervision": deep_supervision,
        }
        self._other_arguments = other_arguments

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
        # Branch by branch, each from its lowest node up to X^{0,d}: the order in which they run.
        self.places = [(d - j, j) for d in range(1, self.depth + 1) for j in range(1, d + 1)]
        self.nodes = nn.ModuleDict()
        for i, j in self.places:
            seen = j if skip_connections == "dense" else 1
            with_bias = norm == "none"  # a norm would soon take it away again
            self.nodes[f"X_{i}_{j}"] = Node(
                skip_connections,
                upsample(upsampling, spatial_dims, maps[i + 1], maps[i], steps[i + 1], kernels[i + 1], with_bias),
                ConvStage(
                    spatial_dims,
                    (seen + 1) * maps[i],
                    maps[i],
                    kernels[i],
                    None,
                    levels.convolutions[i],
                    norm,
                    dropout,
                    activation,
                ),
            )
        row_of = [*enumerate(self.encoder), *((self.places[n][0], node) for n, node in enumerate(self.nodes.values()))]
        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(
            node for i, node in row_of if i in levels.coarsest
        )
        # Heads in the order of their branches: of L^1 ... L^N, or of L^N alone.
        self.branches = list(range(1, self.depth + 1)) if deep_supervision else [self.depth]
        self.heads = nn.ModuleList(
            convolution(spatial_dims, maps[0], out_channels, (1,) * spatial_dims, bias=True) for _ in self.branches
        )
        self.inference_depth = self._branch(self.depth if inference_depth is None else inference_depth)
        self.inference_mode = inference_mode
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    def forward(self, x: torch.Tensor):  # no return type: TorchScript infers Tensor, eager mode may return a list
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_input_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)

        supervised = self.training and self.deep_supervision
        averaged = self.deep_supervision and self.inference_mode == "accurate"
        depth = self.depth if self.training else self.inference_depth
        # The decoders of U-Net^e are independent: one answer needs one of them.
        one_decoder = self.skip_connections == "long" and not supervised and not averaged

        rows: list[list[torch.Tensor]] = []  # rows[i][j] is X^{i,j}
        for stage in self.encoder:
            if len(rows) <= depth:
                x = stage(x)
                rows.append([x])
        for n, node in enumerate(self.nodes.values()):
            i, j = self.places[n]
            if i + j == depth or (i + j < depth and not one_decoder):
                # X^{i+1,j-1} stands on the same diagonal: it is the newest of its row.
                rows[i].append(node(rows[i], rows[i + 1][-1]))

        logits: list[torch.Tensor] = []
        for k, head in enumerate(self.heads):
            branch = self.branches[k]
            if branch == depth:
                logits.append(head(rows[0][-1]))
            elif branch < depth and (supervised or averaged):
                logits.append(head(rows[0][branch]))
        if not torch.jit.is_scripting() and supervised:
            return logits[::-1]
        return mean_of_probabilities(logits) if averaged else logits[-1]

    def prune(self, depth: int) -> UNetPlusPlus:
        """The network of branch L^depth alone, in fast mode: same weights (shared, not copied), same result at X^{0,d}.

        Its state dict is that part of this one's that ``UNetPlusPlus(..., channels=channels[:depth + 1])`` loads.

        Args:
            depth: 1 to N.

        Raises:
            ConfigError: a branch that this network has no head for.

        >>> network = UNetPlusPlus(2, 1, 2, channels=[2, 4, 8, 16], inference_depth=2, inference_mode="fast").eval()
        >>> x = torch.randn(1, 1, 16, 16)
        >>> torch.equal(network.prune(2)(x), network(x))
        True
        """
        rows = self._branch(depth) + 1
        with torch.device("meta"):  # its own weights are never made: it takes this network's
            pruned = UNetPlusPlus(
                self.spatial_dims,
                self.in_channels,
                self.out_channels,
                channels=self._levels.channels[:rows],
                kernel_sizes=self._levels.kernel_sizes[:rows],
                strides=self._levels.strides[:rows],
                convolutions_per_stage=self._levels.convolutions[:rows],
                **self._other_arguments,
                inference_mode="fast",
            )
        pruned.encoder = self.encoder[:rows]
        pruned.nodes = nn.ModuleDict({name: self.nodes[name] for name in pruned.nodes})
        pruned.heads = self.heads[: len(pruned.heads)] if self.deep_supervision else self.heads
        return pruned.train(self.training)

    def _branch(self, depth: int) -> int:
        if depth not in self.branches:
            raise ConfigError(
                f"branch L^{depth} of a U-Net++ with {self.depth + 1} rows"
                + ("" if self.deep_supervision else " and without deep supervision"),
                expected=f"one of {', '.join(map(str, self.branches))}: those that have a head",
            )
        return depth


class Node(nn.Module):
    """X^{i,j}, j > 0: H([X^{i,k} for k < j, U(X^{i+1,j-1})]), H convolutions and U up-sampling (Zhou 2020, equation 1).

    (row: a list of (B, C_i, *S), below (B, C_{i+1}, *S / stride)) -> (B, C_i, *S).
    """

    def __init__(self, skip_connections: str, up: nn.Module, convolve: nn.Module) -> None:
        super().__init__()
        self.skip_connections = skip_connections
        self.up, self.convolve = up, convolve

    def forward(self, row: list[torch.Tensor], below: torch.Tensor) -> torch.Tensor:
        seen = row[:1] if self.skip_connections == "long" else row[-1:] if self.skip_connections == "short" else row[:]
        seen.append(self.up(below))
        return self.convolve(torch.cat(seen, dim=1))  # one copy into one tensor, whatever the number of skips


def mean_of_probabilities(logits: list[torch.Tensor]) -> torch.Tensor:
    """Logits whose probabilities are the mean of those of each of ``logits``; all (B, K, *S).

    Softmax over K classes, or a sigmoid where K is 1. (In a mean of logits, one very sure branch outvotes the others.)

    >>> sure, unsure = torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, 0.0]])
    >>> mean_of_probabilities([sure, unsure]).softmax(1)
    tensor([[0.2501, 0.7499]])
    """
    stacked = torch.stack(logits)
    if stacked.shape[2] == 1:
        return torch.logsumexp(F.logsigmoid(stacked), 0) - torch.logsumexp(F.logsigmoid(-stacked), 0)
    return torch.logsumexp(F.log_softmax(stacked, 2), 0) - math.log(len(logits))
