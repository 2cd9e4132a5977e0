"""`pipeline train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import SOME_REFUSED, keeps

EXAMPLES = """Examples:

pipeline train stroke_perfusion_segmentation --data my_scans --budget 1h30m

pipeline train hippocampus_mri_segmentation --data hippocampus max_epochs=50

pipeline train hippocampus_mri_segmentation --data hippocampus network=unet_plus_plus

pipeline train stroke_perfusion_segmentation --data my_scans --resume RUN

pipeline train stroke_perfusion_segmentation --data my_bids_folder --pseudonyms names.csv

Networks: deeplab_v3_plus, fcn, multi_encoder_unet, pspnet, segnet, u2net, u2net_small, unet, unet_3plus,
unet_plus_plus, unet_published.

Exit status: 0 trained; 3 trained, some cases were refused; 2 what was given is not usable; 130 interrupted.
"""


def command(
    bundle: words.Bundle,
    data: words.Dataset,
    changes: words.Overrides = None,
    budget: words.Budget = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Folder of the run (default: a new one below runs/).")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue this run where it stopped.")] = None,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
) -> None:
    """Train a bundle on a dataset.

    The run's folder gets the resolved config, checkpoints, tables and TensorBoard events. Without --budget and
    max_epochs a time is chosen that suits the device.

    Prepared cases are kept for later runs, for you alone to read, in the folder that PIPELINE_CACHE names, or else in
    your cache folder (on Linux ~/.cache/monai-volume-pipeline), up to PIPELINE_CACHE_GIB, or a fifth of the free disk
    and at most 50 GiB; it may be deleted at any time. cache_dir=FOLDER puts them elsewhere, cache_dir=null keeps none.
    """
    changed = words.overrides(changes, layout, pseudonyms, (data, bundle))
    budget_s = None if budget is None else words.seconds(budget)
    from pipeline.bundle import run

    # once steps are taken, the interruption carries the command that goes on
    with keeps("no step was taken yet; give the same command again"):
        summary = run.train(bundle, data, out=out, budget_s=budget_s, resume=resume, overrides=changed)
    typer.echo(summary.table)
    typer.echo(f"Run:   {summary.run_dir}  ({summary.seconds:.0f} s)")
    typer.echo(f"Look:  tensorboard --logdir {words.typed(summary.run_dir)}")
    typer.echo(f"Next:  pipeline predict {words.typed(summary.run_dir)} SCANS SEGMENTATIONS")
    if summary.refused:
        raise typer.Exit(SOME_REFUSED)
