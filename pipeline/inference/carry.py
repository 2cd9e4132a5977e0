"""Sums that wait for the windows that come later: in memory as far as they may be, the rest in a file."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable
from typing import IO

import torch

from pipeline.errors import DataError


class Carry:
    """Tensors by key, each put once and taken once.

    A file, where one is needed, lies in the system's folder for temporary files (``TMPDIR``) and has no name: it is
    gone with the process, however that ends. Values come back bit by bit.

    Args:
        memory_bytes: how much may lie in memory; None for all.
    """

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._free = memory_bytes
        self._held: dict[Hashable, torch.Tensor] = {}
        self._filed: dict[Hashable, tuple[int, torch.Size, torch.device]] = {}
        self._places: dict[Hashable, tuple[int, int]] = {}  # in the file: where, and how many bytes
        self._end = 0
        self._file: IO[bytes] | None = None

    def put(self, key: Hashable, values: torch.Tensor) -> None:
        """Keep a copy of ``values``, float32."""
        size = values.numel() * values.element_size()
        if self._free is None or size <= self._free:
            self._held[key] = values.clone(memory_format=torch.contiguous_format)
            if self._free is not None:
                self._free -= size
            return
        place, capacity = self._places.get(key, (0, -1))
        if size > capacity:  # a key comes again with every layer of windows, and as good as always with the same size
            place, capacity = self._end, size
            self._places[key] = place, capacity
            self._end += size
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  lives as long as this
            self._file.seek(place)
            data = values.contiguous().cpu().numpy().data.cast("B")
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise DataError(
                f"{(error.strerror or str(error)).lower()} on keeping {self._end / 2**30:.1f} GiB of unfinished logits",
                file=tempfile.gettempdir(),
                expected="room for what the memory may not hold",
                fix="raise the inferer's memory_mib, or set TMPDIR to a folder on a larger disk",
            ) from error
        self._filed[key] = place, values.shape, values.device

    def take(self, key: Hashable) -> torch.Tensor:
        """What was put, which is forgotten."""
        if key in self._held:
            values = self._held.pop(key)
            if self._free is not None:
                self._free += values.numel() * values.element_size()
            return values
        place, shape, device = self._filed.pop(key)
        values = torch.empty(shape)
        assert self._file is not None
        self._file.seek(place)
        data = values.numpy().data.cast("B")
        while data:
            read = self._file.readinto(data)  # type: ignore[attr-defined]  # of a raw file
            if not read:
                raise DataError("a file of unfinished logits that has become shorter", file=tempfile.gettempdir())
            data = data[read:]
        return values.to(device)

    def close(self) -> None:
        """Give memory and file back."""
        self._held.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
