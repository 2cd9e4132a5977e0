"""Rows of hazards: files that are damaged, or none."""

from __future__ import annotations

import gzip
import os

import numpy as np

from tests.hazards.making import ACCEPTED, REFUSED, bytes_of, case, image, load, nifti, raw, refused, row

row(
    "bit_flip",
    "bit flip in a .nii.gz (CRC unchecked)",
    "silent in 169 of 200",
    "refused: the checksum and the length of the gzip stream are verified",
)


@case("bit_flip", "one bit in each of 60 places of the stream", ACCEPTED)
def _(folder):
    whole = bytes_of(nifti(folder / "ct.nii.gz"))
    for place in np.linspace(12, len(whole) - 1, 60).astype(int):  # before: the gzip header's time and system
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        refused(lambda data=bytes(flipped): load(raw(folder / "ct.nii.gz", data)), "")


@case("bit_flip", "one bit of a voxel, stored without compression", REFUSED, "damaged gzip stream")
def _(folder):
    data = bytearray(gzip.compress(bytes_of(nifti(folder / "a.nii")), 0))
    data[len(data) // 2] ^= 1
    return load(raw(folder / "ct.nii.gz", bytes(data)))


row(
    "damaged",
    "truncated .nii.gz or .nii, missing CRC trailer, plain file named .gz, HTML or zero-byte file, directory, lone "
    ".hdr, another format under this name",
    "EOFError without a name; one reader returns half the voxels wrong",
    "refused, and the file is named; of known formats also what it is",
)
for what, says, name, edit in (
    ("a .nii.gz cut in half", "damaged gzip stream", "ct.nii.gz", lambda d: d[: len(d) // 2]),
    ("a .nii.gz without its trailer", "damaged gzip stream", "ct.nii.gz", lambda d: d[:-8]),
    ("a .nii.gz with a wrong length", "damaged gzip stream", "ct.nii.gz", lambda d: d[:-4] + b"\1\2\3\4"),
    ("a whole stream of half a file", "of 420 bytes", "ct.nii.gz", lambda d: gzip.compress(gzip.decompress(d)[:-200])),
    ("a .nii.gz with bytes behind its stream", "", "ct.nii.gz", lambda d: d + b"not gzip"),
    ("a gzip file inside a gzip file", "a gzip file inside a gzip file", "ct.nii.gz", gzip.compress),
    ("a plain file named .nii.gz", "not compressed", "ct.nii.gz", gzip.decompress),
    ("a gzip file named .nii", "a gzip file", "ct.nii", gzip.compress),
    ("a .nii cut in half", "where the header promises", "ct.nii", lambda d: d[: len(d) // 2]),
    ("a .nii without its last byte", "where the header promises", "ct.nii", lambda d: d[:-1]),
    ("a header alone", "where the header promises", "ct.nii", lambda d: d[:352]),
    ("half a header", "100 bytes", "ct.nii", lambda d: d[:100]),
    ("ten more slices than the header promises", "behind the last voxel", "ct.nii", lambda d: d + d[352:] * 2),
    ("zeros behind the last voxel", "90 bytes behind", "ct.nii", lambda d: d + b"\0" * 90),
    ("zeros up to a disk's block", "bytes behind the last voxel", "ct.nii", lambda d: d + b"\0" * (-len(d) % 512)),
    ("uint8 in the header, int16 and zeros stored", "210 bytes behind", "ct.nii", lambda d: d[:70] + b"\2" + d[71:]),
    ("a web page", "a web page", "ct.nii", lambda d: b"<!DOCTYPE html><html>not found</html>" + b" " * 600),
    ("a file of 0 bytes", "an empty file", "ct.nii.gz", lambda d: b""),
    ("a plain file of 0 bytes", "an empty file", "ct.nii", lambda d: b""),
    ("text", "no NIfTI image", "ct.nii", lambda d: b"subject,age\n1,70\n" * 50),
    ("a DICOM file", "a DICOM file", "ct.nii", lambda d: b"\0" * 128 + b"DICM" + b"\0" * 600),
    ("an NRRD image", "an NRRD image", "ct.nii", lambda d: b"NRRD0004\ntype: short\n" + d),
    ("an MGH image", "an MGH image", "ct.nii", lambda d: b"\0\0\0\1\0\0\1\0" + d),
    ("a MINC image", "an HDF5", "ct.nii", lambda d: b"\x89HDF\r\n\x1a\n" + d),
    ("what macOS notes beside a file", "AppleDouble", "ct.nii", lambda d: b"\0\5\x16\7\0\2\0\0Mac OS X" + d),
    ("a PNG picture", "a PNG picture", "ct.nii", lambda d: b"\x89PNG\r\n\x1a\n" + d),
    (
        "a pointer of Git LFS",
        "Git LFS",
        "ct.nii",
        lambda d: b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    ),
    ("the header of a .hdr/.img pair", "voxels lie in another file", "ct.nii", lambda d: d[:344] + b"ni1\0" + d[348:]),
    ("an Analyze 7.5 header", "Analyze 7.5", "ct.nii", lambda d: d[:344] + b"\0" * 4 + d[348:]),
    ("a damaged magic number", "damaged header", "ct.nii", lambda d: d[:344] + b"n+x\0" + d[348:]),
):
    image("damaged", what, REFUSED, says, name=name, edit=edit)
for axis, (side, surplus) in enumerate(((6, 60), (5, 70), (4, 84))):
    dim = [3, 7, 6, 5, 1, 1, 1, 1]
    dim[1 + axis] = side
    what = f"one voxel less along axis {axis} in the header, air at the end"
    image("damaged", what, REFUSED, f"{surplus} bytes behind", array=np.zeros((7, 6, 5), np.float32), dim=dim)
for name in ("ct.hdr", "ct.img", "ct.mgz", "ct.nrrd", "ct.dcm", "ct.mha", "ct"):
    image("damaged", f"a file named {name}", REFUSED, f"a file named {name}", name=name)


@case("damaged", "a directory named .nii.gz", REFUSED, "a folder")
def _(folder):
    (folder / "ct.nii.gz").mkdir()
    return load(folder / "ct.nii.gz")


@case("damaged", "no such file", REFUSED, "no such file")
def _(folder):
    return load(folder / "ct.nii.gz")


if hasattr(os, "mkfifo"):

    @case("damaged", "a link to itself", REFUSED, "no such file")
    def _(folder):
        (folder / "ct.nii.gz").symlink_to(folder / "ct.nii.gz")
        return load(folder / "ct.nii.gz")

    @case("damaged", "a pipe", REFUSED, "no file")
    def _(folder):
        os.mkfifo(folder / "ct.nii")
        return load(folder / "ct.nii")

    if os.geteuid() != 0:

        @case("damaged", "a file without the right to read it", REFUSED, "permission denied")
        def _(folder):
            path = nifti(folder / "ct.nii")
            path.chmod(0)
            return load(path)
