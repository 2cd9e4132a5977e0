"""Surface measures of a case: this package against MONAI and SimpleITK, in one run, on synthetic pairs.

    python benchmarks/metrics.py [--repeats 10] [--large]

Prints one JSON object per pair and peer: milliseconds of both (the best of the repeats), how many times longer the peer
takes, what the peer computes in that time, and the largest difference of those values in mm. Here one call of
``measure_case`` gives overlap, volumes and all four surface measures of all classes. ``--large`` adds a CT of
five organs.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from pipeline.metrics import measure_case

# shape, spacing in mm, ellipsoids (centre, radii) of the classes in voxels
PAIRS = {
    "hippocampus, two classes": (
        (40, 56, 40),
        (1.0, 1.0, 1.0),
        [((20, 20, 20), (8, 14, 7)), ((20, 38, 20), (7, 12, 8))],
    ),
    "perfusion, one lesion": ((150, 130, 16), (1.0, 1.0, 6.5), [((60, 70, 8), (22, 18, 4))]),
}
LARGE = {
    "CT, five organs": (
        (512, 512, 300),
        (0.8, 0.8, 1.5),
        [
            ((200, 200, 120), (70, 60, 50)),
            ((330, 260, 150), (30, 40, 40)),
            ((150, 340, 200), (25, 20, 30)),
            ((300, 150, 220), (40, 22, 21)),
            ((256, 400, 90), (20, 20, 20)),
        ],
    )
}


def label_map(shape, ellipsoids, shift: float = 0.0, grow: float = 1.0) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint8)
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij", sparse=True)
    for class_id, (centre, radii) in enumerate(ellipsoids, start=1):
        scaled = (((x - c - shift) / (r * grow)) ** 2 for x, c, r in zip(axes, centre, radii, strict=True))
        labels[sum(scaled) < 1] = class_id
    return labels


def best_ms(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The shortest time of each call; they take turns, so that a busy machine slows all of them."""
    times = np.empty((repeats, len(calls)))
    for repeat in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            times[repeat, i] = 1000 * (time.perf_counter() - start)
    return times.min(axis=0).tolist()


def monai_measures(prediction, reference, spacing_mm, num_classes) -> np.ndarray:
    """(K, 2): Hausdorff distance and its 95th percentile; the average surface distance is computed along, as above."""
    one_hot = [
        torch.stack([torch.from_numpy(labels == k) for k in range(num_classes + 1)])[None].float()
        for labels in (prediction, reference)
    ]
    found = [compute_hausdorff_distance(*one_hot, spacing=list(spacing_mm), percentile=p)[0] for p in (None, 95)]
    compute_average_surface_distance(*one_hot, symmetric=True, spacing=list(spacing_mm))
    return torch.stack(found, dim=1).numpy()


def sitk_measures(prediction, reference, spacing_mm, num_classes) -> np.ndarray:
    """(K, 1): Hausdorff distance."""
    images = []
    for labels in (prediction, reference):
        image = sitk.GetImageFromArray(labels.transpose(2, 1, 0))
        image.SetSpacing(spacing_mm)
        images.append(image)
    measure = sitk.HausdorffDistanceImageFilter()
    distances = []
    for class_id in range(1, num_classes + 1):
        measure.Execute(images[0] == class_id, images[1] == class_id)
        distances.append([measure.GetHausdorffDistance()])
    return np.array(distances)


PEERS = {
    "MONAI": (monai_measures, ("hausdorff_mm", "hausdorff_95_mm"), "Hausdorff, Hausdorff 95, average distance"),
    "SimpleITK": (sitk_measures, ("hausdorff_mm",), "Hausdorff"),
}


def compare(name: str, shape, spacing_mm, ellipsoids, repeats: int) -> None:
    reference, prediction = label_map(shape, ellipsoids), label_map(shape, ellipsoids, shift=0.6, grow=1.04)
    classes = {k: str(k) for k in range(1, len(ellipsoids) + 1)}

    results = measure_case(prediction, reference, spacing_mm, classes)
    for peer, (measure, fields, computes) in PEERS.items():
        values = measure(prediction, reference, spacing_mm, len(classes))
        own = np.array([[getattr(result, field) for field in fields] for result in results])
        calls = (
            partial(measure_case, prediction, reference, spacing_mm, classes),
            partial(measure, prediction, reference, spacing_mm, len(classes)),
        )
        own_ms, peer_ms = best_ms(calls, repeats)
        line = {
            "pair": name,
            "peer": peer,
            "peer_computes": computes,
            "ours_ms": round(own_ms, 2),
            "peer_ms": round(peer_ms, 2),
            "ratio": round(peer_ms / own_ms, 1),
            "largest_difference_mm": float(f"{np.abs(values - own).max():.2g}"),
        }
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    # MONAI 1.6 warns about an argument that it hands to itself.
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
    for name, pair in PAIRS.items():
        compare(name, *pair, repeats=arguments.repeats)
    if arguments.large:
        for name, pair in LARGE.items():
            compare(name, *pair, repeats=2)


if __name__ == "__main__":
    main()
