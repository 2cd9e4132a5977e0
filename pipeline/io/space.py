"""Where a NIfTI header says that the voxels lie: of qform, sform, pixdim and units, one affine in millimetres.

Readers disagree about the four wherever they contradict each other. What can have one meaning alone is taken, and said
so where a field had to be passed over; `ReadPolicy` chooses where there are two; the rest is refused.
"""

from __future__ import annotations

import math

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.orientations import axcodes2ornt
from nibabel.quaternions import fillpositive, quat2mat

from pipeline.errors import GeometryError
from pipeline.geometry import Grid
from pipeline.io.policy import ReadPolicy

SHEAR_LIMIT_DEGREES = 0.5
QFORM_SFORM_LIMIT_VOXELS = 0.1

EXTENT_LIMIT_MM = 4000.0
"""No scanner sees further along one axis: beyond, the spacing is wrong, and resampling would ask for gigabytes."""

ORIGIN_LIMIT_MM = 1e5
"""Further from the origin the header's float32 can't place a voxel within a hundredth of a millimetre."""

ORIENTATION_ASSUMED = "neither qform nor sform: taken as"
"""How the repair begins that says that nothing in the file tells where it lies."""

_UNITS_IN_MM = {1: ("metres", 1000.0), 2: ("millimetres", 1.0), 3: ("micrometres", 0.001)}


def affine_mm(header: Nifti1Header, shape: tuple[int, ...], file, policy: ReadPolicy, repairs: list[str]) -> np.ndarray:
    """Voxel index -> millimetres RAS+, 4x4.

    Args:
        header: as it is stored, unchecked.
        shape: of the volume, (H, W, D).
        file: its name, for the errors.
        policy: what is taken on trust.
        repairs: takes one sentence for each field that was passed over or assumed.

    Raises:
        GeometryError: no space, two of them, or one of a size that no scanner has.
    """
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
    if sform_code > 0:
        affine = np.eye(4)
        affine[:3] = [header["srow_x"], header["srow_y"], header["srow_z"]]
        require_volume(affine, "an sform", file)
        if not has_spacing:
            repairs.append("spacing missing (pixdim): the sform's is used")
        elif qform_code > 0:
            affine = _one_of(
                affine, _qform(header, spacing, file), shape, qform_code == sform_code, file, policy, repairs
            )
        else:
            sides = np.linalg.norm(affine[:3, :3], axis=0)
            if (np.abs(spacing - sides) * shape > QFORM_SFORM_LIMIT_VOXELS * sides).any():
                repairs.append(
                    f"spacing (pixdim) {_sides(spacing)} contradicts the sform's {_sides(sides)}: the sform's is used"
                )
    elif not has_spacing:
        found = f"spacing {spacing.tolist()} and no sform"
        raise GeometryError(found, file=file, expected="a voxel size", fix="export it from the DICOM files again")
    elif qform_code > 0:
        affine = _qform(header, spacing, file)
        require_volume(affine, "a qform", file)
    elif policy.assume_orientation is None:
        raise GeometryError(
            "neither qform nor sform",
            file=file,
            expected="a header that says where left and right are",
            fix="export it from the DICOM files again; or, where you know it, say assume_orientation=RAS",
        )
    else:
        # nothing tells where it lies: only its axes and sides have a meaning, its first voxel is called the origin
        axes = axcodes2ornt(tuple(policy.assume_orientation))
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (world, sign) in enumerate(axes):
            affine[int(world), axis] = sign * spacing[axis]
        repairs.append(f"{ORIENTATION_ASSUMED} {policy.assume_orientation}, with the spacing of pixdim")
    affine[:3] *= factor
    _check_extent(affine, shape, file, policy)
    _check_shear(affine, repairs, file)
    return affine


def _qform(header: Nifti1Header, spacing: np.ndarray, file) -> np.ndarray:
    vector = np.array([header["quatern_b"], header["quatern_c"], header["quatern_d"]], dtype=np.float64)
    offset = np.array([header["qoffset_x"], header["qoffset_y"], header["qoffset_z"]], dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not math.isfinite(length) or length > 1 + 1e-5 or not np.isfinite(offset).all():
        raise GeometryError("a qform that is no rotation", file=file, expected="a unit quaternion", fix="export again")
    rotation = quat2mat(fillpositive(vector / max(1.0, length), w2_thresh=-1e-7))
    handedness = -1.0 if float(header["pixdim"][0]) < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * (spacing * [1.0, 1.0, handedness])
    affine[:3, 3] = offset
    return affine


def require_volume(affine: np.ndarray, name: str, file) -> None:
    """Raises GeometryError where an affine, named with its article, has no three independent axes."""
    with np.errstate(all="ignore"):
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        # the determinant over the product of the sides is 1 for orthogonal axes whatever the voxel size
        volume = abs(np.linalg.det(affine[:3, :3] / np.where(sides > 0, sides, 1)))
    if not np.isfinite(affine).all() or not volume > 1e-3 or not (np.isfinite(sides) & (sides > 0)).all():
        raise GeometryError(
            f"{name} that describes no volume (NaN, or axes in one plane)",
            file=file,
            expected="three independent axes",
            fix="export the file again",
        )


def _one_of(sform, qform, shape, same_space: bool, file, policy: ReadPolicy, repairs: list[str]) -> np.ndarray:
    """The sform, unless both claim one space, differ, and the qform is the one to trust."""
    # The distance between two affine maps is largest in a corner of the volume.
    distance = Grid(shape, sform).distance_mm(Grid(shape, qform))
    limit = QFORM_SFORM_LIMIT_VOXELS * float(np.linalg.norm(sform[:3, :3], axis=0).min())
    if distance <= limit:
        return sform
    if not math.isfinite(distance) or (same_space and policy.trust is None):
        raise GeometryError(
            f"a qform and an sform for one space that lie {distance:.3g} units apart",
            file=file,
            expected="that they agree within a tenth of a voxel",
            fix="find out which is right and write both alike, or name the one to trust: trust=sform or trust=qform",
        )
    if not same_space:
        repairs.append(f"qform and sform name different spaces ({distance:.3g} units apart): the sform is used")
        return sform
    repairs.append(f"qform and sform lie {distance:.3g} units apart: the {policy.trust} is trusted, as asked")
    return sform if policy.trust == "sform" else qform


def _check_extent(affine: np.ndarray, shape: tuple[int, ...], file, policy: ReadPolicy) -> None:
    with np.errstate(over="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = policy.spacing_limits_mm
    if spacing.min() < low or spacing.max() > high:
        raise GeometryError(
            f"a voxel size of {_sides(spacing)}",
            file=file,
            expected=f"sides between {low:g} and {high:g} mm (spacing_limits_mm)",
            fix="correct the header's spacing or its units",
        )
    extent = spacing * shape
    if extent.max() > EXTENT_LIMIT_MM:
        raise GeometryError(
            f"{'x'.join(map(str, shape))} voxels of {_sides(spacing)}: {extent.max() / 1000:.3g} m along one axis",
            file=file,
            expected=f"at most {EXTENT_LIMIT_MM / 1000:g} m",
            fix="correct the header's spacing or its units",
        )
    if np.abs(affine[:3, 3]).max() > ORIGIN_LIMIT_MM:
        raise GeometryError(
            f"a volume that lies {np.abs(affine[:3, 3]).max() / 1000:.3g} m from the origin",
            file=file,
            expected=f"at most {ORIGIN_LIMIT_MM / 1000:g} m",
            fix="correct the header's offsets or its units",
        )


def _check_shear(affine: np.ndarray, repairs: list[str], file) -> None:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
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


def _sides(spacing: np.ndarray) -> str:
    return f"{'x'.join(f'{side:.4g}' for side in spacing)} mm"
