"""`SeparateObjectsd`: single objects, and a border between those that touch, from a label that runs them together.

Ronneberger, Fischer & Brox, U-Net, MICCAI 2015 (arXiv 1505.04597), section 3, find the separating border by
morphological operations, and say no more about it. What is done here is:

1. Objects. Of each class the face-connected components. Where objects of one class touch, they are one component:
   with ``erosion`` r, what lies deeper than r below the component's surface (an erosion by a ball of radius r, by exact
   Euclidean distances) falls apart into seeds, one per object; a component without such a voxel is one seed whole. The
   seeds then grow back, voxel by voxel through faces, first among what lies deepest (a watershed of the distance to
   the background, in steps of one voxel): a voxel belongs to the object that reaches it first.
2. Border. Where voxels of two objects share a face, the one of the larger object becomes background (of equal ones
   that with the higher id), so that a border one voxel wide separates them and the smaller object loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from scipy import ndimage

from pipeline.errors import ConfigError, GeometryError, PipelineError
from pipeline.transforms.border_weights import only_channel, spacing_of, whole_ids


def find_objects(classes: np.ndarray, erosion: float = 0.0, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Step 1: object ids 1, 2, ... of a map of class ids, class by class.

    Args:
        classes: (H, W) or (H, W, D), 0 is background.
        erosion: r, in the unit of ``spacing``; about half the width of the widest neck between two objects. 0 takes the
            components as they are.
        spacing: of the voxels, by default 1.

    Returns:
        int32, the shape of ``classes``, 0 where that is 0.

    >>> row = np.array([[1, 1, 1, 0, 2, 2, 0, 1]])
    >>> find_objects(row).tolist()
    [[1, 1, 1, 0, 3, 3, 0, 2]]
    """
    objects = np.zeros(classes.shape, np.int32)
    found = 0
    for value in np.unique(classes[classes > 0]):
        mask = classes == value
        split, number = ndimage.label(mask, output=np.int32)
        if erosion > 0:
            split, number = _split_at_necks(mask, split, erosion, spacing)
        objects[mask] = split[mask] + found
        found += number
    return objects


def separate(objects: np.ndarray) -> np.ndarray:
    """Step 2: the same ids, 0 where the border between two objects runs; no two objects share a face afterwards.

    An object that is nowhere more than its contact with smaller ones is all border, and vanishes.

    >>> separate(np.array([[1, 1, 1, 2, 2, 0, 3]])).tolist()
    [[1, 1, 0, 2, 2, 0, 3]]
    """
    values, inverse, sizes = np.unique(objects, return_inverse=True, return_counts=True)
    rank = np.empty(len(values), np.int32)
    rank[np.argsort(np.where(values == 0, 0, sizes), kind="stable")] = np.arange(len(values))
    ranks = rank[inverse.reshape(objects.shape)]
    border = np.zeros(objects.shape, bool)
    for axis in range(objects.ndim):
        low, high = (np.moveaxis(x, axis, 0) for x in (objects, ranks))
        a, b, rank_a, rank_b = low[:-1], low[1:], high[:-1], high[1:]
        touching = (a != b) & (a > 0) & (b > 0)
        of_axis = np.moveaxis(border, axis, 0)
        of_axis[:-1] |= touching & (rank_a > rank_b)
        of_axis[1:] |= touching & (rank_b > rank_a)
    return np.where(border, 0, objects)


def _split_at_necks(
    mask: np.ndarray, components: np.ndarray, erosion: float, spacing: Sequence[float] | None
) -> tuple[np.ndarray, int]:
    # A layer of background around: what the image cuts off is an object's edge too.
    around = np.pad(mask, 1)
    depth = ndimage.distance_transform_edt(around, sampling=spacing)[(slice(1, -1),) * mask.ndim]
    seeds, number = ndimage.label(depth > erosion, output=np.int32)
    bare = np.ones(components.max() + 1, bool)
    bare[components[seeds > 0]] = False
    bare[0] = False
    whole = bare[components]
    seeds[whole] = number + np.cumsum(bare)[components[whole]]
    number += int(np.count_nonzero(bare))
    unit = 1.0 if spacing is None else min(spacing)
    for level in range(math.ceil(erosion / unit), -1, -1):
        _flood(seeds, mask & (depth > level * unit))
    return seeds, number


def _flood(seeds: np.ndarray, within: np.ndarray) -> None:
    """Grow all seeds by one face neighbour at a time, in place, until ``within`` is full or can't be reached."""
    while True:
        grown = seeds.copy()
        for axis in range(seeds.ndim):
            old, new, free = (np.moveaxis(x, axis, 0) for x in (seeds, grown, within))
            for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
                np.copyto(new[here], old[there], where=free[here] & (new[here] == 0) & (old[there] > 0))
        if np.array_equal(grown, seeds):
            return
        seeds[...] = grown


class SeparateObjectsd(MapTransform):
    """Find the objects of a label and keep those apart that touch; `BorderWeightsd` takes the result.

    The label becomes what the network learns: class ids, 0 on the border between two objects. The objects go to
    ``item[instances_key]``, int32 ids of the same shape.

    It draws nothing and belongs to the deterministic part of a chain, where `pipeline.data.CaseDataset` keeps its
    result.

    Args:
        keys: one key, of a label (1, H, W[, D]).
        instances_key: where the objects go.
        classes_key: where the classes go, by default to the label's own key.
        label_holds: ``"classes"``: class ids, whose objects are found (step 1 above) and separated; ``"instances"``:
            object ids, which are separated as they are, and the label becomes 1 inside of an object, 0 elsewhere. Ids
            that are larger than the image has voxels are numbered anew, in their order.
        erosion: r of step 1, for classes; voxels in 2D, millimetres in 3D, unless ``spacing`` says otherwise.
        spacing: of the voxels, one per axis, as in `BorderWeightsd`.
        allow_missing_keys: pass on an item without the key as it is.

    Raises:
        ConfigError: contradicting arguments.
        DataError, LabelError: a label of another shape, or with ids that are not whole numbers of 0 or above.
        GeometryError: instances that do not lie on the grid of the label whose place they take.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        instances_key: str = "instances",
        classes_key: str | None = None,
        label_holds: str = "classes",
        erosion: float = 0.0,
        spacing: Sequence[float] | None = None,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ConfigError(f"keys {self.keys}", expected="one label")
        if label_holds not in ("classes", "instances"):
            raise ConfigError(f"label_holds={label_holds!r}", expected="classes or instances")
        if erosion < 0 or (erosion > 0 and label_holds == "instances"):
            raise ConfigError(
                f"erosion={erosion} with label_holds={label_holds!r}",
                expected="0 or above for classes; instances are known already",
            )
        self.instances_key, self.classes_key, self.label_holds = instances_key, classes_key, label_holds
        self.erosion, self.spacing = erosion, spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            label = item[key]
            try:
                ids = whole_ids(only_channel(label), "labels")
                if self.label_holds == "instances":
                    self._require_on_grid_of(item.get(self.classes_key or key), label)
                    objects = separate(_in_32_bits(ids))
                    classes = (objects > 0).astype(np.uint8)
                else:
                    spacing = self.spacing
                    if self.erosion > 0 and spacing is None:
                        spacing = spacing_of(label)
                    objects = separate(find_objects(ids, self.erosion, spacing))
                    classes = np.where(objects > 0, ids, 0)
            except PipelineError as error:
                raise error.for_case(str(item.get("case_id"))) from error
            item[self.instances_key] = convert_to_dst_type(objects[None], label, dtype=np.int32)[0]
            classes_key = key if self.classes_key is None else self.classes_key
            item[classes_key] = convert_to_dst_type(classes[None], label, dtype=classes.dtype)[0]
        return item

    def _require_on_grid_of(self, classes: Any, instances: Any) -> None:
        """Of two entries that came from one file: where a step has moved one alone, its place would be taken by what
        lies elsewhere."""
        if classes is None or classes is instances:
            return
        moved = tuple(classes.shape) != tuple(instances.shape)
        if isinstance(classes, MetaTensor) and isinstance(instances, MetaTensor):
            one, other = (entry.affine.cpu().numpy() for entry in (classes, instances))
            moved = moved or one.shape != other.shape or not np.allclose(one, other, atol=1e-3)
        if moved:
            raise GeometryError(
                f"objects {tuple(instances.shape)} that do not lie where their label {tuple(classes.shape)} does",
                expected="one grid for both",
                fix=f"give the steps that turn or resample the label (orient, resample) the key {self.keys[0]} too",
            )


def _in_32_bits(ids: np.ndarray) -> np.ndarray:
    """The same objects as int32, numbered anew where their numbers are larger than their image."""
    if ids.max(initial=0) >= max(ids.size, 2**16):
        ids = np.unique(np.append(ids, np.zeros(1, ids.dtype)), return_inverse=True)[1][:-1].reshape(ids.shape)
    return ids.astype(np.int32)
