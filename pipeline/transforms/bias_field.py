"""`RandBiasFieldd`: MR coils that are more sensitive here than there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits
from pipeline.transforms.smooth_field import draw_field, smooth_field


class RandBiasFieldd(RandIntensityd):
    """y = m + (x - m) exp(b(r)), with m the darkest value of the patch's channel and b a smooth field, per channel.

    b is a cubic B-spline over control points ``control_mm`` apart (60 mm), as in Sled, Zijdenbos & Evans, IEEE TMI 17,
    1998, its standard deviation over space from U(``std``): 0 to 0.2, that is factors from about 0.7 to 1.5. A field
    multiplies a signal, whose zero a normalised image no longer shows: m stands for it. Voxels that are exactly 0 while
    others lie below 0 are background, and stay; so this comes before noise and blur.

    Args:
        keys, prob, channel_wise, parameters_key, allow_missing_keys: as `RandIntensityd`'s; channel-wise, each has its
            own field.
        std: (low, high), of the field's natural logarithm, 0 or more.
        control_mm: distance of the control points, mm.
    """

    uses_spacing = True

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.15,
        std: Sequence[float] | float = (0.0, 0.2),
        control_mm: float = 60.0,
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_wise, parameters_key, allow_missing_keys)
        self.std, self.control_mm = limits("std", std, least=0), float(control_mm)
        if not self.control_mm > 0:
            raise ConfigError(f"control_mm={control_mm}", expected="more than 0 mm")

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        std, fields = self.R.uniform(*self.std), shape[0] if self.channel_wise else 1
        control = [draw_field(self.R, shape[1:], spacing_mm, self.control_mm, std) for _ in range(fields)]
        return {"control": control, "control_mm": self.control_mm}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        axes = tuple(range(2, images.ndim))
        darkest = images.amin(axes, keepdim=True)
        result = images - darkest
        for sample, drawn, spacing in zip(result, parameters, spacing_mm, strict=True):
            fields = [
                smooth_field(control, sample.shape[1:], spacing, drawn["control_mm"], sample)
                for control in drawn["control"]
            ]
            sample.mul_(torch.stack(fields).exp_())
        return torch.where((images == 0) & (darkest < 0), images, result.add_(darkest))
