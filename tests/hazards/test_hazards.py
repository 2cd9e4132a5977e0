"""Every row of docs/hazards.md, tried: files as they arrive from clinics, each of which must end as the table says.

A hazard is a file (or several) that is made here, and how it has to end: accepted with the right values, repaired with
the right values and a sentence, or refused with case, file and advice. The tables in docs/hazards.md are made from the
lists below: ``python tests/hazards/test_hazards.py`` writes them anew, and a test compares. A row without a hazard fails,
and so does a hazard that ends otherwise, or in silence.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from pipeline.errors import PipelineError
from pipeline.geometry import Grid

DOCS = Path(__file__).parents[2] / "docs" / "hazards.md"
BEGIN, END = "<!-- made by tests/hazards/test_hazards.py -->", "<!-- end -->"

ACCEPTED, REPAIRED, REFUSED = "accepted", "repaired", "refused"

SHAPE = (7, 6, 5)
AFFINE = np.array([[2.0, 0, 0, -30], [0, 2.5, 0, -20], [0, 0, 3, 10], [0, 0, 0, 1]])
TRUTH = np.random.default_rng(0).integers(-1000, 3000, SHAPE).astype(np.float32)
LESION = np.zeros(SHAPE, np.uint8)
LESION[2:5, 2:4, 1:3] = 1
TURN = np.eye(4)
TURN[:3, :3] = np.linalg.qr(np.array([[1, 0.2, 0.1], [-0.2, 1, 0.15], [-0.1, -0.12, 1]]))[0]
TURN[:3, :3] *= np.sign(np.diag(TURN[:3, :3]))


@dataclass(frozen=True)
class Row:
    """One row of the table: what arrives, what happens elsewhere, what happens here."""

    arrives: str
    elsewhere: str
    here: str


@dataclass(frozen=True, eq=False)
class Hazard:
    """One thing that arrives.

    Args:
        row: key of ``ROWS``.
        what: in words.
        ends: accepted, repaired or refused.
        says: what the repairs, or the message, must contain.
        run: folder -> whatever was loaded (image array RAS, label array RAS or None, repairs), or raises.
        image, label: what must come out, RAS; None where ``run`` asserts by itself.
    """

    row: str
    what: str
    ends: str
    says: str
    run: Callable[[Path], tuple[np.ndarray, np.ndarray | None, str] | None]
    image: np.ndarray | None = None
    label: np.ndarray | None = None


# --- files ------------------------------------------------------------------------------------------------------------


def nifti(
    path: Path,
    array: np.ndarray = TRUTH,
    affine: np.ndarray = AFFINE,
    *,
    kind: type = Nifti1Header,
    order: str = "<",
    dtype: str | None = None,
    between: bytes = b"\0\0\0\0",
    after: bytes = b"",
    edit: Callable[[bytes], bytes] = bytes,
    **fields: Any,
) -> Path:
    """A file as another tool might write it.

    ``fields`` are set raw in the header; ``between`` stands between header and voxels, ``after`` behind them; ``edit`` is
    applied to the file at last, compressed or not.
    """
    array = np.asarray(array)
    stored = array.astype(np.dtype(dtype or ("<i2" if array.dtype == np.float32 else array.dtype)).newbyteorder(order))
    header = kind(endianness=order)
    header.set_data_shape(array.shape)
    header.set_data_dtype(stored.dtype)
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header["xyzt_units"] = 2
    header["scl_slope"] = np.nan
    header["magic"] = kind.single_magic
    header["vox_offset"] = int(header["sizeof_hdr"]) + len(between)
    for name, value in fields.items():
        header[name] = value
    data = header.binaryblock + between + stored.tobytes(order="F") + after
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(edit(gzip.compress(data, 1) if path.name.lower().endswith(".gz") else data))
    return path


def bytes_of(path: Path) -> bytes:
    data = path.read_bytes()
    path.unlink()
    return data


def raw(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def load(image: Any, label: Any = None, normalised: bool = False, **options: Any) -> tuple[np.ndarray, Any, str]:
    """Through plain MONAI's Compose: loaded and turned to RAS, as every bundle does it."""
    from monai.transforms import Compose, Orientationd

    from pipeline.transforms import LoadImageStackd, NormalizeChannelsd

    image = image if isinstance(image, dict) else {"ct": image}
    options = {"channels": list(image), "labels": [1], **options}
    item = {"case_id": "sub-01", "image": {name: path for name, path in image.items() if path is not None}}
    if label is not None:
        item["label"] = str(label)
    keys = ["image", *(["label"] if label is not None else [])]
    chain = [LoadImageStackd(**options), Orientationd(keys, axcodes="RAS", labels=None)]
    if normalised:
        scheme = {name: {"scheme": "z_score"} for name in options["channels"]}
        chain.append(NormalizeChannelsd("image", options["channels"], scheme))
    item = chain[0](item)  # a refusal as it is raised
    repairs = item["image"].meta["repairs"] + "\n" + (item["label"].meta["repairs"] if label is not None else "")
    item = Compose(chain[1:])(item)
    return item["image"].numpy(), item["label"].numpy()[0] if label is not None else None, repairs.strip()


# --- the table --------------------------------------------------------------------------------------------------------

ROWS: dict[str, Row] = {}
HAZARDS: list[Hazard] = []


def row(key: str, arrives: str, elsewhere: str, here: str) -> None:
    ROWS[key] = Row(arrives, elsewhere, here)


def image(
    key: str, what: str, ends: str, says: str = "", *, truth=TRUTH, name="ct.nii.gz", options=None, **file
) -> None:
    """A hazard of one image file: `nifti` makes it from ``file``."""

    def run(folder: Path):
        return load(nifti(folder / name, **file), **(options or {}))

    HAZARDS.append(Hazard(key, what, ends, says, run, None if ends == REFUSED else np.asarray(truth, np.float32)[None]))


def label(key: str, what: str, ends: str, says: str = "", *, truth=LESION, name="label.nii.gz", options=None, **file):
    """A hazard of a label beside a good image."""

    def run(folder: Path):
        return load(nifti(folder / "ct.nii.gz"), nifti(folder / name, **{"array": LESION, **file}), **(options or {}))

    refused = ends == REFUSED
    HAZARDS.append(Hazard(key, what, ends, says, run, None if refused else TRUTH[None], None if refused else truth))


def case(key: str, what: str, ends: str, says: str = "", *, truth=None, drawn=None) -> Callable:
    """Decorator: a hazard that its function makes and loads."""

    def note(run: Callable) -> Callable:
        HAZARDS.append(Hazard(key, what, ends, says, run, truth, drawn))
        return run

    return note


def changed(array: np.ndarray, value: float, count: int = 2, dtype: Any = np.float64) -> np.ndarray:
    result = array.astype(dtype)
    result[(slice(count),) + (0,) * (array.ndim - 1)] = value
    return result


def moved(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += [x, y, z]
    return affine


def stored_as(array: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels in another axis order: array and affine."""
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(tuple(codes))
    )
    turned = nibabel.orientations.apply_orientation(array, turn)
    return turned, AFFINE @ nibabel.orientations.inv_ornt_aff(turn, array.shape)


row(
    "non_finite",
    "NaN or Inf in a few voxels",
    "whole prediction empty, silent",
    "refused with their number, by `check` and at load; `non_finite: zero` in a bundle makes it a recorded repair. Of a "
    "label always refused",
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
    wild[0, 3, 4, 5] = clean[0, 3, 4, 5]
    assert np.abs(wild - clean).max() < 0.02


row("constant", "constant or all-zero channel", "empty prediction, silent", "refused, and the channel is named")
for word, value in (("all-zero", 0), ("constant", 7)):

    @case("constant", f"a second channel that is {word}", REFUSED, f"every voxel of channel pet is {value}")
    def _(folder, value=value):
        pet = nifti(folder / "pet.nii.gz", np.full(SHAPE, value, np.int16))
        return load({"ct": nifti(folder / "ct.nii.gz"), "pet": pet})


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
    "refused, with a near name if there is one; `missing_channels: zero` fills it with 0, recorded, with a mask of what is "
    "there",
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
    "truncated .nii.gz or .nii, missing CRC trailer, plain file named .gz, HTML or zero-byte file, directory, lone .hdr, "
    "another format under this name",
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
    ("a web page", "a web page", "ct.nii", lambda d: b"<!DOCTYPE html><html>not found</html>" + b" " * 600),
    ("a file of 0 bytes", "an empty file", "ct.nii.gz", lambda d: b""),
    ("a plain file of 0 bytes", "an empty file", "ct.nii", lambda d: b""),
    ("text", "no NIfTI image", "ct.nii", lambda d: b"subject,age\n1,70\n" * 50),
    ("a DICOM file", "a DICOM file", "ct.nii", lambda d: b"\0" * 128 + b"DICM" + b"\0" * 600),
    ("an NRRD image", "an NRRD image", "ct.nii", lambda d: b"NRRD0004\ntype: short\n" + d),
    ("an MGH image", "an MGH image", "ct.nii", lambda d: b"\0\0\0\1\0\0\1\0" + d),
    ("a MINC image", "an HDF5", "ct.nii", lambda d: b"\x89HDF\r\n\x1a\n" + d),
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
    "same code (both claim the same space): refused, `trust: qform` or `sform` in a bundle names the right one; different "
    "codes (scanner and template, say): sform, recorded",
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
    "by a header that says so: put in the reference's order, exactly, recorded. By a wrong header it can't be seen in one "
    "case: `check` reports a handedness or a side that differs inside a dataset",
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
    "refused with the spacing and the limit (`spacing_limits_mm` in a bundle); so are a volume of more than 4 m and one "
    "that lies more than 100 m from the origin",
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
for code, name in ((1, "binary"), (1536, "float128"), (2304, "RGBA"), (0, "unknown"), (2048, "complex256"), (77, "77")):
    image("types", f"type code {code}", REFUSED, name, datatype=code)

row(
    "other_grid",
    "channels on different grids",
    "separate keys + concat: silent at +20 mm offset; one key: 1e-6 mm refused",
    "within 0.01 voxel accepted; the same voxels in another axis order: reordered, recorded; the same physical space but "
    "another grid: resampled to the reference channel, recorded; more than half of the reference missing: refused",
)


def ramp(grid: Grid) -> np.ndarray:
    """2x + 3y + z in mm: linear interpolation gives it back exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    return (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]) @ [2.0, 3.0, 1.0]


def second(what: str, ends: str, says: str, affine: np.ndarray, shape=SHAPE, **options: Any) -> None:
    truth = ramp(Grid(SHAPE, AFFINE))

    def run(folder: Path):
        ct = nifti(folder / "ct.nii.gz", truth, dtype="<f8")
        return load(
            {"ct": ct, "pet": nifti(folder / "pet.nii.gz", ramp(Grid(shape, affine)), affine, dtype="<f8")}, **options
        )

    HAZARDS.append(Hazard("other_grid", what, ends, says, run, None if ends == REFUSED else np.stack([truth, truth])))


WIDER = AFFINE @ np.diag([0.5, 0.6, 0.7, 1.0])
WIDER[:3, 3] -= 4
second("0.005 voxel away: its values are kept", ACCEPTED, "", moved(0.005))
second("a finer grid around it", REPAIRED, "pet: resampled from 20x18x14", WIDER, (20, 18, 14))
OBLIQUE = AFFINE @ TURN
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

row(
    "label_rounding",
    "label 0.9999999998 (scl_slope rounding)",
    "truncated to 0: the lesion vanishes",
    "within 1e-3 of an integer: rounded, recorded",
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
label("label_rounding", "-0.0", ACCEPTED, array=np.where(LESION, 1.0, -0.0))

row("label_fraction", "label 0.7", "silently 0", "refused")
label("label_fraction", "0.7", REFUSED, "12 voxels whose label is no integer, such as 0.7", array=LESION * 0.7)
label(
    "label_fraction", "an interpolated edge", REFUSED, "2 voxels whose label is no integer", array=changed(LESION, 0.25)
)

row("label_empty", "empty label", "sampler loops or crashes", "accepted, counted")
label("label_empty", "no lesion", ACCEPTED, array=LESION * 0, truth=LESION * 0)

row(
    "duplicates",
    "same file name in two folders, duplicate ids",
    "one overwrites the other, silent",
    "outputs keep the relative path; duplicates refused before any work",
)


@case("duplicates", "two cases of one id", REFUSED, "ct")
def _(folder):
    from pipeline.data import data_list

    entries = [{"image": "./a/ct.nii.gz"}, {"image": "./b/ct.nii.gz"}]
    for entry in entries:
        nifti(folder / entry["image"])
    data = {
        "modality": {"0": "CT"},
        "labels": {"0": "background"},
        "training": [],
        "test": [e["image"] for e in entries],
    }
    (folder / "dataset.json").write_text(json.dumps(data), encoding="utf-8")
    data_list(folder, ["ct"])


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
image("odd_but_right", "oblique axes", ACCEPTED, affine=AFFINE @ TURN)
image("odd_but_right", "a table position of 3 m", ACCEPTED, affine=moved(z=3000))
image(
    "odd_but_right",
    "a header extension before the voxels",
    ACCEPTED,
    between=b"\1\0\0\0\x20\0\0\0\6\0\0\0" + b"patient name".ljust(24),
    after=b"",
)
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


# --- the tests --------------------------------------------------------------------------------------------------------


def refused(run: Callable[[], Any], says: str) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        run()
    message = str(caught.value)
    assert says in message
    assert "0x" not in message
    assert caught.value.fix or caught.value.expected, "it says neither what was expected nor what to do"
    return caught.value


@pytest.mark.parametrize(
    "hazard", HAZARDS, ids=lambda hazard: f"{hazard.row}: {hazard.what}".encode("ascii", "replace").decode()
)
def test_hazard(hazard: Hazard, tmp_path: Path):
    if hazard.ends == REFUSED:
        error = refused(lambda: hazard.run(tmp_path), hazard.says)
        if hazard.row not in ("duplicates", "writing") and "assume_orientation='RAX'" not in error.found:
            assert error.case == "sub-01"
            assert error.file or hazard.row == "missing"
        return
    loaded = hazard.run(tmp_path)
    if loaded is None:  # it has asserted by itself
        return
    array, drawn, repairs = loaded
    assert bool(repairs) == (hazard.ends == REPAIRED), repairs
    assert hazard.says in repairs
    np.testing.assert_allclose(array, hazard.image, rtol=1e-6, atol=1e-4 if "resampled" in repairs else 0)
    if hazard.label is not None:
        np.testing.assert_array_equal(drawn, hazard.label)


def tables() -> str:
    """The two tables of docs/hazards.md."""
    counts = {key: sum(hazard.row == key for hazard in HAZARDS) for key in ROWS}
    lines = ["| what arrives | elsewhere | here | tried |", "|---|---|---|---|"]
    lines += [f"| {r.arrives} | {r.elsewhere} | {r.here} | {counts[key]} |" for key, r in ROWS.items()]
    lines += ["", "## Each as it was tried", ""]
    for key, r in ROWS.items():
        lines += [f"**{r.arrives}**", "", "| arrives | ends | and says |", "|---|---|---|"]
        for hazard in HAZARDS:
            if hazard.row == key:
                says = f"... {hazard.says} ..." if hazard.says else ""
                lines.append(
                    "| " + " | ".join(text.replace("|", r"\|") for text in (hazard.what, hazard.ends, says)) + " |"
                )
        lines.append("")
    return "\n".join(lines)


def test_every_row_is_tried_and_the_document_says_what_the_tests_do():
    assert {hazard.row for hazard in HAZARDS} == set(ROWS)
    text = DOCS.read_text(encoding="utf-8")
    written = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert written == tables().strip(), f"write it anew: python {Path(__file__).name}"


if __name__ == "__main__":
    document = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(
        document[: document.index(BEGIN) + len(BEGIN)]
        + "\n\n"
        + tables().strip()
        + "\n\n"
        + document[document.index(END) :],
        encoding="utf-8",
    )
    sys.stdout.write(f"{len(HAZARDS)} hazards in {len(ROWS)} rows\n")
