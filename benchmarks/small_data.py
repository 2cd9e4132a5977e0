"""Dice at equal time: every network on all training cases, three of them on 10 and 30 too.

    python benchmarks/small_data.py Task04_Hippocampus --out OUT [--budget 3m] [--width 0.5] [--only NAME@CASES ...]
                                    [--most N]
    python benchmarks/small_data.py Task04_Hippocampus --out OUT --most 0 --chart docs/networks/small_data.png

A run is `pipeline train hippocampus_mri_segmentation --budget TIME network=NAME ...` as a user types it, pinned to one
core with one thread; as many run at once as there are cores to run on. All are measured, by their last weights, on the
same cases: fold 0 of the bundle's split. The training cases are the other folds', or a seeded draw of them; the 10 are
among the 30. FCN-32s, -16s and -8s have six levels, so that their names are true.

What has run stands in OUT/results.jsonl and is not run again: the command goes on where it was ended (`--most N`: after
N runs), and prints the table of what is there. `--chart` draws the curves. Linux.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.cli.words import seconds, typed
from pipeline.data import find_cases, k_fold, write_split
from pipeline.data.splits import Split

BUNDLE, CHANNELS = "hippocampus_mri_segmentation", ("mri",)
LEVELS = (16, 32, 64, 128)  # the bundle's own channels
SIX_LEVELS = (
    "network=fcn",
    "network_def#strides=[1, 2, 2, 2, 2, 2]",
    "network_def#kernel_sizes=[3, 3, 3, 3, 3, 3]",
    "network_def#convolutions_per_stage=[1, 2, 2, 2, 2, 2]",
)
NETWORKS = {
    "unet": ("network=unet",),
    "unet_plus_plus": ("network=unet_plus_plus",),
    "deeplab_v3_plus": ("network=deeplab_v3_plus",),
    "unet_3plus": ("network=unet_3plus",),
    "fcn": ("network=fcn",),
    "fcn-32s": (*SIX_LEVELS, "network_def#skips=0"),
    "fcn-16s": (*SIX_LEVELS, "network_def#skips=1"),
    "fcn-8s": (*SIX_LEVELS, "network_def#skips=2"),
    "segnet": ("network=segnet",),
    "pspnet": ("network=pspnet",),
    "u2net": ("network=u2net",),
    "u2net_small": ("network=u2net_small",),
}
CURVES, FEW = ("unet", "unet_plus_plus", "deeplab_v3_plus"), (10, 30)


def split_files(dataset: Path, out: Path) -> dict[str, Path]:
    """Number of training cases, or ``all`` -> split file; the cases that are held back are the same in each."""
    whole = k_fold([case.case_id for case in find_cases(dataset, CHANNELS)], folds=5, fold=0)
    drawn = np.random.default_rng(0).permutation(whole.train)
    files = {}
    for count in (*map(str, FEW), "all"):
        train = whole.train if count == "all" else tuple(sorted(drawn[: int(count)].tolist()))
        files[count] = out / f"split-{count}.json"
        write_split(files[count], Split(train, whole.validate))
    return files


def train_command(name: str, split: Path, options: argparse.Namespace) -> list[str | Path]:
    network = NETWORKS[name.partition("@")[0]]
    levels = (*LEVELS, *LEVELS[-1:] * 2) if set(SIX_LEVELS) <= set(network) else LEVELS
    channels = f"network_def#channels={[round(maps * options.width) for maps in levels]}"
    command = ["train", BUNDLE, "--data", options.dataset, "--out", options.out / name, "--budget", options.budget]
    return [*command, f"split_file={json.dumps(str(split.resolve()))}", *network, channels]


class Ended(NamedTuple):
    """How a command ended, and the share of a core that it got: below 1 where something else ran there too."""

    name: str
    well: bool
    core_share: float


def run_pinned(commands: Mapping[str, Sequence[str | Path]], out: Path) -> Iterator[Ended]:
    """Runs `pipeline COMMAND` for each, as many at once as there are cores, each alone on its core with one thread.

    What a command says goes to OUT/NAME.log.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PIPELINE_CACHE": str(out.resolve() / "cache")}
    cores = sorted(os.sched_getaffinity(0))
    waiting = list(commands.items())
    while waiting:
        batch, waiting = waiting[: len(cores)], waiting[len(cores) :]
        running = {}
        for core, (name, command) in zip(cores, batch, strict=False):
            print(typed("pipeline", *command), flush=True)
            pinned = ["taskset", "-c", str(core), sys.executable, "-m", "pipeline", *map(str, command)]
            with (out / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(pinned, env=environment, stdout=log, stderr=subprocess.STDOUT)
            running[process.pid] = name, process, time.perf_counter()
        while running:
            pid, status, used = os.wait4(-1, 0)
            name, process, start = running.pop(pid)
            process.returncode = os.waitstatus_to_exitcode(status)
            core_share = (used.ru_utime + used.ru_stime) / (time.perf_counter() - start)
            yield Ended(name, process.returncode == 0, round(core_share, 2))


def result(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Dice of the last validation, its interval over cases, and how many steps there were."""
    out = options.out
    mean = json.loads((out / name / "summary.json").read_text(encoding="utf-8"))["mean"]
    with (out / name / "metrics.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    dice = mean["measures"]["dice"]
    network, _, count = name.partition("@")
    return {
        "network": network,
        "cases": count,
        "budget": options.budget,
        "width": options.width,
        "iterations": int(last["iteration"]),
        "held_back": mean["cases"],
        "dice": round(dice["mean"], 4),
        "interval": [round(dice["low"], 4), round(dice["high"], 4)],
        "missed": mean["missed"],
        "hausdorff_95_mm": round(mean["measures"]["hausdorff_95_mm_penalised"]["mean"], 2),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| network | training cases | share of a core | iterations | Dice [95% interval] | missed | Hausdorff 95, mm |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in results.values():
        low, high = found["interval"]
        lines.append(
            f"| `{found['network']}` | {found['cases']} | {found['core_share']:.2f} | {found['iterations']} "
            f"| {found['dice']:.3f} [{low:.3f}, {high:.3f}] | {found['missed']} | {found['hausdorff_95_mm']:.2f} |"
        )
    return "\n".join(lines)


def draw(results: dict[str, dict[str, Any]], most_cases: int, file: Path) -> None:
    """Dice over training cases, a line per network of `CURVES`, with the intervals of the 95%."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    places = {count: int(count) if count != "all" else most_cases for count in (*map(str, FEW), "all")}
    for number, network in enumerate(CURVES):
        points = [(place, results[f"{network}@{count}"]) for count, place in places.items()]
        x = [place * 1.02 ** (number - 1) for place, _ in points]  # beside each other, not on each other
        y = [found["dice"] for _, found in points]
        reach = [[found["dice"] - found["interval"][0], found["interval"][1] - found["dice"]] for _, found in points]
        axes.errorbar(x, y, list(zip(*reach, strict=True)), marker="o", markersize=4, capsize=3, label=network)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(list(places.values()), [str(place) for place in places.values()])
    axes.set_xlabel("training cases")
    budget, held_back = points[0][1]["budget"], points[0][1]["held_back"]
    axes.set_ylabel(f"Dice of {held_back} held-back cases, {budget} each")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--width", type=float, default=1.0, help="share of the maps of every level")
    parser.add_argument("--only", nargs="+", metavar="NAME@CASES")
    parser.add_argument("--most", type=int, metavar="N", help="runs of this call")
    parser.add_argument("--chart", type=Path, metavar="PNG")
    options = parser.parse_args()
    seconds(options.budget)  # refused here, not in every run
    options.out.mkdir(parents=True, exist_ok=True)
    splits = split_files(options.dataset, options.out)
    wanted = [f"{name}@{count}" for name in CURVES for count in (*map(str, FEW), "all")]
    wanted += [f"{name}@all" for name in NETWORKS if name not in CURVES]
    if unknown := set(options.only or ()) - set(wanted):
        parser.error(f"{', '.join(sorted(unknown))}: no such run; there are {', '.join(wanted)}")

    record = options.out / "results.jsonl"
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    done = {f"{found['network']}@{found['cases']}": found for found in map(json.loads, lines)}
    if others := {(found["budget"], found["width"]) for found in done.values()} - {(options.budget, options.width)}:
        budget, width = others.pop()
        parser.error(f"{record} has runs of --budget {budget} --width {width:g}: give these, or another --out")
    missing = [name for name in options.only or wanted if name not in done][: options.most]
    for name in missing:  # of a run that did not come to its end
        shutil.rmtree(options.out / name, ignore_errors=True)
    failed = []
    commands = {name: train_command(name, splits[name.partition("@")[2]], options) for name in missing}
    for ended in run_pinned(commands, options.out):
        name = ended.name
        if not ended.well:
            failed.append(name)
            continue
        done[name] = result(name, options) | {"core_share": ended.core_share}
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[name]) + "\n")
        print(json.dumps(done[name]), flush=True)
    results = {name: done[name] for name in wanted if name in done}
    print(table(results))
    if options.chart is not None:
        if lacking := [
            f"{name}@{count}" for name in CURVES for count in (*FEW, "all") if f"{name}@{count}" not in done
        ]:
            parser.error(f"--chart needs the runs {', '.join(lacking)}")
        most_cases = len(json.loads(splits["all"].read_text(encoding="utf-8"))["train"])
        draw(results, most_cases, options.chart)
    if failed:
        raise SystemExit("\n".join(f"{name} failed: {options.out}/{name}.log says why" for name in failed))


if __name__ == "__main__":
    main()
