"""The mean of several answers to one question: of mirror images, of networks, of scales."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from pipeline.errors import ConfigError

AVERAGES = ("logits", "probabilities")


def mean_logits(answers: Iterable[torch.Tensor], average: str = "logits") -> torch.Tensor:
    """Logits (B, K, *spatial), float32, that stand for the mean of several.

    The mean of logits has a softmax that is the normalised geometric mean of the answers' probabilities. With
    ``"probabilities"`` their arithmetic mean is taken, and its logarithm returned, whose softmax it is: a class that
    one of the answers excludes is not excluded by that.

    Args:
        answers: logits of one shape, at least one; only two of them exist at a time where they are made one by one.
        average: one of `AVERAGES`.

    >>> a, b = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> mean_logits([a, b], "probabilities").softmax(1)
    tensor([[0.7000, 0.3000]])
    >>> mean_logits([a, b]).softmax(1)
    tensor([[0.7500, 0.2500]])
    """
    require_average(average)
    prepared: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits.float()  # noqa: E731
    if average == "probabilities":
        prepared = lambda logits: logits.float().softmax(1)  # noqa: E731
    total, number = torch.empty(0), 0
    for answer in answers:
        total = prepared(answer).clone() if number == 0 else total.add_(prepared(answer))
        number += 1
    total /= number
    return total if average == "logits" else total.clamp_(min=torch.finfo(torch.float32).tiny).log_()


def require_average(average: str) -> None:
    if average not in AVERAGES:
        raise ConfigError(f"an average of {average!r}", expected=" or ".join(AVERAGES))
