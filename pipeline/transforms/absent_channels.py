"""Channels that a case lacks: 0 everywhere in what the network sees, whatever the steps before it add to an image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform

PRESENT = "present"
"""Entry of an item, (C,) of bool: which channels are there. No entry: all of them."""


class ZeroAbsentChannelsd(MapTransform):
    """Set the channels to 0 that `LoadImageStackd` found absent (``missing_channels="zero"``).

    The last step of a chain: noise and shifts of intensity leave no zeros behind, and a network that knows an absent
    channel by its zeros (`MultiEncoderUNet`) would take them for an image. Items without absent channels pass as they
    are.

    Args:
        keys: images (C, H, W, D) or (C, H, W).
        allow_missing_keys: pass items on that lack a key.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        present = torch.as_tensor(item.get(PRESENT, True))
        if not present.all():
            for key in self.key_iterator(item):
                image = item[key].clone()
                image[~present] = 0
                item[key] = image
        return item

    def on_batch(self, batch: dict[Hashable, Any]) -> dict[Hashable, Any]:
        """The same for a batch: images (B, C, ...) on any device, ``present`` (B, C)."""
        present = torch.as_tensor(batch.get(PRESENT, True))
        if present.all():
            return batch
        zeroed = {}
        for key in self.key_iterator(batch):
            absent = ~present.to(batch[key].device)
            zeroed[key] = batch[key].masked_fill(absent.reshape(*absent.shape, *[1] * (batch[key].ndim - 2)), 0)
        return {**batch, **zeroed}
