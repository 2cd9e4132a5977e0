"""One prepared case in one file: what a transform chain gave, read back equal, its arrays mapped and not copied.

Layout: a fixed prefix (magic, length and CRC-32 of the header), a JSON header with the item's structure and where its
arrays stand, then the arrays as they stand in memory, each at a multiple of 64 bytes, in C order and their own type.

Why arrays as they are, and no compressed chunks: the random patch of a mapped array touches its own voxels' pages
alone, whatever transform cuts it out, and needs no decompression. Measured on 2 cores (a 48 MiB case, 3 x 200 x 200 x
100 float32; milliseconds per patch of 96 x 96 x 64 from the page cache / from disk; MiB; seconds to write):

    as it is, channels first   1.5 /  35   46 MiB   0.02 s        channels last    4.1 /  24   46 MiB   0.09 s
    blosc2 as nnU-Net has it   9.2 /  23   32 MiB   1.4  s        blosc2 zstd 1   21   /  34   30 MiB   0.14 s
    zarr (32^3, blosc lz4)      32 /  39   34 MiB   0.26 s        float16          6.5 /  17   23 MiB   0.11 s

Compression wins a third of the disk and of a first read, and loses six times the time of all later ones; float16 is
not what the chain gave. `benchmarks/cache.py` measures it again.
"""

from __future__ import annotations

import functools
import importlib
import json
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from isal import isal_zlib
from monai.data import MetaTensor

_MAGIC = b"CASE\x00\x01\r\n"
_PREFIX = struct.Struct("<8sQI")
_ALIGNMENT = 64
_OWNERS = ("pipeline", "monai")  # of the enumerations and dataclasses that an entry may name, and no other classes
_META = ("_meta", "_applied_operations", "_pending_operations", "_is_batch")
_ID = "id"  # monai.utils.TraceKeys.ID: the transform that an applied operation belongs to


class NotKept(Exception):
    """An item holds something that a file can't give back equal."""


class Damaged(Exception):
    """A file is not what was once written."""


class Encoder:
    """Takes an item apart into a structure that JSON can hold, and arrays.

    Args:
        texts: text of the source -> where it stands there. A text equal to one is stored as that place: the files of a
            dataset that has moved are named by where they are now.
        transforms: ``id`` -> number of the head's transforms. An applied operation names its transform by ``id``, which
            is another one in the next process; MONAI's ``Invertd`` refuses it then.
    """

    def __init__(self, texts: Mapping[str, int], transforms: Mapping[int, int]) -> None:
        self.texts, self.transforms = texts, transforms
        self.arrays: list[np.ndarray] = []
        self.other_texts: list[str] = []

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float):
            return value
        if kind is str:
            if value in self.texts:
                return {"text": self.texts[value]}
            self.other_texts.append(value)
            return value
        if kind is list:
            return [self.encode(entry) for entry in value]
        if kind is dict:
            return {"dict": [[self.encode(key), self._encode_entry(key, entry)] for key, entry in value.items()]}
        if kind is tuple or kind is torch.Size:
            return {"size" if kind is torch.Size else "tuple": [self.encode(entry) for entry in value]}
        if kind is MetaTensor:
            return {
                "meta_tensor": [self._tensor(value.as_tensor()), *(self.encode(vars(value)[name]) for name in _META)]
            }
        if kind is torch.Tensor:
            return self._tensor(value)
        if kind is np.ndarray and not value.dtype.hasobject:
            return {"array": self._array(value, value.dtype.str, value.shape)}
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return {"scalar": self._array(np.asarray(value), value.dtype.str, ())}
        if kind is torch.dtype:
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, Enum) and _is_known(kind):
            return {"enum": [kind.__module__, kind.__qualname__, value.name]}
        if is_dataclass(kind) and _is_known(kind):
            parts = [[field.name, self.encode(getattr(value, field.name))] for field in fields(kind)]
            return {"dataclass": [kind.__module__, kind.__qualname__, parts]}
        raise NotKept(f"a {kind.__module__}.{kind.__qualname__}")

    def _encode_entry(self, key: Any, entry: Any) -> Any:
        if key == _ID and type(entry) is int and entry in self.transforms:
            return {"transform": self.transforms[entry]}
        return self.encode(entry)

    def _tensor(self, tensor: torch.Tensor) -> Any:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.requires_grad:
            raise NotKept(f"a tensor on {tensor.device}, {tensor.layout}, requires_grad={tensor.requires_grad}")
        # As bytes: NumPy has no bfloat16.
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        return {"tensor": self._array(raw, str(tensor.dtype).removeprefix("torch."), tensor.shape)}

    def _array(self, array: np.ndarray, dtype: str, shape: tuple[int, ...]) -> list[Any]:
        self.arrays.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return [len(self.arrays) - 1, dtype, list(shape)]


def _is_known(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _OWNERS


@functools.cache
def _known(module: str, name: str, base: type) -> Any:
    found = getattr(importlib.import_module(module), name, None) if module.split(".")[0] in _OWNERS else None
    if not (isinstance(found, type) and issubclass(found, base) and (base is Enum or is_dataclass(found))):
        raise Damaged(f"it names {module}.{name}")
    return found


def write_entry(file: BinaryIO, structure: Any, arrays: list[np.ndarray], about: Mapping[str, Any]) -> int:
    """Write what `Encoder` made and, in the header, what is said ``about`` it; returns the number of bytes."""
    offsets, length, checksum = [], 0, 0
    for array in arrays:
        offsets.append([length, array.nbytes])
        length += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        checksum = isal_zlib.crc32(array, checksum)
    content = {**about, "item": structure, "arrays": offsets, "length": length, "checksum": checksum}
    header = json.dumps(content, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + _PREFIX.size) % _ALIGNMENT)
    file.write(_PREFIX.pack(_MAGIC, len(header), isal_zlib.crc32(header)))
    file.write(header)
    for array in arrays:
        file.write(array.data)
        file.write(bytes(-array.nbytes % _ALIGNMENT))
    return _PREFIX.size + len(header) + length


def read_header(path: Path) -> dict[str, Any]:
    """The header of an entry, having looked at the length of the file and at the header's checksum.

    Raises:
        Damaged: either is wrong.
        OSError: as opening the file does.
    """
    with open(path, "rb") as file:
        return _header(file)


def _header(file: BinaryIO) -> dict[str, Any]:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise Damaged(f"it has {len(prefix)} bytes")
    magic, length, checksum = _PREFIX.unpack(prefix)
    size = os.fstat(file.fileno()).st_size
    if magic != _MAGIC or length > size:
        raise Damaged("it does not begin as an entry")
    text = file.read(length)
    if isal_zlib.crc32(text) != checksum:
        raise Damaged("the checksum of its header is wrong")
    header = json.loads(text)
    header["begin"] = _PREFIX.size + length
    if size != header["begin"] + header["length"]:
        raise Damaged(f"it has {size} bytes instead of {header['begin'] + header['length']}")
    return header


def read_entry(path: Path, texts: list[str], transforms: list[Any], verify: bool) -> Any:
    """The item, its arrays mapped from the file: a private mapping, so that writing to one changes no file.

    Args:
        texts, transforms: as given to the `Encoder`, by number.
        verify: read all arrays once and compare their checksum.

    Raises:
        Damaged: length or checksum are wrong.
        OSError: as opening the file does.
    """
    with open(path, "rb") as file:
        header = _header(file)
        # The mapping outlives the file object, and an entry that is removed meanwhile.
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)[header["begin"] :]
    parts = [mapped[offset : offset + count] for offset, count in header["arrays"]]
    if verify:
        checksum = 0
        for part in parts:
            checksum = isal_zlib.crc32(part, checksum)
        if checksum != header["checksum"]:
            raise Damaged("the checksum of its arrays is wrong")
    return _Decoder(parts, texts, transforms).decode(header["item"])


class _Decoder:
    def __init__(self, parts: list[np.ndarray], texts: list[str], transforms: list[Any]) -> None:
        self.parts, self.texts, self.transforms = parts, texts, transforms
        self.kinds: dict[str, Callable[[Any], Any]] = {
            "text": lambda number: self.texts[number],
            "transform": lambda number: id(self.transforms[number]),
            "dict": lambda entries: {self.decode(key): self.decode(entry) for key, entry in entries},
            "tuple": lambda entries: tuple(map(self.decode, entries)),
            "size": lambda entries: torch.Size(entries),
            "array": self._array,
            "scalar": lambda content: self._array(content)[()],
            "tensor": self._tensor,
            "meta_tensor": self._meta_tensor,
            "dtype": lambda name: getattr(torch, name),
            "enum": lambda content: _known(content[0], content[1], Enum)[content[2]],
            "dataclass": self._dataclass,
        }

    def decode(self, value: Any) -> Any:
        if type(value) is list:
            return [self.decode(entry) for entry in value]
        if type(value) is dict:
            ((kind, content),) = value.items()
            return self.kinds[kind](content)
        return value

    def _array(self, content: list[Any]) -> np.ndarray:
        number, dtype, shape = content
        return self.parts[number].view(np.dtype(dtype)).reshape(shape)

    def _tensor(self, content: list[Any]) -> torch.Tensor:
        number, dtype, shape = content
        kind = getattr(torch, dtype)
        if not self.parts[number].size:
            return torch.empty(shape, dtype=kind)
        return torch.from_numpy(self.parts[number]).view(kind).reshape(shape)

    def _meta_tensor(self, content: list[Any]) -> MetaTensor:
        tensor = MetaTensor(self.decode(content[0]))
        for name, value in zip(_META, content[1:], strict=True):
            setattr(tensor, name, self.decode(value))
        return tensor

    def _dataclass(self, content: list[Any]) -> Any:
        module, name, parts = content
        return _known(module, name, object)(**{key: self.decode(value) for key, value in parts})
