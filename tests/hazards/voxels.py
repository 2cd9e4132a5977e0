"""Rows of hazards: values, and channels without any."""

from __future__ import annotations

import numpy as np

from tests.hazards.making import (
    ACCEPTED,
    LESION,
    REFUSED,
    REPAIRED,
    SHAPE,
    TRUTH,
    case,
    changed,
    image,
    label,
    load,
    nifti,
    row,
)

row(
    "non_finite",
    "NaN or Inf in a few voxels",
    "whole prediction empty, silent",
    "refused with their number, by `check` and at load; `non_finite: zero` in a bundle makes it a recorded repair. Of "
    "a label always refused",
)
for word, value in (("NaN", np.nan), ("infinity", np.inf), ("minus infinity", -np.inf)):
    image(
        "non_finite", f"two voxels of {word}", REFUSED, "2 voxels that are NaN or infinite", array=changed(TRUTH, value)
    )
image("non_finite", "1e300, beyond float32", REFUSED, "2 voxels", array=changed(TRUTH, 1e300))
image(
    "non_finite",
    "two voxels of NaN, `non_finite: zero`",
    REPAIRED,
    "2 voxels",
    array=changed(TRUTH, np.nan),
    truth=changed(TRUTH, 0),
    options={"non_finite": "zero"},
)
label(
    "non_finite",
    "NaN in a label, `non_finite: zero`",
    REFUSED,
    "2 voxels",
    array=changed(LESION, np.nan),
    options={"non_finite": "zero"},
)

row(
    "absurd",
    "one absurd voxel (1e30)",
    "lesion lost, silent",
    "accepted: normalisation clips at percentiles; `check` warns",
)


@case("absurd", "one voxel of 1e30: the others are normalised as without it", ACCEPTED)
def _(folder):
    big = np.random.default_rng(1).normal(100, 20, (24, 24, 10)).astype(np.float32)
    clean, *_ = load(nifti(folder / "clean.nii", big, dtype="<f4"), normalised=True)
    big[3, 4, 5] = 1e30
    wild, _, repairs = load(nifti(folder / "wild.nii", big, dtype="<f4"), normalised=True)
    assert repairs == ""
    off = np.abs(wild - clean) > 0.02
    assert np.count_nonzero(off) <= 12  # of 5760: that voxel, and the brightest ones, which are clipped or not


row("constant", "constant or all-zero channel", "empty prediction, silent", "refused, and the channel is named")
for word, value in (("all-zero", 0), ("constant", 7)):

    @case("constant", f"a second channel that is {word}", REFUSED, f"every voxel of channel pet is {value}")
    def _(folder, value=value):
        pet = nifti(folder / "pet.nii.gz", np.full(SHAPE, value, np.int16))
        return load({"ct": nifti(folder / "ct.nii.gz"), "pet": pet})


@case("constant", "a second channel of one voxel", REFUSED, "every voxel but one of channel pet is 0")
def _(folder):
    pet = nifti(folder / "pet.nii.gz", changed(np.zeros(SHAPE), 9, 1, np.int16))
    return load({"ct": nifti(folder / "ct.nii.gz"), "pet": pet})


@case(
    "constant",
    "a second channel, on a larger grid, that is 0 where the first lies",
    REFUSED,
    "every voxel of channel pet inside the box of ct is 0",
)
def _(folder):
    wide = np.zeros((2 * SHAPE[0], *SHAPE[1:]), np.int16)
    wide[SHAPE[0] + 1 :] = np.arange(SHAPE[2])
    return load({"ct": nifti(folder / "ct.nii.gz"), "pet": nifti(folder / "pet.nii.gz", wide)})


@case("constant", "all channels 0, `missing_channels: zero`", REFUSED, "channels that are 0 everywhere")
def _(folder):
    return load(nifti(folder / "a.nii", np.zeros(SHAPE, np.int16)), missing_channels="zero")


@case(
    "constant",
    "an all-zero channel, `missing_channels: zero`",
    REPAIRED,
    "pet: 0 everywhere, so it counts as absent",
    truth=np.stack([TRUTH, 0 * TRUTH]),
)
def _(folder):
    pet = nifti(folder / "pet.nii.gz", np.zeros(SHAPE, np.int16))
    return load({"ct": nifti(folder / "ct.nii.gz"), "pet": pet}, missing_channels="zero")


row(
    "missing",
    "a channel that a case lacks",
    "error of one transform without a name, or the channels shift by one, silent",
    "refused, with a near name if there is one; `missing_channels: zero` fills it with 0, recorded, with a mask of "
    "what is there",
)


@case("missing", "no pet", REFUSED, "no pet")
def _(folder):
    return load({"ct": nifti(folder / "ct.nii.gz"), "pet": None})


@case("missing", "pet under the name pte", REFUSED, "is pte meant to be pet?")
def _(folder):
    return load({"ct": nifti(folder / "ct.nii"), "pte": nifti(folder / "pet.nii")}, channels=["ct", "pet"])


for name, channels, truth in (
    ("pet", ["ct", "pet"], np.stack([TRUTH, 0 * TRUTH])),
    ("pet, the reference,", ["pet", "ct"], np.stack([0 * TRUTH, TRUTH])),
):

    @case("missing", f"no {name} `missing_channels: zero`", REPAIRED, "pet: absent, 0 everywhere", truth=truth)
    def _(folder, channels=channels):
        return load({"ct": nifti(folder / "ct.nii"), "pet": None}, channels=channels, missing_channels="zero")
