"""`RandBlurd`: a scan with a softer kernel, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection

from pipeline.transforms.axis_filters import filter_axes, gaussian_matrix
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits


class RandBlurd(RandIntensityd):
    """Gaussian blur: y = x * g(s), a Gaussian of the same standard deviation s in millimetres along all axes.

    s is from U(``sigma_mm``); by default from half to all of the finest voxel side, as in nnU-Net (0.5 to 1 voxel). A
    patch of thick slices is then blurred within its slices and hardly across them, as a scan would be. Borders are
    mirrored.

    Args:
        keys, prob, channel_wise, parameters_key, allow_missing_keys: as `RandIntensityd`'s.
        sigma_mm: (low, high), above 0; None for 0.5 to 1 times the finest voxel side.
    """

    uses_spacing = True

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        sigma_mm: Sequence[float] | float | None = None,
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_wise, parameters_key, allow_missing_keys)
        self.sigma_mm = None if sigma_mm is None else limits("sigma_mm", sigma_mm, least=0)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        finest = min(spacing_mm)
        return {"sigma_mm": self._per_channel(shape[0], *(self.sigma_mm or (0.5 * finest, finest)))}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        sizes, matrices = images.shape[2:], []
        for axis, size in enumerate(sizes):
            own: list[np.ndarray | None] = []
            for drawn, spacing in zip(parameters, spacing_mm, strict=True):
                made = {sigma: gaussian_matrix(size, sigma / spacing[axis]) for sigma in set(drawn["sigma_mm"])}
                own += [made[sigma] for sigma in drawn["sigma_mm"]]
            matrices.append(own)
        return filter_axes(images, matrices)
