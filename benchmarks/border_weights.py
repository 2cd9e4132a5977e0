"""Seconds and ratios: the border weight map against the obvious loop over objects, in one run.

    python benchmarks/border_weights.py FOLDER [--images 80] [--loop 5]

FOLDER holds `labels/*.png` (or the PNG files themselves) whose values are object ids. The loop is one distance
transform of the whole image per object, keeping the two smallest; the ``--loop`` images with the most objects are timed
with it as well, and both maps are compared. A ratio above 1 says how many times faster ours is. Below: made-up sections
and a volume with more objects than any of the images, ours alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from pipeline.transforms.border_weights import border_weights


def by_loop(instances: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """The border term of the map; memory for two distances, not for one per object."""
    nearest = np.full(instances.shape, np.inf)
    second = np.full(instances.shape, np.inf)
    for object_id in np.unique(instances)[1:]:
        distance = ndimage.distance_transform_edt(instances != object_id)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))


def timed(function, *arguments, **options) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - start, result


def grown(shape: tuple[int, ...], number: int, radius: float) -> np.ndarray:
    """Objects of at most ``radius`` around random points."""
    points = np.random.default_rng(0).integers(0, shape, (number, len(shape)))
    ids = np.zeros(shape, np.int32)
    ids[tuple(points.T)] = np.arange(1, number + 1)
    distance, nearest = ndimage.distance_transform_edt(ids == 0, return_indices=True)
    return np.where(distance <= radius, ids[tuple(nearest)], 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--loop", type=int, default=5, help="images timed with the loop as well")
    arguments = parser.parse_args()
    folder = arguments.folder / "labels" if (arguments.folder / "labels").is_dir() else arguments.folder
    files = sorted(folder.glob("*.png"))[: arguments.images]
    labels = {file.stem: np.asarray(Image.open(file)).astype(np.int32) for file in files}
    if not labels:
        parser.error(f"no PNG files in {folder}")
    objects = {name: np.count_nonzero(np.unique(label)) for name, label in labels.items()}

    total, pixels = 0.0, sum(label.size for label in labels.values())
    for label in labels.values():
        total += timed(border_weights, label)[0]
    print(
        f"{len(labels)} images, {sum(objects.values())} objects: {total:.2f} s, {1e9 * total / pixels:.0f} ns per pixel"
    )

    print(f"{'image':22}{'objects':>9}{'loop s':>9}{'ours s':>9}{'ratio':>8}{'difference':>12}")
    for name in sorted(objects, key=lambda name: -objects[name])[: arguments.loop]:
        label = labels[name]
        ours_s, ours = min(
            (timed(border_weights, label, class_weights=None) for _ in range(3)), key=lambda pair: pair[0]
        )
        loop_s, loop = timed(by_loop, label)
        shape = "x".join(map(str, label.shape))
        difference, ratio = np.abs(loop + 1 - ours).max(), loop_s / ours_s
        print(f"{name + ' ' + shape:22}{objects[name]:9}{loop_s:9.3f}{ours_s:9.3f}{ratio:8.1f}{difference:12.1e}")

    for shape, number, radius in (((1024, 1024), 3000, 7.0), ((2048, 2048), 10000, 8.0), ((96, 96, 96), 200, 6.0)):
        seconds, _ = timed(border_weights, grown(shape, number, radius))
        print(f"{'x'.join(map(str, shape)):22}{number:9}{'':9}{seconds:9.3f}")


if __name__ == "__main__":
    main()
