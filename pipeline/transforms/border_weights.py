"""`BorderWeightsd`: how much each voxel counts in the loss, so that a network learns to keep close objects apart.

Ronneberger, Fischer & Brox, U-Net, MICCAI 2015 (arXiv 1505.04597), section 3, eq. 2:

    w(x) = w_c(x) + w_0 exp(-(d_1(x) + d_2(x))^2 / (2 sigma^2))

w_c balances the frequencies of the classes; d_1 and d_2 are the distances from x to the nearest and to the second
nearest object. `pipeline.losses.CrossEntropyLoss` takes the map as its ``weight`` (eq. 1 of the paper).
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

from pipeline.errors import ConfigError, DataError, LabelError, PipelineError

NEGLIGIBLE = 1e-7
"""Where the exponential is below this share of w_0, the border term counts as 0: float32 holds no more beside w_c."""


def border_term(distance_sum: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """The second term of eq. 2, at d_1 + d_2; sigma in the same unit.

    >>> border_term(np.array([0.0, 2.0, 5.0, 10.0, np.inf])).round(4).tolist()
    [10.0, 9.2312, 6.0653, 1.3534, 0.0]
    """
    return w0 * np.exp(-(distance_sum**2) / (2 * sigma**2))


def distance_sum(instances: np.ndarray, spacing: Sequence[float], limit: float) -> np.ndarray:
    """d_1 + d_2 at every voxel: exact up to ``limit``, infinite beyond it and where there are fewer than two objects.

    A distance is Euclidean, between the centre of the voxel and that of the nearest voxel of the object; within an
    object it is 0. So d_1 + d_2 is, between two objects, the length of the way from one to the other, and inside an
    object the distance to the nearest other one.

    The obvious way, one distance transform of the whole image per object, takes minutes for thousands of nuclei. An
    object matters no further away than ``limit``, so its transform is taken in its box, widened by that; and not at
    all where the box holds nobody else. The time grows with the number of objects, not with that times the image.

    Args:
        instances: object ids, (H, W) or (H, W, D), 0 or above, integer; 0 is no object.
        spacing: distance of voxel centres, one per axis; the unit of all distances.
        limit: above 0.

    Returns:
        float32, the shape of ``instances``.
    """
    nearest = np.full(instances.shape, np.inf, np.float32)
    second = np.full(instances.shape, np.inf, np.float32)
    margin = [math.ceil(limit / step) for step in spacing]
    ids = _consecutive(instances)
    for object_id, tight in enumerate(ndimage.find_objects(ids), start=1):
        if tight is None:
            continue
        box = tuple(slice(max(0, side.start - m), side.stop + m) for side, m in zip(tight, margin, strict=True))
        inside = ids[box]
        own = inside == object_id
        if np.count_nonzero(inside) == np.count_nonzero(own):
            continue  # nobody within the limit: d_1 + d_2 is beyond it wherever this object is one of the two
        distance = ndimage.distance_transform_edt(~own, sampling=spacing).astype(np.float32)
        second[box] = np.minimum(second[box], np.maximum(nearest[box], distance))
        nearest[box] = np.minimum(nearest[box], distance)
    both = nearest + second
    both[both > limit] = np.inf
    return both


def balancing_weights(classes: np.ndarray) -> dict[int, float]:
    """w_c of each class that is present: N / (K n_k), for K classes present, n_k voxels of class k, N of all.

    Every class then has the same weight in all, and the mean over the voxels is 1.

    >>> balancing_weights(np.array([0, 0, 0, 1]))
    {0: 0.6666666666666666, 1: 2.0}
    """
    values, counts = np.unique(classes, return_counts=True)
    return {int(v): classes.size / (len(values) * int(n)) for v, n in zip(values, counts, strict=True)}


def border_weights(
    instances: np.ndarray,
    classes: np.ndarray | None = None,
    *,
    spacing: Sequence[float] | None = None,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | str | None = "balanced",
) -> np.ndarray:
    """The weight map of eq. 2.

    Args:
        instances: object ids, (H, W) or (H, W, D); 0 is background, ids need not be consecutive.
        classes: class ids of the same shape, for w_c; by default 0 is background and 1 any object.
        spacing: of the voxels, one per axis; by default 1, so that distances and sigma are in voxels.
        w0: height of the border term, which is reached where d_1 + d_2 is 0.
        sigma: its width, in the unit of ``spacing``.
        class_weights: w_c: ``"balanced"`` as in `balancing_weights`, from this map's own frequencies; one number per
            class, for frequencies of a whole training set (as the paper has them); or None for 1 everywhere.

    Returns:
        float32, the shape of ``instances``; never below the smallest w_c. Where there are fewer than two objects, w_c.

    Raises:
        ConfigError: a w0 below 0, a sigma or a spacing not above 0, not as many spacings as axes.
        LabelError: ids that are not whole numbers of 0 or above; a class without a weight.
        DataError: shapes that differ, or neither 2D nor 3D.
    """
    steps = (1.0,) * instances.ndim if spacing is None else tuple(float(step) for step in spacing)
    if not (w0 >= 0 and sigma > 0 and len(steps) == instances.ndim and min(steps) > 0):
        raise ConfigError(
            f"w0={w0}, sigma={sigma}, spacing={steps} for {instances.ndim} axes",
            expected="w0 of 0 or above, sigma above 0, and one spacing above 0 per axis",
        )
    if instances.ndim not in (2, 3):
        raise DataError(f"instances of shape {instances.shape}", expected="(H, W) or (H, W, D)")
    instances = whole_ids(instances, "object ids")
    classes = (instances > 0).astype(np.uint8) if classes is None else whole_ids(classes, "class ids")
    if classes.shape != instances.shape:
        raise DataError(f"classes of shape {classes.shape}", expected=f"the instances', {instances.shape}")
    limit = sigma * math.sqrt(-2 * math.log(NEGLIGIBLE))
    border = border_term(distance_sum(instances, steps, limit), w0, sigma)
    return (_class_term(classes, class_weights) + border).astype(np.float32)


def whole_ids(values: np.ndarray, what: str) -> np.ndarray:
    """The same ids as integers.

    Raises:
        LabelError: values that are negative or not whole.
    """
    if values.dtype.kind in "ui":
        ids = values
    else:
        ids = values.astype(np.int64)
        if not np.array_equal(ids, values):
            raise LabelError(f"{what} that are not whole numbers", expected="integers of 0 or above")
    if ids.size and ids.min() < 0:
        raise LabelError(f"{what} down to {ids.min()}", expected="integers of 0 or above")
    return ids


def _class_term(classes: np.ndarray, class_weights: Sequence[float] | str | None) -> np.ndarray:
    if class_weights is None:
        return np.ones(classes.shape, np.float32)
    if isinstance(class_weights, str):
        if class_weights != "balanced":
            raise ConfigError(f"class_weights={class_weights!r}", expected="balanced, a number per class, or None")
        of_class = balancing_weights(classes)
        table = np.zeros(max(of_class) + 1, np.float32)
        table[list(of_class)] = list(of_class.values())
    else:
        table = np.asarray(class_weights, np.float32)
    if classes.size and classes.max() >= len(table):
        raise LabelError(f"class {classes.max()}", expected=f"a class weight for it; there are {len(table)}")
    return table[classes]


def _consecutive(instances: np.ndarray) -> np.ndarray:
    """Ids that a table of all ids up to the largest can hold."""
    if instances.size and instances.max() <= instances.size:
        return instances.astype(np.int32, copy=False)
    values, inverse = np.unique(instances, return_inverse=True)
    first = 0 if values.size and values[0] == 0 else 1  # 0 stays 0, and no object becomes 0
    return (inverse + first).astype(np.int32).reshape(instances.shape)


class BorderWeightsd(MapTransform):
    """Put the weight map of an instance label under ``item[weight_key]``: (1, H, W[, D]) float32.

    It draws nothing, so it belongs to the deterministic part of a chain: before the first random transform
    `pipeline.data.CaseDataset` keeps its result, and every case is computed once. From there on the map is one more
    image: give its key to the spatial transforms, beside image and label.

    Args:
        keys: one key, of object ids (1, H, W[, D]): given, or made by `SeparateObjectsd`.
        weight_key: where the result goes.
        label_key: class ids for w_c; by default an object is class 1 and the rest class 0.
        w0, sigma, class_weights: as in `border_weights`.
        spacing: of the voxels, one per axis. By default 2D counts in voxels, as the paper does, and 3D in millimetres,
            from the affine of the key's MetaTensor.
        allow_missing_keys: pass on an item without the key as it is.

    Raises:
        ConfigError, DataError, LabelError: as `border_weights`; each names the case. A volume without an affine.
    """

    def __init__(
        self,
        keys: KeysCollection = "instances",
        weight_key: str = "weight",
        label_key: str | None = None,
        w0: float = 10.0,
        sigma: float = 5.0,
        class_weights: Sequence[float] | str | None = "balanced",
        spacing: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ConfigError(f"keys {self.keys}", expected="one: a weight map is made from one instance label")
        if not (w0 >= 0 and sigma > 0):
            raise ConfigError(f"w0={w0}, sigma={sigma}", expected="w0 of 0 or above, sigma above 0")
        self.weight_key, self.label_key, self.spacing = weight_key, label_key, spacing
        self.w0, self.sigma, self.class_weights = w0, sigma, class_weights

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        case_id = item.get("case_id")
        for key in self.key_iterator(item):
            try:
                weights = border_weights(
                    only_channel(item[key]),
                    None if self.label_key is None else only_channel(item[self.label_key]),
                    spacing=spacing_of(item[key]) if self.spacing is None else self.spacing,
                    w0=self.w0,
                    sigma=self.sigma,
                    class_weights=self.class_weights,
                )
            except PipelineError as error:
                raise error.for_case(str(case_id)) from error
            item[self.weight_key] = convert_to_dst_type(weights[None], item[key], dtype=np.float32)[0]
        return item


def only_channel(label: Any) -> np.ndarray:
    """(H, W[, D]) of a label (1, H, W[, D])."""
    array = np.asarray(label)
    if array.ndim not in (3, 4) or len(array) != 1:
        raise DataError(f"a label of shape {tuple(array.shape)}", expected="(1, H, W) or (1, H, W, D)")
    return array[0]


def spacing_of(label: Any) -> tuple[float, ...]:
    """Voxels (1.0) in 2D, millimetres in 3D."""
    if label.ndim == 3:
        return (1.0, 1.0)
    if not isinstance(label, MetaTensor):
        raise DataError("a volume without an affine", expected="a MetaTensor, or spacing: millimetres need it")
    return tuple(np.linalg.norm(np.asarray(label.affine, dtype=np.float64)[:3, :3], axis=0).tolist())
