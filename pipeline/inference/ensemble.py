"""Several networks that answer as one: folds of a cross-validation, checkpoints of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.inference.averaging import mean_logits, require_average


class Ensemble(nn.Module):
    """The mean of what several networks say.

    Args:
        networks: of one task: same inputs, same classes, same size of the output.
        average: of ``"logits"`` or of ``"probabilities"``, see `pipeline.inference.mean_logits`.

    Shape:
        - Input and output: those of each network.

    Attributes:
        total_stride, output_margin, input_size_for: the networks', where they have them.

    Raises:
        ConfigError: no networks, or some of another stride or margin than others.
    """

    def __init__(self, networks: Sequence[nn.Module], average: str = "logits") -> None:
        super().__init__()
        require_average(average)
        if not networks:
            raise ConfigError("an ensemble of no networks", expected="at least one")
        self.networks = nn.ModuleList(networks)
        self.average = average
        for name in ("total_stride", "output_margin"):
            values = {getattr(network, name, None) for network in networks}
            if len(values) > 1:
                raise ConfigError(f"networks with a {name} of {' and '.join(map(str, values))}", expected="one for all")

    def forward(self, images: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return mean_logits((network(images, *args, **kwargs) for network in self.networks), self.average)

    def __getattr__(self, name: str) -> Any:
        if name in ("total_stride", "output_margin", "input_size_for"):
            return getattr(self.networks[0], name)
        return super().__getattr__(name)
