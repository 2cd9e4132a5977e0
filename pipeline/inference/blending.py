"""From the logits of overlapping windows to those of the image, block by block, each as soon as it is final."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from math import prod

import torch

from pipeline.inference.carry import Carry
from pipeline.inference.placement import Box, Placement


class Blending:
    """The weighted mean of one image's windows, in blocks.

    With each window, in the order of a `Placement`, one block becomes final: what no later window reaches. So only what
    later windows reach has to be kept: a strip within the row of windows, a layer of such strips across the image. That
    is a fraction of the image's logits; where it is still too much for the memory, a file takes the rest.

    Args:
        placement: where the windows lie.
        importance: (*tile) weights; None takes what no later tile covers as it is: tiles of one seamless whole.
        memory_bytes: how much of what waits may lie in memory; None for all.
    """

    def __init__(self, placement: Placement, importance: torch.Tensor | None, memory_bytes: int | None = None) -> None:
        self.placement = placement
        self.importance = importance
        self._memory_bytes = memory_bytes
        self._carries: dict[int, Carry] = {}
        self._weighted = torch.empty(0)

    def blocks(self, windows: Iterable[torch.Tensor]) -> Iterator[tuple[Box, torch.Tensor]]:
        """Final logits (K, *block) and their place within what the tiles cover, in order, once each.

        Args:
            windows: logits (K, *tile) of all windows, in the placement's order; not changed.

        A block is a view of memory that the next one uses again.
        """
        try:
            answers = iter(windows)
            for numbers in self.placement:
                yield self._block(numbers, next(answers))  # held by no name here while the next ones are made
        finally:
            for carry in set(self._carries.values()):
                carry.close()

    def _carried(self, axis: int, logits: torch.Tensor) -> Carry:
        """Where what waits along ``axis`` is kept: memory is first for what is needed again within a layer."""
        if not self._carries:
            slowest, *faster = self.placement.order
            fast = Carry(self._memory_bytes)
            self._carries = dict.fromkeys(faster, fast)
            left = None
            if self._memory_bytes is not None:
                strip = [len(logits), *self.placement.tile]
                for other in faster[1:]:  # across the image
                    strip[other + 1] = self.placement.starts[other][-1] + self.placement.tile[other]
                left = max(0, self._memory_bytes - prod(strip) * logits.element_size())
            self._carries[slowest] = Carry(left)
        return self._carries[axis]

    def _block(self, numbers: tuple[int, ...], logits: torch.Tensor) -> tuple[Box, torch.Tensor]:
        placement = self.placement
        corner = placement.corner(numbers)
        final = [placement.final(axis, number) for axis, number in enumerate(numbers)]
        place = tuple(slice(start, start + n) for start, n in zip(corner, final, strict=True))
        whole = tuple(slice(0, n) for n in final)
        if self.importance is None or len(placement) == 1:
            return place, logits[(slice(None), *whole)]
        if self._weighted.shape != logits.shape:
            self._weighted = torch.empty_like(logits)  # once: fresh memory of this size costs more than the product
        block = torch.mul(logits, self.importance, out=self._weighted)
        # From the fastest axis to the slowest: take what the window before has left, leave what the next one reaches.
        for level, axis in reversed(list(enumerate(placement.order))):
            others = tuple(numbers[other] for other in placement.order[level + 1 :])
            left = placement.tile[axis] - placement.final(axis, numbers[axis] - 1) if numbers[axis] else 0
            if left:
                self._carried(axis, logits).add_to(block.narrow(axis + 1, 0, left), (axis, others))
            if final[axis] < placement.tile[axis]:
                rest = block.narrow(axis + 1, final[axis], placement.tile[axis] - final[axis])
                self._carried(axis, logits).put((axis, others), rest)
            block = block.narrow(axis + 1, 0, final[axis])
        return place, block.div_(self._weights(place))

    def _weights(self, place: Box) -> torch.Tensor:
        """The sum of the importance of all windows at a block."""
        assert self.importance is not None
        shape = [part.stop - part.start for part in place]
        weights = torch.zeros(shape, device=self.importance.device)
        reaching = [
            [s for s in starts if s < part.stop and s + size > part.start]
            for starts, size, part in zip(self.placement.starts, self.placement.tile, place, strict=True)
        ]
        for corner in product(*reaching):
            here, there = [], []
            for start, size, part in zip(corner, self.placement.tile, place, strict=True):
                low, high = max(start, part.start), min(start + size, part.stop)
                here.append(slice(low - part.start, high - part.start))
                there.append(slice(low - start, high - start))
            weights[tuple(here)] += self.importance[tuple(there)]
        return weights
