"""The grid that all volumes of an item are on, as far as a transform in millimetres asks for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from pipeline.errors import DataError, GeometryError

SPACING_MM = "spacing_mm"
"""Entry of a patch, one number per axis: its voxel size, for the steps after this one. A patch has no affine."""


def shape_and_spacing_mm(
    item: Mapping[Hashable, Any], volumes: Mapping[Hashable, torch.Tensor], dims: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Of the one grid that all volumes of an item are on.

    Raises:
        GeometryError: volumes on several grids, or not of ``dims`` axes.
        DataError: no volume with an affine.
    """
    case_id = item.get("case_id")
    shapes = {key: tuple(volume.shape[1:]) for key, volume in volumes.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != dims for shape in shapes.values()):
        expected = f"one {'(H, W, D)' if dims == 3 else '(H, W)'} for image and label"
        raise GeometryError(f"shapes {shapes}", case=case_id, expected=expected)
    with_affine = next((item[key] for key in volumes if isinstance(item[key], MetaTensor)), None)
    if with_affine is None:
        expected = "a MetaTensor: millimetres need a voxel size"
        raise DataError("arrays without an affine", case=case_id, expected=expected)
    affine = np.asarray(with_affine.affine, dtype=np.float64)
    return next(iter(shapes.values())), tuple(np.linalg.norm(affine[:3, :dims], axis=0).tolist())
