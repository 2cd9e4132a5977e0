"""A smooth random field over an image, such as the logarithm of a coil's sensitivity: cubic B-splines on a coarse grid.

The same splines as those of the elastic deformation (elastic.py), with one number per control point:
f(u) = sum_n c_n B(u/h - n), the control points h millimetres apart whatever the voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.transforms.elastic import axis_weights, control_shape, std_factor


def draw_field(
    random: np.random.RandomState, shape: Sequence[int], spacing_mm: Sequence[float], control_mm: float, std: float
) -> list[Any]:
    """Control values of a field over ``shape`` voxels, as nested lists.

    Args:
        control_mm: distance of the control points, mm.
        std: standard deviation of the field, averaged over space.
    """
    points = control_shape(shape, spacing_mm, (control_mm,) * len(shape))
    values: list[Any] = random.normal(0, std / std_factor(len(shape)), size=points).tolist()
    return values


def smooth_field(
    control: Sequence[Any], shape: Sequence[int], spacing_mm: Sequence[float], control_mm: float, like: torch.Tensor
) -> torch.Tensor:
    """The field at every voxel, of the shape ``shape``, of the type and on the device of ``like``."""
    field = torch.tensor(control, dtype=like.dtype, device=like.device)
    for size, side in zip(shape, spacing_mm, strict=True):
        # The first axis goes through its splines and becomes the last one: after all axes, each is in its place again.
        weights = axis_weights(int(size), float(side), float(control_mm), field.shape[0]).to(like)
        field = torch.tensordot(field, weights, dims=([0], [1]))
    return field
