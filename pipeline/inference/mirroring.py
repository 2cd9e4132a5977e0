"""Test-time mirroring: predict an image and its mirror images, and average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch

from pipeline.errors import ConfigError


def mirror_dims(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """The tensor dimensions to flip in each pass over a (B, C, *spatial) tensor, the unflipped pass first.

    >>> mirror_dims([0, 2])
    [(), (2,), (4,), (2, 4)]
    """
    return [tuple(a + 2 for a in chosen) for n in range(len(axes) + 1) for chosen in combinations(axes, n)]


def mirrored(network: Callable[..., torch.Tensor], axes: Sequence[int]) -> Callable[..., torch.Tensor]:
    """Wrap a network so that it averages its logits over every combination of mirrored axes.

    Logits are averaged, not probabilities: the result stays what the rest of the pipeline takes, and its softmax is the
    normalised geometric mean of the passes. A network of n axes costs 2^n passes. Mirror only axes along which training
    mirrored too: a network that never saw a swapped left and right loses by it.

    Args:
        network: (B, C, *spatial) -> (B, K, *spatial).
        axes: spatial axes, counted from 0 (the first after the channels).

    Returns:
        A callable of the same signature, which returns float32; ``network`` itself where ``axes`` is empty.
    """
    if not axes:
        return network
    if len(set(axes)) != len(axes) or min(axes) < 0:
        raise ConfigError(f"mirror axes {list(axes)}", expected="different spatial axes, counted from 0")
    passes = mirror_dims(axes)

    def average(images: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        if max(axes) > images.ndim - 3:
            raise ConfigError(f"mirror axes {list(axes)} for {images.ndim - 2} spatial axes", expected="axes it has")
        total = network(images, *args, **kwargs).float()
        for dims in passes[1:]:
            total = total + network(images.flip(dims), *args, **kwargs).float().flip(dims)
        return total / len(passes)

    return average
