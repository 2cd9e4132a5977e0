"""Between the values that a file stores and those in memory, slab by slab; what a type can't hold is said in words.

A value that is read is slope * stored + intercept, computed in the smallest type that holds both what is stored and
what is asked for: float32 for int16; float64, a slab at a time, only where float32 would lose digits before it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import DataError
from pipeline.io.header import VolumeHeader
from pipeline.io.memory_order import copy_in_blocks


class Conversion:
    """Converts the slabs of one file, and counts what it met in them.

    Args:
        header: of the file: stored type and scaling.
        dtype: floating or integer type of the result.
    """

    def __init__(self, header: VolumeHeader, dtype: np.dtype) -> None:
        self.dtype, self.slope, self.intercept = dtype, header.slope, header.intercept
        self.scaled = (header.slope, header.intercept) != (1.0, 0.0)
        # What is asked for as integers is to come out exactly.
        self._computed_in = np.result_type(header.dtype, dtype, np.float32 if dtype.kind == "f" else np.float64)
        # Nothing can go wrong with unscaled integers in a type that holds all of them, so nothing is looked at.
        self._safe = not self.scaled and header.dtype.kind in "iu" and np.can_cast(header.dtype, dtype)
        self.non_finite = self._rounded = self._unfit = 0
        self._low, self._high = np.inf, -np.inf

    def convert(self, stored: np.ndarray, result: np.ndarray) -> None:
        """Fill ``result`` with the values of ``stored``, both (N,); with 0 where there is none that fits."""
        if self._safe:
            result[...] = stored
            return
        with np.errstate(over="ignore", invalid="ignore"):  # what these hide is what `fits` finds
            values = stored
            if self.scaled:
                values = stored.astype(self._computed_in)
                values *= values.dtype.type(self.slope)
                values += values.dtype.type(self.intercept)
            result[...] = values
            fits = self._fits(values, result)
        if fits is None or fits.all():
            return
        result[~fits] = 0
        finite = np.isfinite(stored)
        self.non_finite += int(finite.size - np.count_nonzero(finite))
        lost = stored[~fits & finite].astype(np.float64) * self.slope + self.intercept
        if lost.size:
            self._unfit += lost.size
            self._low, self._high = min(self._low, float(lost.min())), max(self._high, float(lost.max()))

    def repairs(self, file: Path, zero_non_finite: bool) -> tuple[str, ...]:
        """What was put right in the slabs, one sentence each.

        Args:
            file: its name, for the errors.
            zero_non_finite: take NaN and infinite values as 0; otherwise they are refused.

        Raises:
            DataError: values that are not finite, or that the type can't hold.
        """
        if self.non_finite and not zero_non_finite:
            raise DataError(
                f"{self.non_finite} voxels that are NaN or infinite",
                file=file,
                expected="finite values",
                fix="find out where they come from and export the file without them; or say non_finite=zero",
            )
        if self._unfit:
            found = "too large" if self.dtype.kind == "f" else "that are no whole numbers, or too large"
            raise DataError(
                f"{self._unfit} voxels {found}, from {self._low:.9g} to {self._high:.9g}",
                file=file,
                expected=f"values that {self.dtype} holds",
                fix="correct these voxels" if self.dtype == np.float32 else "correct these voxels, or ask for float32",
            )
        repairs = []
        if self.non_finite:
            repairs.append(f"{self.non_finite} voxels that were NaN or infinite: set to 0")
        if self._rounded:
            repairs.append(f"{self._rounded} voxels of more digits than {self.dtype} holds: rounded")
        return tuple(repairs)

    def _fits(self, values: np.ndarray, result: np.ndarray) -> np.ndarray | None:
        """Which of ``values`` ``result`` holds; None for all of them."""
        if self.dtype.kind == "f":
            if values.dtype.kind != "f":
                largest = 2 ** (np.finfo(self.dtype).nmant + 1)  # up to here every whole number is exact
                if max(-int(values.min()), int(values.max())) > largest:
                    self._rounded += int(np.count_nonzero((values > largest) | (values < -largest)))
            return np.isfinite(result)
        limits = np.iinfo(self.dtype)
        if values.dtype.kind != "f":
            if limits.min <= int(values.min()) and int(values.max()) <= limits.max:
                return None
            return (values >= limits.min) & (values <= limits.max)
        # One above the highest is a power of two, which floats hold exactly where they don't hold the highest.
        fits = (values >= float(limits.min)) & (values < float(limits.max + 1)) & (values == np.rint(values))
        if self.scaled:
            fits &= np.abs(values) <= 2.0**53  # beyond, the product was rounded
        return fits


def stored_type(array: np.ndarray, asked: np.dtype | None, file: Path) -> np.dtype:
    """In which type an array is stored: as asked, or the smallest that holds its integers, or float32.

    Raises:
        DataError: integers that the type which is asked for can't hold.
    """
    if array.dtype.kind == "f":
        return np.dtype(np.float32 if asked is None else asked)
    low, high = int(array.min()), int(array.max())
    kinds = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8") if asked is None else (asked,)
    for dtype in map(np.dtype, kinds):
        if dtype.kind not in "iu" or (np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max):
            return dtype
    raise DataError(f"values from {low} to {high}", file=file, expected=f"whole numbers that {asked} holds")


def as_stored(slab: np.ndarray, dtype: np.dtype, file: Path) -> memoryview:
    """The bytes of voxels (H, W, d), of the `stored_type`, in the order of a file: the first axis runs fastest.

    Floating point numbers may be rounded to shorter ones, but not to whole numbers, and no whole number is rounded.

    Raises:
        DataError: values that are not finite, or that the type can't hold.
    """
    stored = np.empty(slab.shape, dtype, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        copy_in_blocks(stored, slab)
        exact = True
        if (dtype.kind == "f") != (slab.dtype.kind == "f"):
            given = np.empty(slab.shape, slab.dtype, order="F")
            copy_in_blocks(given, slab)
            exact = bool((stored == given).all())
    if dtype.kind == "f" and not np.isfinite(stored).all():
        raise DataError(f"voxels that are NaN, infinite or beyond {dtype}", file=file, expected="finite values")
    if not exact:
        raise DataError(f"values that {dtype} can't hold", file=file, expected="whole numbers in its range")
    return stored.reshape(-1, order="F").view(np.uint8).data
