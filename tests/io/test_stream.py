"""Gzip streams as they arrive, damaged ones among them."""

import gzip
import io
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
from isal import igzip, isal_zlib

from pipeline.errors import DataError
from pipeline.io import read_header, read_volume, write_volume
from pipeline.io.stream import first_bytes

RNG = np.random.default_rng(0)
GRID_AFFINE = np.diag([1.0, 1, 2.5, 1])


def plain_nifti(array: np.ndarray) -> bytes:
    image = nibabel.Nifti1Image(array, GRID_AFFINE)
    image.set_qform(GRID_AFFINE, 1)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def bgzip(data: bytes, block: int = 1000) -> bytes:
    """Blocks with their sizes in an extra field, and an empty one at the end: SAM format specification, section 4.1."""
    blocks = [data[first : first + block] for first in range(0, len(data), block)]
    out = b""
    for content in [*blocks, b""]:
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(content) + deflate.flush()
        extra = b"BC" + struct.pack("<HH", 2, len(body) + 25)
        out += b"\x1f\x8b\x08\x04" + b"\0" * 5 + b"\xff" + struct.pack("<H", len(extra)) + extra + body
        out += struct.pack("<II", zlib.crc32(content), len(content))
    return out


def with_name_and_comment(data: bytes) -> bytes:
    plain = gzip.compress(data, mtime=0)
    extra = struct.pack("<H", 6000) + b"x" * 6000  # more than is read at first
    return plain[:3] + bytes([4 | 8 | 16]) + plain[4:10] + extra + b"scan.nii\0a comment\0" + plain[10:]


@pytest.mark.parametrize(
    "packed",
    [
        lambda data: gzip.compress(data[:300]) + gzip.compress(data[300:5000]) + gzip.compress(data[5000:]),
        lambda data: gzip.compress(data) + gzip.compress(b""),
        lambda data: gzip.compress(data) + b"\0" * 100,  # what a tape adds
        lambda data: gzip.compress(data, 0),
        bgzip,
        with_name_and_comment,
    ],
    ids=["members", "empty member", "zeros", "stored", "bgzip", "name and comment"],
)
def test_every_way_to_pack_a_stream_gives_the_same_voxels(tmp_path, packed):
    array = RNG.integers(-500, 500, (20, 21, 22)).astype(np.int16)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(packed(plain_nifti(array)))
    np.testing.assert_array_equal(read_volume(path, np.int16).array, array)
    assert read_header(path).grid.shape == array.shape


@pytest.mark.parametrize("garbage", [b"garbage", b"a longer piece of text", b"\x1f\x8b", b"\0" * 20 + b"\1"])
def test_bytes_behind_a_stream_are_refused(tmp_path, garbage):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(plain_nifti(np.ones((5, 6, 7), np.int16))) + garbage)
    with pytest.raises(DataError, match="damaged gzip stream"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["deflated", "stored", "bgzip", "ours"])
def test_no_flipped_bit_gives_a_wrong_array(tmp_path, kind):
    array = RNG.integers(0, 4, (9, 10, 11)).astype(np.uint8)
    path = tmp_path / "a.nii.gz"
    if kind == "ours":
        from pipeline.geometry import Grid

        write_volume(path, array, Grid(array.shape, GRID_AFFINE))
    else:
        pack = {"deflated": gzip.compress, "stored": lambda data: gzip.compress(data, 0), "bgzip": bgzip}[kind]
        path.write_bytes(pack(plain_nifti(array)))
    whole = path.read_bytes()
    refused = 0
    for bit in RNG.choice(8 * len(whole), 400, replace=False):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            volume = read_volume(path)
        except DataError:
            refused += 1
            continue
        # a bit that means nothing: the time in the header, the filling behind the last block
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_array_equal(volume.grid.affine, GRID_AFFINE)
    assert refused > 350


def test_every_truncation_is_refused(tmp_path):
    array = RNG.integers(0, 4, (9, 10, 11)).astype(np.uint8)
    path = tmp_path / "a.nii.gz"
    for whole in (gzip.compress(plain_nifti(array)), bgzip(plain_nifti(array), 300)):
        needed = len(whole) - (28 if whole[3] else 0)  # bgzip's last block is empty
        for length in range(0, needed, 7):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError):
                read_volume(path)


def test_a_header_costs_the_first_kilobytes(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(plain_nifti(RNG.integers(0, 9999, (100, 100, 40)).astype(np.int16))))
    assert path.stat().st_size > 400_000
    read = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            read.append(super().readinto(buffer))
            return read[-1]

    monkeypatch.setattr(
        "builtins.open", lambda file, mode, buffering: io.BufferedReader(Counted(file, mode), buffering), raising=True
    )
    header = read_header(path)
    monkeypatch.undo()
    assert header.grid.shape == (100, 100, 40)
    assert 348 < sum(read) <= 4096
    assert first_bytes(path, 540)[0] == gzip.decompress(path.read_bytes())[:540]


def test_decompression_gives_python_s_lock_back():
    """Otherwise two threads could not read two volumes in the time of one."""
    content = RNG.integers(0, 50, 30_000_000, np.uint8).tobytes()
    steps, started, done = [0], threading.Event(), threading.Event()

    def count() -> None:
        while not done.is_set():
            steps[0] += 1
            started.set()
            time.sleep(0)  # gives the lock back

    counter, interval = threading.Thread(target=count), sys.getswitchinterval()
    stream = igzip.IGzipFile(fileobj=io.BytesIO(isal_zlib.compress(content, 1, 31)))
    counter.start()
    started.wait()
    try:
        sys.setswitchinterval(1000)  # no thread has the lock taken from it
        before = steps[0]
        found = stream.read(len(content))
        meanwhile = steps[0] - before
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()
    assert found == content
    assert meanwhile > 10


def test_threads_read_at_once(tmp_path):
    arrays = [RNG.normal(0, 100, (90, 80, 70)).astype(np.int16) for _ in range(4)]
    for number, array in enumerate(arrays):
        (tmp_path / f"{number}.nii.gz").write_bytes(gzip.compress(plain_nifti(array), 1))
    with ThreadPoolExecutor(4) as pool:
        volumes = list(pool.map(read_volume, [tmp_path / f"{number}.nii.gz" for number in range(4)]))
    for volume, array in zip(volumes, arrays, strict=True):
        np.testing.assert_array_equal(volume.array, array)


def test_names_and_places_that_hold_no_file(tmp_path):
    for path in (Path("/dev/null.nii"), tmp_path / "a\0b.nii.gz", tmp_path / "x" / "a.nii"):
        with pytest.raises(DataError):
            read_volume(path)
