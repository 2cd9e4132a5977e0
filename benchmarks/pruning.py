"""What each branch of a trained U-Net++ costs and gives: parameters, FLOPs, seconds and Dice of L^1 ... L^N.

    python benchmarks/pruning.py RUN_OR_BUNDLE --data DATASET [--weights FILE] [--threads 2] [--repeats 5]

RUN_OR_BUNDLE is what `pipeline train BUNDLE network=unet_plus_plus --data DATASET` left, or a bundle of that network
with weights. One row per branch, pruned to it, and one for the mean of all of them (accurate mode). Seconds are those
of one window of the bundle's patch size, the median of the repeats, all candidates taking turns; `share` is the part
that a branch takes of the deepest one's. Dice and N are those of `pipeline evaluate` on the cases that the weights have
not seen; further words KEY=VALUE are handed on to it (part=all measures all cases).
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bundle import find_bundle, resolve, run
from pipeline.engines import with_weights
from pipeline.networks import UNetPlusPlus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    folder = find_bundle(arguments.bundle)
    weights = arguments.weights or folder / "models" / "model.pt"
    config = resolve(folder, "evaluate")
    network = ConfigParser(config).get_parsed_content("network_def")
    if not isinstance(network, UNetPlusPlus):
        raise SystemExit(f"{folder} has a {type(network).__name__}; train it with network=unet_plus_plus")
    network = with_weights(network, str(weights), torch.device("cpu"))
    if not network.deep_supervision:
        raise SystemExit(f"{folder} was trained without deep supervision: it has one branch")

    window = torch.randn(1, network.in_channels, *config["patch_size"])
    candidates = {f"L^{depth}": network.prune(depth) for depth in network.branches}
    network.inference_depth, network.inference_mode = network.depth, "accurate"
    candidates["mean"] = network
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    with torch.inference_mode():
        for turn in range(arguments.repeats + 1):  # the first one warms up
            for name, candidate in candidates.items():
                start = time.perf_counter()
                candidate(window)
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    deepest = median[f"L^{network.depth}"]

    print(f"{folder.name}, window {' x '.join(map(str, config['patch_size']))}, {arguments.threads} threads")
    print(f"{'branch':8}{'parameters':>14}{'GFLOP':>9}{'seconds':>10}{'share':>7}{'Dice':>8}{'N':>5}")
    for name, candidate in candidates.items():
        # Of shapes alone: it does not know oneDNN's convolution by its name.
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            copy.deepcopy(candidate).to("meta")(window.to("meta"))
        depth, mode = (network.depth, "accurate") if name == "mean" else (int(name[2:]), "fast")
        branch = (f"network_def#inference_depth={depth}", f"network_def#inference_mode={mode}")
        with tempfile.TemporaryDirectory() as out:
            measured = run.evaluate(
                folder,
                arguments.data,
                weights=arguments.weights,
                out=Path(out) / "measured",
                overrides=[*arguments.overrides, *branch],
            ).metrics
        print(
            f"{name:8}{sum(p.numel() for p in candidate.parameters()):14,}{counter.get_total_flops() / 1e9:9.2f}"
            f"{median[name]:10.4f}{median[name] / deepest:7.2f}{measured['dice']:8.4f}{int(measured['cases']):5}",
            flush=True,
        )


if __name__ == "__main__":
    main()
