"""`RandSpiked`: stripes from a discharge during an MR scan, which fell on one point of k-space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits


class RandSpiked(RandIntensityd):
    """y = x + a sd(x) cos(2 pi sum_i k_i r_i / N_i + p): what two opposite points of k-space add, ``spikes`` times.

    a is from U(``strength``), 0.1 to 0.5 standard deviations of the patch's channel; each k_i is a whole number of
    waves across the patch, up to ``highest`` (0.25) of its voxels; p is any phase. MONAI's RandKSpaceSpikeNoised sets
    a point of the transform instead, per sample and through two Fourier transforms; the stripes are the same.

    Args:
        keys, prob, parameters_key, allow_missing_keys: as `RandIntensityd`'s; all channels alike.
        strength: (low, high), 0 or more.
        spikes: how many, 1 or more.
        highest: frequency along each axis, in waves per voxel, 0..0.5.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        strength: Sequence[float] | float = (0.1, 0.5),
        spikes: int = 1,
        highest: float = 0.25,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, False, parameters_key, allow_missing_keys)
        self.strength = limits("strength", strength, least=0)
        if spikes < 1 or not 0 < highest <= 0.5:
            raise ConfigError(
                f"spikes={spikes}, highest={highest}", expected="1 spike or more; above 0, up to 0.5 waves per voxel"
            )
        self.spikes, self.highest = int(spikes), float(highest)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        most = [int(size * self.highest) for size in shape[1:]]
        waves = []
        for _ in range(self.spikes):
            wave = [int(self.R.randint(-count, count + 1)) for count in most]
            if not any(wave):  # not a stripe but a shift of the mean
                wave[max(range(len(most)), key=most.__getitem__)] = 1
            waves.append(wave)
        phases = self.R.uniform(0, 2 * math.pi, self.spikes).tolist()
        return {"waves": waves, "phases": phases, "strength": self.R.uniform(*self.strength)}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        deviation = images.flatten(2).std(2, correction=0).reshape(*images.shape[:2], *[1] * (images.ndim - 2))
        stripes = [_stripes(images[0, 0], drawn) for drawn in parameters]
        return images + deviation * torch.stack(stripes)[:, None]


def _stripes(like: torch.Tensor, drawn: Parameters) -> torch.Tensor:
    total = torch.zeros_like(like)
    for wave, phase in zip(drawn["waves"], drawn["phases"], strict=True):
        angle = torch.full([1] * like.ndim, phase, dtype=like.dtype, device=like.device)
        for axis, (waves, size) in enumerate(zip(wave, like.shape, strict=True)):
            places = torch.arange(size, dtype=like.dtype, device=like.device) * (2 * math.pi * waves / size)
            angle = angle + places.reshape([-1 if axis == other else 1 for other in range(like.ndim)])
        total += torch.cos(angle)
    return total.mul_(drawn["strength"])
