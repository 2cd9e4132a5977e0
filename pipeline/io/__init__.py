"""Image files in and out: the only code that opens or writes one.

`nifti.py` reads and writes volumes, `header.py` and `space.py` decide what their headers mean, `stream.py` opens their
files and `values.py` converts their voxels; `section.py` reads and writes 2D images, and `image.py` takes either. All
are written through `atomic.py`; `journal.py` and `sole_writer.py` are for who writes many. Another file type becomes a
file of its own here, with the same `Volume` and the same errors: file, found, expected, what to do.
"""

from pipeline.io.image import read_image, read_image_grid
from pipeline.io.nifti import Volume, read_grid, read_header, read_volume, write_volume
from pipeline.io.section import count_sections, is_section, read_section, section_of, write_section

__all__ = [
    "Volume",
    "count_sections",
    "is_section",
    "read_grid",
    "read_header",
    "read_image",
    "read_image_grid",
    "read_section",
    "read_volume",
    "section_of",
    "write_section",
    "write_volume",
]
