"""A patch that is drawn but not yet made: what a data loader hands on where a whole batch is made at once, elsewhere.

An item then holds, in place of each volume's patch, the `Window` of the volume that the patch looks at, and under
`DRAWN` what is to be done with it. Windows differ in size: `collate_patches` leaves them apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai.data import list_data_collate

from pipeline.transforms.patch_map import SpatialPatchParameters
from pipeline.transforms.patch_window import Window

DRAWN = "drawn"
"""Entry of an item, a `DrawnPatch`; of a batch, a list of them."""


@dataclass(frozen=True, eq=False)
class DrawnPatch:
    """What is to be done to one item's windows.

    Args:
        parameters: where its patch lies and how it is deformed.
        spacing_mm: voxel size of the volume, and so of the patch.
        window: which part of the volume the item holds.
        keys: entries of the item that are windows.
        changes: of each later step, in order: key -> what it drew for it, or None where nothing was.
    """

    parameters: SpatialPatchParameters
    spacing_mm: tuple[float, ...]
    window: Window
    keys: tuple[Hashable, ...]
    changes: list[Mapping[Hashable, Any]] = field(default_factory=list)


def collate_patches(items: Sequence[Any]) -> Any:
    """MONAI's ``list_data_collate``, for a training's data loader: windows and what was drawn become lists.

    Args:
        items: dicts, or lists of them as several patches per case give.
    """
    flat = [part for item in items for part in (item if isinstance(item, list) else [item])]
    if not (isinstance(flat[0], Mapping) and DRAWN in flat[0]):
        return list_data_collate(items)
    apart = (DRAWN, *flat[0][DRAWN].keys)
    batch = list_data_collate([{key: value for key, value in item.items() if key not in apart} for item in flat])
    return {**batch, **{key: [item[key] for item in flat] for key in apart}}
