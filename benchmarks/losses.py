"""Seconds and ratios: Dice + cross-entropy, ours against MONAI's DiceCELoss, forward and backward, in one run.

    python benchmarks/losses.py [--threads 2] [--repeats 9]

A ratio above 1 says how many times faster ours is. The two take turns; the median of the repeats counts, after one round of warming up.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from monai.losses import DiceCELoss

from pipeline.losses import DiceCrossEntropy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    losses = {
        "MONAI": DiceCELoss(include_background=False, to_onehot_y=True, softmax=True),
        "ours": DiceCrossEntropy(),
    }
    print(f"{'logits':34}{'MONAI ms':>10}{'ours ms':>10}{'ratio':>7}{'difference':>12}")
    for classes, size in ((2, (40, 56, 40)), (3, (40, 56, 40)), (3, (96, 96, 96)), (14, (64, 64, 64))):
        for kind in (torch.float32, torch.bfloat16):
            logits = torch.randn(2, classes, *size, dtype=kind, requires_grad=True)
            target = torch.randint(classes, (2, 1, *size))
            values: dict[str, float] = {}
            times: dict[str, list[float]] = {name: [] for name in losses}
            for turn in range(arguments.repeats + 1):
                for name, loss in losses.items():
                    start = time.perf_counter()
                    # MONAI's computes in the dtype it is given; float32 is what its trainer hands it under autocast.
                    value = loss(logits if name == "ours" else logits.float(), target)
                    value.backward()
                    if turn:
                        times[name].append(time.perf_counter() - start)
                    values[name] = value.item()
            monai, ours = (1e3 * statistics.median(times[name]) for name in ("MONAI", "ours"))
            shape = "x".join(map(str, logits.shape))
            difference = abs(values["MONAI"] - values["ours"])
            print(f"{shape + ' ' + str(kind)[6:]:34}{monai:10.1f}{ours:10.1f}{monai / ours:7.2f}{difference:12.1e}", flush=True)


if __name__ == "__main__":
    main()
