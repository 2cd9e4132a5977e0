"""`RandChannelDropoutd`: a modality that was not recorded."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.absent_channels import PRESENT
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd


class RandChannelDropoutd(RandIntensityd):
    """y = 0 in 1 to ``most`` (1) channels, x in the others: as `LoadImageStackd` fills a channel that a case lacks.

    At least one channel stays of those that the case has. A network learns to do without each
    (``missing_channels=zero`` when it is used). It comes last in a chain: noise would make an image of the zeros.

    Args:
        keys, prob, parameters_key, allow_missing_keys: as `RandIntensityd`'s.
        most: channels, 1 or more.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.2,
        most: int = 1,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, False, parameters_key, allow_missing_keys)
        if most < 1:
            raise ConfigError(f"most={most}", expected="1 channel or more")
        self.most = int(most)

    def _draw_for(self, item: Mapping[Hashable, Any], key: Hashable) -> Parameters | None:
        there = [c for c in range(len(item[key])) if PRESENT not in item or bool(item[PRESENT][c])]
        drawn = self.draw((len(there), *item[key].shape[1:]), self.spacing_of(item, key))
        return None if drawn is None else {"channels": [there[c] for c in drawn["channels"]]}

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        count = int(self.R.randint(1, self.most + 1))
        order = self.R.permutation(shape[0]).tolist()
        return {"channels": order[: min(count, shape[0] - 1)]}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        result = images.clone()
        for sample, drawn in zip(result, parameters, strict=True):
            sample[drawn["channels"]] = 0
        return result
