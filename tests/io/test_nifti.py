import gzip
import os
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from pipeline.errors import DataError, GeometryError
from pipeline.geometry import Grid
from pipeline.io import read_grid, read_header, read_volume, write_volume
from pipeline.io.policy import ReadPolicy

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
        (np.full((4, 5, 6), 1e300), r"120 voxels too large, from 1e\+300"),
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


def test_writes_any_grid_that_it_is_asked_for(tmp_path):
    sheared = np.diag([1.0, 1, 1, 1])
    sheared[0, 1] = 0.5
    for affine in (np.diag([1.0, 1, 40, 1]), np.diag([1e-3, 1e-3, 1, 1]), np.diag([1.0, 1, 3000, 1]), sheared):
        grid = Grid((2, 3, 4), affine)
        write_volume(tmp_path / "a.nii.gz", np.ones(grid.shape), grid)
        np.testing.assert_allclose(nibabel.load(tmp_path / "a.nii.gz").affine, affine, rtol=1e-6)
    wide = ReadPolicy(spacing_limits_mm=(0.01, 50))
    write_volume(tmp_path / "a.nii.gz", np.ones((2, 3, 4)), Grid((2, 3, 4), np.diag([1.0, 1, 40, 1])))
    assert read_grid(tmp_path / "a.nii.gz", wide).spacing_mm == (1, 1, 40)


@pytest.mark.parametrize("affine", [np.full((4, 4), np.nan), np.diag([0.0, 1, 1, 1]), np.diag([1e39, 1, 1, 1])])
def test_does_not_write_a_grid_that_describes_no_volume(tmp_path, affine):
    with pytest.raises(GeometryError, match="a grid") as refusal:
        write_volume(tmp_path / "a.nii.gz", np.ones((2, 3, 4)), Grid((2, 3, 4), affine))
    assert refusal.value.file == str(tmp_path / "a.nii.gz")
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

    def lose_a_bit(raw, pieces, compressed):
        start, voxels = (bytes(piece()) for piece in pieces)
        raw.write(start + bytes([voxels[0] ^ 1]) + voxels[1:])
        return zlib.crc32(start + voxels), len(start + voxels)

    monkeypatch.setattr(nifti, "write_pieces", lose_a_bit)
    with pytest.raises(DataError, match="other bytes"):
        write_volume(tmp_path / "a.nii", np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", [np.float16, np.float64, np.uint8, np.int16, np.int64, np.uint64])
@pytest.mark.parametrize("stored", ["u1", "<i2", ">i2", "i4", "f4", ">f8", "u8"])
def test_gives_the_type_that_is_asked_for(tmp_path, stored, asked):
    array = RNG.integers(0, 128, (5, 6, 7)).astype(stored)
    volume = read_volume(save(tmp_path / "a.nii.gz", array), asked)
    assert volume.array.dtype == np.dtype(asked)
    np.testing.assert_array_equal(volume.array, array.astype(asked))
    assert volume.repairs == ()


@pytest.mark.parametrize(
    ("values", "stored", "asked", "found"),
    [
        ([0, 1, 300], "i2", np.uint8, "1 voxels .* from 300 to 300; expected values that uint8"),
        ([0, -1, -2], "i2", np.uint8, "2 voxels .* from -2 to -1"),
        ([0, 0.7, 1], "f4", np.uint8, "1 voxels that are no whole numbers.* float32"),
        ([0, 2**31, 1], "u4", np.int32, "1 voxels"),
        ([0, 2.0**31, 1], "f4", np.int32, "1 voxels"),
        ([0, 2.0**64, 1], "f8", np.uint64, "1 voxels"),
        ([0, np.nan, 1], "f4", np.uint8, "1 voxels that are NaN"),
        ([0, 70000, 1], "i4", np.float16, "1 voxels too large, from 70000 to 70000"),
        ([0, 65520, 1], "u2", np.float16, "1 voxels too large"),
        ([0, -1e39, 1], "f8", np.float32, "1 voxels too large"),
    ],
)
def test_refuses_what_the_asked_type_can_not_hold(tmp_path, values, stored, asked, found):
    path = save(tmp_path / "a.nii.gz", np.array(values).astype(stored).reshape(3, 1, 1))
    with pytest.raises(DataError, match=found):
        read_volume(path, asked)


def test_scaled_values_as_integers_only_where_they_are_whole(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    whole = save(tmp_path / "a.nii", array, scl_slope=2, scl_inter=-1024)
    np.testing.assert_array_equal(read_volume(whole, np.int16).array, 2 * array - 1024)
    with pytest.raises(DataError, match="24 voxels"):
        read_volume(whole, np.uint16)
    with pytest.raises(DataError, match="12 voxels that are no whole numbers"):
        read_volume(save(tmp_path / "b.nii", array, scl_slope=0.5, scl_inter=0), np.int16)
    with pytest.raises(DataError, match="too large"):  # beyond float32 after scaling, finite before
        read_volume(save(tmp_path / "c.nii", array + 20000, scl_slope=3e38, scl_inter=0))


def test_scaling_happens_before_digits_are_lost(tmp_path):
    array = np.array([16777217, 16777219, 7], np.int32).reshape(3, 1, 1)
    volume = read_volume(save(tmp_path / "a.nii", array, scl_slope=1, scl_inter=-16777216))
    np.testing.assert_array_equal(volume.array.ravel(), [1, 3, 7 - 16777216])


def test_whole_numbers_that_are_rounded_are_recorded(tmp_path):
    array = np.array([0, 2**24, 2**24 + 1, -(2**30) - 1], np.int64).reshape(4, 1, 1)
    path = save(tmp_path / "a.nii", array)
    assert read_volume(path).repairs == ("2 voxels of more digits than float32 holds: rounded",)
    assert read_volume(path, np.float64).repairs == ()
    np.testing.assert_array_equal(read_volume(path, np.int64).array, array)


def test_types_that_are_no_real_numbers_are_not_given(tmp_path):
    with pytest.raises(TypeError, match="complex64"):
        read_volume(tmp_path / "a.nii", dtype=np.complex64)


def test_non_finite_voxels_are_set_to_zero_where_that_is_allowed(tmp_path):
    array = RNG.normal(size=(70, 80, 60)).astype(np.float32)  # more than one slab
    array.reshape(-1)[RNG.choice(array.size, 30, replace=False)] = np.repeat([np.nan, np.inf, -np.inf], 10)
    path = save(tmp_path / "a.nii.gz", array)
    with pytest.raises(DataError, match="30 voxels that are NaN or infinite"):
        read_volume(path)
    volume = read_volume(path, policy=ReadPolicy(non_finite="zero"))
    np.testing.assert_array_equal(volume.array, np.where(np.isfinite(array), array, 0))
    assert volume.repairs == ("30 voxels that were NaN or infinite: set to 0",)
    beyond = save(tmp_path / "b.nii.gz", np.full((2, 2, 2), 1e300))  # has a meaning, which 0 is not
    with pytest.raises(DataError, match="too large"):
        read_volume(beyond, policy=ReadPolicy(non_finite="zero"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_one_volume_of_a_series(tmp_path, suffix):
    array = RNG.integers(-99, 99, (40, 30, 20, 4)).astype(np.int16)
    path = save(tmp_path / f"a{suffix}", array)
    for index in range(4):
        volume = read_volume(path, policy=ReadPolicy(volume=index))
        np.testing.assert_array_equal(volume.array, array[..., index])
        assert len(volume.repairs) == 1
        assert read_header(path, ReadPolicy(volume=index)).grid.shape == (40, 30, 20)
    data = path.read_bytes() if suffix == ".nii" else gzip.decompress(path.read_bytes())
    cut = data[:-10]
    path.write_bytes(cut if suffix == ".nii" else gzip.compress(cut))
    with pytest.raises(DataError, match="whole file"):  # though the volume that is asked for is there
        read_volume(path, policy=ReadPolicy(volume=0))


def test_bytes_behind_the_last_voxel(tmp_path):
    # zeros too: air at the end of a volume whose header promises less than there is
    plain = save(tmp_path / "a.nii", np.ones((5, 6, 7), np.int16)).read_bytes()
    for padding in (b"\0" * 2, b"\0" * 100, b"\0" * (-len(plain) % 512), b"\0" * 5000, b"\0\0\1"):
        (tmp_path / "a.nii").write_bytes(plain + padding)
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain + padding))
        for name in ("a.nii", "b.nii.gz"):
            with pytest.raises(DataError, match=f"{len(padding)} bytes behind the last voxel"):
                read_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_header_that_promises_one_row_or_slice_less(tmp_path, suffix, axis):
    array = np.zeros((24, 28, 20), np.int16)
    array[4:20, 4:20, 4:16] = RNG.integers(1, 999, (16, 16, 12))
    sides = list(array.shape)
    sides[axis] -= 1
    with pytest.raises(DataError, match=f"{2 * array.size // (sides[axis] + 1)} bytes behind the last voxel"):
        read_volume(save(tmp_path / f"a{suffix}", array, dim=[3, *sides, 1, 1, 1, 1]))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_voxels_are_not_said_to_begin_inside_a_header_extension(tmp_path, kind, order):
    array = RNG.integers(0, 999, (5, 6, 7)).astype(np.int16)
    image = kind(array, OBLIQUE, kind.header_class(endianness=order))
    image.set_data_dtype(array.dtype.newbyteorder(order))
    image.header.set_xyzt_units("mm")
    for text in (b"p" * 40, b"q" * 70):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, text))
    for name in ("a.nii", "a.nii.gz"):
        image.to_filename(tmp_path / name)
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, array)
    size = image.header.sizeof_hdr
    data = (tmp_path / "a.nii").read_bytes()
    for offset in (0, size + 4, size + 20):
        header = type(image.header)(data[:size], check=False)
        header["vox_offset"] = offset
        (tmp_path / "b.nii").write_bytes(header.binaryblock + data[size:])
        for read in (read_volume, read_grid):
            with pytest.raises(DataError, match=f"extension .* to byte {size + 52}"):
                read(tmp_path / "b.nii")
    header["vox_offset"] = size + 52  # inside the second
    (tmp_path / "b.nii").write_bytes(header.binaryblock + data[size:])
    with pytest.raises(DataError, match="bytes behind the last voxel"):
        read_volume(tmp_path / "b.nii")
    # a flag alone, before voxels that begin where the header says
    header["vox_offset"] = size + 4
    (tmp_path / "b.nii").write_bytes(header.binaryblock + b"\1\0\0\0" + data[-array.nbytes :])
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii").array, array)


def test_bitpix_that_contradicts_the_type(tmp_path):
    array = np.zeros((5, 6, 8), np.int16)
    array[:, :, :3] = 300
    path = save(tmp_path / "a.nii", array, bitpix=8)  # the file's length says which of the two is right
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.repairs == ("bitpix 8 contradicts the type int16: the type is used",)
    with pytest.raises(DataError, match="240 bytes behind the last voxel"):
        read_volume(save(tmp_path / "b.nii", array, datatype=2))
    with pytest.raises(DataError, match="promises"):
        read_volume(save(tmp_path / "c.nii", array, datatype=16))


def test_writes_from_any_memory_order_and_type(tmp_path):
    labels = RNG.integers(0, 5, (60, 70, 150)).astype(np.int64)
    labels[3, 4, 5] = 300
    path = tmp_path / "a.nii.gz"
    expected = None
    for array in (labels, np.asfortranarray(labels), labels[::-1, :, ::-1][::-1, :, ::-1], labels.astype(np.int32)):
        write_volume(path, array, Grid(labels.shape, OBLIQUE))
        expected = expected or path.read_bytes()
        assert path.read_bytes() == expected
    assert read_volume(path, np.uint16).array.tolist() == labels.tolist()
    write_volume(path, labels.astype(np.float32), Grid(labels.shape, OBLIQUE), np.uint16)
    assert path.read_bytes() == expected


def test_a_volume_of_several_pieces_is_one_gzip_member_that_others_read(tmp_path, monkeypatch):
    from pipeline.io import deflate, nifti

    monkeypatch.setattr(nifti, "_PIECE_BYTES", 50_000)
    array = RNG.normal(100, 20, (50, 60, 70)).astype(np.int16)
    written = []
    for threads in (1, 3):
        monkeypatch.setattr(deflate, "_cores", lambda threads=threads: threads)
        path = tmp_path / f"{threads}.nii.gz"
        write_volume(path, array, Grid(array.shape, OBLIQUE))
        written.append(path.read_bytes())
    assert written[0] == written[1]
    member = zlib.decompressobj(wbits=31)
    member.decompress(written[0])
    assert member.eof
    assert member.unused_data == b""
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj), array)
    image = SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, array)
    np.testing.assert_allclose(np.diag([-1, -1, 1]) @ np.array(image.GetOrigin()), OBLIQUE[:3, 3], atol=1e-4)


def test_a_refusal_in_one_of_several_pieces_leaves_nothing(tmp_path, monkeypatch):
    from pipeline.io import nifti

    monkeypatch.setattr(nifti, "_PIECE_BYTES", 10_000)
    array = np.zeros((50, 60, 70), np.float32)
    array[10, 20, 66] = np.inf
    with pytest.raises(DataError, match="infinite"):
        write_volume(tmp_path / "a.nii.gz", array, Grid(array.shape, OBLIQUE))
    with pytest.raises(DataError, match="float16"):
        write_volume(tmp_path / "a.nii.gz", np.zeros_like(array), Grid(array.shape, OBLIQUE), np.float16)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_of_the_machine_or_the_time(tmp_path):
    write_volume(tmp_path / "Jane Doe.nii.gz", np.ones((2, 3, 4)), Grid((2, 3, 4), OBLIQUE))
    data = (tmp_path / "Jane Doe.nii.gz").read_bytes()
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time
    header = nibabel.load(tmp_path / "Jane Doe.nii.gz").header
    assert all(not header[name].item() for name in ("descrip", "aux_file", "db_name", "intent_name", "data_type"))
    assert header.extensions == []
