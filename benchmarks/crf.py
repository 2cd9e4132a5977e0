"""The dense CRF: how close to brute force, and how fast beside its peers, in one run.

    python benchmarks/crf.py

First the mean field over all pairs of voxels, in float64, against `pipeline.inference.dense_crf` on small random
cases; then seconds on a section and a volume, beside pydensecrf (the authors' code) and MONAI's CRF layer where they
are installed (MONAI's needs its compiled extensions, ``BUILD_MONAI=1``). A ratio above 1 says how many times faster
ours is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax

from pipeline.inference import dense_crf

SETTINGS = {
    "smoothness_weight": 3.0,
    "smoothness_mm": 3.0,
    "appearance_weight": 4.0,
    "appearance_mm": 10.0,
    "appearance_intensity": 0.5,
    "iterations": 5,
}


def case(size: tuple[int, ...], channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random regions of three classes, an image of them, and logits with as much noise as signal."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((1, 3, *(max(2, n // 8) for n in size))))
    mode = "bilinear" if len(size) == 2 else "trilinear"
    regions = torch.nn.functional.interpolate(coarse, size, mode=mode, align_corners=True)[0].numpy()
    truth = regions.argmax(0)
    image = np.stack([truth * (1 - 2 * (c % 2)) + 0.2 * rng.standard_normal(size) for c in range(channels)])
    logits = 2.0 * (np.arange(3).reshape(3, *[1] * len(size)) == truth) + rng.standard_normal((3, *size))
    return logits.astype(np.float32), image.astype(np.float32)


def brute_force(logits: np.ndarray, image: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    size, n = logits.shape[1:], logits[0].size
    mm = np.stack(np.meshgrid(*(np.arange(s) * d for s, d in zip(size, spacing_mm, strict=True)), indexing="ij"), -1)
    positions, colours = mm.reshape(n, -1), image.reshape(len(image), n).T
    apart = cdist(positions, positions, "sqeuclidean")
    unlike = cdist(colours, colours, "sqeuclidean") / SETTINGS["appearance_intensity"] ** 2
    total = np.zeros((n, n))
    for weight, kernel in (
        (SETTINGS["smoothness_weight"], np.exp(-apart / SETTINGS["smoothness_mm"] ** 2 / 2)),
        (SETTINGS["appearance_weight"], np.exp(-(apart / SETTINGS["appearance_mm"] ** 2 + unlike) / 2)),
    ):
        sums = np.sqrt(kernel.sum(1))
        total += weight * kernel / sums[:, None] / sums
    unary = log_softmax(logits.reshape(3, n).astype(np.float64), axis=0)
    probabilities = np.exp(unary)
    for _ in range(int(SETTINGS["iterations"])):
        probabilities = softmax(unary + probabilities @ total, axis=0)
    return probabilities.reshape(logits.shape)


def errors() -> None:
    print("against brute force over all pairs, 5 cases each:")
    print(f"{'':28}{'mean |dp|':>11}{'99th |dp|':>11}{'same label':>12}{'before the CRF':>16}")
    for size, spacing_mm, channels in (
        ((48, 48), (1.0, 1.0), 1),
        ((48, 48), (1.0, 1.0), 3),
        ((16, 16, 9), (1.0, 1.0, 3.0), 1),
        ((16, 16, 9), (1.0, 1.0, 3.0), 3),
    ):
        rows = []
        for seed in range(5):
            logits, image = case(size, channels, seed)
            exact = brute_force(logits, image, spacing_mm)
            ours = np.exp(dense_crf(logits, image, spacing_mm, **SETTINGS))  # type: ignore[arg-type]
            difference = np.abs(ours - exact)
            same = (ours.argmax(0) == exact.argmax(0)).mean()
            before = (logits.argmax(0) == exact.argmax(0)).mean()
            rows.append((difference.mean(), np.quantile(difference, 0.99), same, before))
        mean, high, same, before = np.mean(rows, axis=0)
        print(
            f"{'x'.join(map(str, size))}, {channels} channels {'':8}{mean:11.4f}{high:11.3f}{same:12.4f}{before:16.3f}"
        )


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def of_the_authors(logits: np.ndarray, image: np.ndarray, spacing_mm: tuple[float, ...]) -> Callable[[], object]:
    import pydensecrf.densecrf as peer
    from pydensecrf.utils import create_pairwise_bilateral, create_pairwise_gaussian, unary_from_softmax

    sigmas = [SETTINGS["smoothness_mm"] / mm for mm in spacing_mm]
    wide = [SETTINGS["appearance_mm"] / mm for mm in spacing_mm]
    colours = [SETTINGS["appearance_intensity"]] * len(image)

    def run() -> object:
        crf = peer.DenseCRF(logits[0].size, len(logits))
        crf.setUnaryEnergy(unary_from_softmax(softmax(logits, axis=0)))
        crf.addPairwiseEnergy(create_pairwise_gaussian(sigmas, logits.shape[1:]), SETTINGS["smoothness_weight"])
        bilateral = create_pairwise_bilateral(wide, colours, image, chdim=0)
        crf.addPairwiseEnergy(bilateral, SETTINGS["appearance_weight"])
        return np.array(crf.inference(int(SETTINGS["iterations"])))

    return run


def of_monai(logits: np.ndarray, image: np.ndarray) -> Callable[[], object]:
    from monai.networks.blocks import CRF

    layer = CRF(
        iterations=int(SETTINGS["iterations"]),
        bilateral_weight=SETTINGS["appearance_weight"],
        gaussian_weight=SETTINGS["smoothness_weight"],
        bilateral_spatial_sigma=SETTINGS["appearance_mm"],
        bilateral_color_sigma=SETTINGS["appearance_intensity"],
        gaussian_spatial_sigma=SETTINGS["smoothness_mm"],
    )
    x, features = torch.from_numpy(logits)[None], torch.from_numpy(image)[None]
    return lambda: layer(x, features)


def speed() -> None:
    print("seconds, three classes, one channel, 5 iterations:")
    for size, spacing_mm in (((512, 512), (1.0, 1.0)), ((96, 96, 48), (1.0, 1.0, 2.0))):
        logits, image = case(size, 1, 0)
        ours = seconds(lambda x=logits, i=image, mm=spacing_mm: dense_crf(x, i, mm, **SETTINGS))  # type: ignore[misc]
        line = f"{'x'.join(map(str, size))}: ours {ours:.2f}"
        if find_spec("pydensecrf"):
            run = of_the_authors(logits, image, spacing_mm)
            same = np.asarray(run()).argmax(0).reshape(size) == dense_crf(logits, image, spacing_mm, **SETTINGS).argmax(
                0
            )  # type: ignore[arg-type]
            peer = seconds(run)
            line += f", pydensecrf {peer:.2f} (ratio {peer / ours:.2f}, {same.mean():.4f} of the labels the same)"
        if find_spec("monai._C"):
            peer = seconds(of_monai(logits, image))
            line += f", MONAI {peer:.2f} (ratio {peer / ours:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    errors()
    speed()
