"""Sums that wait for the windows that come later: in memory as far as they may be, the rest in a file."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable
from typing import IO

import torch

from pipeline.errors import DataError


class Carry:
    """Tensors by key, put and taken in turn, with every layer of windows again.

    What is kept stays where it is: memory that is freed and asked for again with every window falls to pieces between
    the logits of the network. A file, where one is needed, lies in the system's folder for temporary files
    (``TMPDIR``) and has no name: it is gone with the process, however that ends. Values come back bit by bit.

    Args:
        memory_bytes: how much may lie in memory; None for all.
    """

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._free = float("inf") if memory_bytes is None else memory_bytes
        self._held: dict[Hashable, torch.Tensor] = {}
        self._places: dict[Hashable, tuple[int, int]] = {}  # in the file: where, and how many bytes there are
        self._end = 0
        self._file: IO[bytes] | None = None

    def put(self, key: Hashable, values: torch.Tensor) -> None:
        """Keep a copy of ``values`` (K, ...), float32."""
        size = values.numel() * values.element_size()
        held = self._held.get(key)
        if held is not None and held.shape != values.shape:  # by a voxel, where windows are not spread quite evenly
            self._free += held.numel() * held.element_size()
            del self._held[key]
            held = None
        if held is None and size <= self._free:
            held = self._held[key] = values.new_empty(values.shape)
            self._free -= size
        if held is not None:
            held.copy_(values)
            return
        place, capacity = self._places.get(key, (0, -1))
        if size > capacity:
            place, self._end = self._end, self._end + size
            self._places[key] = place, size
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  lives as long as this
            self._file.seek(place)
            for one in values:  # of the classes: a copy of all would be as large as what must not lie in memory
                data = one.contiguous().cpu().numpy().data.cast("B")
                while data:
                    data = data[self._file.write(data) :]
        except OSError as error:
            raise DataError(
                f"{(error.strerror or str(error)).lower()} on keeping {self._end / 2**30:.1f} GiB of unfinished logits",
                file=tempfile.gettempdir(),
                expected="room for what the memory may not hold",
                fix="raise the inferer's memory_mib, or set TMPDIR to a folder on a larger disk",
            ) from error

    def add_to(self, values: torch.Tensor, key: Hashable) -> None:
        """Add what was put under ``key`` to ``values``, of the same shape, in place."""
        if key in self._held:
            values += self._held[key]
            return
        assert self._file is not None
        self._file.seek(self._places[key][0])
        buffer = torch.empty(values.shape[1:])
        for one in values:
            data = buffer.numpy().data.cast("B")
            while data:
                read = self._file.readinto(data)  # type: ignore[attr-defined]  # of a raw file
                if not read:
                    raise DataError("a file of unfinished logits that has become shorter", file=tempfile.gettempdir())
                data = data[read:]
            one += buffer.to(values.device)

    def close(self) -> None:
        """Give memory and file back."""
        self._held.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
