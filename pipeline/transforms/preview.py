"""What a chain's random steps do to one case: each alone, weak, typical and strong, and all of them together.

Weak, typical and strong are what is drawn, not what a range allows: of many draws, ordered by how much they change the
patch, those at `QUANTILES`. So any step can be shown, whatever its arguments are called.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, Randomizable

from pipeline.errors import ConfigError
from pipeline.geometry import length_unit
from pipeline.transforms.item_grid import shape_and_spacing_mm
from pipeline.transforms.patch_map import SpatialPatchParameters, source_coordinates
from pipeline.transforms.rand_intensity import RandIntensityd
from pipeline.transforms.spatial import RandSpatialPatchd

QUANTILES = {"weak": 0.1, "typical": 0.5, "strong": 0.9}


@dataclass(frozen=True, eq=False)
class Panel:
    """One patch.

    Args:
        image: (C, H, W[, D]).
        label: (H, W[, D]) of class ids, or None.
        coordinates: (axes, H, W[, D]), mm: where in the volume each voxel looks; None where nothing is deformed.
        words: what was drawn, and how much it does.
    """

    image: np.ndarray
    label: np.ndarray | None
    coordinates: np.ndarray | None
    words: str


@dataclass(frozen=True, eq=False)
class Preview:
    """What a chain does to one case.

    Args:
        before: the patch as it is.
        rows: name of a step, or of a part of the spatial one -> its panels, in the order of `QUANTILES`.
        probabilities: of the same names, where the chain has one.
        spacing_mm: of the patch.
    """

    before: Panel
    rows: Mapping[str, Sequence[Panel]]
    probabilities: Mapping[str, float]
    spacing_mm: tuple[float, ...]


def preview(
    item: Mapping[Hashable, Any],
    steps: Mapping[str, Callable[..., Any]],
    channel: int = 0,
    draws: int = 60,
    seed: int = 0,
) -> Preview:
    """Show what the random steps of a chain do.

    Args:
        item: a case as it reaches the first random step.
        steps: the steps from there on, by name: `RandSpatialPatchd` first.
        channel: of the image, by whose changes draws are ordered, and whose numbers are said.
        draws: how many of each are ordered.
        seed: of the draws.

    Raises:
        ConfigError: another first step.
    """
    (name, spatial), *rest = steps.items() or [("none", None)]
    if not isinstance(spatial, RandSpatialPatchd):
        raise ConfigError(f"{name} as the first random step", expected="RandSpatialPatchd, which makes the patch")
    shown = _Shown(item, copy.deepcopy(spatial), channel)
    rows: dict[str, Sequence[Panel]] = {}
    probabilities: dict[str, float] = {}
    for part, alone, probability in _parts(shown.spatial):
        rows[part], probabilities[part] = shown.deformed(alone, draws, seed), probability
    for other, step in rest:
        if isinstance(step, Randomizable):
            alone = copy.deepcopy(step)
            if hasattr(alone, "prob"):
                probabilities[other], alone.prob = float(alone.prob), 1.0
            rows[other] = shown.changed(alone, draws, seed)
    rows["all together"] = shown.together([step for _, step in rest], draws, seed)
    return Preview(shown.before, rows, probabilities, shown.spacing_mm)


def smallest_jacobian(coordinates_mm: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The smallest Jacobian determinant of a map, by differences of neighbouring voxels; 0 or less where it folds.

    A mirrored patch counts as the one that it mirrors. An axis of one voxel is left out.

    Args:
        coordinates_mm: (axes, H, W[, D]).
        spacing_mm: of the voxels at which they are given.
    """
    axes = [axis for axis, size in enumerate(coordinates_mm.shape[1:]) if size > 1]
    inside = tuple(slice(0, size - 1) if size > 1 else slice(None) for size in coordinates_mm.shape[1:])
    steps = [np.diff(coordinates_mm, axis=axis + 1) / spacing_mm[axis] for axis in axes]
    cut = [step[(slice(None), *(slice(0, n.stop) for n in inside))] for step in steps]
    matrices = np.stack([np.stack([step[axis] for axis in axes], -1) for step in cut], -1)
    determinants = np.linalg.det(matrices.reshape(-1, len(axes), len(axes)))
    return float((determinants * np.sign(np.median(determinants))).min())


class _Shown:
    """One case, one patch of it in the middle of its label, and what is done to that."""

    def __init__(self, item: Mapping[Hashable, Any], spatial: RandSpatialPatchd, channel: int) -> None:
        self.item, self.spatial, self.channel = item, spatial, channel
        self.image_key = next(key for key in spatial.keys if key != spatial.label_key)
        volumes = {key: item[key] for key in spatial.key_iterator(dict(item))}
        self.shape, self.spacing_mm = shape_and_spacing_mm(item, volumes, spatial.dims)
        label = volumes.get(spatial.label_key)
        marked = np.argwhere(np.asarray(label[0]) > 0) if label is not None else np.empty((0, len(self.shape)))
        middle = (np.asarray(self.shape) - 1) / 2 if not len(marked) else marked.mean(0)
        start = []
        for centre, size, patch in zip(middle.tolist(), self.shape, spatial.patch_size, strict=True):
            low, high = sorted((0, size - patch))
            start.append((low + high) // 2 if size < patch else int(np.clip(round(centre - patch / 2), low, high)))
        turns = (0.0,) * len(spatial.rotation_degrees)
        flips, ones = (False,) * len(start), (1.0,) * len(start)
        self.undeformed = SpatialPatchParameters(tuple(start), flips, turns, ones, None, ones, turns)
        self.patch = spatial.replay(item, self.undeformed)
        self.places = self._places(self.undeformed)
        self.scale = float(self.patch[self.image_key][channel].std()) or 1.0
        self.before = self._panel(self.patch, None)

    def deformed(self, alone: RandSpatialPatchd, draws: int, seed: int) -> list[Panel]:
        """By the spatial transform; ordered by how far it moves what is seen."""
        drawn = self._drawn(alone, draws, seed)
        moved = [float(np.sqrt(((self._places(each) - self.places) ** 2).sum(0).mean())) for each in drawn]
        panels = []
        for index in _at_quantiles(moved):
            words = f"moved by {moved[index]:.1f} {length_unit(self.spatial.dims)} (RMS)"
            panels.append(self._panel(self.spatial.replay(self.item, drawn[index]), drawn[index], words))
        return panels

    def changed(self, alone: Any, draws: int, seed: int) -> list[Panel]:
        """By a step that changes intensities; ordered by how much it changes them."""

        def one(index: int) -> dict[Hashable, Any]:
            result: dict[Hashable, Any] = alone.set_random_state(seed=seed + index)(dict(self.patch))
            return result

        chosen = _at_quantiles([self._difference(one(index)) for index in range(draws)])
        return [self._panel(result, None, *self._words(alone, result)) for result in map(one, chosen)]

    def together(self, steps: Sequence[Any], draws: int, seed: int) -> list[Panel]:
        """By all steps with their probabilities, as a training draws them; ordered by the difference of the images."""
        chain, drawn = Compose(copy.deepcopy(list(steps))), self._drawn(self.spatial, draws, seed)

        def one(index: int) -> dict[Hashable, Any]:
            result: dict[Hashable, Any] = chain.set_random_state(seed=seed + index)(
                self.spatial.replay(self.item, drawn[index])
            )
            return result

        chosen = _at_quantiles([self._difference(one(index)) for index in range(draws)])
        return [self._panel(one(index), drawn[index]) for index in chosen]

    def _drawn(self, transform: RandSpatialPatchd, draws: int, seed: int) -> list[SpatialPatchParameters]:
        transform.set_random_state(seed=seed)
        drawn = [transform.randomize(self.shape, self.spacing_mm, {}) for _ in range(draws)]
        return [replace(each, start=self.undeformed.start) for each in drawn]

    def _places(self, parameters: SpatialPatchParameters) -> np.ndarray:
        """Where each voxel of the patch looks, mm."""
        voxels = source_coordinates(parameters, self.spatial.patch_size, self.spacing_mm).double().numpy()
        return np.asarray(voxels * np.asarray(self.spacing_mm).reshape(-1, *[1] * len(self.spacing_mm)))

    def _difference(self, patch: Mapping[Hashable, Any]) -> float:
        """Root mean square, in standard deviations of the channel."""
        difference = patch[self.image_key][self.channel] - self.patch[self.image_key][self.channel]
        return float(difference.square().mean().sqrt()) / self.scale

    def _words(self, step: Any, patch: Mapping[Hashable, Any]) -> list[str]:
        words = [f"differs by {self._difference(patch):.2f} SD"]
        if isinstance(step, RandIntensityd):
            drawn = json.loads(patch[step.parameters_key])[str(self.image_key)]
            unit = length_unit(self.spatial.dims)
            words[:0] = [_said(name, value, unit) for name, value in _numbers(drawn, self.channel).items()][:2]
        return words

    def _panel(self, patch: Mapping[Hashable, Any], parameters: SpatialPatchParameters | None, *words: str) -> Panel:
        label, places = patch.get(self.spatial.label_key), None
        if parameters is not None and parameters.is_crop:
            words = (*words, "not deformed")
        elif parameters is not None:
            places = self._places(parameters)
            words = (*words, f"smallest Jacobian {smallest_jacobian(places, self.spacing_mm):.2f}")
        image = torch.as_tensor(patch[self.image_key]).numpy()
        return Panel(image, None if label is None else label[0].numpy(), places, "\n".join(words))


def _parts(spatial: RandSpatialPatchd) -> list[tuple[str, RandSpatialPatchd, float]]:
    """The parts of the spatial transform that do something, each as a transform that does nothing else."""
    still = copy.deepcopy(spatial)
    still.affine_probability, still.elastic_probability, still.flip_axes = 1.0, 0.0, ()
    still.rotation_degrees = still.shear_degrees = ((0.0, 0.0),) * len(spatial.rotation_degrees)
    still.scaling = ((1.0, 1.0),) * spatial.dims
    parts = []
    for part in ("rotation_degrees", "shear_degrees", "scaling"):
        if spatial.affine_probability and getattr(spatial, part) != getattr(still, part):
            alone = copy.deepcopy(still)
            setattr(alone, part, getattr(spatial, part))
            parts.append((part.removesuffix("_degrees"), alone, spatial.affine_probability))
    if spatial.elastic_probability and spatial.elastic_std_mm[1]:
        alone = copy.deepcopy(still)
        alone.affine_probability, alone.elastic_probability = 0.0, 1.0
        parts.append(("elastic", alone, spatial.elastic_probability))
    return parts


def _at_quantiles(strengths: Sequence[float]) -> list[int]:
    order = np.argsort(strengths, kind="stable")
    return [int(order[round(quantile * (len(order) - 1))]) for quantile in QUANTILES.values()]


# Numbers of a draw that mean nothing to who looks at the picture.
_NOT_SAID = {
    *("seed", "axis", "axes", "channels", "zero", "control_mm", "value", "waves", "phases", "times", "slices", "centre")
}
_NEUTRAL = {"factor": 1.0, "offset": 0.0}


def _said(name: str, value: float, unit: str) -> str:
    """
    >>> _said("sigma_mm", 0.531, "px"), _said("gamma", 1.1, "px")
    ('sigma 0.53 px', 'gamma 1.1')
    """
    length = name.removesuffix("_mm")
    return f"{name} {value:.2g}" if length == name else f"{length} {value:.2g} {unit}"


def _numbers(drawn: Mapping[str, Any], channel: int) -> dict[str, float]:
    """What can be said in a number, of a list per channel the channel's; nothing that changes nothing."""
    flat = {n: v[channel] if isinstance(v, list) and channel < len(v) else v for n, v in drawn.items()}
    return {
        name: value
        for name, value in flat.items()
        if type(value) in (int, float) and name not in _NOT_SAID and _NEUTRAL.get(name) != value
    }
