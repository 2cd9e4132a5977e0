"""What a measure takes: label maps, their spacing and the names of their classes, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, DataError


def class_names(classes: Mapping[int, str] | Mapping[str, str]) -> dict[int, str]:
    """The class map with whole numbers as keys.

    >>> class_names({"1": "anterior", "2": "posterior"})
    {1: 'anterior', 2: 'posterior'}
    """
    try:
        ids = {int(key): str(name) for key, name in classes.items()}
    except (TypeError, ValueError):
        ids = {}
    if not ids or min(ids) < 1:
        raise ConfigError(
            f"classes {dict(classes)}", expected='ids from 1 (0 is the background) with names, such as {1: "lesion"}'
        )
    return ids


def label_map_of(values: Any, role: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, on whatever device
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()  # which NumPy lacks
    label_map = np.asarray(values)
    if label_map.ndim not in (2, 3) or not label_map.size:
        raise DataError(
            f"a {role} of shape {label_map.shape}", expected="a label map (H, W, D) or (H, W), without channels"
        )
    if label_map.dtype == bool:
        return label_map.view(np.uint8)
    if np.issubdtype(label_map.dtype, np.integer):
        return label_map
    expected = "whole class ids"
    if not np.issubdtype(label_map.dtype, np.floating):
        raise DataError(f"a {role} of type {label_map.dtype}", expected=expected)
    if not np.isfinite(label_map).all():
        raise DataError(
            f"a {role} with {np.count_nonzero(~np.isfinite(label_map))} NaN or infinite voxels", expected=expected
        )
    fractional = label_map != np.rint(label_map)
    if fractional.any():
        raise DataError(
            f"a {role} with {fractional.sum()} fractional values, such as {label_map[fractional][0]:.4g}",
            expected=expected,
            fix="take the argmax of logits or probabilities first",
        )
    return label_map.astype(np.int32 if float(np.abs(label_map).max()) < 2**31 else np.int64)


def spacing_of(spacing_mm: Sequence[float], dims: int) -> tuple[float, ...]:
    spacing = () if spacing_mm is None else tuple(float(value) for value in spacing_mm)
    if len(spacing) != dims or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise DataError(f"spacing {spacing_mm} for {dims} axes", expected=f"{dims} positive distances in mm")
    return spacing
