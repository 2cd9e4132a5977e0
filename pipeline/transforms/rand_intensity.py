"""`RandIntensityd`: what every random change of intensities has in common. What is drawn stands apart from applying it.

Drawing is done per item, on the CPU, from ``self.R`` alone; what was drawn is a small dict of numbers and lists. It is
applied to a batch, on whatever device that lies, with each sample's own numbers: the same function serves the data
loader (a batch of one) and a batch on a GPU, and a recorded dict makes the same change again.

Images are plain tensors here: a MetaTensor would double the time of a small patch.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_dst_type

from pipeline.errors import ConfigError, DataError
from pipeline.transforms.item_grid import SPACING_MM

Parameters = dict[str, Any]
"""What was drawn for one image: numbers, lists of numbers (one per channel, or per axis), an integer seed for noise."""


class RandIntensityd(Randomizable, MapTransform):
    """Base of the random changes of intensities; a member implements `_draw` and `_apply`.

    Args:
        keys: images (C, H, W, D) or (C, H, W), each changed by what is drawn for it.
        prob: of a change, 0..1.
        channel_wise: draw for each channel on its own; otherwise one value for all of them.
        parameters_key: where what was drawn goes, as JSON text: key of the image -> its parameters, or null where none
            were drawn. By default the class's name with "_parameters"; give two steps of one class a name each.
        allow_missing_keys: pass items on that lack a key.

    Raises:
        ConfigError: a probability that is none.
    """

    leaves_input_untouched = True
    uses_spacing: ClassVar[bool] = False
    """Whether `draw` and `apply` look at ``spacing_mm``; an image without a voxel size is then refused."""

    def __init__(
        self,
        keys: KeysCollection,
        prob: float,
        channel_wise: bool = False,
        parameters_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not 0 <= prob <= 1:
            raise ConfigError(f"prob={prob}", expected="between 0 and 1")
        self.prob, self.channel_wise = float(prob), channel_wise
        self.parameters_key = parameters_key or f"{type(self).__name__}_parameters"

    def draw(self, shape: Sequence[int], spacing_mm: Sequence[float]) -> Parameters | None:
        """What to do to one image, from ``self.R`` alone; None for nothing.

        Args:
            shape: of the image, (C, H, W[, D]).
            spacing_mm: its voxel size, one per spatial axis.
        """
        return self._draw(tuple(shape), tuple(spacing_mm)) if self.R.rand() < self.prob else None

    def apply(
        self,
        images: torch.Tensor,
        parameters: Sequence[Parameters | None],
        spacing_mm: Sequence[Sequence[float]],
    ) -> torch.Tensor:
        """Do what was drawn to a batch, on its device.

        Args:
            images: (B, C, H, W[, D]), floating point; not changed.
            parameters: of each sample, as drawn; where None, the sample stays as it is, bit for bit.
            spacing_mm: of each sample, one per spatial axis.

        Returns:
            The shape, type and device of ``images``; ``images`` itself where nothing was drawn.
        """
        chosen = [index for index, drawn in enumerate(parameters) if drawn is not None]
        if not chosen:
            return images
        drawn = [values for values in parameters if values is not None]
        if len(chosen) == len(images):
            return self._apply(images, drawn, spacing_mm)
        index = torch.tensor(chosen, device=images.device)
        changed = self._apply(images.index_select(0, index), drawn, [spacing_mm[i] for i in chosen])
        return images.index_copy(0, index, changed)

    @abstractmethod
    def _draw(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Parameters:
        """The parameters of a change."""

    @abstractmethod
    def _apply(
        self, images: torch.Tensor, parameters: Sequence[Parameters], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        """The changed images, as a new tensor."""

    def draw_for(self, item: Mapping[Hashable, Any]) -> dict[Hashable, Parameters | None]:
        """What to do to each image of an item: what its call draws, and what may be applied elsewhere, later."""
        return {key: self._draw_for(item, key) for key in self.key_iterator(dict(item))}

    def _draw_for(self, item: Mapping[Hashable, Any], key: Hashable) -> Parameters | None:
        """For members that must know more of an item than its shape."""
        return self.draw(item[key].shape, self.spacing_of(item, key))

    def spacing_of(self, item: Mapping[Hashable, Any], key: Hashable) -> tuple[float, ...]:
        """The voxel size of an item's image, mm; 1 where there is none and the transform does not look at it.

        Raises:
            DataError: it looks at it, and there is neither an entry "spacing_mm" nor an affine.
        """
        dims = item[key].ndim - 1
        if SPACING_MM in item:
            return tuple(float(side) for side in item[SPACING_MM])
        if isinstance(item[key], MetaTensor):
            affine = np.asarray(item[key].affine, dtype=np.float64)
            return tuple(np.linalg.norm(affine[:3, :dims], axis=0).tolist())
        if self.uses_spacing:
            raise DataError(
                f"{key} without a voxel size",
                case=item.get("case_id"),
                expected=f"a MetaTensor, or an entry {SPACING_MM!r} of the item: millimetres need one",
            )
        return (1.0,) * dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        drawn = self.draw_for(item)
        for key, parameters in drawn.items():
            if parameters is not None:
                item[key] = self._changed(item, key, parameters)
        item[self.parameters_key] = json.dumps({str(key): values for key, values in drawn.items()})
        return item

    def replay(self, data: Mapping[Hashable, Any], parameters: str) -> dict[Hashable, Any]:
        """The item changed as another call has changed it, which recorded ``parameters`` under ``parameters_key``."""
        item, recorded = dict(data), json.loads(parameters)
        for key in self.key_iterator(item):
            if recorded[str(key)] is not None:
                item[key] = self._changed(item, key, recorded[str(key)])
        return {**item, self.parameters_key: parameters}

    def _changed(self, item: Mapping[Hashable, Any], key: Hashable, parameters: Parameters) -> torch.Tensor:
        image = item[key]
        plain = image.as_tensor() if isinstance(image, MetaTensor) else image
        changed = self.apply(plain[None], [parameters], [self.spacing_of(item, key)])[0]
        return convert_to_dst_type(changed, image)[0] if isinstance(image, MetaTensor) else changed

    def _per_channel(self, channels: int, low: float, high: float) -> list[float]:
        """A value from U(low, high) for each channel: its own, or the same."""
        return self.R.uniform(low, high, channels if self.channel_wise else 1).tolist() * (
            1 if self.channel_wise else channels
        )


def per_channel(parameters: Sequence[Parameters], name: str, images: torch.Tensor) -> torch.Tensor:
    """Each sample's list, one number per channel, as (B, C, 1, 1[, 1]), to multiply ``images`` (B, C, H, W[, D])."""
    values = torch.tensor([drawn[name] for drawn in parameters], dtype=images.dtype, device=images.device)
    return values.reshape(*values.shape, *[1] * (images.ndim - 2))


def limits(
    name: str, value: Sequence[float] | float, least: float = -np.inf, most: float = np.inf
) -> tuple[float, float]:
    """A range as a config gives it: (low, high), or one number for exactly that.

    Raises:
        ConfigError: the wrong order, or beyond ``least`` and ``most``.

    >>> limits("gamma", [0.7, 1.5], least=0)
    (0.7, 1.5)
    """
    pair = (value, value) if isinstance(value, int | float) else tuple(value)
    if len(pair) != 2 or not least <= pair[0] <= pair[1] <= most:
        raise ConfigError(f"{name}={value}", expected=f"one number, or [low, high], from {least:g} to {most:g}")
    return float(pair[0]), float(pair[1])
