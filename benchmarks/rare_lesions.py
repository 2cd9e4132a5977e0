"""Small lesions in half of the brains: found where they are, silent where there are none?

    python benchmarks/rare_lesions.py --out OUT [--budget 5m] [--lesion-ml 1 2] [--stages train predict ...]

Makes phantoms of which every second one has no lesion and every other one of a thousandth of the brain's volume;
trains `stroke_perfusion_segmentation` on 100 of them, once per entry of `SETTINGS`, each on one core; predicts others;
and counts. What a network shows is counted with several limits of `minimum_component_ml`, since that is what trades
misses for false alarms: the limit with the best F1 of lesions on 40 phantoms for tuning is marked with a star, and all
are reported on 60 that nothing was chosen on.

A lesion is found where one voxel of it is predicted; Dice is the mean over the cases with a lesion. Stages that have
run are not run again. Linux.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from small_data import run_pinned

from pipeline.data import find_cases
from pipeline.data.phantom_dataset import write_dataset
from pipeline.inference.components import remove_small_components
from pipeline.io import read_volume
from pipeline.metrics import ClassResult, measure_case

BUNDLE, CHANNELS = "stroke_perfusion_segmentation", ("cbf", "cbv", "mtt")
PARTS = {"train": (100, 0), "tune": (40, 2_000_000), "test": (60, 1_000_000)}  # cases, seed
SETTINGS = {
    "filter-off": ("minimum_component_ml=0",),
    "filter-off-lesions-first": ("minimum_component_ml=0", "foreground_share=0.9"),
}
LIMITS_ML = (0.0, 0.1, 0.2, 0.4, 0.8, 3.0)  # the last one is the bundle's
STAGES = ("phantoms", "train", "predict", "measure")


class Counts(NamedTuple):
    """Of one set of predictions; ``alarms``: lesions shown where none is, ``false_cases``: healthy brains with one."""

    lesions: int
    found: int
    alarms: int
    healthy: int
    false_cases: int
    dice: float

    @classmethod
    def of(cls, results: Sequence[ClassResult]) -> Counts:
        with_lesion = [result for result in results if result.lesions_reference]
        return cls(
            lesions=sum(result.lesions_reference for result in results),
            found=sum(result.lesions_found for result in results),
            alarms=sum(result.lesions_false for result in results),
            healthy=len(results) - len(with_lesion),
            false_cases=sum(result.status == "false_alarm" for result in results),
            dice=float(np.mean([result.dice for result in with_lesion])),
        )

    @property
    def f1(self) -> float:
        return 2 * self.found / (self.found + self.alarms + self.lesions)


def counts_by_limit(dataset: Path, predictions: Path) -> dict[float, Counts]:
    """Limit in ml -> what remains of the predictions with it."""
    results: dict[float, list[ClassResult]] = {limit_ml: [] for limit_ml in LIMITS_ML}
    for case in find_cases(dataset, CHANNELS):
        assert case.label is not None
        reference = read_volume(case.label)
        (file,) = predictions.glob(f"**/{case.case_id}*.nii.gz")
        predicted, grid = read_volume(file).array.astype(np.uint8), reference.grid
        for limit_ml, found in results.items():
            kept = remove_small_components(predicted, limit_ml, grid.voxel_volume_ml)
            found += measure_case(kept, reference.array.astype(np.uint8), grid.spacing_mm, {1: "lesion"})
    return {limit_ml: Counts.of(found) for limit_ml, found in results.items()}


def run_missing(commands: dict[str, list[str | Path]], out: Path) -> None:
    """The commands that have not come to their end before: OUT/NAME.done says which have."""
    missing = {name: command for name, command in commands.items() if not (out / f"{name}.done").exists()}
    failed = []
    for ended in run_pinned(missing, out):
        if ended.well:
            (out / f"{ended.name}.done").touch()
        else:
            failed.append(ended.name)
    if failed:
        raise SystemExit("\n".join(f"{name} failed: {out}/{name}.log says why" for name in failed))


def measure(out: Path) -> None:
    print(
        "| settings | smallest shown, ml | found | Dice | healthy brains with a false lesion | false lesions in all |"
    )
    print("|---|---|---|---|---|---|")
    for name in SETTINGS:
        tuned = counts_by_limit(out / "tune", out / f"{name}-tune")
        best = max(tuned, key=lambda limit_ml: tuned[limit_ml].f1)
        for limit_ml, counts in counts_by_limit(out / "test", out / f"{name}-test").items():
            star = "*" if limit_ml == best else ""
            print(
                f"| {name} | {limit_ml:g}{star} | {counts.found} of {counts.lesions} | {counts.dice:.3f} "
                f"| {counts.false_cases} of {counts.healthy} | {counts.alarms} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--lesion-ml", type=float, nargs=2, default=(1.0, 2.0), metavar=("MIN", "MAX"))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    low_ml, high_ml = options.lesion_ml
    if "phantoms" in options.stages:
        for part, (cases, seed) in PARTS.items():
            if not (out / part / "phantom.json").exists():
                write_dataset(out / part, cases, seed, healthy_share=0.5, lesion_ml=(low_ml, high_ml))
    if "train" in options.stages:
        command = ["train", BUNDLE, "--data", out / "train", "--budget", options.budget]
        for name in SETTINGS:
            if not (out / f"{name}.done").exists():  # a training that was ended
                shutil.rmtree(out / name, ignore_errors=True)
        run_missing({name: [*command, "--out", out / name, *changes] for name, changes in SETTINGS.items()}, out)
    if "predict" in options.stages:
        ways = ("runtime=float32", "minimum_component_ml=0")
        of = {f"{name}-{part}": [out / name, out / part] for part in ("tune", "test") for name in SETTINGS}
        run_missing({name: ["predict", *paths, out / name, *ways] for name, paths in of.items()}, out)
    if "measure" in options.stages:
        print(f"Lesions of {low_ml:g} to {high_ml:g} ml, {options.budget} on one core for each line's training")
        measure(out)


if __name__ == "__main__":
    main()
