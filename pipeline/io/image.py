"""Any image file that this package reads: a volume (NIfTI) or a section (PNG, TIFF), told apart by its name."""

from __future__ import annotations

from os import PathLike

from pipeline.geometry import Grid
from pipeline.io.nifti import Volume, read_grid, read_volume
from pipeline.io.section import is_section, read_section, read_section_grid


def read_image(path: str | PathLike[str]) -> Volume:
    """`read_section` for ``.png``, ``.tif`` and ``.tiff``, otherwise `read_volume`: (H, W) or (H, W, D), float32."""
    return read_section(path) if is_section(path) else read_volume(path)


def read_image_grid(path: str | PathLike[str]) -> Grid:
    """The grid that `read_image` gives, from the file's header alone."""
    return read_section_grid(path) if is_section(path) else read_grid(path)
