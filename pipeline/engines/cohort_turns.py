"""Which process of a run predicts which case: each takes the next one when it has room for it.

Under ``torchrun`` the processes, of one machine or of several, draw from one counter. So a case is taken once, and none
of them sits idle while another has a queue: cases differ in size, and machines in speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from pipeline.engines.torchrun import leave

_PATIENCE = timedelta(days=30)  # for the others' last cases; a process that dies is noticed at once


class Alone:
    """The one process that there is takes every case."""

    rank, world_size = 0, 1

    def draw(self, count: int) -> Iterator[int]:
        """Yields numbers below ``count`` that no other process gets."""
        yield from range(count)

    def agree(self, value: Any) -> Any:
        """The first process's ``value``, in all of them; each waits for it."""
        return value

    def gather(self, values: list[Any]) -> list[Any]:
        """Those of all processes, in each of them."""
        return values

    def finished(self, newly: int) -> int:
        """Adds to the number of finished cases; that of all processes."""
        self._finished = getattr(self, "_finished", 0) + newly
        return self._finished

    def leave(self) -> None:
        """Takes leave of the other processes."""


class Together(Alone):
    """The processes of a ``torchrun``, over Gloo whatever computes: words pass between them, no tensors. The last one
    is waited for as long as it takes, where `pipeline.engines.join` waits half an hour."""

    def __init__(self) -> None:
        store, self.rank, self.world_size = next(iter(dist.rendezvous("env://", timeout=_PATIENCE)))
        self._counters = dist.PrefixStore("cohort", store)
        group = dist.PrefixStore("group", store)
        dist.init_process_group(
            "gloo", store=group, rank=self.rank, world_size=self.world_size, timeout=_PATIENCE
        )  # fmt: skip

    def draw(self, count: int) -> Iterator[int]:
        while (number := self._counters.add("drawn", 1) - 1) < count:
            yield number

    def agree(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, values: list[Any]) -> list[Any]:
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, values)
        return [value for part in found for value in part]

    def finished(self, newly: int) -> int:
        return int(self._counters.add("finished", newly))

    def leave(self) -> None:
        leave()


def turns() -> Alone:
    """How this run's processes share the cases: `Together` where ``torchrun`` has started several."""
    return Together() if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ else Alone()
