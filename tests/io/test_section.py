import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io import count_sections, is_section, read_image, read_image_grid, read_section, section_of, write_section

RNG = np.random.default_rng(0)
SIZE = (5, 7)


def stack(path, arrays, **options):
    first, *others = [Image.fromarray(array) for array in arrays]
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".PNG"])
@pytest.mark.parametrize(("dtype", "high"), [("u1", 256), ("u2", 65536)])
def test_reads_what_other_tools_write_without_scaling(tmp_path, suffix, dtype, high):
    array = RNG.integers(0, high, SIZE).astype(dtype)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(array).save(path)
    section = read_section(path)
    assert section.array.dtype == np.float32
    np.testing.assert_array_equal(section.array, array)
    assert section.grid.shape == SIZE
    assert section.grid.spacing_mm == (1.0, 1.0)
    assert section.repairs == ()
    assert read_image_grid(path).same_grid(section.grid)
    np.testing.assert_array_equal(read_image(path).array, array)


def test_big_endian_16_bits_float_and_one_bit(tmp_path):
    array = RNG.integers(0, 65536, SIZE).astype(np.uint16)
    # A TIFF by hand, of one strip: the oracle is the format itself (TIFF 6.0, sections 2 and 4).
    fields = [(256, 4, SIZE[1]), (257, 4, SIZE[0]), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    fields += [(277, 3, 1), (278, 4, SIZE[0]), (279, 4, array.nbytes)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in fields
    )
    offset = 8 + array.nbytes
    content = struct.pack(">2sHI", b"MM", 42, offset) + array.astype(">u2").tobytes()
    (tmp_path / "big.tif").write_bytes(content + struct.pack(">H", len(fields)) + entries + struct.pack(">I", 0))
    np.testing.assert_array_equal(read_section(tmp_path / "big.tif").array, array)

    values = RNG.normal(size=SIZE).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(read_section(tmp_path / "float.tif").array, values)
    Image.fromarray(values > 0).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(read_section(tmp_path / "bit.png").array, 255 * (values > 0))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_a_stack_is_read_section_by_section(tmp_path, compression):
    arrays = [RNG.integers(0, 256, SIZE).astype(np.uint8) for _ in range(3)]
    path = stack(tmp_path / "stack.tif", arrays, compression=compression)
    assert count_sections(path) == 3
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(read_section(f"{path}#{number}").array, array)
    with pytest.raises(DataError, match=r"a stack of 3 sections.*stack\.tif#0 to #2"):
        read_section(path)
    with pytest.raises(DataError, match="section 3 of a file of 3"):
        read_section(f"{path}#3")


def test_names():
    assert section_of("a/s.tiff#12")[1] == 12
    assert section_of("a/s#12/x.png") == section_of("a/s#12/x.png")
    assert [is_section(name) for name in ("x.tif", "x.nii", "x.nii.gz", "x.jpg", "x.png#1")] == [True, *[False] * 4]


def test_equal_colours_are_grey_and_colours_are_refused(tmp_path):
    grey = RNG.integers(0, 256, SIZE).astype(np.uint8)
    for mode in ("RGB", "RGBA", "LA"):
        Image.fromarray(grey).convert(mode).save(tmp_path / f"{mode}.png")
        section = read_section(tmp_path / f"{mode}.png")
        np.testing.assert_array_equal(section.array, grey)
        assert section.repairs == (f"{mode} with equal channels taken as grey",)
    Image.fromarray(RNG.integers(0, 256, (*SIZE, 3)).astype(np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match="an image in colour"):
        read_section(tmp_path / "colour.png")
    transparent = np.dstack([grey, grey, grey, np.full_like(grey, 9)])
    Image.fromarray(transparent).save(tmp_path / "transparent.png")
    with pytest.raises(DataError, match="transparent pixels"):
        read_section(tmp_path / "transparent.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    with pytest.raises(DataError, match="a palette"):
        read_section(tmp_path / "palette.png")


def test_what_is_not_there_or_not_what_its_name_says_is_refused(tmp_path):
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "really_tiff.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    expected = {
        "nowhere.png": "no such file",
        "folder.png": "a folder",
        "empty.png": "an empty file",
        "text.png": "no PNG image",
        "really_tiff.png": "no PNG image",
        "photo.jpg": "a file named photo.jpg",
    }
    for name, found in expected.items():
        with pytest.raises(DataError, match=found) as caught:
            read_section(tmp_path / name)
        assert caught.value.file == str(tmp_path / name)


def test_damage_is_found(tmp_path):
    path = tmp_path / "a.png"
    write_section(path, RNG.integers(0, 256, (40, 40)).astype(np.uint8))
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[: len(whole) // 2], whole[:40]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged|no PNG"):
            read_section(path)
    wrong = bytearray(whole)
    wrong[len(whole) // 2] ^= 1  # a flipped bit among the pixels
    path.write_bytes(bytes(wrong))
    with pytest.raises(DataError, match="damaged"):
        read_section(path)
    tif = tmp_path / "a.tif"
    write_section(tif, RNG.integers(0, 256, (40, 40)).astype(np.uint8))
    tif.write_bytes(tif.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"damaged|no TIFF"):
        read_section(tif)
    Image.fromarray(np.full(SIZE, np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match="35 pixels that are NaN"):
        read_section(tmp_path / "nan.tif")


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(DataError, match="too many pixels"):
        read_section(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.png", RNG.integers(0, 2, SIZE).astype(bool)),
        ("a.png", RNG.integers(0, 256, SIZE)),
        ("a.png", RNG.integers(0, 65536, SIZE)),
        ("a.tif", RNG.integers(0, 65536, SIZE)),
        ("a.tif", RNG.normal(size=SIZE).astype(np.float32)),
        ("deep/er/a.png", np.zeros((1, 1), np.uint8)),
    ],
)
def test_what_is_written_reads_back(tmp_path, name, array):
    write_section(tmp_path / name, array)
    np.testing.assert_array_equal(read_section(tmp_path / name).array, array.astype(np.float32))
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [(tmp_path / name).name]


@pytest.mark.parametrize(
    ("name", "array", "found"),
    [
        ("a.png", np.full(SIZE, 65536), "values from 65536"),
        ("a.png", np.full(SIZE, -1), "values from -1"),
        ("a.png", np.full(SIZE, 0.5), "float64 values"),
        ("a.tif", np.full(SIZE, np.inf), "not all finite"),
        ("a.png", np.zeros((2, 3, 4), np.uint8), "shape"),
        ("a.jpg", np.zeros(SIZE, np.uint8), "a file named a.jpg"),
    ],
)
def test_what_a_file_cannot_hold_is_not_written(tmp_path, name, array, found):
    with pytest.raises(DataError, match=found):
        write_section(tmp_path / name, array)
    assert not list(tmp_path.iterdir())


def test_the_grid_of_a_section():
    grid = Grid((3, 4), np.diag([2.0, 0.5, 1, 1]))
    assert grid.spacing_mm == (2.0, 0.5)
    assert np.isnan(grid.voxel_volume_ml)
    np.testing.assert_allclose(grid.corners_mm(), [[0, 0, 0], [0, 1.5, 0], [4, 0, 0], [4, 1.5, 0]])
    assert grid.same_grid(Grid((3, 4), np.diag([2.0, 0.5, 7, 1])))
    assert not grid.same_grid(Grid((3, 4), np.diag([2.0, 0.6, 1, 1])))
    assert not grid.same_grid(Grid((3, 4, 1), np.diag([2.0, 0.5, 1, 1])))
    assert str(grid) == "3x4 pixels of 2x0.5 mm"
