"""The order in which a training run sees its cases, and the numbers from which each sample's randomness follows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler


class Draw(int):
    """The index of a case, and the ``epoch`` in which it is drawn; a plain index to a dataset that does not ask."""

    epoch: int

    def __new__(cls, index: int, epoch: int) -> Draw:
        draw = super().__new__(cls, index)
        draw.epoch = epoch
        return draw

    def __reduce__(self):  # to a data loader's worker and back
        return Draw, (int(self), self.epoch)


class EpochSampler(DistributedSampler):
    """Draws every case once per epoch, in an order that depends on the seed and the epoch alone.

    :class:`pipeline.data.CaseDataset` seeds the random transforms of a case from the epoch that comes with its index.
    So a sample does not depend on what was drawn before it: a run gives the same samples with any number of workers,
    and goes on in the middle of an epoch as if it had never stopped. As a subclass of torch's ``DistributedSampler`` it
    splits the cases over the ranks of a distributed run, and MONAI's engines tell it the epoch.

    Args:
        dataset: with a length.
        shuffle: whether the order changes from epoch to epoch.
        seed: of the order.
    """

    def __init__(self, dataset: Dataset, shuffle: bool = True, seed: int = 0) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        ranks, rank = (dist.get_world_size(), dist.get_rank()) if distributed else (1, 0)
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=shuffle, seed=seed)
        self.skip = 0  # samples of the epoch under way that an interrupted run has already seen

    def __iter__(self) -> Iterator[Any]:
        skip, self.skip = self.skip, 0
        return (Draw(index, self.epoch) for index in islice(super().__iter__(), skip, None))
