import contextlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError, DataError
from pipeline.geometry import Grid
from pipeline.io import count_sections, is_section, read_image, read_image_grid, read_section, section_of, write_section
from pipeline.io.policy import ReadPolicy

RNG = np.random.default_rng(0)
SIZE = (5, 7)


def stack(path, arrays, **options):
    first, *others = [Image.fromarray(array) for array in arrays]
    first.save(path, save_all=True, append_images=others, **options)
    return path


def tiff(path, array, order="<", photometric=1, sample=None, bits=None):
    """A TIFF by hand, of one strip: the oracle is the format itself (TIFF 6.0, sections 2, 4 and 19)."""
    bits = bits or 8 * array.itemsize
    colours = array.shape[2] if array.ndim == 3 else 1
    fields = [(256, 4, (SIZE[1],)), (257, 4, (SIZE[0],)), (258, 3, (bits,) * colours), (259, 3, (1,))]
    fields += [(262, 3, (photometric,)), (273, 4, (8,)), (277, 3, (colours,)), (278, 4, (SIZE[0],))]
    fields += [(279, 4, (array.nbytes,))] + ([(339, 3, (sample,) * colours)] if sample else [])
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + array.nbytes) + array.tobytes()
    directory, far = b"", b""
    for tag, kind, values in fields:
        packed = struct.pack(order + "HI"[kind == 4] * len(values), *values)
        if len(packed) > 4:  # behind the directory
            place = len(head) + 2 + 12 * len(fields) + 4 + len(far)
            far, packed = far + packed, struct.pack(order + "I", place)
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    path.write_bytes(head + struct.pack(order + "H", len(fields)) + directory + bytes(4) + far)
    return path


def png(path, rows, bits, colour, *chunks):
    """A PNG by hand: the oracle is the format itself (PNG 3rd edition, sections 5 and 11)."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, colour, 0, 0, 0))
    content = header + b"".join(chunk(*more) for more in chunks)
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def packed(array, bits):
    """Rows of ``bits`` per value, each padded to whole bytes."""
    every = (array[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(every.reshape(len(array), -1), axis=1)


@pytest.mark.parametrize("bits", [2, 4])
def test_values_of_2_and_4_bits_are_not_scaled(tmp_path, bits):
    array = RNG.integers(0, 2**bits, SIZE).astype(np.uint8)
    rows = packed(array, bits)
    np.testing.assert_array_equal(
        read_section(png(tmp_path / "a.png", [row.tobytes() for row in rows], bits, 0)).array, array
    )
    np.testing.assert_array_equal(read_section(tiff(tmp_path / "a.tif", rows, bits=bits)).array, array)
    from_white = read_section(tiff(tmp_path / "white.tif", rows, bits=bits, photometric=0))
    np.testing.assert_array_equal(from_white.array, 2**bits - 1 - array)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_are_refused(tmp_path, colour, channels):
    array = np.full((*SIZE, channels), 0xFFFF, ">u2")
    array[..., : 3 if channels > 2 else 1] = 4660
    path = png(tmp_path / "a.png", [row.tobytes() for row in array], 16, colour)
    with pytest.raises(DataError, match="colours of 16 bits"):
        read_section(path)
    if channels == 3:
        with pytest.raises(DataError, match="colours of 16 bits"):
            read_section(tiff(tmp_path / "a.tif", array, ">", photometric=2))


def test_named_transparent_values_are_refused(tmp_path):
    array = RNG.integers(0, 256, SIZE).astype(np.uint8)
    for name, image in (("grey", array), ("colour", np.dstack([array] * 3))):
        key = b"\0\7" * (3 if image.ndim == 3 else 1)
        rows = [row.tobytes() for row in image]
        path = png(tmp_path / f"{name}.png", rows, 8, 2 if image.ndim == 3 else 0, (b"tRNS", key))
        with pytest.raises(DataError, match="transparent pixels"):
            read_section(path)


def test_numbers_that_would_come_out_as_others_are_refused(tmp_path):
    whole = RNG.integers(0, 100, SIZE)
    for name, array, options, found in (
        ("i1", (-whole).astype("i1"), {"sample": 2}, "signed values of 8 bits"),
        ("white", whole.astype("<u2"), {"photometric": 0}, "16 bits that count from white"),
        ("u4", np.full(SIZE, 4_000_000_000, "<u4"), {}, "values from 4000000000 to 4000000000"),
        ("i4", np.full(SIZE, -50_000_000, "<i4"), {"sample": 2}, "values from -50000000 to -50000000"),
        ("f2", whole.astype("<f2"), {"sample": 3}, "floating point numbers of 16 bits"),
        ("f8", whole.astype("<f8"), {"sample": 3}, "floating point numbers of 64 bits"),
        ("u4_big", whole.astype(">u4"), {"order": ">"}, "whole numbers of 32 bits, the most significant byte first"),
        ("two", np.dstack([whole, whole]).astype("<u2"), {}, "whole numbers of 16 bits, 2 per pixel"),
    ):
        with pytest.raises(DataError, match=found) as caught:
            read_section(tiff(tmp_path / f"{name}.tif", array, **options))
        assert caught.value.fix, name
    for name, array, sample in (("i2", (-whole).astype("<i2"), 2), ("u4s", whole.astype("<u4") * 9, 1)):
        np.testing.assert_array_equal(read_section(tiff(tmp_path / f"{name}.tif", array, sample=sample)).array, array)
    white = tiff(tmp_path / "white8.tif", whole.astype("u1"), photometric=0)
    np.testing.assert_array_equal(read_section(white).array, 255 - whole)


def test_an_animation_is_refused(tmp_path):
    path = stack(tmp_path / "a.png", [np.full(SIZE, i, np.uint8) for i in range(2)])
    for read in (read_section, read_image_grid, count_sections):
        with pytest.raises(DataError, match=r"an animation of 2 pictures.*save each as a file"):
            read(path)


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
    tiff(tmp_path / "big.tif", array.astype(">u2"), ">")
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
    np.testing.assert_array_equal(read_section(f"{path}#1of3").array, arrays[1])
    for read in (read_section, read_image_grid):
        with pytest.raises(DataError, match=r"3 section\(s\); expected 4, as many as the other files"):
            read(f"{path}#1of4")


def test_names():
    assert section_of("a/s.tiff#12")[1] == 12
    assert [section_of(f"a/s.{name}")[1] for name in ("tif#2of12", "png#0of12", "png#0", "tif#of2")] == [
        2,
        0,
        None,
        None,
    ]
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


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_brightness_of_colours_is_taken_where_the_policy_says_so(tmp_path, mode):
    colours = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [40, 40, 40]]]
    Image.fromarray(np.array(colours, np.uint8)).convert(mode).save(tmp_path / "colour.png")
    section = read_section(tmp_path / "colour.png", ReadPolicy(colour="grey"))
    np.testing.assert_allclose(section.array, [[76.245, 149.685], [29.07, 40]], rtol=1e-6)
    assert section.repairs == (f"{mode} in colour taken as its brightness",)
    with pytest.raises(ConfigError, match="expected refuse or grey"):
        ReadPolicy(colour="red")


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
    stack(tif, [RNG.integers(0, 256, SIZE).astype(np.uint8) for _ in range(3)])
    whole = tif.read_bytes()
    for left in range(10, len(whole) - 1, 7):  # no shorter stack
        tif.write_bytes(whole[:left])
        with pytest.raises(DataError, match=r"damaged|no TIFF"):
            read_section(f"{tif}#2")
        with contextlib.suppress(DataError):
            assert count_sections(tif) == 3  # where the pixels alone are cut off
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
    assert str(grid) == "3x4 pixels of 2x0.5 px"


@pytest.mark.parametrize(("orientation", "expected"), [(1, [[0, 1, 2], [3, 4, 5]]), (6, [[3, 0], [4, 1], [5, 2]])])
def test_rows_that_an_orientation_tag_turns_are_said_to_be_turned(tmp_path, orientation, expected):
    path = tmp_path / "turned.tif"  # TIFF 6.0, section 8: 6 is rows from the right, columns from the top
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(path, tiffinfo={274: orientation})
    section = read_section(path)
    assert section.array.tolist() == expected
    assert section.grid.same_grid(read_image_grid(path))
    said = "turned as its Orientation tag says (6)"
    assert [text[: len(said)] for text in section.repairs] == ([said] if orientation == 6 else [])
