"""`RandNoised`: what the scanner's electronics add."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection

from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits, per_channel


class RandNoised(RandIntensityd):
    """Gaussian noise: y = x + s n, with n from N(0, 1) per voxel and s from U(``std``).

    Range: s from 0 to 0.1 of a normalised image's standard deviation. (nnU-Net draws the variance from 0 to 0.1, so s
    up to 0.32: Isensee et al., Nature Methods 18, 2021.)

    The noise itself is not recorded but its seed: on one kind of device the same seed gives the same noise, for a
    sample alone and within a batch.

    Args:
        keys, prob, channel_wise, parameters_key, allow_missing_keys: as `RandIntensityd`'s; noise of different channels
            is never the same, ``channel_wise`` draws s for each.
        std: (low, high), 0 or more.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.15,
        std: Sequence[float] | float = (0.0, 0.1),
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_wise, parameters_key, allow_missing_keys)
        self.std = limits("std", std, least=0)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        return {"std": self._per_channel(shape[0], *self.std), "seed": int(self.R.randint(2**31 - 1))}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        noise = torch.empty_like(images, memory_format=torch.contiguous_format)
        for sample, drawn in zip(noise, parameters, strict=True):
            sample.normal_(generator=torch.Generator(images.device).manual_seed(drawn["seed"]))
        return noise.mul_(per_channel(parameters, "std", images)).add_(images)
