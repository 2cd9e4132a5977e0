"""The ranges from which `RandSpatialPatchd` draws, as a config gives them, and what thick slices leave of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError

THICK_RATIO = 3.0
"""Slices thicker than this many of their pixels' widths are thick."""
THICK_LIMIT_DEGREES = 5.0
"""By how much they are turned out of their plane at most."""


def confined(
    ranges: Sequence[tuple[float, float]], spacing_mm: Sequence[float], axes: Sequence[tuple[int, int]]
) -> list[tuple[float, float]]:
    """Angle ranges for a grid: those in a plane (its two ``axes``) with the thick axis cut to `THICK_LIMIT_DEGREES`."""
    thick = int(np.argmax(spacing_mm))
    others = max(side for axis, side in enumerate(spacing_mm) if axis != thick)
    limit = THICK_LIMIT_DEGREES if spacing_mm[thick] > THICK_RATIO * others else math.inf
    return [
        (float(np.clip(low, -limit, limit)), float(np.clip(high, -limit, limit))) if thick in plane else (low, high)
        for (low, high), plane in zip(ranges, axes, strict=True)
    ]


def angle_ranges(name: str, value: Any, dims: int) -> tuple[tuple[float, float], ...]:
    turns = 3 if dims == 3 else 1
    values = [value] * turns if isinstance(value, int | float) else list(value)
    ranges = [(-float(v), float(v)) if isinstance(v, int | float) else (float(v[0]), float(v[1])) for v in values]
    if len(ranges) != turns or any(low > high for low, high in ranges):
        expected = "one limit, or per axis a limit or (low, high)" if dims == 3 else "one limit, or [(low, high)]"
        raise ConfigError(f"{name}={value}", expected=expected)
    return tuple(ranges)


def scaling_ranges(value: Any, dims: int) -> tuple[tuple[float, float], ...]:
    pairs = [value] * dims if isinstance(value[0], int | float) else list(value)
    ranges = [(float(low), float(high)) for low, high in pairs]
    if len(ranges) != dims or any(not 0 < low <= high for low, high in ranges):
        raise ConfigError(f"scaling={value}", expected="(low, high) with 0 < low <= high, or one such pair per axis")
    return tuple(ranges)
