"""Our sliding window against MONAI's, same network, same windows, and both against the bare network.

    python benchmarks/sliding_window.py [--size 96 96 48] [--window 48 48 24] [--classes 3] [--repeats 15] [--threads 1]

Prints one JSON line per configuration: the best seconds of each (the least disturbed), ``speedup`` = MONAI's / ours,
``overhead`` = ours / bare windows - 1, and the largest difference between the two results (with the same placement of
windows it has to stay below 1e-4, else the benchmark fails).
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from monai.inferers import SlidingWindowInferer as MonaiInferer

from pipeline.inference import SlidingWindowInferer, window_corners


def network(classes: int, channels: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(2, channels, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(channels, classes, 3, padding=1)
    ).eval()


def seconds(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=[96, 96, 48])
    parser.add_argument("--window", type=int, nargs=3, default=[48, 48, 24])
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = torch.randn(1, 2, *options.size)
    corners = window_corners(options.size, options.window, [0.5] * 3)

    for channels in (1, 32):  # a network that costs next to nothing shows what the tiling costs
        net = network(options.classes, channels)
        arguments = {"roi_size": options.window, "sw_batch_size": 1, "overlap": 0.5, "mode": "gaussian"}
        ours, peer = SlidingWindowInferer(**arguments), MonaiInferer(**arguments)

        def bare(net=net):
            for i, j, k in corners:
                h, w, d = options.window
                net(image[:, :, i : i + h, j : j + w, k : k + d].contiguous())

        calls = {
            "bare": bare,
            "monai": lambda net=net, peer=peer: peer(image, net),
            "ours": lambda net=net, ours=ours: ours(image, net),
        }
        with torch.no_grad():
            difference = float((ours(image, net) - peer(image, net)).abs().max())
            if difference > 1e-4:
                raise SystemExit(f"results differ by {difference}: is the size a multiple of half the window?")
            rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(options.repeats)]
        best = {name: min(r[name] for r in rounds) for name in calls}
        row = {
            "size": options.size,
            "window": options.window,
            "windows": len(corners),
            "classes": options.classes,
            "channels": channels,
            **{f"{name}_s": round(value, 4) for name, value in best.items()},
            "speedup": round(best["monai"] / best["ours"], 3),
            "overhead": round(best["ours"] / best["bare"] - 1, 3),
            "difference": difference,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
