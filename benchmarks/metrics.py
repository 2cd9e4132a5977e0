"""Surface measures of a case: this package against its peers, in one run, on synthetic pairs.

    python benchmarks/metrics.py [--repeats 10] [--large]

Peers are MONAI and SimpleITK, and where they are installed DeepMind's surface-distance (PyPI:
surface-distance-based-measures) and MedPy. Prints one JSON object per pair and peer: milliseconds of both (the best of
the repeats), how many times longer the peer takes by the clock and in processor time (which a machine that others use
at the same time distorts less), what the peer computes in that time, and the largest difference of those values in mm:
0 but for rounding where the definitions agree. DeepMind's weights surface elements by their area, and they lie between
the voxels, so that its figures are others. Here one call of ``measure_case`` gives overlap, volumes, lesions and all
four surface measures of all classes; its peak memory stands beside that of the two label maps. ``--large`` adds a CT of
five organs.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

from pipeline.metrics import measure_case

# shape, spacing in mm, blobs (centre, radii) of the classes in voxels
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
            ((190, 230, 200), (95, 75, 55)),
            ((360, 280, 205), (35, 45, 40)),
            ((330, 320, 140), (25, 27, 40)),
            ((180, 320, 135), (25, 27, 40)),
            ((256, 400, 150), (14, 14, 120)),
        ],
    )
}


def label_map(shape, blobs, shift: int = 0, seed: int = 0) -> np.ndarray:
    """Ellipsoids with smoothly uneven surfaces: 15% of the radius, another unevenness for each seed."""
    labels = np.zeros(shape, dtype=np.uint8)
    for class_id, (centre, radii) in enumerate(blobs, start=1):
        box = tuple(
            slice(max(0, int(c + shift - 1.4 * r) - 1), min(size, int(c + shift + 1.4 * r) + 2))
            for c, r, size in zip(centre, radii, shape, strict=True)
        )
        axes = np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij", sparse=True)
        distance = np.sqrt(sum(((x - c - shift) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)))
        noise = np.random.default_rng(100 * seed + class_id).normal(size=(5, 5, 5))
        uneven = ndimage.zoom(noise, np.array(distance.shape) / 5, order=1)
        labels[box][distance < 1 + 0.15 * uneven] = class_id
    return labels


def best_ms(calls: Sequence[Callable[[], object]], repeats: int) -> tuple[list[float], list[float]]:
    """The shortest time of each call, by the clock and of the processor (all threads); they take turns, so that a busy
    machine slows all of them."""
    wall, processor = np.empty((2, repeats, len(calls)))
    for repeat in range(repeats):
        for i, call in enumerate(calls):
            start, used = time.perf_counter(), time.process_time()
            call()
            wall[repeat, i] = 1000 * (time.perf_counter() - start)
            processor[repeat, i] = 1000 * (time.process_time() - used)
    return wall.min(axis=0).tolist(), processor.min(axis=0).tolist()


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


def deepmind_measures(prediction, reference, spacing_mm, num_classes) -> np.ndarray:
    """(K, 2): Hausdorff distance and its 95th percentile; average distance and surface Dice are computed along."""
    import surface_distance as peer

    found = []
    for class_id in range(1, num_classes + 1):
        distances = peer.compute_surface_distances(reference == class_id, prediction == class_id, spacing_mm)
        found.append([peer.compute_robust_hausdorff(distances, percent) for percent in (100, 95)])
        peer.compute_average_surface_distance(distances)
        peer.compute_surface_dice_at_tolerance(distances, 1.0)
    return np.array(found)


def medpy_measures(prediction, reference, spacing_mm, num_classes) -> np.ndarray:
    """(K, 1): Hausdorff distance."""
    from medpy.metric import binary

    return np.array([[binary.hd(prediction == k, reference == k, spacing_mm)] for k in range(1, num_classes + 1)])


PEERS = {
    "MONAI": (monai_measures, ("hausdorff_mm", "hausdorff_95_mm"), "Hausdorff, Hausdorff 95, average distance"),
    "SimpleITK": (sitk_measures, ("hausdorff_mm",), "Hausdorff"),
}
if find_spec("surface_distance"):
    PEERS["DeepMind"] = (deepmind_measures, ("hausdorff_mm", "hausdorff_95_mm"), "all four, weighted by area")
if find_spec("medpy"):
    PEERS["MedPy"] = (medpy_measures, ("hausdorff_mm",), "Hausdorff")


def compare(name: str, shape, spacing_mm, blobs, repeats: int) -> None:
    reference, prediction = label_map(shape, blobs), label_map(shape, blobs, shift=1, seed=1)
    classes = {k: str(k) for k in range(1, len(blobs) + 1)}

    results = measure_case(prediction, reference, spacing_mm, classes)
    tracemalloc.start()
    measure_case(prediction, reference, spacing_mm, classes)
    peak = tracemalloc.get_traced_memory()[1] / (prediction.nbytes + reference.nbytes)
    tracemalloc.stop()
    for peer, (measure, fields, computes) in PEERS.items():
        values = measure(prediction, reference, spacing_mm, len(classes))
        own = np.array([[getattr(result, field) for field in fields] for result in results])
        calls = (
            partial(measure_case, prediction, reference, spacing_mm, classes),
            partial(measure, prediction, reference, spacing_mm, len(classes)),
        )
        (own_ms, peer_ms), (own_cpu_ms, peer_cpu_ms) = best_ms(calls, repeats)
        line = {
            "pair": name,
            "peer": peer,
            "peer_computes": computes,
            "ours_ms": round(own_ms, 2),
            "peer_ms": round(peer_ms, 2),
            "ratio": round(peer_ms / own_ms, 1),
            "ratio_of_processor_time": round(peer_cpu_ms / own_cpu_ms, 1),
            "largest_difference_mm": float(f"{np.abs(values - own).max():.2g}"),
            "our_peak_memory_of_the_two_maps": round(peak, 2),
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
