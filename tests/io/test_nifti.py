import gzip
import os
import struct
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.errors import DataError, GeometryError
from pipeline.geometry import Grid
from pipeline.io import read_grid, read_volume, write_volume

RNG = np.random.default_rng(0)
OBLIQUE = np.array([[-0.9, 0.1, 0.3, 40.0], [0.05, 1.0, -0.6, -30.0], [0.02, 0.12, 4.9, 12.0], [0, 0, 0, 1]])
OBLIQUE[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * [0.9, 1.0, 5.0]


def save(path: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE, kind=nibabel.Nifti1Image, **fields) -> Path:
    """A file as another tool would write it; ``fields`` are then set raw in the header."""
    image = kind(array, affine, dtype=array.dtype)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    if fields:
        data = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        header = type(image.header)(bytes(data[: image.header.sizeof_hdr]), check=False)
        for name, value in fields.items():
            header[name] = value
        data[: image.header.sizeof_hdr] = header.binaryblock
        path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "f4", ">f4", "f8", "i8", "u8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_reads_every_real_type_like_nibabel(tmp_path, dtype, suffix):
    array = RNG.integers(0, 100, (3, 5, 7)).astype(dtype)
    plain = save(tmp_path / "a.nii", array)
    path = tmp_path / f"b{suffix}"
    path.write_bytes(gzip.compress(plain.read_bytes()) if suffix.lower().endswith("gz") else plain.read_bytes())
    volume = read_volume(path)
    assert volume.array.dtype == np.float32
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, array.astype(np.float32))
    np.testing.assert_allclose(volume.grid.affine, nibabel.load(plain).affine, atol=1e-5)
    assert volume.repairs == ()
    assert read_grid(path).same_grid(volume.grid)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_reads_both_versions_in_both_byte_orders(tmp_path, kind, order):
    array = RNG.normal(size=(4, 3, 2)).astype(np.float32)
    header = kind.header_class(endianness=order)
    image = kind(array, OBLIQUE, header)
    image.set_qform(OBLIQUE, 1)
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.grid.affine, OBLIQUE, atol=1e-4)


def test_scaling_is_applied_and_zero_or_nan_slope_means_none(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    scaled = read_volume(save(tmp_path / "a.nii", array, scl_slope=0.5, scl_inter=-3))
    np.testing.assert_allclose(scaled.array, array * 0.5 - 3)
    for slope in (0, np.nan):
        np.testing.assert_array_equal(read_volume(save(tmp_path / "b.nii", array, scl_slope=slope)).array, array)
    with pytest.raises(DataError, match="scl_inter"):
        read_volume(save(tmp_path / "c.nii", array, scl_slope=2, scl_inter=np.nan))


def test_one_slice_and_trailing_axes_of_one_are_volumes(tmp_path):
    array = RNG.normal(size=(4, 3, 1)).astype(np.float32)
    assert read_volume(save(tmp_path / "a.nii", array)).array.shape == (4, 3, 1)
    assert read_volume(save(tmp_path / "b.nii", array[..., None, None])).array.shape == (4, 3, 1)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 5), np.float32), "2D image"),
        (np.zeros((4, 5, 6, 2), np.float32), "4D series"),
        (np.zeros((4, 5, 6), np.complex64), "complex64"),
        (np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "RGB"),
        (np.full((4, 5, 6), np.nan, np.float32), "120 voxels that are NaN or infinite"),
        (np.full((4, 5, 6), 1e300), "NaN or infinite"),
    ],
)
def test_refuses_what_is_no_finite_real_volume(tmp_path, array, found):
    path = save(tmp_path / "sub-01_cbf.nii.gz", array)
    with pytest.raises(DataError, match=found) as refusal:
        read_volume(path)
    assert refusal.value.file == str(path)
    assert refusal.value.expected
    assert refusal.value.fix


def test_refuses_damaged_files_and_names_them(tmp_path):
    good = save(tmp_path / "good.nii.gz", RNG.integers(0, 999, (20, 21, 22)).astype(np.int16)).read_bytes()
    plain = gzip.decompress(good)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    stored = bytearray(gzip.compress(plain, 0))
    stored[len(stored) // 2] ^= 1  # in an uncompressed block nothing but the checksum notices
    damaged = {
        "truncated.nii.gz": good[: len(good) // 2],
        "no_trailer.nii.gz": good[:-8],
        "wrong_length.nii.gz": good[:-4] + b"\1\2\3\4",
        "flipped.nii.gz": bytes(flipped),
        "one_bit.nii.gz": bytes(stored),
        "not_gzip.nii.gz": plain,
        "is_gzip.nii": good,
        "truncated.nii": plain[: len(plain) // 2],
        "short_inside.nii.gz": gzip.compress(plain[:-100]),
        "header_only.nii": plain[:348],
        "page.nii": b"<!DOCTYPE html><html>not found</html>" + b" " * 600,
        "empty.nii.gz": b"",
        "lone.hdr": plain[:348],
        "pair.nii": plain[:344] + b"ni1\0" + plain[348:],
    }
    for name, data in damaged.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError, match=name.split(".")[0]) as refusal:
            read_volume(path)
        assert refusal.value.file == str(path)
    for path in (tmp_path, tmp_path / "missing.nii.gz"):
        with pytest.raises(DataError):
            read_volume(path)
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(DataError, match="a folder"):
        read_volume(tmp_path / "folder.nii.gz")


def test_refuses_impossible_sizes_before_allocating(tmp_path):
    huge = save(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), np.float32), dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])
    with pytest.raises(DataError, match="32000x32000x32000"):
        read_volume(huge)
    negative = save(tmp_path / "b.nii.gz", np.zeros((2, 2, 2), np.float32), dim=[3, 2, -2, 2, 1, 1, 1, 1])
    with pytest.raises(DataError, match="dimensions"):
        read_grid(negative)


def test_units_are_converted_and_recorded(tmp_path):
    array = np.ones((2, 3, 4), np.float32)
    scaled = {1: np.diag([1e-3, 1e-3, 5e-3, 1]), 2: np.diag([1, 1, 5, 1]), 3: np.diag([1e3, 1e3, 5e3, 1])}
    for code, affine in scaled.items():
        path = tmp_path / "a.nii"
        save(path, array, affine.astype(float), xyzt_units=code)
        volume = read_volume(path)
        assert volume.grid.spacing_mm == pytest.approx((1, 1, 5))
        assert bool(volume.repairs) == (code != 2)
    save(path, array, np.diag([1.0, 1, 5, 1]), xyzt_units=0)
    assert read_volume(path).repairs == ("units not stated: taken as millimetres",)


def test_header_policy(tmp_path):
    array = np.ones((10, 10, 10), np.float32)
    moved = np.diag([1.0, 1, 5, 1])
    moved[0, 3] = 3
    path = tmp_path / "a.nii"

    save(path, array, np.diag([1.0, 1, 5, 1]), srow_x=moved[0])
    with pytest.raises(GeometryError, match="lie 3 units apart"):
        read_volume(path)
    save(path, array, np.diag([1.0, 1, 5, 1]), srow_x=moved[0], sform_code=4)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.grid.affine, moved)
    assert "different spaces" in volume.repairs[0]
    save(path, array, np.diag([1.0, 1, 5, 1]), srow_x=[1, 0, 0, 0.05])
    assert read_volume(path).repairs == ()

    save(path, array, moved, qform_code=0, sform_code=0)
    with pytest.raises(GeometryError, match="neither qform nor sform"):
        read_volume(path)
    save(path, array, moved, pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    volume = read_volume(path)
    assert volume.grid.spacing_mm == (1, 1, 5)
    assert "pixdim" in volume.repairs[0]
    save(path, array, moved, pixdim=[1, 0, 0, 0, 0, 0, 0, 0], sform_code=0)
    with pytest.raises(GeometryError, match="no sform"):
        read_volume(path)
    save(
        path, array, moved, sform_code=0, pixdim=[-1, -1, 1, 5, 0, 0, 0, 0]
    )  # a negative side, and a left-handed qform
    np.testing.assert_allclose(read_grid(path).affine[:3, :3], np.diag([1, 1, -5]), atol=1e-6)
    for row in ([np.nan, 0, 0, 0], [0, 0, 0, 0]):
        save(path, array, moved, srow_x=row)
        with pytest.raises(GeometryError, match="describes no volume"):
            read_volume(path)


@pytest.mark.parametrize(("degrees", "accepted"), [(0.0, True), (0.3, True), (2.0, False)])
def test_shear_is_recorded_or_refused(tmp_path, degrees, accepted):
    affine = np.diag([1.0, 1, 2, 1])
    affine[0, 1] = np.tan(np.radians(degrees))
    image = nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / "a.nii")
    if accepted:
        assert bool(read_volume(tmp_path / "a.nii").repairs) == (degrees > 0)
    else:
        with pytest.raises(GeometryError, match="right angles"):
            read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("side", [0.002, 40.0])
def test_refuses_absurd_spacing(tmp_path, side):
    with pytest.raises(GeometryError, match="voxel size"):
        read_grid(save(tmp_path / "a.nii", np.ones((2, 2, 2), np.float32), np.diag([1, 1, side, 1.0])))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("array", "stored"),
    [
        (np.array([0, 1, 200]), "u1"),
        (np.array([0, 1, 256]), "u2"),
        (np.array([-1, 0, 3]), "i1"),
        (np.array([-1, 0, 40000]), "i4"),
        (np.array([False, True, True]), "u1"),
        (np.array([0.25, 0.5, 1.0]), "f4"),
    ],
)
def test_writes_what_other_readers_read(tmp_path, suffix, array, stored):
    volume = np.broadcast_to(array[:, None, None], (3, 4, 5)) * np.ones((1, 4, 5), array.dtype)
    path = tmp_path / "new folder" / f"Läsion {{1}}{suffix}"
    write_volume(path, volume, Grid((3, 4, 5), OBLIQUE))
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.dtype(stored)
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(image.header.get_qform(), image.header.get_sform(), atol=1e-4)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    again = read_volume(path)
    assert again.repairs == ()
    assert again.grid.same_grid(Grid((3, 4, 5), OBLIQUE))


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    labels = RNG.integers(0, 3, (6, 5, 4))
    for name in ("a", "b"):
        write_volume(tmp_path / f"{name}.nii.gz", labels, Grid(labels.shape, OBLIQUE))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_byte_order_of_the_array_does_not_matter(tmp_path):
    labels = RNG.integers(0, 1000, (6, 5, 4)).astype(">i2")
    for dtype in (None, ">i2", np.float32):
        write_volume(tmp_path / "a.nii.gz", labels, Grid(labels.shape, OBLIQUE), dtype)
        np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, labels)


def test_sheared_grid_is_written_without_a_contradicting_qform(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    affine[0, 1] = np.tan(np.radians(0.4))
    grid = Grid((300, 300, 2), affine)
    write_volume(tmp_path / "a.nii.gz", np.zeros(grid.shape, np.uint8), grid)
    assert read_grid(tmp_path / "a.nii.gz").same_grid(grid)


def test_write_refuses_what_it_can_not_keep(tmp_path):
    grid = Grid((2, 2, 2), np.eye(4))
    for array, dtype in (
        (np.full((2, 2, 2), np.nan), None),
        (np.full((2, 2, 2), 300), np.uint8),
        (np.full((2, 2, 2), 0.5), np.uint8),
        (np.zeros((2, 2, 3)), None),
        (np.zeros((2, 2, 2), complex), None),
    ):
        with pytest.raises(DataError):
            write_volume(tmp_path / "a.nii.gz", array, grid, dtype)
    with pytest.raises(DataError, match=r"named a\.png"):
        write_volume(tmp_path / "a.png", np.zeros((2, 2, 2)), grid)
    assert list(tmp_path.iterdir()) == []


def test_failures_leave_no_half_file(tmp_path, monkeypatch):
    grid, labels = Grid((2, 2, 2), np.eye(4)), np.ones((2, 2, 2), np.uint8)
    with pytest.raises(DataError, match="can't be written"):
        write_volume(tmp_path / f"{'x' * 300}.nii.gz", labels, grid)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        write_volume(tmp_path / "file" / "a.nii.gz", labels, grid)
    write_volume(tmp_path / "a.nii.gz", labels, grid)
    before = (tmp_path / "a.nii.gz").read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match=r"no space left.*make room on the disk"):
        write_volume(tmp_path / "a.nii.gz", 0 * labels, grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"a.nii.gz", "file"}


def test_a_file_that_changed_on_the_way_is_not_renamed(tmp_path, monkeypatch):
    from pipeline.io import nifti

    def lose_a_bit(raw, header, voxels, compressed):
        raw.write(header.binaryblock + struct.pack("4x") + bytes([voxels[0] ^ 1]) + voxels[1:])

    monkeypatch.setattr(nifti, "_write_stream", lose_a_bit)
    with pytest.raises(DataError, match="other voxels"):
        write_volume(tmp_path / "a.nii", np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="needs file rights"
)
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="rights"):
        write_volume(tmp_path / "a.nii", np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))


def test_only_floating_types_are_read(tmp_path):
    with pytest.raises(TypeError, match="uint8"):
        read_volume(tmp_path / "a.nii", dtype=np.uint8)
