"""Rows of hazards: names, odd files that are right, and what is written."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from pipeline.geometry import Grid
from tests.hazards.making import (
    ACCEPTED,
    AFFINE,
    LESION,
    REFUSED,
    REPAIRED,
    SHAPE,
    TRUTH,
    TURN,
    bytes_of,
    case,
    image,
    load,
    moved,
    nifti,
    raw,
    row,
)

row(
    "duplicates",
    "same file name in two folders, duplicate ids",
    "one overwrites the other, silent",
    "outputs keep the relative path; duplicates refused before any work",
)


@case("duplicates", "two cases of one id", REFUSED, "ids that several cases share")
def _(folder):
    from pipeline.data import data_list

    for name in "ab":
        nifti(folder / name / "ct.nii.gz")
    (folder / "cases.csv").write_text("case,ct\np1,a/ct.nii.gz\np1,b/ct.nii.gz\n", encoding="utf-8")
    data_list(folder / "cases.csv", ["ct"])


@case("duplicates", "equal names in two folders", ACCEPTED)
def _(folder):
    from pipeline.data import data_list

    for name in "ab":
        nifti(folder / name / "ct.nii.gz")
    items = data_list(folder, ["ct"])
    assert len({(item["relative"], item["case_id"]) for item in items}) == 2


row(
    "odd_but_right",
    "unicode, spaces, braces, 251-character names, NIfTI-2, big-endian, oblique, scl_slope 0 or NaN, negative pixdim, "
    "uint64, .nii, upper-case suffix",
    "right",
    "accepted",
)
for name in (
    "Läsion ß 病变.nii.gz",
    "a b  c.nii.gz",
    "{0} {name} %s %d.nii.gz",
    "a#3.nii.gz",
    "100%.nii",
    "two\nlines.nii.gz",
    "-rf.nii",
    "ct.NII.GZ",
    "ct.Nii",
    "x" * 244 + ".nii.gz",
    "a.b.c.nii.gz",
    "folder with spaces/{1}/ct.nii.gz",
):
    image(
        "odd_but_right", f"a file named {name[:40]!r}" + ("... (251)" if len(name) > 200 else ""), ACCEPTED, name=name
    )
for kind, order in ((Nifti1Header, ">"), (Nifti2Header, "<"), (Nifti2Header, ">")):
    what = f"NIfTI-{1 if kind is Nifti1Header else 2}, {'big' if order == '>' else 'little'}-endian"
    image("odd_but_right", what, ACCEPTED, kind=kind, order=order)
for dtype in ("i4", "i8", "f4", "f8"):
    image("odd_but_right", f"voxels of type {np.dtype(dtype).name}", ACCEPTED, dtype=dtype)
for dtype in ("u1", "i1", "u2", "u4", "u8"):
    image(
        "odd_but_right",
        f"voxels of type {np.dtype(dtype).name}",
        ACCEPTED,
        array=TRUTH % 100,
        truth=TRUTH % 100,
        dtype=dtype,
    )
image("odd_but_right", "scl_slope 0", ACCEPTED, scl_slope=0, scl_inter=3)
image("odd_but_right", "scl_slope and scl_inter NaN", ACCEPTED, scl_slope=np.nan, scl_inter=np.nan)
image("odd_but_right", "scl_slope -2, scl_inter 5", ACCEPTED, scl_slope=-2, scl_inter=5, truth=TRUTH * -2 + 5)
image("odd_but_right", "scl_slope infinite", REPAIRED, "scl_slope inf: taken as no scaling", scl_slope=np.inf)
image("odd_but_right", "scl_inter infinite", REFUSED, "scl_inter inf", scl_slope=2, scl_inter=np.inf)
image("odd_but_right", "bitpix that contradicts the type", REPAIRED, "bitpix 8 contradicts the type int16", bitpix=8)
image("odd_but_right", "negative pixdim", ACCEPTED, pixdim=[1, -2, -2.5, -3, 0, 0, 0, 0], sform_code=0)
image(
    "odd_but_right",
    "a left-handed qform (qfac -1)",
    ACCEPTED,
    affine=AFFINE @ np.diag([1, 1, -1, 1]),
    sform_code=0,
    truth=TRUTH[:, :, ::-1],
)
image("odd_but_right", "qfac 0, which means 1", ACCEPTED, pixdim=[0, 2, 2.5, 3, 0, 0, 0, 0], sform_code=0)
image("odd_but_right", "qform alone", ACCEPTED, sform_code=0)
image("odd_but_right", "sform alone", ACCEPTED, qform_code=0)
image("odd_but_right", "oblique axes", ACCEPTED, affine=TURN @ AFFINE)
image("odd_but_right", "a table position of 3 m", ACCEPTED, affine=moved(z=3000))
image(
    "odd_but_right",
    "a header extension before the voxels",
    ACCEPTED,
    between=b"\1\0\0\0\x20\0\0\0\6\0\0\0" + b"patient name".ljust(24),
    after=b"",
)
for offset in (0, 352, 368):
    image(
        "odd_but_right",
        f"vox_offset {offset} in spite of a header extension",
        REFUSED,
        "inside a header extension",
        between=b"\1\0\0\0\x20\0\0\0\6\0\0\0" + b"patient name".ljust(24),
        vox_offset=offset,
    )
image("odd_but_right", "the flag of a header extension, and none", ACCEPTED, between=b"\1\0\0\0")
image("odd_but_right", "voxels at byte 401, no multiple of 16", ACCEPTED, between=b"\0" * 53)
image("odd_but_right", "vox_offset 0", ACCEPTED, vox_offset=0)
for offset in (100, 351, 352.5, -352, 1e30):
    image("odd_but_right", f"vox_offset {offset:g}", REFUSED, "", vox_offset=offset)
image(
    "odd_but_right",
    "cal_min, cal_max, intent, slice times set",
    ACCEPTED,
    cal_min=5,
    cal_max=6,
    intent_code=1002,
    slice_code=3,
    slice_duration=7,
    toffset=9,
    dim_info=57,
)


@case("odd_but_right", "a relative path", ACCEPTED, truth=TRUTH[None])
def _(folder):
    return load(os.path.relpath(nifti(folder / "ct.nii.gz")))


@case("odd_but_right", "several gzip streams in a row (bgzip)", ACCEPTED, truth=TRUTH[None])
def _(folder):
    data = bytes_of(nifti(folder / "a.nii"))
    return load(raw(folder / "ct.nii.gz", gzip.compress(data[:500]) + gzip.compress(data[500:])))


row(
    "writing",
    "name longer than the file system allows, read-only folder, disk full",
    "one writer reports success on a full disk and leaves half a file",
    "refused; written to a temporary file, synced, read back, renamed: the final name exists only when whole",
)


def write(folder: Path, name: str = "a.nii.gz") -> None:
    from pipeline.io import write_volume

    write_volume(folder / name, LESION, Grid(SHAPE, AFFINE))


@case("writing", "a name of 300 letters", REFUSED, "name too long")
def _(folder):
    try:
        write(folder, f"{'x' * 293}.nii.gz")
    finally:
        assert list(folder.iterdir()) == []


@case("writing", "a full disk", REFUSED, "no space left")
def _(folder):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        try:
            write(folder)
        finally:
            assert list(folder.iterdir()) == []


@case("writing", "a file where the folder should be", REFUSED, "can't be written")
def _(folder):
    (folder / "results").write_text("")
    write(folder / "results")


@case("writing", "a case whose name holds a byte that is no letter", ACCEPTED)
def _(folder):
    import csv

    from pipeline.engines.cohort_result import CaseOutcome, CohortResult

    CohortResult((CaseOutcome("a\udcff", "done"),)).write(folder)  # what Python makes of b"a\xff"
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        assert [line["case"] for line in csv.DictReader(file)] == [r"a\udcff"]


if hasattr(os, "geteuid") and os.geteuid() != 0:

    @case("writing", "a read-only folder", REFUSED, "permission denied")
    def _(folder):
        folder.chmod(0o500)
        try:
            write(folder)
        finally:
            folder.chmod(0o700)


row(
    "privacy",
    "free text in headers (descrip, aux_file, db_name, extensions), names in paths",
    "copied along by the common idiom",
    "never copied to an output, a log, TensorBoard or a report; `--pseudonyms` replaces ids",
)


@case("privacy", "a name in descrip, aux_file, db_name, intent_name and an extension", ACCEPTED)
def _(folder):
    import torch
    from monai.data import MetaTensor

    from pipeline.inference import SaveImageOnGridd
    from pipeline.transforms import LoadImageStackd

    text = dict.fromkeys(("descrip", "aux_file", "db_name", "intent_name"), b"MUSTERMANN")
    extension = b"\1\0\0\0\x20\0\0\0\6\0\0\0" + b"MUSTERMANN".ljust(24)
    path = nifti(folder / "ct.nii", between=extension, **text)
    item = LoadImageStackd("image", channels=["ct"])({"case_id": "sub-01", "image": str(path)})
    assert "MUSTERMANN" not in repr(item["image"].meta)
    pred = MetaTensor(torch.from_numpy(LESION[None])).copy_meta_from(item["image"])
    saved = SaveImageOnGridd("pred", output_dir=str(folder / "out"))({**item, "pred": pred})
    assert b"MUSTERMANN" not in gzip.decompress(Path(saved["pred_path"]).read_bytes())
