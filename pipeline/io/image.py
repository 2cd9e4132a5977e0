"""Any image file that this package reads: a volume (NIfTI) or a section (PNG, TIFF), told apart by its name."""

from __future__ import annotations

from os import PathLike

import numpy as np

from pipeline.geometry import Grid
from pipeline.io.nifti import Volume, read_header, read_volume
from pipeline.io.policy import STRICT, ReadPolicy
from pipeline.io.section import is_section, read_section, read_section_grid


def read_image(path: str | PathLike[str], dtype: type | np.dtype = np.float32, policy: ReadPolicy = STRICT) -> Volume:
    """`read_section` for ``.png``, ``.tif`` and ``.tiff``, otherwise `read_volume`: (H, W) or (H, W, D).

    Args:
        dtype: of the result; a section is always float32, which holds all of its values.
        policy: what may be taken on trust; of a section that is its colour alone.
    """
    return read_section(path, policy) if is_section(path) else read_volume(path, dtype, policy)


def read_image_grid(path: str | PathLike[str], policy: ReadPolicy = STRICT) -> Grid:
    """The grid that `read_image` gives, from the file's header alone."""
    return read_section_grid(path) if is_section(path) else read_header(path, policy).grid
