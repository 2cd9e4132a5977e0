"""Rows of hazards: headers, and where the voxels lie."""

from __future__ import annotations

import numpy as np

from tests.hazards.making import (
    ACCEPTED,
    AFFINE,
    REFUSED,
    REPAIRED,
    TRUTH,
    case,
    image,
    load,
    moved,
    nifti,
    row,
    stored_as,
)

NO_SPACING = [1, 0, 0, 0, 0, 0, 0, 0]

row(
    "pixdim",
    "pixdim 0 with a good sform",
    "sform discarded, 2 mm become 1 mm, silent",
    "the sform's spacing is used, recorded; so is a pixdim that contradicts the sform",
)
for what, pixdim in (
    ("0", NO_SPACING),
    ("NaN", [1, np.nan, 1, 1, 0, 0, 0, 0]),
    ("0 along one axis", [1, 2, 2.5, 0, 0, 0, 0, 0]),
):
    image("pixdim", f"pixdim {what}", REPAIRED, "spacing missing (pixdim): the sform's is used", pixdim=pixdim)
image(
    "pixdim",
    "pixdim 1 mm, a good sform of other sides, no qform",
    REPAIRED,
    "contradicts the sform's 2x2.5x3 mm",
    pixdim=[1, 1, 1, 1, 0, 0, 0, 0],
    qform_code=0,
)

row("no_space", "pixdim 0 and qform only; NaN or singular sform", "silent repair or silent 1 mm", "refused")
image("no_space", "pixdim 0, qform only", REFUSED, "and no sform", pixdim=NO_SPACING, sform_code=0)
image("no_space", "pixdim NaN, qform only", REFUSED, "and no sform", pixdim=[1, np.nan, 1, 1, 0, 0, 0, 0], sform_code=0)
for what, srow in (
    ("NaN in the sform", [np.nan, 0, 0, 0]),
    ("infinity in the sform", [np.inf, 0, 0, 0]),
    ("an sform with two equal axes", [0, 2.5, 0, 0]),
    ("an sform of zeros in one row", [0, 0, 0, 0]),
):
    image("no_space", what, REFUSED, "describes no volume", srow_x=srow)
image("no_space", "a quaternion longer than 1", REFUSED, "no rotation", quatern_b=1.0, quatern_c=1.0, sform_code=0)
image("no_space", "a quaternion of NaN", REFUSED, "no rotation", quatern_b=np.nan, sform_code=0)
image("no_space", "qoffset NaN", REFUSED, "no rotation", qoffset_x=np.nan, sform_code=0)

row(
    "shear",
    "shear or non-orthonormal axes",
    "silent",
    "below 0.5 degrees recorded, above refused",
)
image(
    "shear",
    "0.3 degrees",
    REPAIRED,
    "0.3 degrees away from right angles",
    srow_x=[2, 2.5 * np.tan(np.radians(0.3)), 0, -30],
    qform_code=0,
)
image(
    "shear",
    "0.6 degrees",
    REFUSED,
    "away from right angles",
    srow_x=[2, 2.5 * np.tan(np.radians(0.6)), 0, -30],
    qform_code=0,
)
image(
    "shear",
    "a gantry tilt of 20 degrees",
    REFUSED,
    "away from right angles",
    srow_y=[0, 2.5, 3 * np.tan(np.radians(20)), -20],
    qform_code=0,
)

row(
    "two_spaces",
    "qform and sform disagree by more than 0.1 voxel anywhere in the volume",
    "readers differ by 25 mm, silent",
    "same code (both claim the same space): refused, `trust: qform` or `sform` in a bundle names the right one; "
    "different codes (scanner and template, say): sform, recorded",
)
APART = {"srow_x": [2, 0, 0, -27]}
image("two_spaces", "3 mm apart, same code", REFUSED, "lie 3 units apart", **APART)
image("two_spaces", "mirrored left to right, same code", REFUSED, "units apart", srow_x=[-2, 0, 0, -18])
image(
    "two_spaces",
    "3 mm apart, same code, `trust: sform`",
    REPAIRED,
    "the sform is trusted",
    options={"trust": "sform"},
    **APART,
)
image(
    "two_spaces",
    "3 mm apart, same code, `trust: qform`",
    REPAIRED,
    "the qform is trusted",
    options={"trust": "qform"},
    **APART,
)
image("two_spaces", "3 mm apart, scanner and template", REPAIRED, "name different spaces", sform_code=4, **APART)
image("two_spaces", "0.05 voxel apart", ACCEPTED, srow_x=[2, 0, 0, -29.9])

row(
    "no_orientation",
    "no qform, no sform",
    "readers flip the y axis differently, silent",
    "refused unless the caller says `assume_orientation=RAS` (pixdim is then used), recorded",
)
NEITHER = {"qform_code": 0, "sform_code": 0}
image("no_orientation", "neither", REFUSED, "neither qform nor sform", **NEITHER)
image("no_orientation", "neither, and pixdim 0", REFUSED, "no sform", pixdim=NO_SPACING, **NEITHER)
image(
    "no_orientation",
    "neither, `assume_orientation: RAS`",
    REPAIRED,
    "taken as RAS",
    options={"assume_orientation": "RAS"},
    **NEITHER,
)
image(
    "no_orientation",
    "neither, `assume_orientation: LPS`",
    REPAIRED,
    "taken as LPS",
    options={"assume_orientation": "LPS"},
    truth=TRUTH[::-1, ::-1],
    **NEITHER,
)
image(
    "no_orientation",
    "neither, `assume_orientation: RAX`",
    REFUSED,
    "assume_orientation='RAX'",
    options={"assume_orientation": "RAX"},
    **NEITHER,
)


@case(
    "no_orientation", "neither, and another channel on another grid", REFUSED, "nothing in the file says where it lies"
)
def _(folder):
    pet = nifti(folder / "pet.nii", **NEITHER)
    return load({"ct": nifti(folder / "ct.nii"), "pet": pet}, assume_orientation="RAS")


row(
    "flipped",
    "left-right flipped modality",
    "silent",
    "by a header that says so: put in the reference's order, exactly, recorded. By a wrong header it can't be seen in "
    "one case: `check` reports a handedness or a side that differs inside a dataset",
)


@case(
    "flipped",
    "pet stored from right to left",
    REPAIRED,
    "pet: axes reordered from LAS to RAS",
    truth=np.stack([TRUTH, TRUTH + 1]),
)
def _(folder):
    array, affine = stored_as(TRUTH + 1, "LAS")
    return load({"ct": nifti(folder / "ct.nii"), "pet": nifti(folder / "pet.nii", array, affine)})


row(
    "units",
    "units metre or micron",
    "cryptic / 1e16-byte allocation",
    "converted to mm, recorded",
)
for unit, factor, word in ((1, 1e-3, "metres"), (3, 1e3, "micrometres")):
    image(
        "units",
        word,
        REPAIRED,
        f"units {word}: converted",
        affine=np.diag([factor] * 3 + [1]) @ AFFINE,
        xyzt_units=unit,
    )
image("units", "metres stated, millimetres meant", REFUSED, "a voxel size of 2000x2500x3000 mm", xyzt_units=1)
image("units", "microns stated, millimetres meant", REFUSED, "a voxel size of 0.002x0.0025x0.003 mm", xyzt_units=3)
image("units", "an unknown unit code", REFUSED, "unit code 5", xyzt_units=5)
image("units", "millimetres and seconds", ACCEPTED, xyzt_units=2 + 8)

row("no_units", "units unknown (code 0)", "taken as mm, silent", "taken as mm, recorded")
image("no_units", "units unknown", REPAIRED, "units not stated: taken as millimetres", xyzt_units=0)

row(
    "size",
    "spacing 40 mm or 0.002 mm, 1 voxel across",
    "90 GB allocation",
    "refused with the spacing and the limit (`spacing_limits_mm` in a bundle); so are a volume of more than 4 m and "
    "one that lies more than 100 m from the origin",
)
for side in (40.0, 0.002):
    affine = AFFINE @ np.diag([1, 1, side / 3, 1])
    image("size", f"slices of {side:g} mm", REFUSED, "sides between 0.01 and 30 mm", affine=affine)
image(
    "size",
    "slices of 40 mm, `spacing_limits_mm: [0.01, 50]`",
    ACCEPTED,
    affine=AFFINE @ np.diag([1, 1, 40 / 3, 1]),
    options={"spacing_limits_mm": [0.01, 50]},
)
image("size", "one voxel", REFUSED, "no contrast", array=TRUTH[:1, :1, :1])
image(
    "size",
    "200 slices of 29 mm",
    REFUSED,
    "5.8 m along one axis",
    array=np.zeros((2, 2, 200), np.int16),
    affine=np.diag([1, 1, 29, 1.0]),
)
image("size", "a million km away", REFUSED, "m from the origin", affine=moved(1e12))
image("size", "0.3 mm in the plane, slices of 25 mm", ACCEPTED, affine=np.diag([0.3, 0.3, 25, 1.0]))
