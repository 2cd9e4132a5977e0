"""`AugmentationChain`: the steps of a training, the random ones applied patch by patch or to a whole batch at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from monai.transforms import Compose, Randomizable, Transform

from pipeline.errors import ConfigError
from pipeline.transforms.deferred import DRAWN
from pipeline.transforms.spatial import RandSpatialPatchd

logger = logging.getLogger(__name__)


@runtime_checkable
class DrawnChange(Protocol):
    """A random step after the patch whose drawing stands apart from applying it."""

    keys: tuple[Hashable, ...]
    parameters_key: str

    def draw_for(self, item: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Key -> what is drawn for it, from the shape of the item's entry alone; None for nothing."""

    def apply(
        self, images: torch.Tensor, parameters: Sequence[Any], spacing_mm: Sequence[Sequence[float]]
    ) -> torch.Tensor:
        """A batch (B, C, *spatial) changed on its device, by what was drawn for each sample."""


@runtime_checkable
class BatchStep(Protocol):
    """A step without randomness that knows batches."""

    def on_batch(self, batch: dict[Hashable, Any]) -> dict[Hashable, Any]:
        """What the step's call does to an item, to a batch of collated ones."""


class AugmentationChain(Compose):
    """MONAI's ``Compose``, whose random steps are drawn in the data loader and applied there, or on the device.

    Everything random is drawn where the items are made, from the random state of each step: a sample's parameters do
    not depend on where it is made, nor on the number of workers. On the device, the steps from `RandSpatialPatchd` on
    are applied to a batch at once by `on_batch`; the loader then hands on only the windows of the volumes that the
    patches look at. It needs `collate_patches`, and a trainer that calls `on_batch` before all else.

    Args:
        transforms: the steps.
        augment_on: ``"device"``, ``"loader"``, or ``"auto"``: on the device where that is a GPU and every step after
            `RandSpatialPatchd` can be applied to a batch.
        device: of the training.

    Attributes:
        deferred: whether patches are made by `on_batch`.
        pins_memory: whether the data loader had better pin what it hands on: windows, on their way to a GPU.

    Raises:
        ConfigError: ``"device"`` with steps that can't be applied to a batch.
    """

    def __init__(
        self,
        transforms: Sequence[Callable],
        augment_on: str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        if augment_on not in ("auto", "device", "loader"):
            raise ConfigError(f"augment_on={augment_on!r}", expected="auto, device or loader")
        steps: tuple[Any, ...] = tuple(transforms)
        at = next((index for index, step in enumerate(steps) if isinstance(step, RandSpatialPatchd)), len(steps))
        obstacle = "no RandSpatialPatchd" if at == len(steps) else _obstacle(steps[at + 1 :])
        if augment_on == "device" and obstacle:
            raise ConfigError(
                f"augment_on='device' with {obstacle}",
                expected="RandSpatialPatchd, and after it steps that can be applied to a batch",
                fix="leave augment_on at 'auto', or take the step out",
            )
        on_gpu = torch.device(device).type == "cuda"
        self.deferred = augment_on == "device" or (augment_on == "auto" and on_gpu and not obstacle)
        if augment_on == "auto" and on_gpu and obstacle:
            logger.warning("Patches are made one by one in the data loader, not on the GPU: %s", obstacle)
        self.pins_memory = self.deferred and on_gpu
        self._put_off: tuple[Any, ...] = steps[at:] if self.deferred else ()
        if self.deferred:
            drawing = [_DrawChange(step, steps[at].patch_size) for step in steps[at + 1 :] if _is_random(step)]
            steps = (*steps[:at], _DrawPatch(steps[at]), *drawing)
        super().__init__(steps)

    def on_batch(self, batch: dict[Hashable, Any], device: torch.device) -> dict[Hashable, Any]:
        """Apply to a collated batch what was drawn for it; a batch of patches that are made is passed on.

        Args:
            batch: of `collate_patches`.
            device: where patches are made.

        Returns:
            Keys of `RandSpatialPatchd` -> (B, C, *patch_size) on the device; the other entries as they were.
        """
        if not self.deferred:
            return batch
        spatial, *steps = self._put_off
        patches = batch[DRAWN]
        batch = {key: value for key, value in batch.items() if key != DRAWN}
        with torch.no_grad():
            batch |= spatial.apply({key: batch[key] for key in patches[0].keys}, patches, device)
            spacing_mm, changes = [patch.spacing_mm for patch in patches], 0
            for step in steps:
                if not _is_random(step):
                    batch = step.on_batch(batch)
                    continue
                for key in patches[0].changes[changes]:
                    drawn = [patch.changes[changes][key] for patch in patches]
                    batch[key] = step.apply(batch[key], drawn, spacing_mm)
                changes += 1
        return batch


def _is_random(step: Any) -> bool:
    return isinstance(step, Randomizable)


def _obstacle(steps: Sequence[Any]) -> str | None:
    """The first step that can't be applied to a batch, in words."""
    for step in steps:
        if not isinstance(step, DrawnChange if _is_random(step) else BatchStep):
            return f"{type(step).__name__} after it, which changes one patch at a time"
    return None


class _DrawPatch(Randomizable, Transform):
    """`RandSpatialPatchd` in a data loader that leaves the patch to the device."""

    def __init__(self, step: RandSpatialPatchd) -> None:
        self.step, self.leaves_input_untouched = step, step.leaves_input_untouched

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> _DrawPatch:
        self.step.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self.step.defer(data)


class _DrawChange(Randomizable, Transform):
    """A change of the patch in a data loader that leaves it to the device."""

    def __init__(self, step: Any, patch_size: Sequence[int]) -> None:
        self.step, self.patch_size = step, tuple(patch_size)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> _DrawChange:
        self.step.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        patch = data[DRAWN]
        # Patches that have a shape and no voxels yet.
        shapes = {key: torch.empty(len(data[key]), *self.patch_size, device="meta") for key in patch.keys}
        drawn = self.step.draw_for({**data, **shapes})
        patch.changes.append(drawn)
        return {**data, self.step.parameters_key: json.dumps({str(key): values for key, values in drawn.items()})}
