"""A network without its last convolution: what sliding windows blend where there are fewer features than classes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class Features(nn.Module):
    """What a network knows of every voxel before its last convolution makes logits of it.

    That convolution is 1x1, so linear in each voxel: ``W f + b``. The weighted mean of the windows' logits is then
    that of their features, convolved, ``W (sum w f / sum w) + b``. Features are blended, and wait for later windows,
    in a fraction of the memory that a hundred classes would take; and only what is final is convolved, not what every
    window says of the same voxel.

    Args:
        network: with a ``last_convolution``, the path of the 1x1 convolution that its ``forward`` ends in, in eval
            mode. It is not changed; the weights are its own.

    Shape:
        - Input: the network's.
        - Output: (B, F, *S), the input of its last convolution.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        path = network.last_convolution
        self.network = _with_identity(network, str(path).split("."))
        self.last = network.get_submodule(str(path))
        self.eval()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.network(x, *args, **kwargs)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F, *S) -> logits (B, K, *S), float32, where the features are."""
        last = self.last
        weight = next(last.parameters())
        if weight.device != features.device:
            last = copy.deepcopy(last).to(features.device)
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            return last(features.to(weight.dtype)).float()


def _with_identity(module: nn.Module, path: list[str]) -> nn.Module:
    """A copy of the modules along a path, with nothing at its end; all others are the same ones."""
    if not path:
        return nn.Identity()
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    child = module._modules[path[0]]
    assert child is not None
    copied._modules[path[0]] = _with_identity(child, path[1:])
    return copied


def has_fewer_features(network: Any) -> bool:
    """Whether a network in eval mode names its last convolution, and that makes more logits than it takes features.

    >>> from pipeline.networks import UNet
    >>> [has_fewer_features(UNet(2, 1, classes, [8, 16]).eval()) for classes in (3, 30)]
    [False, True]
    """
    if not isinstance(network, nn.Module) or network.training or not hasattr(network, "last_convolution"):
        return False
    last: Any = network.get_submodule(str(network.last_convolution))
    return last.out_channels > last.in_channels


def logits_from(network: Any, answer: torch.Tensor) -> torch.Tensor:
    """The logits that a network's answer stands for: what it gives, or what its features give."""
    return network.logits(answer) if isinstance(network, Features) else answer
