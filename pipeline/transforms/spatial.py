"""`RandSpatialPatchd`: the spatial augmentation of a training chain as one transform and one interpolation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from pipeline.errors import ConfigError
from pipeline.transforms.batch_sampling import BatchSampler
from pipeline.transforms.deferred import DRAWN, DrawnPatch
from pipeline.transforms.elastic import (
    control_shape,
    max_std_mm,
    sample_control_vectors,
    unet_2015,
    unet_2015_max_std_mm,
)
from pipeline.transforms.foreground import foreground_voxels
from pipeline.transforms.item_grid import SPACING_MM, shape_and_spacing_mm
from pipeline.transforms.patch_map import SpatialPatchParameters, patch_map
from pipeline.transforms.patch_place import margins, patch_start
from pipeline.transforms.patch_sampling import PatchSampler
from pipeline.transforms.patch_window import Window
from pipeline.transforms.resampling import compiled_loop
from pipeline.transforms.spatial_ranges import angle_ranges, confined, scaling_ranges

logger = logging.getLogger(__name__)

Range = float | Sequence[float]


class RandSpatialPatchd(Randomizable, MapTransform):
    """Pick a patch, and rotate, shear, scale, flip and elastically deform it, in millimetres and degrees, in 2D or 3D.

    Only the voxels that the patch needs are read, and every channel is interpolated once (linearly), as is the mask of
    every class of a label, of which each voxel gets the largest. A patch for which neither the affine nor the elastic
    part is drawn is an exact crop. Beyond the volume it goes on mirrored, as often as needed, as in inference.

    For a network that loses a margin, ``margin`` places the part of the patch that it labels: that part lies inside the
    volume, and the margin around it holds what really surrounds it, mirrored only beyond the volume (the overlap-tile
    strategy of Ronneberger et al., MICCAI 2015).

    What was drawn is recorded in the patch, as text, under ``parameters_key``: `replay` makes the same patch from it,
    and `pipeline.transforms.put_back` brings a patch, or its prediction, back onto the volume's grid.

    A call gives one patch of one case, or ``num_samples`` of them, and an epoch of `pipeline.data.EpochSampler` has
    every case once: cases are balanced, whatever their size, and within a case its classes.

    The result holds plain tensors: a patch has no grid of its own to go back to, and a MetaTensor costs more time per
    intensity transform and per collated batch than a small patch's interpolation. Its voxel size stands under
    ``"spacing_mm"``. Other entries of the item are passed on.

    `defer` and `apply` are a call in two halves, for batches that are made at once, see `AugmentationChain`.

    Args:
        keys: image (C, H, W, D) with an affine, and label (1, H, W, D), on one grid; of sections (C, H, W), (1, H, W).
            Further keys, such as a weight map, are interpolated like the image.
        patch_size: voxels per axis, margin included; their number, 2 or 3, is that of the axes everywhere below.
        label_key: which key is looked up instead of interpolated, and whose classes patches are centred on.
        num_samples: patches per call; one is returned as a dict, several as a list of them.
        foreground_share: probability that the patch's centre is a voxel of a class: each class that is present is
            equally likely, then each of its voxels. Otherwise the patch lies anywhere inside the volume.
        affine_probability: of rotation, shear and scaling, together.
        rotation_degrees: about the three array axes: one limit for all, or per axis a limit (from -limit to limit) or
            (low, high). ``(0, 0, 30)`` confines it to the plane of the first two axes. In 2D one limit, or a list with
            one (low, high).
        scaling: (low, high) for all axes, or one pair per axis; drawn for each axis on its own.
        shear_degrees: angles of the shears of x with y, x with z and y with z, given as for ``rotation_degrees``.
        confine_thick_slices: where slices are more than 3 times as thick as their pixels are wide, turn and shear out
            of the slice's plane by at most 5 degrees, whatever the ranges say: what lies between slices is not known.
        flip_axes: axes that may be mirrored, each with ``flip_probability``.
        elastic_probability: of elastic deformation.
        elastic: ``"bspline"``, or in 2D ``"unet_2015"``: 3 x 3 random vectors over the patch, with bicubic
            interpolation, for which the paper has an ``elastic_std_mm`` of 10 pixels; see
            `pipeline.transforms.elastic`.
        elastic_spacing_mm: distance of the B-splines' control points, one for all axes or one per axis.
        elastic_std_mm: standard deviation of the displacement (of the vectors under ``"unet_2015"``): a number, or
            (low, high) from which it is drawn.
        margin: voxels per side of the patch that the network needs around what it labels: one number, or one per axis.
        padding_mode: ``"mirror"`` or ``"edge"``.
        label_interpolation: ``"majority"``, the class of the largest linearly interpolated mask, or ``"nearest"``, the
            nearest voxel, whose error is larger: 1 - Dice to a deformed sphere is 0.0184 for nearest and 0.0111 for
            majority at a radius of 20 mm and 1 mm voxels, 0.0518 and 0.0404 at 5 mm slices.
        parameters_key: where the drawn parameters go; None for nowhere.
        foreground_key: where `ForegroundIndicesd` left the voxels of each class; without it the label is searched at
            each call, which is right but slow.

    Raises:
        ConfigError: contradicting arguments, such as a displacement that the control spacing can't give without
            folding.
    """

    leaves_input_untouched = True

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        *,
        patch_size: Sequence[int],
        label_key: str = "label",
        num_samples: int = 1,
        foreground_share: float = 0.5,
        affine_probability: float = 0.5,
        rotation_degrees: Range | Sequence[Range] = 15.0,
        scaling: Sequence[float] | Sequence[Sequence[float]] = (0.85, 1.15),
        flip_axes: Sequence[int] = (),
        flip_probability: float = 0.5,
        elastic_probability: float = 0.3,
        elastic_spacing_mm: Range = 32.0,
        elastic_std_mm: Range = (0.0, 2.0),
        padding_mode: str = "mirror",
        foreground_key: str = "foreground",
        elastic: str = "bspline",
        margin: int | Sequence[int] = 0,
        shear_degrees: Range | Sequence[Range] = 0.0,
        confine_thick_slices: bool = True,
        label_interpolation: str = "majority",
        parameters_key: str | None = "spatial_parameters",
        allow_missing_keys: bool = True,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.patch_size = tuple(int(size) for size in patch_size)
        dims = self.dims = len(self.patch_size)
        if dims not in (2, 3) or min(self.patch_size) < 1:
            raise ConfigError(f"patch_size={list(patch_size)}", expected="two or three positive numbers")
        self.margin = margins(margin, self.patch_size)
        if num_samples < 1:
            raise ConfigError(f"num_samples={num_samples}", expected="at least 1")
        if padding_mode not in ("mirror", "edge"):
            raise ConfigError(f"padding_mode={padding_mode!r}", expected="mirror or edge")
        if any(axis not in range(dims) for axis in flip_axes):
            raise ConfigError(
                f"flip_axes={list(flip_axes)}", expected=f"axes out of {', '.join(map(str, range(dims)))}"
            )
        if elastic not in ("bspline", "unet_2015") or (elastic == "unet_2015" and dims != 2):
            raise ConfigError(f"elastic={elastic!r} in {dims}D", expected="bspline, or in 2D unet_2015")
        shares = (foreground_share, affine_probability, flip_probability, elastic_probability)
        if not all(0 <= share <= 1 for share in shares):
            raise ConfigError(f"probabilities {shares}", expected="between 0 and 1")
        if label_interpolation not in ("nearest", "majority"):
            raise ConfigError(f"label_interpolation={label_interpolation!r}", expected="nearest or majority")
        self.label_interpolation, self.parameters_key = label_interpolation, parameters_key
        # In the process that makes data loaders' workers, so that they need not load it each.
        compiled_loop()
        self.label_key, self.foreground_key, self.num_samples = label_key, foreground_key, int(num_samples)
        self.foreground_share, self.affine_probability = foreground_share, affine_probability
        self.flip_axes, self.flip_probability = tuple(flip_axes), flip_probability
        self.elastic_probability, self.padding_mode = elastic_probability, padding_mode
        self.rotation_degrees = angle_ranges("rotation_degrees", rotation_degrees, dims)
        self.shear_degrees = angle_ranges("shear_degrees", shear_degrees, dims)
        if any(abs(angle) >= 60 for limits in self.shear_degrees for angle in limits):
            raise ConfigError(f"shear_degrees={shear_degrees}", expected="less than 60 degrees")
        self.confine_thick_slices = confine_thick_slices
        self.scaling = scaling_ranges(scaling, dims)
        self.elastic = elastic
        spacing = np.broadcast_to(np.asarray(elastic_spacing_mm, dtype=float), dims)
        self.elastic_spacing_mm = tuple(float(value) for value in spacing)
        low, high = np.broadcast_to(np.asarray(elastic_std_mm, dtype=float), 2).tolist()
        self.elastic_std_mm = (low, high)
        if elastic == "unet_2015":
            limit, apart = unet_2015_max_std_mm(self.patch_size), f"patches of {list(self.patch_size)}"
        else:
            limit = max_std_mm(max(0.0, min(self.elastic_spacing_mm)), dims)
            apart = f"elastic_spacing_mm={elastic_spacing_mm}"
        if not 0 <= low <= high <= limit:
            raise ConfigError(
                f"elastic_std_mm={elastic_std_mm} with {apart}",
                expected=f"0 to {limit:.2f} mm: more would fold the image",
                fix="set the control points further apart, or displace less",
            )

    def randomize(
        self, shape: Sequence[int], spacing_mm: Sequence[float], foreground: Mapping[int, np.ndarray]
    ) -> SpatialPatchParameters:
        """Draw one patch.

        Args:
            shape: of the volume, (H, W, D) or (H, W).
            spacing_mm: its voxel size.
            foreground: class -> (N, axes) voxels, as `foreground_voxels` gives them.
        """
        start = patch_start(self.R, shape, self.patch_size, self.margin, foreground, self.foreground_share)
        flips = [axis in self.flip_axes and bool(self.R.rand() < self.flip_probability) for axis in range(self.dims)]
        rotation: tuple[float, ...] = (0.0,) * len(self.rotation_degrees)
        shear = rotation
        scaling: tuple[float, ...] = (1.0,) * self.dims
        control, control_spacing_mm = None, self.elastic_spacing_mm if self.elastic == "bspline" else None
        if self.R.rand() < self.affine_probability:
            turns, shears = list(self.rotation_degrees), list(self.shear_degrees)
            if self.confine_thick_slices and self.dims == 3:
                turns = confined(turns, spacing_mm, ((1, 2), (0, 2), (0, 1)))
                shears = confined(shears, spacing_mm, ((0, 1), (0, 2), (1, 2)))
            rotation = tuple(self.R.uniform(low, high) for low, high in turns)
            if any(low != 0 or high != 0 for low, high in shears):
                shear = tuple(self.R.uniform(low, high) for low, high in shears)
            scaling = tuple(self.R.uniform(low, high) for low, high in self.scaling)
        if self.R.rand() < self.elastic_probability:
            std_mm = self.R.uniform(*self.elastic_std_mm)
            if self.elastic == "unet_2015":
                control = unet_2015(self.R, self.patch_size, spacing_mm, std_mm)
            else:
                points = control_shape(self.patch_size, spacing_mm, self.elastic_spacing_mm)
                control = sample_control_vectors(self.R, points, std_mm, self.elastic_spacing_mm)
        return SpatialPatchParameters(start, tuple(flips), rotation, scaling, control, control_spacing_mm, shear)

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self._patches(data, self._sample)

    def defer(self, data: Mapping[Hashable, Any]) -> Any:
        """Draw what a call draws, and make no patch: the item (or items) with the windows that `apply` needs.

        Each volume's entry is the part of it that the patch looks at; `DRAWN` is added, see `DrawnPatch`.
        """
        return self._patches(data, self._windows)

    def apply(
        self,
        boxes: Mapping[Hashable, Sequence[torch.Tensor]],
        patches: Sequence[DrawnPatch],
        device: torch.device,
    ) -> dict[Hashable, torch.Tensor]:
        """Make the patches of a batch of deferred items, on a device.

        Args:
            boxes: key -> per item what lies in its window.
            patches: what was drawn for each item.

        Returns:
            key -> (B, C, *patch_size): on a CPU the numbers that calls give, elsewhere the same up to rounding.
        """
        sampler = BatchSampler(patches, self.patch_size, device)
        return {key: sampler(parts, self._interpolation(key)) for key, parts in boxes.items()}

    def _patches(self, data: Mapping[Hashable, Any], make: Callable[..., dict[Hashable, Any]]) -> Any:
        item = {key: value for key, value in data.items() if key != self.foreground_key}
        volumes = self._volumes(item)
        shape, spacing_mm = shape_and_spacing_mm(item, volumes, self.dims)
        foreground = data.get(self.foreground_key)
        if foreground is None:
            label = volumes.get(self.label_key)
            foreground = {} if label is None else foreground_voxels(label[0].numpy())
        patches = []
        for _ in range(self.num_samples):
            parameters = self.randomize(shape, spacing_mm, foreground)
            patches.append({**item, **make(volumes, parameters, spacing_mm)})
            if self.parameters_key is not None:
                patches[-1][self.parameters_key] = parameters.to_json()
        return patches[0] if self.num_samples == 1 else patches

    def replay(self, data: Mapping[Hashable, Any], parameters: SpatialPatchParameters | str) -> dict[Hashable, Any]:
        """The patch of an item that was once made with these parameters, or another item's with the same.

        Args:
            data: an item as for a call, of any key's volumes.
            parameters: what a patch holds under ``parameters_key``.
        """
        if isinstance(parameters, str):
            parameters = SpatialPatchParameters.from_json(parameters)
        item = {key: value for key, value in data.items() if key != self.foreground_key}
        volumes = self._volumes(item)
        patch = {**item, **self._sample(volumes, parameters, shape_and_spacing_mm(item, volumes, self.dims)[1])}
        return patch if self.parameters_key is None else {**patch, self.parameters_key: parameters.to_json()}

    def _volumes(self, item: Mapping[Hashable, Any]) -> dict[Hashable, torch.Tensor]:
        present = list(self.key_iterator(dict(item)))
        return {key: item[key].as_tensor() if isinstance(item[key], MetaTensor) else item[key] for key in present}

    def _sample(
        self, volumes: Mapping[Hashable, torch.Tensor], parameters: SpatialPatchParameters, spacing_mm: Sequence[float]
    ) -> dict[Hashable, Any]:
        shape = next(iter(volumes.values())).shape[1:]
        sampler = PatchSampler(parameters, self.patch_size, spacing_mm, shape, self.padding_mode)
        patch = {key: sampler(volume, self._interpolation(key)) for key, volume in volumes.items()}
        return {**patch, SPACING_MM: torch.tensor(spacing_mm, dtype=torch.float64)}

    def _windows(
        self, volumes: Mapping[Hashable, torch.Tensor], parameters: SpatialPatchParameters, spacing_mm: Sequence[float]
    ) -> dict[Hashable, Any]:
        shape = next(iter(volumes.values())).shape[1:]
        if parameters.is_crop:
            window = Window.of_crop(parameters, self.patch_size, shape, self.padding_mode)
        else:
            window = Window.of_map(patch_map(parameters, self.patch_size, spacing_mm), shape, self.padding_mode)
        # Copies: a worker would send the whole volume that a view is of.
        boxes = {
            key: window.read(volume).clone(memory_format=torch.contiguous_format) for key, volume in volumes.items()
        }
        drawn = DrawnPatch(parameters, tuple(spacing_mm), window, tuple(volumes))
        return {**boxes, SPACING_MM: torch.tensor(spacing_mm, dtype=torch.float64), DRAWN: drawn}

    def _interpolation(self, key: Hashable) -> str:
        return self.label_interpolation if key == self.label_key else "linear"
