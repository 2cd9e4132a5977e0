"""An exponential moving average of a network's weights: what is validated, saved and published."""

from __future__ import annotations

import copy

import torch
from ignite.engine import Engine, Events

from pipeline.errors import ConfigError


def averaged_copy(network: torch.nn.Module, decay: float | None) -> torch.nn.Module:
    """The network that will hold the average: a copy, or ``network`` itself where ``decay`` is ``None``."""
    source = network.module if isinstance(network, torch.nn.parallel.DistributedDataParallel) else network
    if decay is None:
        return source
    average = copy.deepcopy(source)
    return average.requires_grad_(False).eval()


class WeightAverage:
    """After every optimiser step: average <- decay * average + (1 - decay) * weights. Attach it to a trainer.

    Polyak & Juditsky 1992; the exponential form as in Tarvainen & Valpola 2017 (arXiv 1703.01780), section 2. The decay
    grows as (1 + n) / (10 + n) with the steps n: until it has grown to ``decay``, after 9 / (1 - decay) steps, the
    average is over the last tenth of all steps, however many these are. So it forgets the random start at once, and is
    as long as a run of minutes or of hours can bear.

    Args:
        network: the network that is trained.
        average: what :func:`averaged_copy` made of it.
        decay: at least 0 and below 1, or ``None`` for no averaging.

    Raises:
        ConfigError: another decay.
    """

    def __init__(self, network: torch.nn.Module, average: torch.nn.Module, decay: float | None = 0.999) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise ConfigError(f"ema_decay {decay}", expected="at least 0 and below 1, or null for no average")
        self.network = network.module if isinstance(network, torch.nn.parallel.DistributedDataParallel) else network
        self.average, self.decay = average, decay

    def attach(self, engine: Engine) -> None:
        if self.decay is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    @torch.no_grad()
    def update(self, engine: Engine) -> None:
        assert self.decay is not None
        step = engine.state.iteration
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, weights = list(self.average.parameters()), list(self.network.parameters())
        torch._foreach_lerp_([a.data for a in averages], [w.data for w in weights], share)
        # Buffers (batch norm's statistics) are averages already.
        for average, buffer in zip(self.average.buffers(), self.network.buffers(), strict=True):
            average.copy_(buffer)
