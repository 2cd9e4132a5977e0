"""What a NIfTI header means: the voxels' type and shape, and where they lie in space.

Two readers disagree about many headers (a qform against an sform, a spacing of zero, units that are not stated). So the
header is read raw, without a library's own corrections, and every choice stands here: taken as it is, taken and said so
(a repair), or refused. NIfTI-1 and 2, both byte orders; the fields are those of https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.quaternions import fillpositive, quat2mat

from pipeline.errors import DataError, GeometryError
from pipeline.geometry import Grid

SPACING_LIMITS_MM = (0.01, 30.0)
"""Sides outside this range are taken for a damaged header: resampling would ask for gigabytes, or leave one voxel."""

SHEAR_LIMIT_DEGREES = 0.5
QFORM_SFORM_LIMIT_VOXELS = 0.1

_REAL_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_UNITS_IN_MM = {1: ("metres", 1000.0), 2: ("millimetres", 1.0), 3: ("micrometres", 0.001)}


@dataclass(frozen=True)
class VolumeHeader:
    """What is needed to read the voxels of one volume.

    Args:
        dtype: of the stored values, with the file's byte order.
        offset: where the voxels begin, bytes from the start of the (decompressed) file.
        slope, intercept: value = slope * stored + intercept.
        grid: shape and affine (mm, RAS+).
        repairs: what was put right or assumed, one sentence each.
    """

    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    grid: Grid
    repairs: tuple[str, ...]

    @property
    def voxel_bytes(self) -> int:
        # Python's integers: a product of absurd sides must not wrap around.
        return math.prod(self.grid.shape) * self.dtype.itemsize


def parse_header(block: bytes, file: str | PathLike[str]) -> VolumeHeader:
    """Interpret the first 540 bytes (or fewer) of a NIfTI file.

    Raises:
        DataError: not a single-file NIfTI, or not one volume of real numbers.
        GeometryError: the header describes no space, or two.
    """
    header = _raw_header(block, file)
    shape = _volume_shape(header, file)
    code = int(header["datatype"])
    if code not in _REAL_TYPES:
        name = data_type_codes.label[code] if code in data_type_codes else f"code {code}"
        raise DataError(
            f"voxels of type {name}",
            file=file,
            expected="one real number per voxel",
            fix="export one of its parts (magnitude, or one colour) as a volume of its own",
        )
    dtype = np.dtype(_REAL_TYPES[code]).newbyteorder(header.endianness)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):  # the standard's way of saying "no scaling"
        slope, intercept = 1.0, 0.0
    elif not math.isfinite(intercept):
        raise DataError(f"scl_inter {intercept}", file=file, expected="a finite intercept", fix="export the file again")
    affine, repairs = _affine_mm(header, shape, file)
    return VolumeHeader(dtype, _voxel_offset(header, file), slope, intercept, Grid(shape, affine), tuple(repairs))


def _raw_header(block: bytes, file) -> Nifti1Header:
    kinds = {348: (Nifti1Header, 348, b"n+1"), 540: (Nifti2Header, 540, b"n+2")}
    sizes = (int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big"))
    known = next((kinds[size] for size in sizes if size in kinds), None)
    if known is None:
        raise DataError(
            "a web page" if block.lstrip()[:1] == b"<" else "a file that is no NIfTI image",
            file=file,
            expected="a NIfTI-1 or NIfTI-2 image",
            fix="download or export it again",
        )
    kind, length, magic = known
    if len(block) < length:
        raise DataError(f"{len(block)} bytes", file=file, expected="a whole header", fix="copy the file again")
    header = kind(block[:length], endianness="<" if sizes[0] == length else ">", check=False)
    if header["magic"].tobytes().rstrip(b"\0") != magic:
        raise DataError(
            "a header whose voxels lie in another file, or a damaged one",
            file=file,
            expected="header and voxels in one file",
            fix="convert the .hdr/.img pair to .nii.gz",
        )
    return header


def _volume_shape(header: Nifti1Header, file) -> tuple[int, int, int]:
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
    if any(n != 1 for n in sides[3:]):
        raise DataError(
            f"a {count}D series ({text})",
            file=file,
            expected="one volume",
            fix="write the volume that you mean to a file of its own",
        )
    return sides[0], sides[1], sides[2]


def _voxel_offset(header: Nifti1Header, file) -> int:
    offset, least = float(header["vox_offset"]), int(header["sizeof_hdr"]) + 4
    if offset == 0:  # written by some tools; the standard then means the first place possible
        return least
    if not math.isfinite(offset) or offset < least or offset != int(offset):
        raise DataError(f"voxels at byte {offset:g}", file=file, expected=f"at {least} or later", fix="export it again")
    return int(offset)


def _affine_mm(header: Nifti1Header, shape: tuple[int, ...], file) -> tuple[np.ndarray, list[str]]:
    repairs: list[str] = []
    unit = int(header["xyzt_units"]) & 7
    if unit not in _UNITS_IN_MM and unit != 0:
        raise GeometryError(f"unit code {unit}", file=file, expected="mm", fix="state the units in the header")
    if unit == 0:
        repairs.append("units not stated: taken as millimetres")
    name, factor = _UNITS_IN_MM.get(unit, ("millimetres", 1.0))
    if factor != 1:
        repairs.append(f"units {name}: converted to millimetres")

    qform_code, sform_code = int(header["qform_code"]), int(header["sform_code"])
    spacing = np.abs(np.asarray(header["pixdim"], dtype=np.float64)[1:4])  # some old tools write negative sides
    has_spacing = bool(np.isfinite(spacing).all() and (spacing > 0).all())
    if qform_code <= 0 and sform_code <= 0:
        raise GeometryError(
            "neither qform nor sform",
            file=file,
            expected="a header that says where left and right are",
            fix="export it from the DICOM files again",
        )
    if sform_code > 0:
        affine = np.eye(4)
        affine[:3] = [header["srow_x"], header["srow_y"], header["srow_z"]]
        _check_affine(affine, "sform", file)
        if not has_spacing:
            repairs.append("spacing missing (pixdim): the sform's is used")
        elif qform_code > 0:
            _compare_with_qform(affine, _qform(header, spacing, file), shape, qform_code == sform_code, repairs, file)
    else:
        if not has_spacing:
            found = f"spacing {spacing.tolist()} and no sform"
            raise GeometryError(found, file=file, expected="a voxel size", fix="export it again")
        affine = _qform(header, spacing, file)
        _check_affine(affine, "qform", file)
    affine[:3] *= factor
    _check_shear_and_spacing(affine, repairs, file)
    return affine, repairs


def _qform(header: Nifti1Header, spacing: np.ndarray, file) -> np.ndarray:
    vector = np.array([header["quatern_b"], header["quatern_c"], header["quatern_d"]], dtype=np.float64)
    offset = np.array([header["qoffset_x"], header["qoffset_y"], header["qoffset_z"]], dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not math.isfinite(length) or length > 1 + 1e-5:
        raise GeometryError("a qform that is no rotation", file=file, expected="a unit quaternion", fix="export again")
    rotation = quat2mat(fillpositive(vector / max(1.0, length), w2_thresh=-1e-7))
    handedness = -1.0 if float(header["pixdim"][0]) < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * (spacing * [1.0, 1.0, handedness])
    affine[:3, 3] = offset
    return affine


def _check_affine(affine: np.ndarray, name: str, file) -> None:
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(all="ignore"):
        # the determinant over the product of the sides is 1 for orthogonal axes whatever the voxel size
        volume = abs(np.linalg.det(affine[:3, :3])) / max(float(np.prod(sides)), np.finfo(float).tiny)
    if not np.isfinite(affine).all() or not volume > 1e-3:
        raise GeometryError(
            f"an {name} that describes no volume (NaN, or axes in one plane)",
            file=file,
            expected="three independent axes",
            fix="export the file again",
        )


def _compare_with_qform(affine, qform, shape, same_space: bool, repairs: list[str], file) -> None:
    # The distance between two affine maps is largest in a corner of the volume.
    distance = Grid(shape, affine).distance_mm(Grid(shape, qform))
    limit = QFORM_SFORM_LIMIT_VOXELS * float(np.linalg.norm(affine[:3, :3], axis=0).min())
    if distance <= limit:
        return
    if same_space or not math.isfinite(distance):
        raise GeometryError(
            f"a qform and an sform for one space that lie {distance:.3g} units apart",
            file=file,
            expected="that they agree within a tenth of a voxel",
            fix="find out which is right and write both alike",
        )
    repairs.append(f"qform and sform name different spaces ({distance:.3g} units apart): the sform is used")


def _check_shear_and_spacing(affine: np.ndarray, repairs: list[str], file) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_LIMITS_MM
    if spacing.min() < low or spacing.max() > high:
        raise GeometryError(
            f"a voxel size of {'x'.join(f'{v:.4g}' for v in spacing)} mm",
            file=file,
            expected=f"sides between {low:g} and {high:g} mm",
            fix="correct the header's spacing or its units",
        )
    axes = affine[:3, :3] / spacing
    cosines = np.abs(axes.T @ axes - np.eye(3)).max()
    degrees = math.degrees(math.asin(min(1.0, float(cosines))))
    if degrees > SHEAR_LIMIT_DEGREES:
        raise GeometryError(
            f"axes {degrees:.3g} degrees away from right angles",
            file=file,
            expected=f"at most {SHEAR_LIMIT_DEGREES:g} degrees (gantry tilt is resampled away first)",
            fix="resample it to a rectangular grid",
        )
    if degrees > 0.02:  # below, it is the rounding of float32 headers
        repairs.append(f"axes {degrees:.2g} degrees away from right angles: kept as they are")
