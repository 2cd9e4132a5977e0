"""`RandPerfusiond`: other flow, other blood volume, and the transit time that follows from both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.perfusion_channels import FLOW, TRANSIT_TIME, VOLUME, RandPerfusionChannelsd
from pipeline.transforms.rand_intensity import Parameters, limits
from pipeline.transforms.smooth_field import draw_field, smooth_field


class RandPerfusiond(RandPerfusionChannelsd):
    """CBF' = CBF exp(a(r)), CBV' = CBV exp(b(r)), MTT' = MTT exp(b(r) - a(r)): still MTT = 60 CBV / CBF.

    (The central volume principle: Stewart 1894; Meier & Zierler, J Appl Physiol 6, 1954; with CBF per minute and MTT in
    seconds.) a and b are smooth fields, cubic B-splines over control points ``control_mm`` apart (60 mm), whose
    standard deviations over space are from U(``std``), 0 to 0.1: regions whose flow differs by some 10%, as between
    people. One factor for the whole brain would do nothing that the normalisation of a case does not undo.

    Args:
        keys, channels, prob, parameters_key, allow_missing_keys: as `RandPerfusionChannelsd`'s.
        std: (low, high), of the natural logarithms, 0 or more.
        control_mm: distance of the control points, mm.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: Sequence[str],
        prob: float = 0.2,
        std: Sequence[float] | float = (0.0, 0.1),
        control_mm: float = 60.0,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, channels, prob, parameters_key, allow_missing_keys)
        self.std, self.control_mm = limits("std", std, least=0), float(control_mm)
        if not self.control_mm > 0:
            raise ConfigError(f"control_mm={control_mm}", expected="more than 0 mm")

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        fields = {
            name: draw_field(self.R, shape[1:], spacing_mm, self.control_mm, self.R.uniform(*self.std))
            for name in (FLOW, VOLUME)
        }
        return {**fields, "control_mm": self.control_mm}

    def _log_factors(
        self, drawn: Parameters, like: torch.Tensor, spacing_mm: Sequence[float]
    ) -> Mapping[str, torch.Tensor]:
        flow, volume = (
            smooth_field(drawn[name], like.shape, spacing_mm, drawn["control_mm"], like) for name in (FLOW, VOLUME)
        )
        return {FLOW: flow, VOLUME: volume, TRANSIT_TIME: volume - flow}
