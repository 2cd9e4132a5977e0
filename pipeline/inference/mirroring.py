"""Test-time mirroring: predict an image and its mirror images, and average."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import torch

from pipeline.errors import ConfigError
from pipeline.inference.averaging import mean_logits, require_average


def mirror_dims(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """The tensor dimensions to flip in each pass over a (B, C, *spatial) tensor, the unflipped pass first.

    >>> mirror_dims([0, 2])
    [(), (2,), (4,), (2, 4)]
    """
    return [tuple(a + 2 for a in chosen) for n in range(len(axes) + 1) for chosen in combinations(axes, n)]


def mirrored(
    network: Callable[..., torch.Tensor], axes: Sequence[int], average: str = "logits", together: bool | None = None
) -> Callable[..., torch.Tensor]:
    """Wrap a network so that it averages its answers over every combination of mirrored axes.

    A network of n axes costs 2^n passes. Mirror only axes along which training mirrored too: a network that never saw a
    swapped left and right loses by it.

    Args:
        network: (B, C, *spatial) -> (B, K, *spatial).
        axes: spatial axes, counted from 0 (the first after the channels).
        average: of ``"logits"`` or of ``"probabilities"``, see `pipeline.inference.mean_logits`.
        together: run all passes as one batch; by default where that is faster: on a GPU, which small windows do not
            fill, and not on a CPU, whose memory they leave.

    Returns:
        A callable of the same signature, which returns float32; ``network`` itself where ``axes`` is empty.
    """
    require_average(average)
    if not axes:
        return network
    if len(set(axes)) != len(axes) or min(axes) < 0:
        raise ConfigError(f"mirror axes {list(axes)}", expected="different spatial axes, counted from 0")
    passes = mirror_dims(axes)

    def answers(images: torch.Tensor, args, kwargs) -> Iterator[torch.Tensor]:
        if images.is_cuda if together is None else together:
            batch = network(torch.cat([images.flip(dims) for dims in passes]), *args, **kwargs)
            for dims, answer in zip(passes, batch.split(len(images)), strict=True):
                yield answer.flip(dims)
        else:
            for dims in passes:
                yield network(images.flip(dims) if dims else images, *args, **kwargs).flip(dims)

    def averaged(images: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        if max(axes) > images.ndim - 3:
            raise ConfigError(f"mirror axes {list(axes)} for {images.ndim - 2} spatial axes", expected="axes it has")
        return mean_logits(answers(images, args, kwargs), average)

    return averaged
