"""Image files in and out: the only code that opens or writes one.

`nifti.py` reads and writes, `header.py` decides what a header means, `stream.py` opens files. Another file type becomes
a file of its own here, with the same `Volume` and the same errors: file, found, expected, what to do.
"""

from pipeline.io.nifti import Volume, read_grid, read_volume, write_volume

__all__ = ["Volume", "read_grid", "read_volume", "write_volume"]
