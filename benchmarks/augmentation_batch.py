"""Patches of a whole batch made at once on a device, against a data loader's workers that make them one by one.

    python benchmarks/augmentation_batch.py [--device auto] [--size 128] [--batch 2] [--workers 16] [--batches 20]

Out of a volume of 256 x 256 x 160 voxels with 3 channels and a label, in memory: rotation up to 15 degrees about every
axis, scaling 0.85 to 1.15, elastic displacement, the label by majority. Prints JSON lines:

- ``apply``: milliseconds to make a batch on the device, windows in pinned memory of the host or on the device already,
  and how far it is from the patches made one by one (largest difference of the image, share of labels that differ);
- ``step``: milliseconds of a U-Net's training step on such a batch there, and the share of both that ``apply`` takes;
- ``loader``: batches per second that ``workers`` processes give: windows alone, finished patches, and nnU-Net's
  SpatialTransform (batchgeneratorsv2, where it is installed).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from augmentation import batchgenerators, volume
from monai.data import DataLoader, MetaTensor
from torch.utils.data import Dataset

from pipeline.engines import device as device_of
from pipeline.losses import DeepSupervision, DiceCrossEntropy
from pipeline.networks import UNet
from pipeline.transforms import RandSpatialPatchd, collate_patches
from pipeline.transforms.deferred import DRAWN


class Made(Dataset):
    """Items made by a function, whose randomness follows the index."""

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def median_ms(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[2:])


def say(**row: Any) -> None:
    print(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


def apply(item: dict, transform: RandSpatialPatchd, device: torch.device, options: argparse.Namespace) -> float:
    """Milliseconds of a batch, its windows on the host."""
    batch = collate_patches([transform.set_random_state(seed).defer(item) for seed in range(options.batch)])
    patches, boxes = batch[DRAWN], {key: batch[key] for key in ("image", "label")}
    made = transform.apply(boxes, patches, device)
    alone = [transform.replay(item, patch.parameters) for patch in patches]
    image, label = (torch.stack([one[key] for one in alone]).to(device) for key in ("image", "label"))
    if device.type == "cuda":
        boxes = {key: [box.pin_memory() for box in parts] for key, parts in boxes.items()}
    there = {key: [box.to(device) for box in parts] for key, parts in boxes.items()}
    milliseconds = median_ms(lambda: transform.apply(boxes, patches, device), device, options.batches)
    say(
        what="apply",
        ms=milliseconds,
        ms_windows_on_the_device=median_ms(lambda: transform.apply(there, patches, device), device, options.batches),
        window_mib=sum(box.nbytes for parts in boxes.values() for box in parts) / 2**20,
        largest_difference=float((made["image"] - image).abs().max()),
        labels_that_differ=float((made["label"] != label).float().mean()),
    )
    return milliseconds


def step(device: torch.device, options: argparse.Namespace, apply_ms: float) -> None:
    network = UNet(
        spatial_dims=3, in_channels=3, out_channels=3, channels=(32, 64, 128, 256, 320, 320),
        strides=((1,) * 3, *[(2,) * 3] * 5), kernel_sizes=((3,) * 3,) * 6, convolutions_per_stage=2,
    ).to(device)  # fmt: skip
    optimizer, loss = torch.optim.SGD(network.parameters(), lr=1e-3), DeepSupervision(DiceCrossEntropy())
    image = torch.rand(options.batch, 3, *[options.size] * 3, device=device)
    label = torch.randint(0, 3, (options.batch, 1, *[options.size] * 3), device=device)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(network(image), label)
        value.backward()
        optimizer.step()

    milliseconds = median_ms(train, device, options.batches)
    say(what="step", ms=milliseconds, share=apply_ms / (apply_ms + milliseconds))


def loader(
    name: str, make: Callable[[int], Any], options: argparse.Namespace, collate: Callable = collate_patches
) -> None:
    """The rate of batches, from the first to the last."""
    count = options.batch * (options.batches + options.workers)
    batches = iter(
        DataLoader(Made(make, count), batch_size=options.batch, num_workers=options.workers, collate_fn=collate)
    )
    for _ in range(options.workers):  # what starting them takes is no part of it
        next(batches)
    began = time.perf_counter()
    left = sum(1 for _ in batches)
    say(what="loader", makes=name, workers=options.workers, batches_per_s=left / (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--no-step", action="store_true", help="leave the training step out, long on a CPU")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    device = device_of(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    say(device=name, size=options.size, batch=options.batch, threads=torch.get_num_threads())
    image, label = volume()
    affine, size = torch.eye(4, dtype=torch.float64), (options.size,) * 3
    item = {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine), "foreground": {}}
    transform = RandSpatialPatchd(
        patch_size=size, foreground_share=0.0, affine_probability=1.0, rotation_degrees=15.0, scaling=(0.85, 1.15),
        elastic_probability=1.0, elastic_spacing_mm=32.0, elastic_std_mm=2.0,
    )  # fmt: skip
    apply_ms = apply(item, transform, device, options)
    if not options.no_step:
        step(device, options, apply_ms)
    loader("windows", lambda index: transform.set_random_state(index).defer(item), options)
    loader("patches", lambda index: transform.set_random_state(index)(item), options)
    try:
        theirs = batchgenerators((image, label, size))
    except ImportError:
        say(what="loader", makes="batchgeneratorsv2 SpatialTransform", note="does not import here")
        return
    loader("batchgeneratorsv2 SpatialTransform", lambda index: theirs(), options, torch.utils.data.default_collate)


if __name__ == "__main__":
    main()
