"""Back to the case's own grid: what the network says about its grid, said about the voxels that the case came with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from pipeline.errors import ConfigError, GeometryError
from pipeline.geometry import Grid
from pipeline.inference.components import remove_small_components

TOLERANCE_VOXELS = 1e-3  # rounding in headers; interpolation over less than this is no interpolation


def restore_to_grid(
    scores: torch.Tensor,
    affine: np.ndarray,
    grid: Grid,
    *,
    softmax: bool = True,
    keep_probabilities: bool = False,
    slab_values: int = 2**22,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels, and if wanted probabilities, on ``grid`` from scores on another grid of the same world.

    Where axes need only be swapped, turned round, cropped or filled up, voxels are moved and nothing is computed.
    Otherwise the probabilities are interpolated linearly, once, with their border values continued, and the most
    probable class is taken after that. Voxels of ``grid`` that lie more than half a voxel outside the scores are
    background. Works slab by slab along the longest axis of ``grid``, so that probabilities of the whole volume exist
    only where they are asked for.

    Args:
        scores: (K, h, w, d) logits, or probabilities with ``softmax=False``; of a section (K, h, w).
        affine: 4x4, voxel index of ``scores`` -> mm.
        grid: the grid to return to, of as many axes.
        softmax: turn the scores into probabilities first.
        keep_probabilities: return them too.
        slab_values: how many probabilities a slab may hold (it always holds one plane of voxels).

    Returns:
        labels (H, W, D), uint8 (int16 above 256 classes), and probabilities (K, H, W, D) float32 or None, both where
        the scores are; of a section (H, W) and (K, H, W).
    """
    if len(grid.shape) == 2:  # a volume of one slice
        labels, probabilities = restore_to_grid(
            scores[..., None],
            affine,
            Grid((*grid.shape, 1), grid.affine),
            softmax=softmax,
            keep_probabilities=keep_probabilities,
            slab_values=slab_values,
        )
        return labels[..., 0], None if probabilities is None else probabilities[..., 0]
    to_scores = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ grid.affine
    sources = _source_axes(to_scores, grid.shape)
    classes = len(scores)
    labels = torch.empty(grid.shape, dtype=torch.uint8 if classes <= 256 else torch.int16, device=scores.device)
    probabilities = torch.empty((classes, *grid.shape), device=scores.device) if keep_probabilities else None

    axis = int(np.argmax(grid.shape))
    plane = classes * int(np.prod(grid.shape)) // grid.shape[axis]
    thickness = max(1, slab_values // plane)
    for start in range(0, grid.shape[axis], thickness):
        shape = list(grid.shape)
        shape[axis] = min(thickness, grid.shape[axis] - start)
        slab_to_scores = to_scores.copy()
        slab_to_scores[:3, 3] += start * to_scores[:3, axis]
        near, slab_to_near = _crop(scores, slab_to_scores, shape)
        if sources is None:
            near = near.float().softmax(0) if softmax else near.float()
            slab = _sampled(near, slab_to_near, shape)
        else:
            coordinates = _axis_coordinates(slab_to_near, shape, sources)
            if keep_probabilities or any(np.any(c % 1) for c in coordinates):
                near = near.float().softmax(0) if softmax else near.float()
            slab = _sampled_along_axes(near, coordinates, sources)
        _clear_outside(slab, slab_to_scores, sources, scores.shape[1:])
        labels.narrow(axis, start, shape[axis]).copy_(slab.max(dim=0).indices)  # argmax is nine times slower
        if probabilities is not None:
            probabilities.narrow(axis + 1, start, shape[axis]).copy_(slab)
    return labels, probabilities


def _source_axes(to_scores: np.ndarray, shape: Sequence[int]) -> list[int] | None:
    """For each axis of the grid the one of the scores that runs along it; None where the two are oblique."""
    linear = to_scores[:3, :3]
    sources = [int(i) for i in np.abs(linear).argmax(axis=0)]
    across = np.abs(linear) * (np.asarray(shape) - 1)
    across[sources, range(3)] = 0
    return sources if sorted(sources) == [0, 1, 2] and across.sum(axis=1).max() < TOLERANCE_VOXELS else None


def _crop(scores: torch.Tensor, to_scores: np.ndarray, shape: Sequence[int]) -> tuple[torch.Tensor, np.ndarray]:
    """The part of the scores that a slab of ``shape`` interpolates between, and the slab's way to it."""
    corners = np.array(list(product(*((0, n - 1) for n in shape)))) @ to_scores[:3, :3].T + to_scores[:3, 3]
    last = np.asarray(scores.shape[1:]) - 1
    low = np.clip(np.floor(corners.min(axis=0) - TOLERANCE_VOXELS), 0, last).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + TOLERANCE_VOXELS), 0, last).astype(int)
    to_near = to_scores.copy()
    to_near[:3, 3] -= low
    return scores[(slice(None), *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))], to_near


def _axis_coordinates(to_scores: np.ndarray, shape: Sequence[int], sources: Sequence[int]) -> list[np.ndarray]:
    """Per axis of the slab its voxels' coordinates on the scores' axis, in voxels; whole numbers where nearly so."""
    coordinates = []
    for axis, source in enumerate(sources):
        # what a tilt adds along the other two axes is left out: _source_axes found it negligible
        c = to_scores[source, axis] * np.arange(shape[axis]) + to_scores[source, 3]
        coordinates.append(np.where(np.abs(c - c.round()) < TOLERANCE_VOXELS, c.round(), c))
    return coordinates


def _sampled_along_axes(
    values: torch.Tensor, coordinates: Sequence[np.ndarray], sources: Sequence[int]
) -> torch.Tensor:
    """Linear interpolation one axis after the other; pure indexing on axes whose coordinates are whole."""
    for c, source in zip(coordinates, sources, strict=True):
        last = values.shape[source + 1] - 1
        if np.array_equal(c, np.arange(last + 1)):
            continue
        c = np.clip(c, 0, last)
        below = torch.as_tensor(np.floor(c), dtype=torch.int64, device=values.device)
        share = torch.as_tensor(c % 1, dtype=torch.float32, device=values.device)
        lower = values.index_select(source + 1, below)
        if share.any():
            upper = values.index_select(source + 1, (below + 1).clamp(max=last))
            lower = torch.lerp(lower, upper, share.reshape([-1 if a == source else 1 for a in range(3)]))
        values = lower
    return values.permute(0, *(source + 1 for source in sources))


def _voxel_coordinates(to_scores: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Coordinates in the scores of every voxel of a slab, (*shape, 3), float64."""
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1)
    return index @ to_scores[:3, :3].T + to_scores[:3, 3]


def _sampled(values: torch.Tensor, to_values: np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """Trilinear interpolation at oblique positions."""
    last = np.asarray(values.shape[1:], dtype=np.float64) - 1
    normalised = 2 * _voxel_coordinates(to_values, shape) / np.maximum(last, 1) - 1
    at = torch.as_tensor(np.ascontiguousarray(normalised[..., ::-1]), dtype=torch.float32, device=values.device)
    return F.grid_sample(values[None], at[None], mode="bilinear", padding_mode="border", align_corners=True)[0]


def _clear_outside(
    slab: torch.Tensor, to_scores: np.ndarray, sources: Sequence[int] | None, size: Sequence[int]
) -> None:
    """Certain background wherever a voxel lies more than half a voxel outside the scores, in place."""
    low, high = -0.5 - TOLERANCE_VOXELS, np.asarray(size) - 0.5 + TOLERANCE_VOXELS
    background = torch.zeros(len(slab), 1, dtype=slab.dtype, device=slab.device)
    background[0] = 1
    if sources is None:
        at = _voxel_coordinates(to_scores, slab.shape[1:])
        outside = torch.as_tensor(((at < low) | (at > high)).any(axis=-1), device=slab.device)
        slab[:, outside] = background
        return
    for axis, (c, source) in enumerate(
        zip(_axis_coordinates(to_scores, slab.shape[1:], sources), sources, strict=True)
    ):
        outside = torch.as_tensor((c < low) | (c > high[source]), device=slab.device)
        if outside.any():
            slab.movedim(axis + 1, 1)[:, outside] = background[..., None, None]


def own_grid(image: MetaTensor) -> Grid:
    """The grid that an image had when it was read, from the meta data that MONAI's and this package's readers leave.

    Args:
        image: (C, h, w, d), of a section (C, h, w), on whatever grid transforms have brought it to.
    """
    meta = getattr(image, "meta", {})
    missing = [key for key in ("original_affine", "spatial_shape") if key not in meta]
    if missing:
        raise ConfigError(
            f"an image without {' and '.join(missing)} in its meta data",
            expected="a MetaTensor that remembers the grid it was read on",
            fix="read it with LoadImageStackd or LoadImaged, and keep its meta data up to here",
            case=meta.get("case_id"),
        )
    shape = np.asarray(meta["spatial_shape"]).ravel().tolist()
    if len(shape) != image.ndim - 1 or len(shape) not in (2, 3):
        raise GeometryError(
            f"an image of {len(shape)} axes, now {image.ndim - 1}",
            expected="a volume of three axes, or a section of two",
            case=meta.get("case_id"),
        )
    return Grid(tuple(shape), np.asarray(meta["original_affine"], dtype=np.float64))


class Restored(MapTransform):
    """Scores on the network's grid -> labels on the case's own grid, as `restore_to_grid` does it.

    Args:
        keys: entries with scores (K, h, w, d) on the grid of the image; each becomes its label map (1, H, W, D), a
            MetaTensor that carries the own grid's affine, ``case_id`` and ``filename_or_obj``.
        image_key: entry with the image (C, h, w, d) that the network saw.
        probabilities_key: also store the probabilities (K, H, W, D) under this name; one per key.
        softmax: whether the scores are logits; False where they are probabilities already.
        minimum_component_ml: connected components of a class below this volume become background, 0 keeps all.
        allow_missing_keys: pass items on that lack a key.

    Raises:
        GeometryError: scores of another shape than the image.
        ConfigError: an image that no longer knows its own grid.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "pred",
        image_key: str = "image",
        probabilities_key: str | Sequence[str] | None = None,
        softmax: bool = True,
        minimum_component_ml: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.minimum_component_ml = minimum_component_ml
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
            scores = torch.as_tensor(item[key])
            scores = scores.as_tensor() if isinstance(scores, MetaTensor) else scores
            if scores.shape[1:] != image.shape[1:]:
                raise GeometryError(
                    f"scores of shape {tuple(scores.shape)} for an image of shape {tuple(image.shape)}",
                    expected="the same spatial shape",
                    case=carried.get("case_id"),
                )
            labels, probabilities = restore_to_grid(
                scores,
                image.affine.cpu().numpy(),
                grid,
                softmax=self.softmax,
                keep_probabilities=probabilities_key is not None,
            )
            if self.minimum_component_ml > 0:
                if len(grid.shape) < 3:
                    raise ConfigError(
                        f"minimum_component_ml={self.minimum_component_ml} of a section", expected="0: it has no volume"
                    )
                kept = remove_small_components(labels.cpu().numpy(), self.minimum_component_ml, grid.voxel_volume_ml)
                labels = torch.from_numpy(kept).to(labels.device)
            results = {key: labels[None]} | ({} if probabilities is None else {probabilities_key: probabilities})
            for name, result in results.items():
                item[name] = MetaTensor(result, affine=torch.tensor(grid.affine), meta=dict(carried))
        return item
