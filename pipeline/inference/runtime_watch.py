"""`Watched`: what is looked at while a network runs by a means that a probe chose from a few windows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from pipeline.inference.features import logits_from
from pipeline.inference.finite import all_finite
from pipeline.inference.means import Run
from pipeline.inference.runtime_agreement import labels_of

logger = logging.getLogger(__name__)


class Watched:
    """Runs windows, by float32 where the means gives logits that are not finite: half precision overflows on some
    images, and the probe has seen one.

    Args:
        run: the chosen means.
        network: as it is.
        size: (C, *window) of the windows that may serve as examples.
        wanted: of them, how many with foreground to keep in ``found``; 0 looks for none.
        record: of the runtime, where ``float32_instead`` counts the calls that float32 had to repeat.
    """

    def __init__(self, run: Run, network: Run, size: Sequence[int], wanted: int, record: dict[str, Any]) -> None:
        self.run, self.network, self.size = run, network, tuple(size)
        self.wanted, self.record = wanted, record
        self.found: list[torch.Tensor] = []

    def __call__(self, windows: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits = self.run(windows, *args, **kwargs)
        if self.run is not self.network and not all_finite(logits):
            logits = self.network(windows, *args, **kwargs)
            if not self.record.get("float32_instead"):
                logger.warning("runtime %s gives logits that are not finite: float32 then", self.record["runtime"])
            self.record["float32_instead"] = self.record.get("float32_instead", 0) + 1
        if len(self.found) < self.wanted and windows.shape[1:] == self.size:
            labels = labels_of(logits_from(self.network, logits))
            shown = [] if labels is None else labels.flatten(1).any(1).tolist()
            new = [windows[i : i + 1].clone() for i, foreground in enumerate(shown) if foreground]
            self.found += new[: self.wanted - len(self.found)]
        return logits
