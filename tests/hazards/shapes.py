"""Rows of hazards: headers, and what the voxels are."""

from __future__ import annotations

import gzip

import numpy as np
from nibabel.nifti2 import Nifti2Header

from tests.hazards.making import (
    ACCEPTED,
    LESION,
    REFUSED,
    REPAIRED,
    SHAPE,
    TRUTH,
    case,
    image,
    label,
    load,
    nifti,
    row,
)

row(
    "dimensions",
    "header claims 32000^3; negative dims",
    "blank MemoryError",
    "refused before any allocation",
)
SIDES = [3, *SHAPE, 1, 1, 1, 1]
for name in ("ct.nii", "ct.nii.gz"):
    image(
        "dimensions",
        f"32000x32000x32000 in a small {name[2:]}",
        REFUSED,
        "32000",
        name=name,
        dim=[3, 32000, 32000, 32000, 1, 1, 1, 1],
        affine=np.diag([0.1, 0.1, 0.1, 1]),
    )
image(
    "dimensions",
    "2^40 voxels along one axis, NIfTI-2",
    REFUSED,
    "along one axis",
    kind=Nifti2Header,
    dim=[3, 2**40, 6, 5, 1, 1, 1, 1],
)
image("dimensions", "a negative side", REFUSED, "dimensions", dim=[3, 7, -6, 5, 1, 1, 1, 1])
image("dimensions", "a side of 0", REFUSED, "dimensions", dim=[3, 7, 0, 5, 1, 1, 1, 1])
for count in (0, -3, 8, 255):
    image("dimensions", f"{count} axes", REFUSED, "dimensions", dim=[count, *SIDES[1:]])

row(
    "series",
    "4D where a volume is expected",
    "silently taken for channels",
    "refused; `volume: 1` in a bundle takes one, or names one per channel, recorded",
)
SERIES = np.stack([TRUTH + n for n in range(3)], axis=-1)
image("series", "a series of 3", REFUSED, "4D series of 3 volumes", array=SERIES)
image(
    "series",
    "a series of 3, `volume: 1`",
    REPAIRED,
    "volume 1 of 0 to 2 is taken",
    array=SERIES,
    truth=TRUTH + 1,
    options={"volume": 1},
)
image("series", "a series of 3, `volume: 3`", REFUSED, "one that holds volume 3", array=SERIES, options={"volume": 3})
image("series", "one volume, `volume: 1`", REPAIRED, "no series, but one volume", options={"volume": 1})
image("series", "4 axes, one volume", ACCEPTED, array=TRUTH[..., None])
image("series", "7 axes, one volume", ACCEPTED, array=TRUTH[..., None, None, None, None])
image(
    "series",
    "a vector per voxel (5 axes)",
    REFUSED,
    "several values per voxel",
    array=SERIES[..., None, :],
    options={"volume": 0},
)
image(
    "series",
    "a series cut short, `volume: 0`",
    REFUSED,
    "",
    array=SERIES,
    name="ct.nii",
    edit=lambda d: d[:-300],
    options={"volume": 0},
)
image(
    "series",
    "a compressed series cut short, `volume: 0`",
    REFUSED,
    "",
    array=SERIES,
    edit=lambda d: gzip.compress(gzip.decompress(d)[:-300]),
    options={"volume": 0},
)
label(
    "series",
    "a label of 3 volumes, `volume: 1`",
    REFUSED,
    "4D series",
    array=np.stack([LESION] * 3, axis=-1),
    options={"volume": 1},
)


@case(
    "series",
    "channels in one file, `volume: {t1: 0, t2: 2}`",
    REPAIRED,
    "t2: a series: volume 2",
    truth=np.stack([TRUTH, TRUTH + 2]),
)
def _(folder):
    path = nifti(folder / "all.nii.gz", SERIES)
    return load({"t1": path, "t2": path}, volume={"t1": 0, "t2": 2})


@case("series", "one file given for two channels", REPAIRED, "t2: the same file as t1", truth=np.stack([TRUTH, TRUTH]))
def _(folder):
    path = nifti(folder / "all.nii.gz")
    return load({"t1": path, "t2": path})


row(
    "slices",
    "2D; one-slice 3D",
    "warning; saved 2D, affine changed",
    "one-slice 3D accepted, saved 3D on its own grid; 2D refused by a 3D bundle",
)
image("slices", "a 2D image", REFUSED, "a 2D image (7x6)", array=TRUTH[..., 0])
image("slices", "a 1D image", REFUSED, "a 1D image (7)", array=TRUTH[:, 0, 0])
image("slices", "2D and time", REFUSED, "4D series", array=TRUTH[:, :, None, :])
for axis, plane in enumerate(("sagittal", "coronal", "axial")):
    image("slices", f"one {plane} slice", ACCEPTED, array=TRUTH.take([2], axis), truth=TRUTH.take([2], axis))

row("types", "complex, RGB", "imaginary part dropped / cryptic", "refused; so are 128-bit floats and single bits")
image("types", "complex", REFUSED, "complex64", array=TRUTH.astype(np.complex64))
image("types", "complex of 128 bits", REFUSED, "complex128", array=TRUTH.astype(np.complex128))
image("types", "RGB", REFUSED, "RGB", array=np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))
for code, name in (
    (1, "binary"),
    (1536, "float128"),
    (2304, "RGBA"),
    (0, "type none"),
    (2048, "complex256"),
    (77, "77"),
):
    image("types", f"type code {code}", REFUSED, name, datatype=code)
