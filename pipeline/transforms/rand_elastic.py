"""`RandElasticd`: elastic deformation alone, for chains that had MONAI's Rand3DElasticd or Rand2DElasticd."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep

from pipeline.errors import ConfigError
from pipeline.transforms.elastic import control_shape, max_std_mm, sample_control_vectors
from pipeline.transforms.item_grid import shape_and_spacing_mm
from pipeline.transforms.patch_map import SpatialPatchParameters
from pipeline.transforms.patch_sampling import PatchSampler
from pipeline.transforms.resampling import compiled_loop

logger = logging.getLogger(__name__)

_MODES = {"bilinear": "linear", "nearest": "nearest", "majority": "majority"}
_BORDERS = {"reflection": "mirror", "border": "edge"}


def bspline_of_smoothed_noise(sigma_mm: float, magnitude: float, dims: int = 3) -> tuple[float, float]:
    """The B-spline field that is as smooth and as strong as Rand3DElasticd's, on a grid of 1 mm.

    There, noise uniform in (-1, 1) per voxel is smoothed by a Gaussian of ``sigma_mm`` and multiplied by ``magnitude``:
    its standard deviation is then magnitude / sqrt(3) (4 pi sigma^2)^(-dims/4). Random vectors h apart under a cubic
    B-spline, whose variance is h^2 / 3, are smoothed as much at h = sqrt(3) sigma.

    Returns:
        Distance of the control points and standard deviation of each component of the displacement, mm.

    >>> control_mm, std_mm = bspline_of_smoothed_noise(11, 150)
    >>> round(control_mm, 2), round(std_mm, 2)
    (19.05, 0.36)
    """
    return math.sqrt(3) * sigma_mm, magnitude / math.sqrt(3) * (4 * math.pi * sigma_mm**2) ** (-dims / 4)


class RandElasticd(Randomizable, MapTransform):
    """Deform image and label elastically, without folding; replaces MONAI's Rand3DElasticd and Rand2DElasticd.

    What they say in voxels is in millimetres here, so that the deformation is the same in space whatever the grid; at
    1 mm per voxel it is as smooth and as strong as theirs (see `bspline_of_smoothed_noise`). Where it would fold, it is
    cut to what does not, and a warning says so. `RandSpatialPatchd` deforms, turns, scales and picks a patch at once.

    Args:
        keys: volumes (C, H, W, D) or sections (C, H, W) on one grid, one of them with an affine.
        sigma_range: of the Gaussian that smooths the noise, mm; as Rand3DElasticd's.
        magnitude_range: what the noise is multiplied by; as theirs.
        spatial_size: voxels of the result, from the middle of the volume; None for all, -1 for all of an axis.
        prob: of a deformation. Without one, the middle is cut out and no voxel changes.
        mode: per key ``"bilinear"`` (trilinear in 3D), ``"nearest"``, or ``"majority"``, see `RandSpatialPatchd`.
        padding_mode: ``"reflection"`` or ``"border"``.
        spacing: distance of the control points, mm, instead of ``sigma_range``; as Rand2DElasticd's, whose control
            vectors are uniform between plus and minus the magnitude.
        parameters_key: where the drawn parameters go, as text; None for nowhere.

    Raises:
        ConfigError: other modes, or both or neither of ``sigma_range`` and ``spacing``.
    """

    leaves_input_untouched = True

    def __init__(
        self,
        keys: KeysCollection,
        sigma_range: Sequence[float] | None = None,
        magnitude_range: Sequence[float] = (0.0, 0.0),
        spatial_size: Sequence[int] | int | None = None,
        prob: float = 0.1,
        mode: str | Sequence[str] = "bilinear",
        padding_mode: str = "reflection",
        spacing: Sequence[float] | float | None = None,
        parameters_key: str | None = "elastic_parameters",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if (sigma_range is None) == (spacing is None):
            found = f"sigma_range={sigma_range} and spacing={spacing}"
            raise ConfigError(found, expected="one of them, as of Rand3DElasticd or of Rand2DElasticd")
        modes = ensure_tuple_rep(mode, len(self.keys))
        if any(name not in _MODES for name in modes) or padding_mode not in _BORDERS:
            raise ConfigError(
                f"mode={mode!r} and padding_mode={padding_mode!r}",
                expected=f"modes {', '.join(_MODES)}; padding_mode {' or '.join(_BORDERS)}",
            )
        if not 0 <= prob <= 1:
            raise ConfigError(f"prob={prob}", expected="between 0 and 1")
        self.sigma_range = None if sigma_range is None else (float(sigma_range[0]), float(sigma_range[1]))
        self.magnitude_range = (float(magnitude_range[0]), float(magnitude_range[1]))
        if not 0 <= self.magnitude_range[0] <= self.magnitude_range[1]:
            raise ConfigError(f"magnitude_range={magnitude_range}", expected="(low, high), 0 or more")
        if self.sigma_range is not None and not 0 < self.sigma_range[0] <= self.sigma_range[1]:
            raise ConfigError(f"sigma_range={sigma_range}", expected="(low, high), more than 0")
        if spacing is not None and not np.all(np.asarray(spacing, dtype=float) > 0):
            raise ConfigError(f"spacing={spacing}", expected="more than 0 mm")
        self.spacing, self.spatial_size, self.prob = spacing, spatial_size, prob
        self.interpolation = {key: _MODES[name] for key, name in zip(self.keys, modes, strict=True)}
        self.border, self.parameters_key = _BORDERS[padding_mode], parameters_key
        compiled_loop()  # in the process that makes data loaders' workers
        self._warned = False

    def randomize(self, shape: Sequence[int], spacing_mm: Sequence[float]) -> SpatialPatchParameters:
        """Draw a deformation of a volume; ``start`` and the size of its control grid are those of the result."""
        dims, size = len(shape), self.size_of(shape)
        start = tuple((whole - part) // 2 for whole, part in zip(shape, size, strict=True))
        control, control_mm = None, None
        if self.R.rand() < self.prob:
            magnitude = self.R.uniform(*self.magnitude_range)
            if self.sigma_range is not None:
                distance, std_mm = bspline_of_smoothed_noise(self.R.uniform(*self.sigma_range), magnitude, dims)
                control_mm = (distance,) * dims
            else:
                control_mm = tuple(np.broadcast_to(np.asarray(self.spacing, dtype=float), dims).tolist())
                std_mm = magnitude / math.sqrt(3)
            limit = max_std_mm(min(control_mm), dims)
            if std_mm > limit and not self._warned:
                self._warned = True
                logger.warning(
                    "RandElasticd: a displacement of %.2f mm (standard deviation) at control points %.1f mm apart "
                    "would fold the image; it is cut to what does not (%.2f mm is the most that is hardly cut)",
                    std_mm, min(control_mm), limit,
                )  # fmt: skip
            control = sample_control_vectors(self.R, control_shape(size, spacing_mm, control_mm), std_mm, control_mm)
        angles = (0.0,) * (3 if dims == 3 else 1)
        return SpatialPatchParameters(start, (False,) * dims, angles, (1.0,) * dims, control, control_mm, angles)

    def size_of(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Voxels of the result for a volume of this shape."""
        if self.spatial_size is None:
            return tuple(shape)
        wanted = ensure_tuple_rep(self.spatial_size, len(shape))
        return tuple(int(part) if part > 0 else whole for whole, part in zip(shape, wanted, strict=True))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        present = list(self.key_iterator(item))
        volumes = {key: item[key].as_tensor() if isinstance(item[key], MetaTensor) else item[key] for key in present}
        dims = min((volume.ndim - 1 for volume in volumes.values()), default=3)
        shape, spacing_mm = shape_and_spacing_mm(item, volumes, dims)
        drawn, size = self.randomize(shape, spacing_mm), self.size_of(shape)
        sampler = PatchSampler(drawn, size, spacing_mm, shape, self.border)
        for key, volume in volumes.items():
            item[key] = _with_meta(item[key], sampler(volume, self.interpolation[key]), drawn.start)
        if self.parameters_key is not None:
            item[self.parameters_key] = drawn.to_json()
        return item


def _with_meta(source: Any, patch: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
    """The patch with its source's meta, if it had one, and its affine moved to where the patch begins."""
    if not isinstance(source, MetaTensor):
        return patch
    affine = source.affine.clone()
    affine[:3, 3] += affine[:3, : len(start)] @ torch.tensor(start, dtype=affine.dtype)
    return MetaTensor(patch, meta={**source.meta, "affine": affine})
