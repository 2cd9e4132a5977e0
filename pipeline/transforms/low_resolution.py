"""`RandLowResolutiond`: the same anatomy from a coarser scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.axis_filters import filter_axes, low_resolution_matrix
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits


class RandLowResolutiond(RandIntensityd):
    """y = U D x: D takes means over voxels of a drawn size r in mm, U interpolates them linearly onto the patch's own.

    r is from U(``resolution_mm``); by default from one to two times the finest voxel side, as in nnU-Net (zoom 0.5 to
    1). Axes whose voxels are as large already stay as they are. The label stays sharp: the network learns to draw
    from a coarse scan what a fine one would show.

    Args:
        keys, prob, channel_wise, parameters_key, allow_missing_keys: as `RandIntensityd`'s.
        resolution_mm: (low, high), above 0; None for 1 to 2 times the finest voxel side.
        axes: ``"all"``: the same r along all of them; ``"one"``: along an axis drawn at random, as thick slices.
    """

    uses_spacing = True

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        resolution_mm: Sequence[float] | float | None = None,
        axes: str = "all",
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_wise, parameters_key, allow_missing_keys)
        if axes not in ("all", "one"):
            raise ConfigError(f"axes={axes!r}", expected="all or one")
        self.resolution_mm = None if resolution_mm is None else limits("resolution_mm", resolution_mm, least=0)
        self.axes = axes

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        finest = min(spacing_mm)
        axes = list(range(len(spacing_mm))) if self.axes == "all" else [int(self.R.randint(len(spacing_mm)))]
        resolution = self._per_channel(shape[0], *(self.resolution_mm or (finest, 2 * finest)))
        return {"resolution_mm": resolution, "axes": axes}

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        matrices = []
        for axis, size in enumerate(images.shape[2:]):
            own: list[np.ndarray | None] = []
            for drawn, spacing in zip(parameters, spacing_mm, strict=True):
                made = {
                    resolution: low_resolution_matrix(size, resolution / spacing[axis])
                    for resolution in set(drawn["resolution_mm"])
                    if axis in drawn["axes"] and resolution > spacing[axis]
                }
                own += [made.get(resolution) for resolution in drawn["resolution_mm"]]
            matrices.append(own)
        return filter_axes(images, matrices)
