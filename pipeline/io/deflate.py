"""Compression by several threads into one ordinary gzip stream.

Each piece is deflated on its own and ends on a byte's edge (a flush), so that the pieces in a row are one deflate
stream, as in pigz (RFC 1951, section 3.2.4; RFC 1952): a single gzip member, which every reader takes. What is written
depends on the pieces alone, not on the number of threads or the time.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from isal import isal_zlib

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, no operating system
_LAST_BLOCK = b"\x03\0"  # an empty block that says that it is the last
_LEVEL = 2  # of ISA-L's 0 to 3: 3 takes four times as long on a label map, and compresses it less
_MOST_THREADS = 8

Piece = Callable[[], "bytes | memoryview"]


def write_pieces(raw: BinaryIO, pieces: Sequence[Piece], compressed: bool) -> tuple[int, int]:
    """Write what the pieces give, in their order; several are made and compressed at a time.

    Args:
        raw: the open file.
        pieces: each returns its bytes, called in a thread of its own.
        compressed: as a gzip stream, or as they are.

    Returns:
        CRC-32 and length of what was written, uncompressed.
    """

    def made(piece: Piece) -> tuple[bytes | memoryview, int, int]:
        content = piece()
        crc, length = isal_zlib.crc32(content), len(content)
        if compressed:
            deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
            content = deflate.compress(content) + deflate.flush(isal_zlib.Z_FULL_FLUSH)
        return content, crc, length

    crc = length = 0
    raw.write(_HEADER if compressed else b"")
    for content, piece_crc, piece_length in _in_order(made, pieces):
        raw.write(content)
        crc, length = isal_zlib.crc32_combine(crc, piece_crc, piece_length), length + piece_length
    if compressed:
        raw.write(_LAST_BLOCK + struct.pack("<II", crc, length & 0xFFFFFFFF))
    return crc, length


def _in_order(made, pieces: Sequence[Piece]) -> Iterator[tuple[bytes | memoryview, int, int]]:
    threads = min(len(pieces), _cores(), _MOST_THREADS)
    if threads < 2:
        yield from map(made, pieces)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future] = deque()
        try:
            for piece in pieces:
                waiting.append(pool.submit(made, piece))
                if len(waiting) > threads:  # no more in memory than are worked at, if the disk is the slower
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # those that this process may use, where the system tells
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
