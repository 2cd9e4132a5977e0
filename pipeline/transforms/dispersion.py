"""`RandDispersiond`: a bolus that arrives late and spread out behind a narrowed artery."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from monai.config import KeysCollection

from pipeline.transforms.perfusion_channels import FLOW, TRANSIT_TIME, RandPerfusionChannelsd
from pipeline.transforms.rand_intensity import Parameters, limits


class RandDispersiond(RandPerfusionChannelsd):
    """MTT' = MTT (1 + d g(r)), CBF' = CBF / (1 + d g(r)), CBV' = CBV, with g = exp(-|r - c|^2 / (2 s^2)) about a point.

    Deconvolution that is not corrected for delay and dispersion of the bolus overestimates the transit time and
    underestimates the flow, by tens of percent, and leaves the volume (Calamante, Gadian & Connelly, MRM 44, 2000;
    Wu et al., MRM 50, 2003). d is from U(``prolongation``), 0 to 0.3; s from U(``radius_mm``), 20 to 50 mm; c lies
    anywhere in the patch. Dispersion spreads the bolus in time, not in space: maps are not blurred here.

    Args:
        keys, channels, prob, parameters_key, allow_missing_keys: as `RandPerfusionChannelsd`'s.
        prolongation: (low, high), 0 or more.
        radius_mm: (low, high), above 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: Sequence[str],
        prob: float = 0.2,
        prolongation: Sequence[float] | float = (0.0, 0.3),
        radius_mm: Sequence[float] | float = (20.0, 50.0),
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, channels, prob, parameters_key, allow_missing_keys)
        self.prolongation = limits("prolongation", prolongation, least=0)
        self.radius_mm = limits("radius_mm", radius_mm, least=1e-3)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        return {
            "prolongation": self.R.uniform(*self.prolongation),
            "radius_mm": self.R.uniform(*self.radius_mm),
            "centre": [self.R.uniform(0, size - 1) for size in shape[1:]],
        }

    def _log_factors(
        self, drawn: Parameters, like: torch.Tensor, spacing_mm: Sequence[float]
    ) -> Mapping[str, torch.Tensor]:
        bump = torch.full([1] * like.ndim, drawn["prolongation"], dtype=like.dtype, device=like.device)
        for axis, (size, side, centre) in enumerate(zip(like.shape, spacing_mm, drawn["centre"], strict=True)):
            away = torch.arange(size, dtype=like.dtype, device=like.device).sub_(centre)
            along = away.mul_(side / drawn["radius_mm"] / math.sqrt(2)).square_().neg_().exp_()
            bump = bump * along.reshape([-1 if axis == other else 1 for other in range(like.ndim)])
        prolonged = torch.log1p(bump)
        return {TRANSIT_TIME: prolonged, FLOW: -prolonged}
