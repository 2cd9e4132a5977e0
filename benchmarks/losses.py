"""Milliseconds and ratios: Dice + cross-entropy, ours against MONAI's DiceCELoss and nnU-Net's way, in one run.

    python benchmarks/losses.py [--threads 2] [--repeats 9] [--all]

Forward and backward. A ratio above 1 says how many times faster ours is. All take turns; the median of the repeats
counts, after one round of warming up. nnU-Net's compound is written out below from what it does (one-hot target by
scatter, softmax, sums of products, and torch's cross-entropy on the logits); the three agree in value.
``--all`` times every other loss of ours as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss

from pipeline import losses
from pipeline.losses import CompoundLoss, DiceCrossEntropy, FocalLoss, IoULoss, MSSSIMLoss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def nnunet_dice_ce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Soft Dice of the foreground classes per sample, and cross-entropy, as nnU-Net v2 computes them."""
    axes = tuple(range(2, logits.ndim))
    p = torch.softmax(logits, 1)
    with torch.no_grad():
        one_hot = torch.zeros(logits.shape, dtype=torch.bool).scatter_(1, target, 1)[:, 1:]
        reference = one_hot.sum(axes)
    p = p[:, 1:]
    overlap, predicted = (p * one_hot).sum(axes), p.sum(axes)
    dice = (2 * overlap + 1e-5) / (reference + predicted + 1e-5).clamp_min(1e-8)
    return 1 - dice.mean() + F.cross_entropy(logits, target[:, 0])


def median_ms(candidates: dict[str, Loss], logits: torch.Tensor, target: torch.Tensor, repeats: int):
    """Median milliseconds of forward and backward, and the value, of each; they take turns."""
    values: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, loss in candidates.items():
            logits.grad = None
            start = time.perf_counter()
            # The peers compute in the dtype they are given; float32 is what their trainers hand them under autocast.
            value = loss(logits if name.startswith("ours") else logits.float(), target)
            value.backward()
            if turn:
                times[name].append(time.perf_counter() - start)
            values[name] = value.item()
    return {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--all", action="store_true", help="time the other losses as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    candidates: dict[str, Loss] = {
        "MONAI": DiceCELoss(include_background=False, to_onehot_y=True, softmax=True),
        "nnU-Net": nnunet_dice_ce,
        "ours": DiceCrossEntropy(),
    }
    print(f"{'logits':28}{'MONAI ms':>10}{'nnU-Net ms':>11}{'ours ms':>9}{'ratios':>12}{'difference':>12}")
    for classes, size in ((2, (40, 56, 40)), (3, (40, 56, 40)), (3, (96, 96, 96)), (14, (64, 64, 64))):
        for kind in (torch.float32, torch.bfloat16):
            logits = torch.randn(2, classes, *size, dtype=kind, requires_grad=True)
            target = torch.randint(classes, (2, 1, *size))
            ms, values = median_ms(candidates, logits, target, arguments.repeats)
            shape = "x".join(map(str, logits.shape))
            ratios = "".join(f"{ms[peer] / ms['ours']:6.2f}" for peer in ("MONAI", "nnU-Net"))
            difference = max(abs(value - values["ours"]) for value in values.values())
            print(
                f"{shape + ' ' + str(kind)[6:]:28}{ms['MONAI']:10.1f}{ms['nnU-Net']:11.1f}{ms['ours']:9.1f}{ratios}"
                f"{difference:12.1e}",
                flush=True,
            )
    if not arguments.all:
        return

    logits = torch.randn(2, 3, 40, 56, 40, requires_grad=True)
    target = torch.randint(3, (2, 1, 40, 56, 40)).to(torch.uint8)  # as labels come out of a bundle's transforms
    names = [name for name in losses.__all__ if name.endswith("Loss") and name != "CompoundLoss"]
    ours: dict[str, Loss] = {f"ours: {name}": getattr(losses, name)() for name in names}
    ours["ours: Dice + CE"] = DiceCrossEntropy()
    ours["ours: IoU + MS-SSIM + focal"] = CompoundLoss([IoULoss(), MSSSIMLoss(), FocalLoss()])
    ms, _ = median_ms(ours, logits, target, arguments.repeats)
    print("2x3x40x56x40 float32")
    for name, value in ms.items():
        print(f"  {name[6:]:26}{value:8.1f} ms")


if __name__ == "__main__":
    main()
