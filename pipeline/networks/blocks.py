"""What every architecture of this room is built from: convolution + norm + activation, initialisation, the input check.

Shapes: B batch, C channels, ``*S`` two or three spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.convolution3d import Convolution3d
from pipeline.networks.instance_norm import InstanceNorm
from pipeline.networks.transposed_convolution import TransposedConvolution3d

LEAKY_SLOPE = 0.01


NORM_GROUPS = 8


def norm_layer(norm: str, spatial_dims: int, channels: int) -> nn.Module:
    """``"instance"``, ``"batch"`` or ``"group"`` (Wu & He 2018), each with a learned scale and shift per channel; or
    ``"none"``.

    Group norm makes 8 groups, or as many as divide both 8 and the channels.

    Raises:
        ConfigError: another name.
    """
    if norm == "instance":
        return InstanceNorm(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels) if spatial_dims == 2 else nn.BatchNorm3d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(NORM_GROUPS, channels), channels)
    if norm == "none":
        return nn.Identity()
    raise ConfigError(f"norm {norm!r}", expected="'instance', 'batch', 'group' or 'none'")


def norms_take_one_voxel(modules: Iterable[nn.Module]) -> tuple[bool, bool]:
    """Whether feature maps of one voxel survive every norm within: alone in its group, a voxel becomes a constant.

    Instance norm has nothing beside it, group norm the rest of the group, batch norm in training the rest of the batch
    and else the statistics that it has learned.

    Returns:
        Two answers: for a batch of several, or in eval mode; and for one sample alone in training.
    """
    layers = [layer for module in modules for layer in module.modules()]
    survives = not any(
        isinstance(layer, InstanceNorm) or (isinstance(layer, nn.GroupNorm) and layer.num_groups == layer.num_channels)
        for layer in layers
    )
    return survives, survives and not any(isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) for layer in layers)


def activation_layer(activation: str) -> nn.Module:
    """``"leaky_relu"`` (slope 0.01) or ``"relu"``, in place.

    In place, because the norm's backward needs its input, not its output: one feature map less is kept per layer.

    Raises:
        ConfigError: another name.
    """
    if activation == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
    if activation == "relu":
        return nn.ReLU(inplace=True)
    raise ConfigError(f"activation {activation!r}", expected="'leaky_relu' or 'relu'")


def convolution(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    bias: bool = False,
) -> nn.Module:
    """A padded convolution: with stride 1 the spatial size stays, with stride s it is divided by s (odd kernels)."""
    require_maps(in_channels, out_channels)
    kind: Any = nn.Conv2d if spatial_dims == 2 else Convolution3d
    padding = tuple(k // 2 for k in kernel_size)
    step = tuple(stride) if stride is not None else (1,) * spatial_dims
    return kind(in_channels, out_channels, tuple(kernel_size), step, padding, bias=bias)


def require_maps(*maps: Any) -> None:
    """Feature maps that go into a layer and come out of it.

    Raises:
        ConfigError: not a whole number of 1 or more each.
    """
    if not all(isinstance(number, Integral) and int(number) >= 1 for number in maps):
        raise ConfigError(
            f"a convolution from {maps[0]} to {maps[1]} feature maps", expected="whole numbers of 1 or more channels"
        )


def transposed_convolution(
    spatial_dims: int, in_channels: int, out_channels: int, stride: Sequence[int], bias: bool = False
) -> nn.Module:
    """Up-sampling by ``stride``. The kernel equals the stride: windows don't overlap, no checkerboard."""
    kind: Any = nn.ConvTranspose2d if spatial_dims == 2 else nn.ConvTranspose3d if bias else TransposedConvolution3d
    return kind(in_channels, out_channels, tuple(stride), tuple(stride), bias=bias)


class ConvNormAct(nn.Module):
    """Convolution, norm, activation and, where asked for, dropout of whole channels.

    (B, in_channels, *S) -> (B, out_channels, *S / stride). The convolution has a bias only where
    there is no norm to remove it.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
        norm: str = "instance",
        dropout: float = 0.0,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        self.conv = convolution(spatial_dims, in_channels, out_channels, kernel_size, stride, bias=norm == "none")
        self.norm = norm_layer(norm, spatial_dims, out_channels)
        self.act = activation_layer(activation)
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ConfigError(f"dropout {dropout!r}", expected="a share of the channels: 0, or more and below 1")
        channel_dropout = nn.Dropout2d if spatial_dims == 2 else nn.Dropout3d
        self.dropout = channel_dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.act(self.norm(self.conv(x))))


class ConvStage(nn.Sequential):
    """``count`` times :class:`ConvNormAct`; the first one changes the channels and carries the stride."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
        count: int = 2,
        norm: str = "instance",
        dropout: float = 0.0,
        activation: str = "leaky_relu",
    ) -> None:
        first = ConvNormAct(spatial_dims, in_channels, out_channels, kernel_size, stride, norm, dropout, activation)
        rest = (
            ConvNormAct(spatial_dims, out_channels, out_channels, kernel_size, None, norm, dropout, activation)
            for _ in range(count - 1)
        )
        super().__init__(first, *rest)


def initialise_he(network: nn.Module, slope: float = LEAKY_SLOPE) -> None:
    """Weights of every convolution from N(0, 2 / ((1 + a^2) fan_in)), a the LeakyReLU ``slope`` (He 2015); biases 0.

    ``fan_in`` is the number of values that one output sums. A transposed convolution whose kernel equals its stride
    sums one per input channel, which is not what torch's own rule takes for it. A convolution with ``sub_pixels`` n
    stands before a pixel shuffle: each n neighbouring kernels, which fill one block of voxels, get the same weights.
    """
    gain = math.sqrt(2 / (1 + slope**2))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
            fan_in = module.in_channels * (1 if transposed else math.prod(module.kernel_size))
            nn.init.normal_(module.weight, std=gain / math.sqrt(fan_in))
            sub_pixels = getattr(module, "sub_pixels", 1)
            if sub_pixels > 1:
                with torch.no_grad():
                    module.weight.copy_(module.weight[::sub_pixels].repeat_interleave(sub_pixels, dim=0))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def whole_numbers(name: str, values: Any) -> list[int]:
    """``values`` as a list.

    Raises:
        ConfigError: no list, or one with an entry that is no whole number.
    """
    if isinstance(values, Sequence) and all(isinstance(value, Integral) for value in values):
        return [int(value) for value in values]
    raise ConfigError(f"{name} {values!r}", expected="a list of whole numbers, such as [1, 2, 2]")


def per_level(
    name: str, values: Sequence[int | Sequence[int]] | None, default: Sequence[int], spatial_dims: int
) -> list[tuple[int, ...]]:
    """One value per level and axis, from one per level (``[1, 2, 2]``) or from all (``[[1, 1, 1], [2, 2, 1]]``).

    Args:
        name: what the values are, for the message.
        values: as the config gives them; None takes ``default``.
        default: one value for each level.

    Raises:
        ConfigError: not as many values as levels, or not as many as axes within one.
    """
    if not isinstance(values, Sequence | None):
        raise ConfigError(f"{name} {values!r}", expected=f"a list of {len(default)}, one per level")
    given = list(default if values is None else values)
    levels = [(v,) * spatial_dims if isinstance(v, int) else tuple(whole_numbers(name, v)) for v in given]
    if len(levels) != len(default) or any(len(v) != spatial_dims or min(v) < 1 for v in levels):
        raise ConfigError(
            f"{name} {given}",
            expected=f"{len(default)} of them, one per level, each a number or {spatial_dims} numbers above 0",
        )
    return levels


def convolutions_per_level(convolutions: int | Sequence[int], levels: int) -> tuple[int, ...]:
    """One number per level, from one for all or one for each.

    Raises:
        ConfigError: not as many as levels, or a level without any.
    """
    name = "convolutions_per_stage"
    counts = (convolutions,) * levels if isinstance(convolutions, int) else tuple(whole_numbers(name, convolutions))
    if len(counts) != levels or min(counts) < 1:
        raise ConfigError(f"{name} {convolutions}", expected=f"1 or more, or {levels} such numbers, one per level")
    return counts


def check_input_size(size: Sequence[int], total_stride: Sequence[int], one_voxel_allowed: bool) -> None:
    """Refuse a spatial size that the strides do not divide, or that leaves one voxel to a norm.

    Args:
        size: spatial size of the input, voxels per axis.
        total_stride: by how much the network shrinks it down to its deepest level.
        one_voxel_allowed: whether the deepest level may have one voxel, see `norms_take_one_voxel`.

    Raises:
        ConfigError: names the nearest sizes to use. It is a config's fault, not a case's: patches and windows are cut
            or padded to the size that the config states.
    """
    stride = " x ".join(map(str, total_stride))
    if len(size) != len(total_stride):
        raise ConfigError(
            f"an input with {len(size)} spatial axes",
            expected=f"a batch (B, C, *spatial) with {len(total_stride)} of them",
        )
    smaller = [max(n // s, 1) * s for n, s in zip(size, total_stride, strict=True)]
    larger = [-(-n // s) * s for n, s in zip(size, total_stride, strict=True)]
    if list(size) != larger:
        choices = [larger] if smaller == larger else [smaller, larger]
        raise ConfigError(
            f"an input of {' x '.join(map(str, size))} voxels",
            expected=f"each axis a multiple of the network's total stride {stride}",
            fix=f"use a patch or window of {' or '.join(' x '.join(map(str, c)) for c in choices)}",
        )
    if not one_voxel_allowed and list(size) == list(total_stride):
        doubled = [n * 2 for n in size]
        raise ConfigError(
            f"an input of {' x '.join(map(str, size))} voxels, one voxel at the network's deepest level",
            expected=f"more than the total stride {stride} along an axis: a norm has no statistics of one voxel alone",
            fix=f"use a patch or window of {' x '.join(map(str, doubled))}, or fewer levels",
        )
