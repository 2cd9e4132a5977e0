"""What the augmentation costs a training: steps per second without it, with it in the loader, with it on the device.

    python benchmarks/augmentation_training.py --bundle bundles/hippocampus_mri_segmentation [--data DATASET]
    python benchmarks/augmentation_training.py --bundle bundles/stroke_perfusion_segmentation [--data DATASET]
        [--cases 8] [--steps 6] [--rounds 3] [--workers 0 1 2] [--threads 2] [--device auto] [--precision float32]

The bundle's own network, loss, batch size and chain. Without ``--data``, perfusion phantoms, or for other channels
noise with blobs, of the size of a hippocampus crop. ``off``: patches are exact crops and nothing changes intensities;
``loader``: ``augment_on: loader``; ``device``: ``augment_on: device``, whose chain must be able to. Cases are prepared
once, before. The three take turns, ``rounds`` times; each runs one step that does not count, which starts the workers,
and then ``steps``.

Prints one JSON line per number of workers and mode: ``steps_per_s`` (of the median step), ``share`` of a step that is
spent on making batches: what ``off`` spends less (0 workers), what the trainer waits for the loader, and of ``device``
the part on the device, ``on_batch_ms``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader
from scipy import ndimage

from pipeline.data.phantom_dataset import write_dataset
from pipeline.engines import Precision
from pipeline.engines import device as device_of
from pipeline.errors import ConfigError
from pipeline.geometry import Grid
from pipeline.io import write_volume
from pipeline.transforms import AugmentationChain, RandSpatialPatchd, ZeroAbsentChannelsd, collate_patches

PERFUSION = {"cbf", "cbv", "mtt"}


def write_blobs(folder: Path, channels: list[str], classes: list[int], cases: int) -> None:
    """Cases of smooth noise with a blob per class, 35 x 51 x 36 voxels of 1 mm."""
    random, grid = np.random.default_rng(0), Grid((35, 51, 36), np.eye(4))
    for case in range(cases):
        target = folder / f"sub-{case:02d}"
        target.mkdir(parents=True)
        label = np.zeros(grid.shape, np.uint8)
        for value in classes:
            smooth = ndimage.gaussian_filter(random.normal(size=grid.shape), 5)
            label[smooth > np.quantile(smooth, 0.95)] = value
        for name in channels:
            image = 100 + 20 * random.normal(size=grid.shape) + 30 * (label > 0)
            write_volume(target / f"sub-{case:02d}_{name}.nii.gz", image.astype(np.float32), grid)
        write_volume(target / f"sub-{case:02d}_label.nii.gz", label, grid)


class Step:
    """One training step, as `pipeline.engines.Trainer` does it."""

    def __init__(self, config: ConfigParser, device: torch.device, precision: Precision) -> None:
        self.network = config.get_parsed_content("network").train()
        self.loss = config.get_parsed_content("loss")
        self.optimizer = config.get_parsed_content("optimizer")
        self.device, self.precision = device, precision
        precision.prepare(self.network)

    def __call__(self, batch: dict[str, Any]) -> None:
        image, label = (batch[key].to(self.device, non_blocking=True) for key in ("image", "label"))
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast(self.device):
            loss = self.loss(self.network(self.precision.store(image)), label)
        loss.backward()
        self.optimizer.step()
        self.wait()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def chains(config: ConfigParser, device: torch.device) -> dict[str, AugmentationChain]:
    """The bundle's chain in each mode."""
    steps = [config.get_parsed_content(name[1:]) for name in config["train"]["preprocessing"]["transforms"]]
    at = next(index for index, step in enumerate(steps) if isinstance(step, RandSpatialPatchd))
    spatial = steps[at]
    crop = RandSpatialPatchd(
        spatial.keys, patch_size=spatial.patch_size, foreground_share=spatial.foreground_share, margin=spatial.margin,
        affine_probability=0.0, elastic_probability=0.0, parameters_key=None,
    )  # fmt: skip
    absent = [step for step in steps if isinstance(step, ZeroAbsentChannelsd)]
    made = {"off": AugmentationChain([*steps[:at], crop, *absent], "loader", device)}
    made["loader"] = AugmentationChain(steps, "loader", device)
    try:
        made["device"] = AugmentationChain(steps, "device", device)
    except ConfigError as error:
        print(json.dumps({"mode": "device", "note": str(error)}))
    return made


def run(chain: AugmentationChain, dataset: Any, step: Step, workers: int, options: argparse.Namespace) -> dict:
    """Seconds per step, in all, for the batch from the loader and for `on_batch`."""
    dataset.transform = chain
    order = list(itertools.islice(itertools.cycle(range(len(dataset))), options.batch_size * (options.steps + 1)))
    loader = DataLoader(
        dataset, batch_size=options.batch_size, sampler=order, num_workers=workers, collate_fn=collate_patches,
        pin_memory=chain.pins_memory,
    )  # fmt: skip
    times: dict[str, list[float]] = {"whole": [], "loader": [], "on_batch": []}
    batches = iter(loader)
    for index in range(options.steps + 1):
        began = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        batch = chain.on_batch(batch, step.device)
        step.wait()
        made = time.perf_counter()
        step(batch)
        if index:
            times["whole"].append(time.perf_counter() - began)
            times["loader"].append(loaded - began)
            times["on_batch"].append(made - loaded)
    return times


def measure(config: ConfigParser, options: argparse.Namespace) -> None:
    device = device_of(options.device)
    dataset = config.get_parsed_content("train#dataset")
    step = Step(config, device, Precision.parse(options.precision))
    options.batch_size = int(config["batch_size"])
    modes = chains(config, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    for workers in options.workers:
        seconds: dict[str, dict[str, list[float]]] = {}
        for _ in range(options.rounds):
            for mode, chain in modes.items():
                for part, values in run(chain, dataset, step, workers, options).items():
                    seconds.setdefault(mode, {}).setdefault(part, []).extend(values)
        median = {mode: {part: statistics.median(v) for part, v in parts.items()} for mode, parts in seconds.items()}
        for mode, parts in median.items():
            row = {"bundle": options.bundle.name, "device": name, "threads": options.threads, "workers": workers}
            row |= {"mode": mode, "steps_per_s": round(1 / parts["whole"], 3)}
            row |= {f"{part}_ms": round(1e3 * parts[part], 2) for part in ("loader", "on_batch")}
            spent = parts["loader"] + parts["on_batch"] - (median["off"]["loader"] if workers == 0 else 0.0)
            row["share"] = round(spent / parts["whole"], 4)
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="dataset of the bundle's channels")
    parser.add_argument("--cases", type=int, default=8, help="cases that are made where no data is given")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        config = ConfigParser()
        config.read_config(options.bundle / "configs" / "train.json")
        data = options.data or Path(folder) / "data"
        if options.data is None and set(config["channels"]) == PERFUSION:
            write_dataset(data, options.cases)
        elif options.data is None:
            write_blobs(data, config["channels"], [int(value) for value in config["classes"]], options.cases)
        config["bundle_root"], config["dataset_dir"] = str(options.bundle), str(data)
        config["output_dir"], config["cache_dir"] = str(Path(folder) / "runs"), str(Path(folder) / "cache")
        config["device#name"] = options.device
        measure(config, options)


if __name__ == "__main__":
    main()
