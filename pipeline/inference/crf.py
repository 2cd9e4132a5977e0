"""A fully connected conditional random field after the network: voxels that look alike and lie near get one label.

Kraehenbuehl & Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011 (arXiv
1210.5644); as the last step of DeepLab v1 and v2 (arXiv 1412.7062, 1606.00915). It moves borders to where the image has
them; where the network's already are, it costs time and thin structures.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from pipeline.errors import ConfigError, DataError, GeometryError
from pipeline.inference.permutohedral import PermutohedralLattice

Filter = Callable[[np.ndarray], np.ndarray]


def dense_crf(
    logits: np.ndarray,
    image: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    smoothness_weight: float = 3.0,
    smoothness_mm: float = 3.0,
    appearance_weight: float = 4.0,
    appearance_mm: float = 30.0,
    appearance_intensity: float = 0.5,
    iterations: int = 5,
) -> np.ndarray:
    """Mean-field inference with the Potts model and two Gaussian kernels between every pair of voxels.

    With p the positions in mm and I the image, the kernel between voxels i and j is (equation 3)::

        appearance_weight * exp(-|p_i - p_j|^2 / (2 appearance_mm^2) - |I_i - I_j|^2 / (2 appearance_intensity^2))
        + smoothness_weight * exp(-|p_i - p_j|^2 / (2 smoothness_mm^2))

    each exponential K divided by sqrt(sum_k K_ik * sum_k K_jk), as in the authors' code, so that a weight means the
    same at any voxel size, and a voxel is among its own neighbours. The second is computed as it stands (beyond four
    standard deviations it is 0), the first by a permutohedral lattice. In ``benchmarks/crf.py``, smooth regions with
    noise in voxels of 1 to 3 mm, brute force over all pairs gives probabilities 0.003 away on average, and another
    label for 2 voxels in 1000. What is more noise, or coarser than the widths, comes out farther away: 0.025 and 34
    in 1000 for nearly white noise in voxels of 20 mm.

    Args:
        logits: (K, *S) of two classes or more, two or three spatial axes.
        image: (C, *S), as the network saw it: ``appearance_intensity`` counts in its units, over all channels.
        spacing_mm: per axis.
        smoothness_weight, appearance_weight: 0 leaves a kernel out.
        smoothness_mm, appearance_mm, appearance_intensity: standard deviations.
        iterations: of the mean field.

    Returns:
        (K, *S) float32, the logarithms of the probabilities: softmax gives them back.

    Time and memory grow with the number of voxels, at about 50 bytes for each voxel, spatial axis and channel.

    Raises:
        ConfigError: a width of 0 or less, a weight or a number of iterations below 0, one class.
        GeometryError: an image of another size than the logits, or not one spacing per axis.
        DataError: logits or an image with NaN or infinite values, which would spread to every voxel.

    >>> logits = np.zeros((2, 1, 5), np.float32)
    >>> logits[1] = [2.0, 2.0, -0.5, -2.0, -2.0]
    >>> image = np.array([[[1.0, 1.0, 1.0, 0.0, 0.0]]])  # the middle voxel belongs to the left
    >>> dense_crf(logits, image, (1.0, 1.0), smoothness_weight=0.0, appearance_intensity=0.1).argmax(0)
    array([[1, 1, 1, 0, 0]])
    """
    _check(logits, image, spacing_mm)
    _check_settings(
        (smoothness_mm, appearance_mm, appearance_intensity), (smoothness_weight, appearance_weight), iterations
    )
    size, mm = logits.shape[1:], np.asarray(spacing_mm, dtype=np.float64)
    kernels: list[tuple[float, Filter]] = []
    if smoothness_weight > 0:
        kernels.append((smoothness_weight, _normalised(_spatial_filter(size, smoothness_mm / mm), size)))
    if appearance_weight > 0:
        positions = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(size, mm, strict=True)), indexing="ij"), -1)
        features = np.concatenate(
            [positions.reshape(-1, len(size)) / appearance_mm, image.reshape(len(image), -1).T / appearance_intensity],
            axis=1,
        )
        kernels.append((appearance_weight, _normalised(_bilateral_filter(features), size)))

    unary = torch.from_numpy(logits.reshape(len(logits), -1).astype(np.float32)).log_softmax(0)
    field = unary
    for _ in range(iterations):
        probabilities, field = field.exp().numpy(), unary.clone()
        # Potts: a label is charged with its neighbours of all others, which is a constant less those of its own.
        for weight, kernel in kernels:
            field += weight * torch.from_numpy(kernel(probabilities))
        field = field.log_softmax(0)
    return field.numpy().reshape(logits.shape)


def _check_settings(widths: Sequence[float], weights: Sequence[float], iterations: int) -> None:
    numbers = all(isinstance(value, int | float) and np.isfinite(value) for value in (*widths, *weights))
    whole = isinstance(iterations, int) and iterations >= 0
    if not numbers or not whole or min(widths) <= 0 or min(weights) < 0:
        raise ConfigError(
            f"widths {tuple(widths)}, weights {tuple(weights)}, {iterations} iterations of a dense CRF",
            expected="widths above 0, weights of 0 or more, and a whole number of iterations",
        )


def _check(logits: np.ndarray, image: np.ndarray, spacing_mm: Sequence[float]) -> None:
    if len(logits) < 2:
        raise ConfigError(
            f"a dense CRF of {len(logits)} class",
            expected="logits of two or more, with the background",
            fix="list DenseCRFd before Restored, which makes labels of them",
        )
    if image.shape[1:] != logits.shape[1:]:
        raise GeometryError(
            f"scores of shape {logits.shape} for an image of shape {image.shape}", expected="the same spatial shape"
        )
    if len(spacing_mm) != logits.ndim - 1 or min(spacing_mm) <= 0:
        raise GeometryError(
            f"spacing_mm {tuple(spacing_mm)} of {logits.ndim - 1} axes", expected="a length above 0 for each axis"
        )
    for name, values in (("logits", logits), ("an image", image)):
        lost = values.size - int(np.isfinite(values).sum())
        if lost:
            raise DataError(f"{name} with {lost} NaN or infinite values for a dense CRF", expected="finite ones")


def _spatial_filter(size: Sequence[int], widths_voxels: np.ndarray) -> Filter:
    """Sums over a Gaussian neighbourhood up to a constant factor, axis by axis; beyond the image there is nothing."""

    def smooth(values: np.ndarray) -> np.ndarray:
        maps = values.reshape(-1, *size)
        return ndimage.gaussian_filter(maps, (0, *widths_voxels), mode="constant").reshape(values.shape)

    return smooth


def _bilateral_filter(features: np.ndarray) -> Filter:
    """Sums over voxels whose features (N, d) are near, in standard deviations, up to a constant factor."""
    lattice = PermutohedralLattice(features)
    return lambda values: lattice.filter(values.T).T


def _normalised(kernel: Filter, size: Sequence[int]) -> Filter:
    """K / sqrt(K1 K1^T), for a kernel K known up to a factor: (L, N) -> (L, N)."""
    scale = 1 / np.sqrt(kernel(np.ones((1, int(np.prod(size))), dtype=np.float32)))
    return lambda values: scale * kernel(scale * values)


class DenseCRFd(MapTransform):
    """Scores on the network's grid -> scores that :func:`dense_crf` has refined, before `Restored` takes them.

    A bundle that wants it for its predictions lists it there::

        postprocessing:
          _replace_: true
          _target_: monai.transforms.Compose
          transforms:
            - {_target_: pipeline.inference.DenseCRFd, keys: pred, appearance_mm: 20.0}
            - _target_: pipeline.inference.Restored
              keys: pred
              fill_holes: "@fill_holes"
              largest_component: "@largest_component"
              minimum_component_ml: "@minimum_component_ml"
              instances: "@instances"
              minimum_instance_voxels: "@minimum_instance_voxels"
              probabilities_key: "@probabilities_key"
            - _target_: pipeline.inference.SaveImageOnGridd
              keys: pred
              output_dir: "@output_dir"
              probabilities_key: "@probabilities_key"
              classes: "@classes"
              label_values: "@label_values"
              instances: "@instances"

    Validations, and ``pipeline evaluate``, have a step of their own, ``validate#postprocessing``: list it there as
    well, before `Restored`, or they measure the network without it.

    Args:
        keys: entries with logits (K, *S) on the grid of the image.
        image_key: entry with the image (C, *S) that the network saw, a MetaTensor: its affine has the voxel size.
        smoothness_weight, smoothness_mm, appearance_weight, appearance_mm, appearance_intensity, iterations: see
            :func:`dense_crf`.
        allow_missing_keys: pass items on that lack a key.

    Raises:
        ConfigError, DataError, GeometryError: as :func:`dense_crf`; an image without an affine, scores that are not
            whole.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "pred",
        image_key: str = "image",
        smoothness_weight: float = 3.0,
        smoothness_mm: float = 3.0,
        appearance_weight: float = 4.0,
        appearance_mm: float = 30.0,
        appearance_intensity: float = 0.5,
        iterations: int = 5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        _check_settings(
            (smoothness_mm, appearance_mm, appearance_intensity), (smoothness_weight, appearance_weight), iterations
        )
        self.settings: dict[str, Any] = {
            "smoothness_weight": smoothness_weight,
            "smoothness_mm": smoothness_mm,
            "appearance_weight": appearance_weight,
            "appearance_mm": appearance_mm,
            "appearance_intensity": appearance_intensity,
            "iterations": iterations,
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        image = item[self.image_key]
        if not isinstance(image, MetaTensor):
            raise ConfigError(
                f"an image of type {type(image).__name__}", expected="a MetaTensor, whose affine has the voxel size"
            )
        axes = image.ndim - 1
        spacing_mm = image.affine[:axes, :axes].double().norm(dim=0).tolist()
        for key in self.key_iterator(item):
            scores = item[key]
            if not isinstance(scores, torch.Tensor):
                raise ConfigError(
                    f"scores of type {type(scores).__name__}",
                    expected="a tensor: a dense CRF sees the whole image at once",
                )
            refined = dense_crf(scores.detach().cpu().float().numpy(), image.cpu().numpy(), spacing_mm, **self.settings)
            item[key] = torch.from_numpy(refined).to(scores.device)
        return item
