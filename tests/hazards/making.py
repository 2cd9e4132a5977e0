"""Hazards are made of these: files as other tools write them, a chain that loads them, and the table's rows."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header

from pipeline.errors import PipelineError

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

    ``fields`` are set raw in the header; ``between`` stands between header and voxels, ``after`` behind them; ``edit``
    is applied to the file at last, compressed or not.
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


def refused(run: Callable[[], Any], says: str) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        run()
    message = str(caught.value)
    assert says in message
    assert not re.search(r"object at|0x[0-9a-f]{6}", message)
    assert caught.value.fix or caught.value.expected, "it says neither what was expected nor what to do"
    return caught.value
