"""Changing normalised perfusion maps by factors of their physical values: ml/100g/min, ml/100g, s.

A map is normalised to z = (x - m) / s inside the brain. A factor f of x makes it f x, and z becomes
z0 + f (z - z0) with z0 = -m / s, the place of 0 on its scale, which `NormalizeChannelsd` keeps for each channel and
case. The background, exactly 0 after normalisation, stays 0: so this must come before noise and blur.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError, DataError
from pipeline.transforms.normalize import zero_key
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd

FLOW, VOLUME, TRANSIT_TIME = "cbf", "cbv", "mtt"


class RandPerfusionChannelsd(RandIntensityd):
    """Base of what multiplies perfusion maps; a member implements `_draw` and `_log_factors`.

    Args:
        keys, prob, parameters_key, allow_missing_keys: as `RandIntensityd`'s.
        channels: the names of the image's channels, in order; at least two of cbf, cbv and mtt among them.

    Raises:
        ConfigError: fewer of them: one map alone can't contradict another.
        DataError: an item that `NormalizeChannelsd` has not made.
    """

    uses_spacing = True

    def __init__(
        self,
        keys: KeysCollection,
        channels: Sequence[str],
        prob: float,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, False, parameters_key, allow_missing_keys)
        names = [name.lower() for name in channels]
        self.channel_of = {name: names.index(name) for name in (FLOW, VOLUME, TRANSIT_TIME) if name in names}
        if len(self.channel_of) < 2:
            raise ConfigError(f"channels {list(channels)}", expected="at least two of cbf, cbv and mtt")

    def _draw_for(self, item: Mapping[Hashable, Any], key: Hashable) -> Parameters | None:
        if zero_key(key) not in item:
            raise DataError(
                f"{key} without the place of 0 on its scale ({zero_key(key)!r})",
                case=item.get("case_id"),
                expected="an image that NormalizeChannelsd has normalised",
                fix="put it before this step",
            )
        drawn = super()._draw_for(item, key)
        return None if drawn is None else {**drawn, "zero": torch.as_tensor(item[zero_key(key)]).tolist()}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        result = images.clone()
        for sample, drawn, spacing in zip(result, parameters, spacing_mm, strict=True):
            logarithms = self._log_factors(drawn, sample[0], spacing)
            for name, channel in self.channel_of.items():
                if name in logarithms:
                    maps, zero = sample[channel], drawn["zero"][channel]
                    changed = (maps - zero).mul_(torch.exp(logarithms[name])).add_(zero)
                    maps.copy_(torch.where(maps == 0, maps, changed))
        return result

    @abstractmethod
    def _log_factors(
        self, drawn: Parameters, like: torch.Tensor, spacing_mm: Sequence[float]
    ) -> Mapping[str, torch.Tensor]:
        """Natural logarithms of the factors of the maps that change, each of the shape of ``like`` (H, W[, D])."""
