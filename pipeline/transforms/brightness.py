"""`RandBrightnessd`: brighter or darker, by a factor or by a shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection

from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits, per_channel


class RandBrightnessd(RandIntensityd):
    """y = f x + o, with f from U(``factor``) and o from U(``offset``).

    Ranges: f from 0.8 to 1.2, o from -0.1 to 0.1 of a normalised image's standard deviation. The mean of an image
    that was normalised by `z_score` or `percentile` is 0: there f changes its contrast, and o its brightness.

    Args:
        keys, prob, channel_wise, parameters_key, allow_missing_keys: as `RandIntensityd`'s.
        factor: (low, high), above 0; 1 for none.
        offset: (low, high); 0 for none.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.3,
        factor: Sequence[float] | float = 1.0,
        offset: Sequence[float] | float = 0.0,
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_wise, parameters_key, allow_missing_keys)
        self.factor, self.offset = limits("factor", factor, least=0), limits("offset", offset)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        return {
            "factor": self._per_channel(shape[0], *self.factor),
            "offset": self._per_channel(shape[0], *self.offset),
        }

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        factor, offset = (per_channel(parameters, name, images) for name in ("factor", "offset"))
        return (images * factor).add_(offset)
