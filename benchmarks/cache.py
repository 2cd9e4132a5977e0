"""Prepared cases: ours on disk and in memory against MONAI's datasets and nnU-Net's preprocessed format.

    python benchmarks/cache.py [--data DATASET --channels mri] [--patch 96 96 64] [--cases 8] [--epochs 8]
                               [--methods ours ours_memory monai_cache monai_persistent nnunet]

Every method prepares the same cases with the same transforms, in two threads where it can, and cuts the same number of
patches, one per case and epoch, without deformation: what is compared is where a prepared case lies. ``nnunet`` is its
own `save_case` and `load_case` (Blosc2, nnunetv2 2.6 or newer; left out where it is not installed), with the prepared
arrays of our transforms. Without ``--data``, cases of three channels of 200 x 200 x 100 voxels are made.

Each row is two processes, the second on what the first left; one JSON line per method: seconds until the first
epoch is through, patches per second in later epochs, the same of the second process, what it takes until its dataset
stands, the peak of memory that is the process's own and cannot be given back (RssAnon, MiB, above what stands after the
imports), and the disk that is taken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose, Orientationd, Spacingd

from pipeline.data import CaseDataset, data_list
from pipeline.geometry import Grid
from pipeline.io import write_volume
from pipeline.transforms import ForegroundIndicesd, LoadImageStackd, NormalizeChannelsd, RandSpatialPatchd

METHODS = ("ours", "ours_memory", "monai_cache", "monai_persistent", "nnunet")
THREADS = 2


def head(channels: list[str]) -> list[Any]:
    return [
        LoadImageStackd(channels=channels),
        Orientationd(["image", "label"], axcodes="RAS", labels=None),
        Spacingd(["image", "label"], pixdim=(1.0, 1.0, 1.0), mode=("bilinear", "nearest")),
        NormalizeChannelsd("image", channels, {name: {"scheme": "z_score"} for name in channels}),
        ForegroundIndicesd(),
    ]


def crop(patch: list[int]) -> RandSpatialPatchd:
    return RandSpatialPatchd(patch_size=patch, affine_probability=0.0, elastic_probability=0.0)


def make_cases(folder: Path, count: int, shape: tuple[int, int, int] = (200, 200, 100)) -> None:
    rng = np.random.default_rng(0)
    grid = Grid(shape, np.diag([1.0, 1.0, 1.0, 1.0]))
    for number in range(count):
        case = folder / f"case{number:03d}"
        case.mkdir(parents=True)
        for channel in ("ct", "pet", "mr"):
            coarse = rng.normal(0, 300, [n // 10 for n in shape]).astype(np.float32)
            image = coarse.repeat(10, 0).repeat(10, 1).repeat(10, 2) + rng.normal(1000, 20, shape)
            write_volume(case / f"{channel}.nii.gz", image.astype(np.int16), grid)
        label = np.zeros(shape, np.uint8)
        label[60:90, 80:120, 30:60] = 1
        write_volume(case / "label.nii.gz", label, grid)


class Blosc2Cases(Dataset):
    """nnU-Net's format, filled by our transforms."""

    def __init__(self, items: list[Any], channels: list[str], patch: list[int], folder: Path) -> None:
        from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

        chain = Compose(head(channels))

        def prepare(item: Any) -> None:
            done = chain(item, threading=True)
            image, label = done["image"].numpy(), done["label"].numpy().astype(np.int16)
            blocks, chunks = comp_blosc2_params(image.shape, patch, image.itemsize)
            label_blocks, label_chunks = comp_blosc2_params(label.shape, patch, label.itemsize)
            properties = {"class_locations": done["foreground"], "shape": image.shape}
            name = str(folder / item["case_id"])
            nnUNetDatasetBlosc2.save_case(
                image, label, properties, name, chunks, blocks, label_chunks, label_blocks
            )  # fmt: skip

        if not folder.is_dir():
            folder.mkdir()
            with ThreadPool(THREADS) as pool:
                pool.map(prepare, items)
        super().__init__(items)
        self.cases, self.patch = nnUNetDatasetBlosc2(str(folder)), patch
        self.place, self.rng = crop(patch), np.random.default_rng(0)

    def __getitem__(self, index: int) -> Any:
        image, label, _, properties = self.cases.load_case(self.data[index]["case_id"])
        shape = image.shape[1:]
        start = self.place.randomize(shape, (1.0, 1.0, 1.0), properties["class_locations"]).start
        low = [max(0, first) for first in start]
        high = [min(size, first + count) for size, first, count in zip(shape, start, self.patch, strict=True)]
        box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        beyond = [(0, 0)] + [
            (a - first, first + n - b) for first, n, a, b in zip(start, self.patch, low, high, strict=True)
        ]
        return {
            "image": torch.from_numpy(np.pad(image[box], beyond, "reflect")),
            "label": torch.from_numpy(np.pad(label[box], beyond, "reflect")),
        }


def opened(method: str, items: list[Any], channels: list[str], patch: list[int], folder: Path) -> Any:
    chain = [*head(channels), crop(patch)]
    if method == "ours":
        return CaseDataset(items, chain, workers=THREADS, progress=False, seed=0, cache_dir=folder)
    if method == "ours_memory":
        return CaseDataset(items, chain, workers=THREADS, progress=False, seed=0)
    if method == "monai_cache":
        return CacheDataset(items, chain, num_workers=THREADS, progress=False)
    if method == "monai_persistent":
        # Its default since 1.5 is weights_only: it then refuses the arrays of a MetaTensor's meta.
        return PersistentDataset(items, chain, cache_dir=folder, track_meta=True, weights_only=False)
    return Blosc2Cases(items, channels, patch, folder)


class Peak(threading.Thread):
    """The largest RssAnon of this process, looked at every 5 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_mib = self.mib = anonymous_mib()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.mib = max(self.mib, anonymous_mib())


def anonymous_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's memory")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def one_process(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    items = data_list(options.data, options.channels, "all", folds=2)
    items = items[: options.cases]
    peak = Peak()
    peak.start()
    start_s, data = timed(lambda: opened(options.method, items, options.channels, options.patch, options.folder))

    def epoch() -> None:
        for index in range(len(data)):
            patch = data[index]
            assert patch["image"].shape == (len(options.channels), *options.patch)
            patch["image"].sum()  # all of it is there, and not only promised

    first_s, _ = timed(epoch)
    later = [timed(epoch)[0] for _ in range(options.epochs)]
    peak.done.set()
    peak.join()
    row = {"start_s": start_s, "first_epoch_s": start_s + first_s, "patches_per_s": len(data) / min(later)}
    print(json.dumps({**row, "own_memory_mib": peak.mib - peak.start_mib}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--channels", nargs="+", default=["ct", "pet", "mr"])
    parser.add_argument("--patch", type=int, nargs=3, default=[96, 96, 64])
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        one_process(options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data is None:
            options.data = folder / "data"
            make_cases(options.data, options.cases)
        for method in options.methods:
            arguments = ["--data", options.data, "--channels", *options.channels, "--patch", *options.patch]
            arguments += ["--cases", options.cases, "--epochs", options.epochs, "--method", method]
            arguments += ["--folder", folder / method]
            command = [sys.executable, __file__, *map(str, arguments)]
            runs = [subprocess.run(command, capture_output=True, text=True) for _ in range(2)]
            if any(run.returncode for run in runs):
                print(json.dumps({"method": method, "failed": runs[0].stderr.strip().splitlines()[-1]}), flush=True)
                continue
            first, second = (json.loads(run.stdout.splitlines()[-1]) for run in runs)
            taken = sum(path.stat().st_size for path in (folder / method).rglob("*") if path.is_file())
            row = {"method": method, **first, **{f"second_{key}": value for key, value in second.items()}}
            row = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
            print(json.dumps({**row, "disk_mib": round(taken / 2**20, 1)}), flush=True)
            shutil.rmtree(folder / method, ignore_errors=True)


if __name__ == "__main__":
    main()
