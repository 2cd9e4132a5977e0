"""`RandGammad`: other grey values between the darkest and the brightest, as another scanner or sequence would give."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits, per_channel


class RandGammad(RandIntensityd):
    """y = min + (max - min) ((x - min) / (max - min))^g, with g from U(``gamma``), per channel of the patch.

    Range: g from 0.7 to 1.5, mean and standard deviation afterwards those of x, as in nnU-Net (Isensee et al., Nature
    Methods 18, 2021). g above 1 darkens what is dark; inverted, the same is done to -x, and what is bright moves.

    Args:
        keys, prob, channel_wise, parameters_key, allow_missing_keys: as `RandIntensityd`'s.
        gamma: (low, high), above 0.
        invert_prob: that a drawn change is done to -x.
        retain_stats: keep each channel's mean and standard deviation.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.15,
        gamma: Sequence[float] | float = (0.7, 1.5),
        invert_prob: float = 0.25,
        retain_stats: bool = True,
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_wise, parameters_key, allow_missing_keys)
        self.gamma = limits("gamma", gamma, least=0)
        if self.gamma[0] == 0 or not 0 <= invert_prob <= 1:
            raise ConfigError(
                f"gamma={gamma}, invert_prob={invert_prob}", expected="gamma above 0, invert_prob between 0 and 1"
            )
        self.invert_prob, self.retain_stats = invert_prob, retain_stats

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        invert = bool(self.R.rand() < self.invert_prob)
        return {"gamma": self._per_channel(shape[0], *self.gamma), "invert": invert}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        signs = [[-1.0 if drawn["invert"] else 1.0] for drawn in parameters]
        sign = torch.tensor(signs, dtype=images.dtype, device=images.device)[..., None]
        gamma = per_channel(parameters, "gamma", images).flatten(2)
        voxels = images.flatten(2) * sign
        low, high = voxels.amin(2, keepdim=True), voxels.amax(2, keepdim=True)
        tiny = torch.finfo(images.dtype).tiny  # a constant channel divides by it, and stays constant
        scale = high - low
        before = torch.var_mean(voxels, 2, correction=0, keepdim=True) if self.retain_stats else None
        voxels.sub_(low).div_(scale.clamp(min=tiny)).pow_(gamma).mul_(scale).add_(low)
        if before is not None:
            variance, mean = torch.var_mean(voxels, 2, correction=0, keepdim=True)
            ratio = (before[0] / variance.clamp(min=tiny)).sqrt_()
            voxels.sub_(mean).mul_(ratio).add_(before[1])
        return voxels.mul_(sign).reshape(images.shape)
