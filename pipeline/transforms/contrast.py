"""`RandContrastd`: differences from the mean, larger or smaller."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection

from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits, per_channel


class RandContrastd(RandIntensityd):
    """y = m + f (x - m), with m the mean of the patch's channel and f from U(``factor``), cut to the range of x.

    Range: f from 0.75 to 1.25, as in nnU-Net (Isensee et al., Nature Methods 18, 2021). For an image whose mean is 0,
    such as a normalised MR image, `RandBrightnessd` with a factor does nearly the same; this is for windows of CT.

    Args:
        keys, prob, channel_wise, parameters_key, allow_missing_keys: as `RandIntensityd`'s.
        factor: (low, high), above 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.15,
        factor: Sequence[float] | float = (0.75, 1.25),
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_wise, parameters_key, allow_missing_keys)
        self.factor = limits("factor", factor, least=0)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        return {"factor": self._per_channel(shape[0], *self.factor)}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        axes = tuple(range(2, images.ndim))
        mean = images.mean(axes, keepdim=True)
        low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
        changed = (images - mean).mul_(per_channel(parameters, "factor", images)).add_(mean)
        return changed.clamp_(low, high)
