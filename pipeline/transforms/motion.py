"""`RandMotiond`: a patient who moves during an MR scan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from torch.nn.functional import grid_sample

from pipeline.errors import ConfigError
from pipeline.transforms.ghosting import phase_axes
from pipeline.transforms.patch_map import rotation_matrix
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits

MIDDLE_SHARE = 0.2
"""Of the lines of k-space, around the middle, during which nobody moves."""


class RandMotiond(RandIntensityd):
    """y = m + |F^-1 sum_j w_j F T_j (x - m)|: position T_j while the lines w_j of k-space were recorded (m = min x).

    F runs along the phase-encoding axis. The patient moves ``movements`` times (1 to 3), to a position turned by up to
    5 degrees (``rotation_degrees``) and moved by up to 3 mm (``translation_mm``), per axis. As in TorchIO's
    RandomMotion (Shaw et al., MIDL 2019), but the position in which the middle 20% of k-space is recorded, and with it
    nearly all of what one sees, is the one of x: image and label stay in register.

    Args:
        keys, prob, parameters_key, allow_missing_keys: as `RandIntensityd`'s; all channels alike.
        movements: (fewest, most), 1 or more.
        rotation_degrees: limit about each axis, 0 or more.
        translation_mm: limit along each axis, 0 or more.
        axes: spatial axes that may be the phase-encoding one; None for any.
    """

    uses_spacing = True

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        movements: Sequence[int] | int = (1, 3),
        rotation_degrees: float = 5.0,
        translation_mm: float = 3.0,
        axes: Sequence[int] | None = None,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, False, parameters_key, allow_missing_keys)
        self.movements = limits("movements", movements, least=1)
        if rotation_degrees < 0 or translation_mm < 0:
            raise ConfigError(
                f"rotation_degrees={rotation_degrees}, translation_mm={translation_mm}", expected="0 or more"
            )
        self.rotation_degrees, self.translation_mm = float(rotation_degrees), float(translation_mm)
        self.axes = phase_axes(axes)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        dims = len(spacing_mm)
        axes = range(dims) if self.axes is None else self.axes
        count = int(self.R.randint(int(self.movements[0]), int(self.movements[1]) + 1))
        turns = (count, 3 if dims == 3 else 1)
        before = (1 - MIDDLE_SHARE) / 2
        times = self.R.uniform(0, 2 * before, count)
        return {
            "axis": int(axes[self.R.randint(len(axes))]),
            "times": sorted(np.where(times > before, times + MIDDLE_SHARE, times).tolist()),
            "rotations_degrees": self.R.uniform(-self.rotation_degrees, self.rotation_degrees, turns).tolist(),
            "translations_mm": self.R.uniform(-self.translation_mm, self.translation_mm, (count, dims)).tolist(),
        }

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        darkest = images.amin(tuple(range(2, images.ndim)), keepdim=True)
        signal = images - darkest
        moved = [_moved(*each) for each in zip(signal, parameters, spacing_mm, strict=True)]
        return torch.stack(moved).add_(darkest)


def _moved(signal: torch.Tensor, drawn: Parameters, spacing_mm: Sequence[float]) -> torch.Tensor:
    """What a scan of ``signal`` (C, H, W[, D]), 0 or more, shows whose patient moved meanwhile."""
    axis = drawn["axis"] + 1
    lines = torch.fft.fftshift(torch.fft.fft(signal, dim=axis), dim=axis)
    size = signal.shape[axis]
    middle = size // 2  # where fftshift puts the zero frequency
    bounds = [0, *(round(time * size) for time in drawn["times"]), size]
    positions = zip(drawn["rotations_degrees"], drawn["translations_mm"], strict=True)
    for first, last in itertools.pairwise(bounds):
        if first <= middle < last:
            continue  # the position of the image
        rotation, translation = next(positions)
        if first < last:
            other = torch.fft.fft(positioned(signal, rotation, translation, spacing_mm), dim=axis)
            part = torch.fft.fftshift(other, dim=axis).narrow(axis, first, last - first)
            lines.narrow(axis, first, last - first).copy_(part)
    return torch.fft.ifft(torch.fft.ifftshift(lines, dim=axis), dim=axis).abs()


def positioned(
    signal: torch.Tensor,
    rotation_degrees: Sequence[float],
    translation_mm: Sequence[float],
    spacing_mm: Sequence[float],
) -> torch.Tensor:
    """The image turned about its centre, then moved, interpolated linearly, mirrored beyond its borders."""
    shape, spacing = signal.shape[1:], np.asarray(spacing_mm, dtype=np.float64)
    # From the normalised coordinates of `grid_sample`, -1 to 1 between the outer voxels' centres, to mm and back.
    half_mm = np.maximum(1, np.asarray(shape) - 1) * spacing / 2
    linear = rotation_matrix(rotation_degrees).T * half_mm / half_mm[:, None]
    shift = -(rotation_matrix(rotation_degrees).T @ np.asarray(translation_mm)) / half_mm
    axes = [torch.linspace(-1, 1, size, dtype=signal.dtype, device=signal.device) for size in shape]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    grid = places @ torch.from_numpy(linear.T).to(signal) + torch.from_numpy(shift).to(signal)
    turned = grid.flip(-1)[None]  # grid_sample wants the last axis first
    return grid_sample(signal[None], turned, mode="bilinear", padding_mode="reflection", align_corners=True)[0]
