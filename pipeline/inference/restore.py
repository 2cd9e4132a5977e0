"""Back to the case's own grid: what the network says about its grid, said about the voxels that the case came with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from pipeline.errors import ConfigError, GeometryError
from pipeline.geometry import Grid
from pipeline.inference.interpolation import (
    TOLERANCE_VOXELS,
    axis_coordinates,
    crop,
    sampled,
    sampled_along_axes,
    source_axes,
    voxel_coordinates,
)
from pipeline.inference.placement import Box
from pipeline.inference.slabs import Slabs

_ROUNDING = 1e-6  # voxels: no oblique position falls between two pieces


def restore_to_grid(
    scores: torch.Tensor | Slabs,
    affine: np.ndarray,
    grid: Grid,
    *,
    softmax: bool = True,
    regions: Sequence[int] | None = None,
    keep_probabilities: bool = False,
    slab_values: int = 2**22,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels, and if wanted probabilities, on ``grid`` from scores on another grid of the same world.

    Where axes need only be swapped, turned round, cropped or filled up, voxels are moved and nothing is computed.
    Otherwise the probabilities are interpolated linearly, once, with their border values continued, and the most
    probable class is taken after that. Voxels of ``grid`` that lie more than half a voxel outside the scores are
    background. Works slab by slab, so that probabilities of the whole volume exist only where they are asked for.

    Args:
        scores: (K, h, w, d) logits, or probabilities with ``softmax=False``; of a section (K, h, w). `Slabs` of them
            are taken one by one, while the network works on the next.
        affine: 4x4, voxel index of ``scores`` -> mm.
        grid: the grid to return to, of as many axes.
        softmax: turn the scores into probabilities first: by a softmax, of ``regions`` by a sigmoid.
        regions: for K regions that may overlap, in place of K classes that exclude each other: the class id that each
            region sets where its probability is at least a half, later ones over earlier ones.
        keep_probabilities: return them too.
        slab_values: how many probabilities a slab may hold (it always holds one plane of voxels).

    Returns:
        labels (H, W, D), uint8 (int16 where ids are above 255), and probabilities (K, H, W, D) float32 or None, both
        where the scores are; of a section (H, W) and (K, H, W).
    """
    flat = len(grid.shape) == 2  # a volume of one slice
    shape = (*grid.shape, 1) if flat else grid.shape
    to_scores = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ grid.affine
    size = scores.spatial_shape if isinstance(scores, Slabs) else tuple(scores.shape[1:])
    size = (*size, 1) if flat else size
    sources = source_axes(to_scores, shape)
    if sources is not None:  # what little tilt there is must not add up differently from slab to slab
        straight = np.zeros((3, 3), dtype=bool)
        straight[sources, range(3)] = True
        to_scores[:3, :3] *= straight
    activation = None if not softmax else "softmax" if regions is None else "sigmoid"
    labels, probabilities = torch.empty(0), None
    for place, piece in _pieces(scores):
        if flat:
            place, piece = (*place, slice(0, 1)), piece[..., None]
        classes = len(piece)
        if not labels.numel():
            highest = classes - 1 if regions is None else max(regions, default=0)
            labels = torch.zeros(shape, dtype=torch.uint8 if highest <= 255 else torch.int16, device=piece.device)
            if regions is not None and len(regions) != classes:
                raise ConfigError(f"scores of {classes} regions", expected=f"{len(regions)}, as regions names them")
            if keep_probabilities:
                probabilities = torch.zeros((classes, *shape), device=piece.device)
                if regions is None:
                    probabilities[0] = 1
        low, high = _reach(place, size)
        for target in _slabs(_target(to_scores, shape, sources, low, high), slab_values // classes):
            to_piece = to_scores.copy()
            to_piece[:3, 3] += to_scores[:3, :3] @ [part.start for part in target]
            # What is not asked of this piece, of a box that lies obliquely in it, stays what other pieces say.
            inside: Any = ... if sources is not None else _inside(to_piece, target, low, high).to(piece.device)
            to_piece[:3, 3] -= [part.start for part in place]
            lengths = [part.stop - part.start for part in target]
            near, to_near = crop(piece, to_piece, lengths)
            coordinates = None if sources is None else axis_coordinates(to_near, lengths, sources)
            sample = partial(_sampled, to_values=to_near, shape=lengths, coordinates=coordinates, sources=sources)
            if regions is None and probabilities is None:
                moved = coordinates is not None and not any(np.any(c % 1) for c in coordinates)
                found = _labels_of_moved(near, sample) if moved else _labels_between(near, activation, sample)
            else:
                values = sample(_activated(near, activation))
                found = _most_probable(values) if regions is None else _of_regions(values, regions)
                if probabilities is not None:
                    probabilities[(slice(None), *target)][:, inside] = values[:, inside]
            labels[target][inside] = found[inside].to(labels.dtype)
        del piece  # not to be held while the network runs again
    if flat:
        return labels[..., 0], None if probabilities is None else probabilities[..., 0]
    return labels, probabilities


def _pieces(scores: torch.Tensor | Slabs) -> Iterator[tuple[Box, torch.Tensor]]:
    if isinstance(scores, Slabs):
        yield from scores
    else:
        yield tuple(slice(0, n) for n in scores.shape[1:]), scores


def _reach(place: Box, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """From where to where, in voxels of the scores, a piece is asked: up to its last voxel, at which the next begins.

    At the border of the scores half a voxel more, and there ``high`` itself belongs to the piece.
    """
    border = 0.5 + TOLERANCE_VOXELS
    low = [part.start if part.start else -border for part in place]
    high = [part.stop - 1 if part.stop < n else n - 1 + border for part, n in zip(place, size, strict=True)]
    return np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)


def _target(
    to_scores: np.ndarray, shape: Sequence[int], sources: Sequence[int] | None, low: np.ndarray, high: np.ndarray
) -> list[slice]:
    """The box of voxels of the grid that lie within the reach of a piece; oblique ones, and some around them."""
    if sources is None:
        corners = np.array(list(product(*zip(low, high, strict=True))))
        there = (corners - to_scores[:3, 3]) @ np.linalg.inv(to_scores[:3, :3]).T
        first = np.clip(np.floor(there.min(axis=0)), 0, shape).astype(int)
        last = np.clip(np.ceil(there.max(axis=0)) + 1, 0, shape).astype(int)
        return [slice(int(a), int(b)) for a, b in zip(first, last, strict=True)]
    target = []
    for c, source in zip(axis_coordinates(to_scores, shape, sources), sources, strict=True):
        within = np.flatnonzero((c >= low[source]) & (c < high[source]))
        target.append(slice(int(within[0]), int(within[-1]) + 1) if len(within) else slice(0, 0))
    return target


def _slabs(target: list[slice], voxels: int) -> Iterator[Box]:
    """A box in slabs of so many voxels, of one plane at least, along its longest axis."""
    lengths = [part.stop - part.start for part in target]
    if min(lengths) == 0:
        return
    axis = int(np.argmax(lengths))
    thickness = max(1, voxels * lengths[axis] // int(np.prod(lengths)))
    for start in range(target[axis].start, target[axis].stop, thickness):
        slab = list(target)
        slab[axis] = slice(start, min(start + thickness, target[axis].stop))
        yield tuple(slab)


def _inside(to_scores: np.ndarray, target: Box, low: np.ndarray, high: np.ndarray) -> torch.Tensor:
    """Which voxels of a slab lie within the reach of a piece, bool."""
    at = voxel_coordinates(to_scores, [part.stop - part.start for part in target])
    return torch.from_numpy(((at >= low) & (at < high + _ROUNDING)).all(axis=-1))


def _sampled(
    values: torch.Tensor,
    to_values: np.ndarray,
    shape: Sequence[int],
    coordinates: Sequence[np.ndarray] | None,
    sources: Sequence[int] | None,
) -> torch.Tensor:
    if coordinates is None or sources is None:
        return sampled(values, to_values, shape)
    return sampled_along_axes(values, coordinates, sources)


def _activated(scores: torch.Tensor, activation: str | None) -> torch.Tensor:
    """Probabilities (K, *S), float32."""
    scores = scores.float()
    if activation is None:
        return scores
    return scores.softmax(0) if activation == "softmax" else scores.sigmoid()


def _labels_of_moved(scores: torch.Tensor, sample: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Where voxels are only moved, the order of their scores is all that is needed, and one value of each is moved."""
    return sample(_most_probable(scores)[None])[0]


def _labels_between(
    scores: torch.Tensor, activation: str | None, sample: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The class whose interpolated probability is the largest.

    That is at least 1 / K, so a class that is below it in all voxels here wins nowhere between them, and is left out:
    of a hundred classes a handful is anywhere near.
    """
    values = _activated(scores, activation)
    if activation is None:
        return _most_probable(sample(values))
    kept = (values.flatten(1).amax(1) > 0.99 / len(values)).nonzero().flatten()
    return kept[_most_probable(sample(values[kept]))]


def _most_probable(values: torch.Tensor) -> torch.Tensor:
    return values.max(dim=0).indices  # argmax is nine times slower


def _of_regions(probabilities: torch.Tensor, regions: Sequence[int]) -> torch.Tensor:
    labels = torch.zeros(probabilities.shape[1:], dtype=torch.int16, device=probabilities.device)
    for label, probability in zip(regions, probabilities, strict=True):
        labels[probability >= 0.5] = label
    return labels


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
