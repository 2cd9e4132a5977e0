"""A random deformed patch with its label: `RandSpatialPatchd` against MONAI, TorchIO, batchgeneratorsv2, elasticdeform.

    python benchmarks/augmentation.py [--sizes 96 128] [--repeats 3] [--threads 2] [--only ours monai]

Out of a volume of 256 x 256 x 160 voxels with 3 channels and a label, in memory: rotation up to 15 degrees about every
axis, scaling 0.85 to 1.15, a smooth elastic displacement of some voxels, linear for the image. Peers that deform what
they are given get a patch 1.3 times as large first, and its middle is cut out, except where that is not possible; those
that are not installed are left out. All take turns, and the best of each counts (the least disturbed).

Prints one JSON line per size and implementation: seconds, ``speedup`` = seconds / ours, and ``agree``, the share of
voxels at which the label and a channel that was the label before agree. Limits: one ``grid_sample`` of the same size
with its grid at hand, and a plain copy of the patch.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from monai.data import MetaTensor

from pipeline.transforms import RandSpatialPatchd, SpatialPatchParameters, resampling, sample_patch
from pipeline.transforms.elastic import control_shape, sample_control_vectors
from pipeline.transforms.patch_map import source_coordinates

SHAPE = (256, 256, 160)
KEYS = ["image", "label"]
RANDOM = np.random.default_rng(0)
TURN = 15 * math.pi / 180
Case = tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]
Patch = tuple[torch.Tensor, torch.Tensor]


def volume() -> Patch:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.randn(1, 1, 16, 16, 10, generator=generator), size=SHAPE, mode="trilinear"
    )[0]
    label = (smooth > 0.5).to(torch.uint8) + (smooth > 1.0).to(torch.uint8)
    image = torch.randn(3, *SHAPE, generator=generator)
    image[2] = label[0] > 0
    return image, label


def ours(case: Case) -> Callable[[], Patch]:
    image, label, size = case
    transform = RandSpatialPatchd(
        KEYS, patch_size=size, foreground_share=0.0, affine_probability=1.0, rotation_degrees=15.0,
        scaling=(0.85, 1.15), elastic_probability=1.0, elastic_spacing_mm=32.0, elastic_std_mm=2.0,
    )  # fmt: skip
    affine = torch.eye(4, dtype=torch.float64)
    item = {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine), "foreground": {}}

    def call() -> Patch:
        patch = transform(item)
        return patch["image"], patch["label"]

    return call


def ours_by_torch(case: Case) -> Callable[[], Patch]:
    image, label, size = case
    drawn = parameters(size)

    def call() -> Patch:
        options = {"patch_size": size, "spacing_mm": (1.0, 1.0, 1.0), "compiled": False}
        looked_up = sample_patch(label, drawn, interpolation="nearest", **options)
        return sample_patch(image, drawn, **options), looked_up

    return call


def parameters(size: tuple[int, ...]) -> SpatialPatchParameters:
    control_mm = (32.0,) * 3
    random = np.random.RandomState(0)
    control = sample_control_vectors(random, control_shape(size, (1.0,) * 3, control_mm), 2.0, control_mm)
    start = tuple((whole - part) // 2 for whole, part in zip(SHAPE, size, strict=True))
    return SpatialPatchParameters(start, (False,) * 3, (8, -10, 12), (0.9, 1.1, 1.0), control, control_mm)


def monai_elastic(case: Case) -> Callable[[], Patch]:
    from monai.transforms import Rand3DElasticd

    image, label, size = case
    shift = [(whole - part) / 2 for whole, part in zip(SHAPE, size, strict=True)]
    transform = Rand3DElasticd(
        KEYS, sigma_range=(9, 13), magnitude_range=(100, 200), prob=1.0, spatial_size=size, rotate_range=[TURN] * 3,
        scale_range=[0.15] * 3, translate_range=shift, mode=("bilinear", "nearest"), padding_mode="zeros",
    )  # fmt: skip
    return _of_dictionary(transform, image, label)


def monai_affine_and_grid(case: Case) -> Callable[[], Patch]:
    from monai.transforms import CenterSpatialCropd, Compose, RandAffined, RandGridDistortiond, RandSpatialCropd

    image, label, size = case
    options = {"prob": 1.0, "mode": ("bilinear", "nearest"), "padding_mode": "zeros"}
    steps = [
        RandSpatialCropd(KEYS, _larger(size), random_size=False),
        RandAffined(KEYS, rotate_range=[TURN] * 3, scale_range=[0.15] * 3, **options),
        RandGridDistortiond(KEYS, num_cells=5, distort_limit=0.1, **options),
        CenterSpatialCropd(KEYS, size),
    ]
    return _of_dictionary(Compose(steps), image, label)


def torchio_elastic_and_affine(case: Case) -> Callable[[], Patch]:
    import torchio

    image, label, size = case
    transform = torchio.Compose(
        [
            torchio.RandomElasticDeformation(num_control_points=7, max_displacement=8),
            torchio.RandomAffine(scales=0.15, degrees=15),
            torchio.CropOrPad(size),
        ]
    )

    def call() -> Patch:
        box = _random_box(_larger(size))
        subject = torchio.Subject(
            image=torchio.ScalarImage(tensor=image[box].contiguous()),
            label=torchio.LabelMap(tensor=label[box].contiguous()),
        )
        result = transform(subject)
        return result.image.data, result.label.data

    return call


def batchgenerators(case: Case) -> Callable[[], Patch]:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    image, label, size = case
    transform = SpatialTransform(
        size, [part / 2 for part in size], True, p_elastic_deform=1, elastic_deform_scale=(0.1, 0.2),
        elastic_deform_magnitude=(4, 8), p_rotation=1, rotation=(-TURN, TURN), p_scaling=1, scaling=(0.85, 1.15),
        p_synchronize_scaling_across_axes=1,
    )  # fmt: skip
    segmentation = label.to(torch.int16)

    def call() -> Patch:
        result = transform(image=image, segmentation=segmentation)
        return result["image"], result["segmentation"]

    return call


def elastic_deform(case: Case) -> Callable[[], Patch]:
    """Elastic alone: its rotation and zoom are of one axis."""
    import elasticdeform

    image, label, size = case
    arrays = [image.numpy(), label.numpy()]

    def call() -> Patch:
        result = elasticdeform.deform_random_grid(
            arrays, sigma=3, points=[8, 8, 5], order=[1, 0], axis=[(1, 2, 3)] * 2, crop=_random_box(size)[1:]
        )
        return torch.from_numpy(result[0]), torch.from_numpy(result[1])

    return call


def bare_grid_sample(case: Case) -> Callable[[], Patch]:
    image, label, size = case
    where = source_coordinates(parameters(size), size, (1.0, 1.0, 1.0))
    scale = torch.tensor([2 / (whole - 1) for whole in SHAPE]).reshape(3, 1, 1, 1)
    grid = torch.stack((where * scale - 1).unbind()[::-1], dim=-1)[None]

    def call() -> Patch:
        return torch.nn.functional.grid_sample(image[None], grid, align_corners=True)[0], label[:, :1]

    return call


def bare_copy(case: Case) -> Callable[[], Patch]:
    image, label, size = case

    def call() -> Patch:
        box = _random_box(size)
        return image[box].contiguous(), label[box].contiguous()

    return call


IMPLEMENTATIONS: dict[str, Callable[[Case], Callable[[], Patch]]] = {
    "ours": ours,
    "ours, by torch": ours_by_torch,
    "limit: grid_sample": bare_grid_sample,
    "limit: copy": bare_copy,
    "batchgeneratorsv2 SpatialTransform": batchgenerators,
    "monai Rand3DElasticd on the patch": monai_elastic,
    "monai RandAffined, RandGridDistortiond": monai_affine_and_grid,
    "elasticdeform": elastic_deform,
    "torchio RandomElasticDeformation, RandomAffine": torchio_elastic_and_affine,
}


def _of_dictionary(transform: Callable, image: torch.Tensor, label: torch.Tensor) -> Callable[[], Patch]:
    def call() -> Patch:
        result = transform({"image": image, "label": label})
        return result["image"], result["label"]

    return call


def _larger(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(whole, int(part * 1.3)) for whole, part in zip(SHAPE, size, strict=True))


def _random_box(size: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [RANDOM.integers(0, whole - part + 1) for whole, part in zip(SHAPE, size, strict=True)]
    return (slice(None), *(slice(start, start + part) for start, part in zip(starts, size, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of the names to run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    torch.set_num_threads(options.threads)
    image, label = volume()
    if resampling.compiled_loop() is None:
        print(json.dumps({"note": "numba does not run here: 'ours' is the torch version"}))
    for size in options.sizes:
        case = (image, label, (size,) * 3)
        calls, missing = {}, []
        for name, make in IMPLEMENTATIONS.items():
            if not name.startswith(tuple(options.only)):
                continue
            try:
                calls[name] = make(case)
            except ImportError as error:
                missing.append(f"{name}: {error}")
        agree, rounds = {}, {name: [] for name in calls}
        for repeat in range(options.repeats + 1):
            for name, call in calls.items():
                # What is quick is called several times: its memory is then at hand, as in training.
                for _ in range(1 if repeat == 0 or rounds[name][0] > 0.3 else 5):
                    began = time.perf_counter()
                    patch = call()
                    rounds[name].append(time.perf_counter() - began)
                if patch[0].shape[1:] == patch[1].shape[1:]:
                    agree[name] = float(((patch[0][2] > 0.5) == (patch[1][0] > 0)).float().mean())
        best = {name: min(seconds) for name, seconds in rounds.items()}
        for name, seconds in best.items():
            row = {"patch": size, "implementation": name, "s": round(seconds, 5)}
            if "ours" in best:
                row["speedup"] = round(seconds / best["ours"], 2)
            if name in agree:
                row["agree"] = round(agree[name], 5)
            print(json.dumps(row), flush=True)
        for name in missing:
            print(json.dumps({"patch": size, "implementation": name, "note": "does not import here"}))


if __name__ == "__main__":
    main()
