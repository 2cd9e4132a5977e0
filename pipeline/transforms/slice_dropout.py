"""`RandSliceDropoutd`: slices without a signal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd


class RandSliceDropoutd(RandIntensityd):
    """y = ``value`` in 1 to ``most`` (2) slices, x elsewhere: lost in transfer, or to motion.

    Slices lie across the thickest axis of the voxels, the last one of equally thick ones. At least one slice stays.

    Args:
        keys, prob, parameters_key, allow_missing_keys: as `RandIntensityd`'s; the slices of all channels.
        most: slices, 1 or more.
        value: that they get; 0 is what stands outside the body in a normalised image with a background.
        axis: spatial axis that the slices are counted along; None for the thickest.
    """

    uses_spacing = True

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        most: int = 2,
        value: float = 0.0,
        axis: int | None = None,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, False, parameters_key, allow_missing_keys)
        if most < 1 or axis not in (None, 0, 1, 2):
            raise ConfigError(f"most={most}, axis={axis}", expected="1 slice or more; axis 0, 1, 2 or null")
        self.most, self.value, self.axis = int(most), float(value), axis

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        axis = self.axis
        if axis is None:
            axis = max(range(len(spacing_mm)), key=lambda other: (round(spacing_mm[other], 3), other))
        size = shape[1 + axis]
        count = min(int(self.R.randint(1, self.most + 1)), size - 1)
        return {"axis": axis, "slices": sorted(self.R.permutation(size)[:count].tolist()), "value": self.value}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        result = images.clone()
        for sample, drawn in zip(result, parameters, strict=True):
            for index in drawn["slices"]:
                sample.select(1 + drawn["axis"], index).fill_(drawn["value"])
        return result
