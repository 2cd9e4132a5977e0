"""What a NIfTI header means: the voxels' type and shape, which volume of a series; `space.py` says where they lie.

Two readers disagree about many headers. So the header is read raw, without a library's own corrections, and every
choice stands here: taken as it is, taken and said so (a repair), or refused. NIfTI-1 and 2, both byte orders; the
fields are those of https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header

from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io.policy import STRICT, ReadPolicy
from pipeline.io.space import affine_mm

HEADER_BYTES = 540 + 4 + 8
"""The longer of the two header kinds, the flag of header extensions, and what the first of them says of itself."""

_REAL_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}

# What else is given the name of a NIfTI file, by how it begins (DICOM: after 128 bytes).
_OTHER_FORMATS = {
    b"NRRD": "an NRRD image",
    b"\x89HDF": "an HDF5 (MINC 2) file",
    b"CDF": "a MINC 1 file",
    b"PK": "a zip archive",
    b"\x1f\x8b": "a gzip file inside a gzip file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8": "a JPEG picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"\0\0\0\1": "an MGH image",
    b"\0\5\x16\7": "what macOS notes beside a file (AppleDouble, ._name)",
    b"ObjectType": "a MetaImage header",
    b"version https://git-lfs": "a pointer of Git LFS instead of the file",
}


@dataclass(frozen=True)
class VolumeHeader:
    """What is needed to read the voxels of one volume.

    Args:
        dtype: of the stored values, with the file's byte order.
        offset: where the volume's voxels begin, bytes from the start of the (decompressed) file.
        slope, intercept: value = slope * stored + intercept.
        grid: shape and affine (mm, RAS+).
        repairs: what was put right or assumed, one sentence each.
        end: where the last voxel of the file ends (of a series: of its last volume); a shorter file is truncated.
    """

    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    grid: Grid
    repairs: tuple[str, ...]
    end: int

    @property
    def voxel_bytes(self) -> int:
        # Python's integers: a product of absurd sides must not wrap around.
        return math.prod(self.grid.shape) * self.dtype.itemsize


def parse_header(block: bytes, file: str | PathLike[str], policy: ReadPolicy = STRICT) -> VolumeHeader:
    """Interpret the first `HEADER_BYTES` (or fewer) of a NIfTI file.

    Args:
        block: of the decompressed file.
        file: its name, for the errors.
        policy: what is taken on trust; each such choice is among the repairs.

    Raises:
        DataError: not a single-file NIfTI, or not one volume of real numbers.
        GeometryError: the header describes no space, or two.
    """
    header = _raw_header(block, file)
    shape, chosen, volumes, repairs = _volume_shape(header, file, policy)
    dtype = _stored_type(header, file, repairs)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):  # the standard's way of saying "no scaling" is 0; many tools write NaN
        if math.isinf(slope):
            repairs.append(f"scl_slope {slope}: taken as no scaling")
        slope, intercept = 1.0, 0.0
    elif not math.isfinite(intercept):
        raise DataError(f"scl_inter {intercept}", file=file, expected="a finite intercept", fix="export the file again")
    affine = affine_mm(header, shape, file, policy, repairs)
    start, volume_bytes = _voxel_offset(header, block, file), math.prod(shape) * dtype.itemsize
    return VolumeHeader(
        dtype,
        start + chosen * volume_bytes,
        slope,
        intercept,
        Grid(shape, affine),
        tuple(repairs),
        end=start + volumes * volume_bytes,
    )


def _raw_header(block: bytes, file) -> Nifti1Header:
    kinds = {348: (Nifti1Header, 348, b"n+1"), 540: (Nifti2Header, 540, b"n+2")}
    sizes = (int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big"))
    known = next((kinds[size] for size in sizes if size in kinds), None)
    if known is None:
        raise DataError(
            _other_format(block), file=file, expected="a NIfTI-1 or NIfTI-2 image", fix="convert or export it again"
        )
    kind, length, magic = known
    if len(block) < length:
        raise DataError(f"{len(block)} bytes", file=file, expected="a whole header", fix="copy the file again")
    header = kind(block[:length], endianness="<" if sizes[0] == length else ">", check=False)
    found = header["magic"].tobytes().rstrip(b"\0")
    if found[:3] != magic:
        pair, analyze = found[:2] == b"ni", length == 348 and not found
        raise DataError(
            "a header whose voxels lie in another file (.hdr and .img)"
            if pair
            else "an Analyze 7.5 header, which does not say where left and right are"
            if analyze
            else f"a damaged header (magic {found!r})",
            file=file,
            expected="a NIfTI header and its voxels in one file",
            fix="export it from the DICOM files again" if analyze else "convert the .hdr/.img pair to .nii.gz",
        )
    return header


def _other_format(block: bytes) -> str:
    if block.lstrip()[:1] == b"<":
        return "a web page"
    if block[128:132] == b"DICM":
        return "a DICOM file"
    return next((name for start, name in _OTHER_FORMATS.items() if block.startswith(start)), "no NIfTI image")


def _volume_shape(header: Nifti1Header, file, policy: ReadPolicy) -> tuple[tuple[int, int, int], int, int, list[str]]:
    """(shape of a volume, which one of the file's is meant, how many it holds, repairs)."""
    dims = [int(n) for n in header["dim"]]
    count, sides = dims[0], dims[1 : 1 + max(0, dims[0])]
    if not 1 <= count <= 7 or min(sides) < 1:
        raise DataError(f"dimensions {dims}", file=file, expected="positive sizes", fix="export the file again")
    text = "x".join(map(str, sides))
    if count < 3:
        raise DataError(
            f"a {count}D image ({text})",
            file=file,
            expected="a volume; a single slice has a third axis of size 1",
            fix="store it as a volume of one slice, with its slice thickness",
        )
    volumes, chosen, repairs = math.prod(sides[3:]), 0, []
    if volumes > 1:
        if any(n != 1 for n in sides[4:]):
            raise DataError(
                f"several values per voxel ({text})",
                file=file,
                expected="one real number per voxel",
                fix="write the component that you mean to a file of its own",
            )
        if policy.volume is None:
            raise DataError(
                f"a 4D series of {volumes} volumes ({text})",
                file=file,
                expected="one volume",
                fix="write the volume that you mean to a file of its own, or name it: volume=0 is the first",
            )
        if policy.volume >= volumes:
            raise DataError(
                f"a series of {volumes} volumes ({text})",
                file=file,
                expected=f"one that holds volume {policy.volume}, counted from 0",
                fix=f"name one from 0 to {volumes - 1}",
            )
        chosen = policy.volume
        repairs.append(f"a series: volume {chosen} of 0 to {volumes - 1} is taken")
    elif policy.volume:
        repairs.append(f"no series, but one volume: taken in place of volume {policy.volume}")
    return (sides[0], sides[1], sides[2]), chosen, volumes, repairs


def _stored_type(header: Nifti1Header, file, repairs: list[str]) -> np.dtype:
    code = int(header["datatype"])
    if code not in _REAL_TYPES:
        name = data_type_codes.label[code] if code in data_type_codes else f"code {code}"
        raise DataError(
            f"voxels of type {name}",
            file=file,
            expected="one real number per voxel, an integer or a float of up to 64 bits",
            fix="export it as such a volume; of complex numbers or colours, one part (magnitude, one colour) alone",
        )
    dtype = np.dtype(_REAL_TYPES[code]).newbyteorder(header.endianness)
    bits = int(header["bitpix"])
    if bits != 8 * dtype.itemsize:
        repairs.append(f"bitpix {bits} contradicts the type {dtype.name}: the type is used")
    return dtype


def _voxel_offset(header: Nifti1Header, block: bytes, file) -> int:
    offset, least = float(header["vox_offset"]), int(header["sizeof_hdr"]) + 4
    if offset == 0:  # written by some tools; the standard then means the first place possible
        offset = least
    if not math.isfinite(offset) or offset < least or offset != int(offset):
        raise DataError(f"voxels at byte {offset:g}", file=file, expected=f"at {least} or later", fix="export it again")
    # Some tools leave the flag's byte as it was: it counts where what follows has the form of an extension, whose
    # length is a multiple of 16 and whose code is even.
    flagged = any(block[least - 4 : least - 3])
    size, code = np.frombuffer(block[least : least + 8].ljust(8, b"\0"), f"{header.endianness}i4").tolist()
    extension = flagged and size >= 16 and size % 16 == 0 and 0 <= code < 2**16 and code % 2 == 0
    if extension and least + size > offset:
        raise DataError(
            f"voxels at byte {int(offset)}, inside a header extension from byte {least} to byte {least + size}",
            file=file,
            expected=f"voxels from byte {least + size} (vox_offset)",
            fix="export it again, or correct vox_offset",
        )
    return int(offset)
