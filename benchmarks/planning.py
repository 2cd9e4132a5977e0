"""Our plan and nnU-Net's for the same dataset, each trained by our engines for the same time; the Dice of both.

    python benchmarks/planning.py raw DATASET RAW/Dataset001_Name     # the dataset as nnU-Net wants it
    nnUNetv2_extract_fingerprint -d 1 -np 2 && nnUNetv2_plan_experiment -d 1     # with RAW as nnUNet_raw
    python benchmarks/planning.py train DATASET PLANS.json --budget 4m [--fold 1] [--only ours,nnunet] [--out DIR]

`raw` writes every channel resampled onto the reference channel's grid, as our loader does: nnU-Net refuses channels on
other grids. `train` makes our bundle by `pipeline init` for the same budget, and beside it one with what nnU-Net's plan
(3d_fullres) says instead: spacing, patch, batch, levels, strides, kernels, convolutions, intensity schemes. Everything
else (optimizer, schedule, augmentation, averaging, loss, precision by timing) is ours in both, so the plans alone are
compared. One JSON line per plan: seconds per step as measured before the training, steps, Dice per class on the held
back fold. Takes the whole machine: nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle import run
from pipeline.bundle.create import create
from pipeline.bundle.render import bundle_yaml
from pipeline.cli.words import seconds
from pipeline.data import describe_on_best_grid, fingerprint_dataset
from pipeline.data.label import load_label
from pipeline.data.stack import load_stack
from pipeline.io import write_volume
from pipeline.planning.intensities import kind_of
from pipeline.planning.memory import StepSpec, measure


def write_raw(dataset: Path, raw: Path) -> None:
    description, _ = describe_on_best_grid(dataset)
    ids: set[int] = set()
    cases = [case for case in description.cases if case.label is not None]
    for case in cases:
        assert case.label is not None
        stack = load_stack(case.image)
        label = load_label(case.label, stack.grid)
        ids |= set(np.unique(label.array).tolist())
        for index, channel in enumerate(stack.array):
            write_volume(raw / "imagesTr" / f"{case.case_id}_{index:04d}.nii.gz", channel, stack.grid)
        write_volume(raw / "labelsTr" / f"{case.case_id}.nii.gz", label.array[0], stack.grid)
    classes = {description.classes.get(value, f"class_{value}"): value for value in sorted(ids - {0})}
    # nnU-Net looks for the very name CT; all others it z-scores.
    names = ["CT" if kind_of(name) == "CT" else name for name in description.channel_names]
    content = {
        "channel_names": {str(index): name for index, name in enumerate(names)},
        "labels": {"background": 0, **classes},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def to_file_axes(values: list[Any], transpose_forward: list[int]) -> list[Any]:
    """From the axes of a plan to those of a file: SimpleITK's arrays run k, j, i, and a plan may turn them."""
    return [values[transpose_forward.index(2 - axis)] for axis in range(3)]


def nnunet_delta(plans: dict[str, Any], channels: list[str]) -> dict[str, Any]:
    """What nnU-Net's 3d_fullres plan says, in the words of a ``bundle.yaml``."""
    chosen = plans["configurations"]["3d_fullres"]
    architecture = chosen["architecture"]["arch_kwargs"]

    def turned(values: list[Any]) -> list[Any]:
        return to_file_axes(values, plans["transpose_forward"])

    normalization: dict[str, Any] = {}
    for index, name in enumerate(channels):
        values = plans["foreground_intensity_properties_per_channel"][str(index)]
        window = {"scheme": "window", "lower_hu": values["percentile_00_5"], "upper_hu": values["percentile_99_5"]}
        is_ct = chosen["normalization_schemes"][index] == "CTNormalization"
        normalization[name] = {"_replace_": True, **(window if is_ct else {"scheme": "z_score"})}
    return {
        "spacing_mm": turned(chosen["spacing"]),
        "patch_size": turned(chosen["patch_size"]),
        "batch_size": chosen["batch_size"],
        "normalization": normalization,
        "network_def": {
            "channels": architecture["features_per_stage"],
            "strides": [turned(stride) for stride in architecture["strides"]],
            "kernel_sizes": [turned(kernel) for kernel in architecture["kernel_sizes"]],
            "convolutions_per_stage": architecture["n_conv_per_stage"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    raw = commands.add_parser("raw")
    raw.add_argument("dataset", type=Path)
    raw.add_argument("raw", type=Path)
    train = commands.add_parser("train")
    train.add_argument("dataset", type=Path)
    train.add_argument("plans", type=Path)
    train.add_argument("--budget", type=seconds, default=240.0)
    train.add_argument("--fold", type=int, default=1)
    train.add_argument("--only", default="ours,nnunet")
    train.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.command == "raw":
        write_raw(arguments.dataset, arguments.raw)
        return

    out = arguments.out or Path(tempfile.mkdtemp(prefix="planning-"))
    fingerprint = fingerprint_dataset(describe_on_best_grid(arguments.dataset)[0])
    made = create(fingerprint, out / "ours", budget_s=arguments.budget, force=True, progress=print)
    plan = made.plan
    print(bundle_yaml(plan, "Ours"))
    theirs = nnunet_delta(json.loads(arguments.plans.read_text(encoding="utf-8")), list(plan.channels))
    overrides = {"ours": [], "nnunet": list(theirs.items())}
    for name in arguments.only.split(","):
        if name == "nnunet":
            network, patch, batch = theirs["network_def"], theirs["patch_size"], theirs["batch_size"]
        else:
            network = {"channels": plan.feature_maps, "strides": plan.strides, "kernel_sizes": plan.kernel_sizes}
            network["convolutions_per_stage"] = plan.convolutions_per_stage
            patch, batch = plan.patch_size, plan.batch_size
        spec = StepSpec(
            len(plan.channels),
            len(plan.classes) + 1,
            tuple(network["channels"]),
            tuple(map(tuple, network["strides"])),
            tuple(map(tuple, network["kernel_sizes"])),
            tuple(network["convolutions_per_stage"]),
            tuple(patch),
            batch,
        )
        step = measure(spec, "cpu")
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides[name]]
        summary = run.train(
            out / "ours",
            arguments.dataset,
            out=out / f"run-{name}-fold{arguments.fold}",
            budget_s=arguments.budget,
            overrides=[*texts, f"fold={arguments.fold}"],
        )
        print(summary.table)
        line = {
            "benchmark": "planning",
            "plan": name,
            "dataset": arguments.dataset.name,
            "budget_s": arguments.budget,
            "fold": arguments.fold,
            "patch": list(patch),
            "batch": batch,
            "step_s": None if step is None else round(step.seconds, 3),
            "precision": None if step is None else step.precision,
            "dice": {key: round(value, 4) for key, value in summary.metrics.items() if "dice" in key},
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
