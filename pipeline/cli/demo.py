"""`pipeline demo`: the main job from nothing, on phantoms made on the spot."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from pipeline.cli import words
from pipeline.cli.outcome import keeps
from pipeline.cli.progress import Steps, counted
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.engines.cohort import CohortResult

EXAMPLES = """Examples:

pipeline demo

pipeline demo --budget 10m --seed 7 --out longer_demo

Exit status: 0 done; 2 what was given is not usable; 130 interrupted.
"""
BUNDLE = "stroke_perfusion_segmentation"


class Part(NamedTuple):
    """What one of the demo's datasets is made of; ``seed`` is added to the demo's own."""

    cases: int
    healthy_share: float
    seed: int


PARTS = {"train": Part(200, healthy_share=0.45, seed=0), "test": Part(16, healthy_share=0.25, seed=1_000_000)}
OVERRIDES = (
    "folds=20",  # the test cases tell how good it is; a small fold is enough to watch the training by
    # The phantom draws infarcts of 13 ml and more; smaller finds are more often the wall of an old one. On 48 other
    # phantoms with three trainings: a false alarm in none of 72 brains without a lesion, 1 of 72 lesions lost. (Of
    # version 1; a fourth training, on version 2, had one in 1 of 24 and lost none.)
    "minimum_component_ml=5",
    "cache_dir=null",  # nothing is left outside the demo's folder
)


def command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the cases, the run and the picture.")] = Path(
        "demo"
    ),
    budget: Annotated[str, typer.Option(metavar="TIME", help="Wall-clock time for training: 90s, 20m.")] = "3m30s",
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Another seed makes other brains.")] = 0,
) -> None:
    """Train a stroke-lesion network on digital perfusion phantoms and try it on cases that it never saw.

    Takes about six minutes on two CPU cores and no download. Phantoms of an earlier demo are used again.
    """
    budget_s = words.seconds(budget)
    from pipeline.bundle import run
    from pipeline.cli.demo_table import compare, drawn_cases
    from pipeline.report import demo_figure

    started, stamp, steps = time.perf_counter(), time.strftime("%Y%m%d-%H%M%S"), Steps(5)
    run_dir, predictions, picture = out / "runs" / stamp, out / "predictions" / stamp, out / "result.png"
    with steps.step(f"Making brain-perfusion phantoms in {out}"), keeps("unfinished phantoms were removed"):
        data = phantoms(out, seed)
    with steps.step(f"Training {BUNDLE} for {budget}"), keeps("the phantoms are kept; nothing was trained yet"):
        trained = run.train(BUNDLE, data / "train", out=run_dir, budget_s=budget_s, overrides=OVERRIDES)
        typer.echo(trained.table)
    with keeps(f"the phantoms and the trained network in {run_dir} are kept"):
        with steps.step("Finding lesions in cases that were never trained on"):
            found = predicted(run.predict(run_dir, data / "test", predictions), predictions)
        with steps.step("Comparing with threshold rules tuned on the training cases"):
            comparison = compare(data / "train", data / "test", found)
            typer.echo(comparison.table())
        with steps.step("Drawing"):
            demo_figure(drawn_cases(data / "test", found, comparison), picture)
    # make runs this command from an environment that the reader's shell has not entered.
    entered = os.name == "nt" or "VIRTUAL_ENV" in os.environ
    enter = "" if entered else f"  . {words.typed(os.path.relpath(sys.prefix))}/bin/activate\n"
    typer.echo(
        f"""
Done in {(time.perf_counter() - started) / 60:.1f} minutes. Look at the lesions:  {picture}

Next:
{enter}  {words.typed("tensorboard", "--logdir", run_dir)}                       curves and overlays of this run
  {words.typed("pipeline", "predict", run_dir)} YOUR_SCANS lesions
  pipeline train {BUNDLE} --data YOUR_SCANS --budget 1h
YOUR_SCANS: one folder per case with cbf, cbv and mtt maps (and a lesion map for training)."""
    )


def phantoms(out: Path, seed: int) -> Path:
    """The demo's phantom datasets, ``train`` and ``test`` below the returned folder; made where they are missing.

    They are written beside and renamed when whole, so that a folder of this name is always complete.

    Raises:
        DataError: a folder of this name was made by another version or by something else.
    """
    from pipeline.data.phantom import PHANTOM_VERSION
    from pipeline.data.phantom_dataset import write_dataset

    folder = out / f"phantom-seed{seed}"
    record = {
        "phantom_version": PHANTOM_VERSION,
        "seed": seed,
        "parts": {name: part._asdict() for name, part in PARTS.items()},
    }
    if folder.exists():
        made = folder / "demo.json"
        if not made.is_file() or json.loads(made.read_text(encoding="utf-8")) != record:
            fix = "delete it, or choose another folder with --out"
            raise DataError("other phantoms", expected=f"version {PHANTOM_VERSION}", fix=fix, file=folder)
        typer.echo(f"      {folder} is used again")
        return folder
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{folder.name}-unfinished-", dir=out, ignore_cleanup_errors=True) as unfinished:
        for part, wanted in PARTS.items():
            with counted(f"{part} cases") as count:
                write_dataset(
                    Path(unfinished) / folder.name / part,
                    wanted.cases,
                    seed + wanted.seed,
                    healthy_share=wanted.healthy_share,
                    progress=count,
                )
        whole = Path(unfinished) / folder.name
        (whole / "demo.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
        whole.rename(folder)
    return folder


def predicted(result: CohortResult, folder: Path) -> dict[str, Path]:
    """Case id -> label map of a cohort below ``folder``.

    Raises:
        DataError: a phantom that could not be predicted.
    """
    for outcome in result.outcomes:
        if not outcome.output:
            raise DataError(f"no prediction ({outcome.status}: {outcome.reason})", case=outcome.case)
    return {outcome.case: folder / outcome.output for outcome in result.outcomes}
