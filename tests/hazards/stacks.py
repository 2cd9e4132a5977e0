"""Rows of hazards: several files that are to fit together, and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.geometry import Grid
from tests.hazards.making import (
    ACCEPTED,
    AFFINE,
    HAZARDS,
    LESION,
    REFUSED,
    REPAIRED,
    SHAPE,
    TRUTH,
    TURN,
    Hazard,
    case,
    changed,
    label,
    load,
    moved,
    nifti,
    row,
    stored_as,
)

row(
    "other_grid",
    "channels on different grids",
    "separate keys + concat: silent at +20 mm offset; one key: 1e-6 mm refused",
    "within 0.01 voxel accepted; the same voxels in another axis order: reordered, recorded; the same physical space "
    "but another grid: resampled to the reference channel, recorded; more than half of the reference missing: refused",
)


def ramp(grid: Grid) -> np.ndarray:
    """2x + 3y + z in mm: linear interpolation gives it back exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    return (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]) @ [2.0, 3.0, 1.0]


def second(what: str, ends: str, says: str, affine: np.ndarray, shape=SHAPE, kept: bool = False, **options) -> None:
    truth = ramp(Grid(SHAPE, AFFINE))
    pet = ramp(Grid(shape, affine))

    def run(folder: Path):
        ct = nifti(folder / "ct.nii.gz", truth, dtype="<f8")
        return load({"ct": ct, "pet": nifti(folder / "pet.nii.gz", pet, affine, dtype="<f8")}, **options)

    HAZARDS.append(
        Hazard(
            "other_grid", what, ends, says, run, None if ends == REFUSED else np.stack([truth, pet if kept else truth])
        )
    )


WIDER = AFFINE @ np.diag([0.5, 0.6, 0.7, 1.0])
WIDER[:3, 3] -= 4
second("0.005 voxel away: its values are kept", ACCEPTED, "", moved(0.005), kept=True)
second("a finer grid around it", REPAIRED, "pet: resampled from 20x18x14", WIDER, (20, 18, 14))
OBLIQUE = TURN @ AFFINE
OBLIQUE[:3, 3] -= 30
second("an oblique grid around it", REPAIRED, "pet: resampled from 30x28x26", OBLIQUE, (30, 28, 26))
second(
    "a finer grid, `on_other_grid: refuse`",
    REFUSED,
    "channel pet on another grid",
    WIDER,
    (20, 18, 14),
    on_other_grid="refuse",
)
for shift, says in (
    (20, "it covers 0% of the reference"),
    (200, "it covers 0% of the reference"),
    (10, "it covers 40%"),
):
    second(f"{shift} mm higher", REFUSED, says, moved(z=shift if shift != 10 else 9))


@case("other_grid", "every one of the 48 axis orders: reordered exactly", ACCEPTED)
def _(folder):
    ct = nifti(folder / "ct.nii")
    for first in "RL", "AP", "SI":
        others = [pair for pair in ("RL", "AP", "SI") if pair != first]
        for pairs in ((first, *others), (first, *others[::-1])):
            for signs in np.ndindex(2, 2, 2):
                codes = "".join(pair[sign] for pair, sign in zip(pairs, signs, strict=True))
                array, affine = stored_as(TRUTH * 2, codes)
                loaded, _, repairs = load({"ct": ct, "pet": nifti(folder / "pet.nii", array, affine)})
                assert repairs == (
                    "" if codes == "RAS" else f"pet: axes reordered from {codes} to RAS, every value kept"
                )
                np.testing.assert_array_equal(loaded[1], TRUTH * 2)


row(
    "label_grid",
    "label and image on different grids, or swapped",
    "silent",
    "refused; the same voxels in another axis order are put in order, exactly, recorded",
)
label("label_grid", "half a voxel away", REFUSED, "a label on another grid", affine=moved(1.0))
label("label_grid", "one slice less", REFUSED, "a label on another grid", array=LESION[..., :-1])
label(
    "label_grid",
    "of equal size, mirrored header",
    REFUSED,
    "a label on another grid",
    affine=AFFINE @ np.diag([-1, 1, 1, 1]),
)
label("label_grid", "0.005 voxel away", ACCEPTED, affine=moved(0.005))
TURNED = stored_as(LESION, "PSL")
label(
    "label_grid",
    "stored in another axis order",
    REPAIRED,
    "label: axes reordered from PSL to RAS",
    array=TURNED[0],
    affine=TURNED[1],
)


@case("label_grid", "swapped: the image in the label's place", REFUSED, "is this the image in place of its label?")
def _(folder):
    return load(nifti(folder / "label.nii", LESION), nifti(folder / "ct.nii"))


@case("label_grid", "a copy of the image as label", REFUSED, "one file as image and as label")
def _(folder):
    return load(nifti(folder / "ct.nii", LESION), nifti(folder / "label.nii", LESION))


@case("label_grid", "one file as both", REFUSED, "one file as image and as label")
def _(folder):
    path = nifti(folder / "ct.nii", LESION)
    return load(path, path)


row(
    "label_ids",
    "label ids outside the bundle's, -1, 255, NaN",
    "cryptic index error",
    "refused with the ids found and the voxel counts; 255 for 1 can be said by `label_values: {1: 255}`",
)
for value, dtype in ((7, "u1"), (-1, "i2"), (255, "u1"), (300, "i2"), (2**24 + 1, "i4"), (2**53 + 1, "u8")):
    label(
        "label_ids",
        f"two voxels of {value}",
        REFUSED,
        f"{value} (2 voxels)",
        array=changed(LESION, value, dtype=object).astype(dtype),
    )
label("label_ids", "255 and 0 alone", REFUSED, "255 (12 voxels)", array=LESION * 255)
label(
    "label_ids",
    "255 and 0 alone, `label_values: {1: 255}`",
    ACCEPTED,
    array=LESION * 255,
    options={"label_values": {1: 255}},
)
label("label_ids", "NaN", REFUSED, "2 voxels that are NaN", array=changed(LESION, np.nan))
label(
    "label_ids",
    "an id above 2^24, allowed: kept exactly",
    ACCEPTED,
    array=LESION.astype("i4") * (2**24 + 1),
    truth=LESION.astype("i8") * (2**24 + 1),
    options={"labels": [2**24 + 1]},
)
label(
    "label_ids",
    "an id above 2^62",
    REFUSED,
    "ids below 2**62",
    array=LESION.astype("u8") * (2**63 + 1),
    options={"labels": None},
)

for what, value, fields in (
    ("2^53 + 1, scl_inter 1", 2**53 + 1, {"scl_slope": 1, "scl_inter": 1}),
    ("2^53 + 1, scl_inter -2^53", 2**53 + 1, {"scl_slope": 1, "scl_inter": -(2.0**53)}),
    ("2^52 + 1, scl_slope 3", 2**52 + 1, {"scl_slope": 3, "scl_inter": 0}),
):
    label(
        "label_ids",
        f"an id stored as {what}: its last digit is lost",
        REFUSED,
        "more digits than float64",
        array=LESION.astype("i8") * value,
        options={"labels": None},
        **fields,
    )

row(
    "label_rounding",
    "label 0.9999999998 (scl_slope rounding)",
    "truncated to 0: the lesion vanishes",
    "within 1e-3 of an integer, and of 0 within a millionth of the largest: rounded, recorded",
)
label("label_rounding", "0.9999999998", REPAIRED, "label: rounded to whole numbers", array=LESION * 0.9999999998)
label("label_rounding", "stored as 3, scl_slope 1/3", REPAIRED, "label: rounded", array=LESION * 3, scl_slope=1 / 3)
label(
    "label_rounding",
    "stored as 255, scl_slope 1/255",
    REPAIRED,
    "label: rounded",
    array=LESION * 255,
    scl_slope=1 / 255,
)
label(
    "label_rounding",
    "stored as int16 from -32768 to 32767, scl_slope 1/65535, scl_inter 32768/65535",
    REPAIRED,
    "label: rounded",
    array=np.where(LESION, 32767, -32768).astype(np.int16),
    scl_slope=1 / 65535,
    scl_inter=32768 / 65535,
)
label("label_rounding", "-0.0", ACCEPTED, array=np.where(LESION, 1.0, -0.0))

row("label_fraction", "label 0.7", "silently 0", "refused")
label("label_fraction", "0.7", REFUSED, "12 voxels whose label is no integer, such as 0.7", array=LESION * 0.7)
label(
    "label_fraction",
    "probabilities up to 0.0009",
    REFUSED,
    "12 voxels whose label is no integer, such as 0.0009",
    array=LESION * 0.0009,
)
label("label_fraction", "1, and scl_slope 0.0005", REFUSED, "such as 0.0005", scl_slope=0.0005)
label("label_fraction", "0.0005 beside 1", REFUSED, "2 voxels whose label is no integer", array=changed(LESION, 0.0005))
label(
    "label_fraction", "an interpolated edge", REFUSED, "2 voxels whose label is no integer", array=changed(LESION, 0.25)
)

row("label_empty", "empty label", "sampler loops or crashes", "accepted, counted")
label("label_empty", "no lesion", ACCEPTED, array=LESION * 0, truth=LESION * 0)
