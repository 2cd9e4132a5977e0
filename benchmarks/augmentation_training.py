"""What the augmentation costs a training: steps per second of a bundle with it and without it.

    python benchmarks/augmentation_training.py --bundle bundles/hippocampus_mri_segmentation --data DATASET
    python benchmarks/augmentation_training.py --bundle bundles/stroke_perfusion_segmentation    (on phantoms)
        [--cases 8] [--steps 6] [--workers 0 1 2] [--threads 2]

The bundle's own network, loss, batch size and chain; without augmentation patches are exact crops and no intensity
changes. The cases are prepared once, before. With 0 workers, with and without take turns at every step; with more, runs
of ``steps`` steps do, whose first, which starts the workers, does not count. Prints one JSON line per number of
workers: steps per second ``on`` and ``off``, and of 0 workers ``batch_ms`` (a batch alone, on and off) and ``share``,
the part of a step that augmentation takes.
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

import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader

from pipeline.data.phantom_dataset import write_dataset
from pipeline.transforms import RandSpatialPatchd


class Step:
    """One training step in float32, as `pipeline.engines.Trainer` does it."""

    def __init__(self, config: ConfigParser) -> None:
        self.network = config.get_parsed_content("network").train()
        self.loss = config.get_parsed_content("loss")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)

    def __call__(self, batch: dict[str, Any]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.network(batch["image"]), batch["label"]).backward()
        self.optimizer.step()


def switch(dataset: Any, on: bool, chain: list[Any]) -> None:
    """Give the dataset its whole chain, or the one that ends with an exact crop."""
    at = next(index for index, step in enumerate(chain) if isinstance(step, RandSpatialPatchd))
    if on:
        dataset.transform.transforms = chain
        return
    spatial = chain[at]
    crop = RandSpatialPatchd(
        spatial.keys, patch_size=spatial.patch_size, foreground_share=spatial.foreground_share, margin=spatial.margin,
        affine_probability=0.0, elastic_probability=0.0, parameters_key=None,
    )  # fmt: skip
    dataset.transform.transforms = [*chain[:at], crop]


def seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="dataset of the bundle's channels; default: perfusion phantoms")
    parser.add_argument("--cases", type=int, default=8, help="phantoms")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            write_dataset(Path(folder) / "data", options.cases)
        config = ConfigParser()
        config.read_config(options.bundle / "configs" / "train.json")
        config["bundle_root"] = str(options.bundle)
        config["dataset_dir"] = str(options.data or Path(folder) / "data")
        config["output_dir"] = str(Path(folder) / "runs")
        measure(config, options)


def measure(config: ConfigParser, options: argparse.Namespace) -> None:
    dataset, step = config.get_parsed_content("train#dataset"), Step(config)
    chain, batch_size = list(dataset.transform.transforms), int(config["batch_size"])
    for workers in options.workers:
        times: dict[bool, list[float]] = {True: [], False: []}
        batches: dict[bool, list[float]] = {True: [], False: []}
        if workers == 0:
            cases = itertools.cycle(range(len(dataset)))
            for index in range(options.steps + 1):
                for on in (True, False):
                    switch(dataset, on, chain)
                    held: list[Any] = []
                    drawn = [next(cases) for _ in range(batch_size)]
                    loader = DataLoader(dataset, batch_size=batch_size, sampler=drawn)
                    alone = seconds(lambda loader=loader, held=held: held.extend(loader))
                    whole = alone + seconds(lambda held=held: step(held[0]))
                    if index:
                        times[on].append(whole)
                        batches[on].append(alone)
        else:
            for on in (True, False):
                switch(dataset, on, chain)
                drawn = list(itertools.islice(itertools.cycle(range(len(dataset))), batch_size * (options.steps + 1)))
                loader = iter(DataLoader(dataset, batch_size=batch_size, sampler=drawn, num_workers=workers))
                step(next(loader))
                for _ in range(options.steps):
                    times[on].append(seconds(lambda loader=loader: step(next(loader))))
        median = {on: statistics.median(values) for on, values in times.items()}
        row = {"bundle": options.bundle.name, "workers": workers, "threads": options.threads}
        row |= {"on": round(1 / median[True], 3), "off": round(1 / median[False], 3)}
        if workers == 0:
            alone = {on: statistics.median(values) for on, values in batches.items()}
            row["batch_ms"] = [round(1e3 * alone[True], 1), round(1e3 * alone[False], 1)]
            row["share"] = round((alone[True] - alone[False]) / median[True], 4)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
