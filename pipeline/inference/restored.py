"""The transform that ends a prediction: labels on the case's own grid, cleaned up as the bundle asks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from pipeline.errors import ConfigError, GeometryError
from pipeline.geometry import Grid
from pipeline.inference.components import fill_holes, keep_largest_component, remove_small_components
from pipeline.inference.instances import INSTANCES, number_instances
from pipeline.inference.restore import own_grid, restore_to_grid
from pipeline.inference.slabs import Slabs


class Restored(MapTransform):
    """Scores on the network's grid -> labels on the case's own grid, as `restore_to_grid` does it, cleaned up there.

    Args:
        keys: entries with scores (K, h, w, d), or `Slabs` of them, on the grid of the image; each becomes its label map
            (1, H, W, D), a MetaTensor that carries the own grid's affine, ``case_id`` and ``filename_or_obj``.
        image_key: entry with the image (C, h, w, d) that the network saw.
        probabilities_key: also store the probabilities (K, H, W, D) under this name; one per key.
        softmax: whether the scores are logits; False where they are probabilities already.
        regions: class id that each of K overlapping regions sets; None for K classes that exclude each other. Predict
            them with runtime=float32, the average of logits and no skipped background: the others are refused.
        fill_holes: class ids whose holes are filled first, see `fill_holes`.
        largest_component: class ids of which the largest connected component alone stays.
        minimum_component_ml: connected components of a class below this volume become background, 0 keeps all.
        instances: ``"components"`` also numbers the objects of the cleaned label map, see `number_instances`, under
            ``<key>_instances``, (1, H, W, D) int32; None for classes alone.
        minimum_instance_voxels: smaller objects get no number, and become background of the label map too.
        allow_missing_keys: pass items on that lack a key.

    Raises:
        GeometryError: scores of another shape than the image.
        ConfigError: an image that no longer knows its own grid; a ``minimum_component_ml`` below 0.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "pred",
        image_key: str = "image",
        probabilities_key: str | Sequence[str] | None = None,
        softmax: bool = True,
        minimum_component_ml: float = 0.0,
        allow_missing_keys: bool = False,
        *,
        regions: Sequence[int] | None = None,
        fill_holes: Sequence[int] = (),
        largest_component: Sequence[int] = (),
        instances: str | None = None,
        minimum_instance_voxels: int = 0,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not minimum_component_ml >= 0:  # NaN is refused, too
            raise ConfigError(f"minimum_component_ml={minimum_component_ml}", expected="0, which keeps all, or more")
        if instances not in (None, *INSTANCES) or not minimum_instance_voxels >= 0:
            raise ConfigError(
                f"instances={instances!r}, minimum_instance_voxels={minimum_instance_voxels}",
                expected=f"null or {', '.join(INSTANCES)}, and 0 or more",
            )
        self.instances, self.minimum_instance_voxels = instances, minimum_instance_voxels
        self.minimum_component_ml = minimum_component_ml
        self.regions = None if regions is None else tuple(int(label) for label in regions)
        self.fill_holes = tuple(int(label) for label in fill_holes)
        self.largest_component = tuple(int(label) for label in largest_component)
        self.image_key = image_key
        self.probabilities_keys = ensure_tuple_rep(probabilities_key, len(self.keys))
        self.softmax = softmax

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        image = item[self.image_key]
        grid = own_grid(image)
        carried = {key: image.meta[key] for key in ("case_id", "filename_or_obj") if key in image.meta}
        carried |= {"original_affine": grid.affine.copy(), "spatial_shape": np.asarray(grid.shape)}
        for key, probabilities_key in self.key_iterator(item, self.probabilities_keys):
            scores = _plain(item[key])
            shape = scores.spatial_shape if isinstance(scores, Slabs) else tuple(scores.shape[1:])
            if shape != tuple(image.shape[1:]):
                raise GeometryError(
                    f"scores of shape {shape} for an image of shape {tuple(image.shape[1:])}",
                    expected="the same spatial shape",
                    case=carried.get("case_id"),
                )
            labels, probabilities = restore_to_grid(
                scores,
                image.affine.cpu().numpy(),
                grid,
                softmax=self.softmax,
                regions=self.regions,
                keep_probabilities=probabilities_key is not None,
            )
            labels = self._cleaned(labels, grid)
            results: dict[Any, torch.Tensor] = {}
            if self.instances is not None:
                numbers = torch.from_numpy(number_instances(labels.cpu().numpy(), self.minimum_instance_voxels))
                results[instances_key(str(key))] = numbers[None]
                labels = labels * (numbers > 0).to(labels.device)  # measured and counted is what is written
            results |= {key: labels[None]} | ({} if probabilities is None else {probabilities_key: probabilities})
            for name, result in results.items():
                item[name] = MetaTensor(result, affine=torch.tensor(grid.affine), meta=dict(carried))
        return item

    def _cleaned(self, labels: torch.Tensor, grid: Grid) -> torch.Tensor:
        if self.minimum_component_ml > 0 and len(grid.shape) < 3:
            raise ConfigError(
                f"minimum_component_ml={self.minimum_component_ml} of a section", expected="0: it has no volume"
            )
        if not (self.fill_holes or self.largest_component or self.minimum_component_ml > 0):
            return labels
        array = labels.cpu().numpy()
        array = fill_holes(array, self.fill_holes)
        array = keep_largest_component(array, self.largest_component)
        if self.minimum_component_ml > 0:
            array = remove_small_components(array, self.minimum_component_ml, grid.voxel_volume_ml)
        return torch.from_numpy(array).to(labels.device)


def instances_key(key: str) -> str:
    """Entry with the numbers of the objects of the label map ``key``.

    >>> instances_key("pred")
    'pred_instances'
    """
    return f"{key}_instances"


def _plain(scores: Any) -> torch.Tensor | Slabs:
    if isinstance(scores, Slabs):
        return scores
    scores = torch.as_tensor(scores)
    return scores.as_tensor() if isinstance(scores, MetaTensor) else scores
