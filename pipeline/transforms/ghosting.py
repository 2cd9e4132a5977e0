"""`RandGhostingd`: faint copies of what moves periodically during an MR scan, such as a vessel or the chest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection

from pipeline.errors import ConfigError
from pipeline.transforms.axis_filters import filter_axes
from pipeline.transforms.rand_intensity import Parameters, RandIntensityd, limits

KEPT_SHARE = 0.02
"""Of the lines of k-space, in its middle, that are not weakened: the patch keeps its brightness."""


def ghosting_matrix(size: int, ghosts: int, strength: float) -> np.ndarray:
    """The filter that multiplies every ``ghosts``-th line of an axis' Fourier transform by 1 - ``strength``.

    Symmetric lines are treated alike, so a real image stays real. Copies appear size / ghosts voxels apart.
    """
    lines = np.abs(np.fft.fftfreq(size, 1 / size).round().astype(int))
    weights = np.where((lines % ghosts == 0) & (lines > KEPT_SHARE * size / 2), 1 - strength, 1.0)
    kernel = np.fft.ifft(weights).real
    return kernel[(np.arange(size)[:, None] - np.arange(size)) % size]


class RandGhostingd(RandIntensityd):
    """y = F^-1 w F x along one axis: w is 1 - a on every n-th line of k-space, otherwise 1.

    As in TorchIO's RandomGhosting. n is drawn from 3..6 (``ghosts``), a from U(``strength``), 0.2 to 0.6; the middle
    2% of the lines stay.

    Args:
        keys, prob, parameters_key, allow_missing_keys: as `RandIntensityd`'s; all channels alike.
        ghosts: (fewest, most), 2 or more.
        strength: (low, high), 0..1.
        axes: spatial axes that may be the phase-encoding one; None for any.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        ghosts: Sequence[int] | int = (3, 6),
        strength: Sequence[float] | float = (0.2, 0.6),
        axes: Sequence[int] | None = None,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, False, parameters_key, allow_missing_keys)
        self.ghosts, self.strength = limits("ghosts", ghosts, least=2), limits("strength", strength, least=0, most=1)
        self.axes = phase_axes(axes)

    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        axes = range(len(spacing_mm)) if self.axes is None else self.axes
        axis = int(axes[self.R.randint(len(axes))])
        ghosts = int(self.R.randint(int(self.ghosts[0]), int(self.ghosts[1]) + 1))
        return {
            "axis": axis,
            "ghosts": min(ghosts, max(2, shape[1 + axis] // 2)),  # a short axis has few lines
            "strength": self.R.uniform(*self.strength),
        }

    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        matrices = [
            [
                ghosting_matrix(size, drawn["ghosts"], drawn["strength"]) if drawn["axis"] == axis else None
                for drawn in parameters
            ]
            for axis, size in enumerate(images.shape[2:])
        ]
        return filter_axes(images, matrices)


def phase_axes(axes: Sequence[int] | None) -> tuple[int, ...] | None:
    """The spatial axes along which an MR scan may encode by phase, as a config gives them.

    Raises:
        ConfigError: none, or one that no image has.
    """
    if axes is None:
        return None
    if not axes or not set(axes) <= {0, 1, 2}:
        raise ConfigError(f"axes={axes}", expected="some of 0, 1, 2, or null for any")
    return tuple(axes)
