"""Arrays that a caller has in memory, judged by the rules for files and put into one stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.data.stack import Stack, absence_remarks, void_remark
from pipeline.data.stack_rules import StackRules
from pipeline.errors import DataError, GeometryError
from pipeline.geometry import Grid
from pipeline.io.space import require_volume


def stack_arrays(
    arrays: Mapping[str, Any], channels: Sequence[str], grid: Grid, rules: StackRules | None = None
) -> Stack:
    """The channels as `pipeline.data.stack.load_stack` gives them from files.

    Args:
        arrays: channel -> (H, W, D), of a section (H, W); real numbers.
        channels: names in the order of the stack.
        grid: where the voxels of all of them lie.
        rules: with ``missing_channels="zero"`` absent channels, and arrays that are 0 everywhere, become 0.

    Raises:
        DataError: an absent or constant channel, a shape that is not the grid's, NaN or infinite voxels.
        GeometryError: a grid that describes no space, or voxels whose sides are beyond the rules' limits.
    """
    rules = rules or StackRules()
    missing = [name for name in channels if name not in arrays]
    if missing and (rules.missing_channels == "refuse" or len(missing) == len(channels)):
        raise DataError(
            f"the channels {', '.join(arrays) or '(none)'}; no {', '.join(missing)}",
            expected=", ".join(channels),
            fix="give an array for each channel",
        )
    if len(grid.shape) == 3:
        _require_space(grid, rules.policy.spacing_limits_mm)
    stack = np.zeros((len(channels), *grid.shape), np.float32)
    repairs = []
    for number, name in enumerate(channels):
        if name in arrays:
            stack[number], remark = _voxels(arrays[name], name, grid, rules)
            repairs += [f"{name}: {remark}"] if remark else []
            void = void_remark(name, None, stack[number], rules)
            repairs += [void] if void else []
    there = {name: name for name in channels if name in arrays}
    repairs += absence_remarks({name: there.get(name) for name in channels}, there)
    present = tuple(bool(channel.any()) for channel in stack)
    if not any(present):
        raise DataError("channels that are 0 everywhere", expected="an image in one of them")
    return Stack(stack, grid, tuple(repairs), present)


def _voxels(array: Any, name: str, grid: Grid, rules: StackRules) -> tuple[np.ndarray, str]:
    given = np.asarray(array)
    if given.shape != grid.shape or given.dtype.kind not in "buif":
        raise DataError(
            f"channel {name} as an array of {given.dtype}, shape {given.shape}",
            expected=f"real numbers of the grid's shape {grid.shape}",
        )
    with np.errstate(over="ignore"):  # looked for below
        voxels = given.astype(np.float32)
    wrong = ~np.isfinite(voxels)
    if not wrong.any():
        return voxels, ""
    if rules.policy.non_finite == "refuse":
        raise DataError(
            f"{np.count_nonzero(wrong)} NaN or infinite voxels in channel {name}",
            expected="finite values",
            fix="correct them, or take them as 0: non_finite=zero",
        )
    voxels[wrong] = 0
    return voxels, f"{np.count_nonzero(wrong)} NaN or infinite voxels set to 0"


def _require_space(grid: Grid, limits_mm: tuple[float, float]) -> None:
    require_volume(grid.affine, "a grid", None)
    low, high = limits_mm
    if not all(low <= side <= high for side in grid.spacing_mm):
        raise GeometryError(
            f"{grid}", expected=f"sides between {low:g} and {high:g} mm (spacing_limits_mm)", fix="correct the affine"
        )
