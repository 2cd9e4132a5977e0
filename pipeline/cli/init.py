"""`pipeline init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import SOME_REFUSED, keeps
from pipeline.cli.progress import counted
from pipeline.errors import DataError

EXAMPLES = """Examples:

pipeline init Task04_Hippocampus hippocampus_mri

pipeline init my_scans stroke_ctp --channels cbf,cbv,mtt --classes 1=core,2=penumbra

pipeline init my_series brain_mri volume=0 assume_orientation=RAS

pipeline init my_scans liver_ct --budget 8h --memory 10 --dry-run

Then: pipeline train hippocampus_mri --data Task04_Hippocampus

Exit status: 0 set up; 3 set up, some cases were refused; 2 what was given is not usable; 130 interrupted.
"""


def command(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The folder of the scans, or a CSV or JSON list.")],
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The folder of the new bundle; its name is its own.")
    ],
    changes: words.Settings = None,
    layout: words.Layout = None,
    channels: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Channels to use, by commas; the first one's grid is the reference."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="CLASSES", help="What the label values mean: 1=core,2=penumbra, or core,penumbra."),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GB", min=0.1, help="Memory of a training step (default: what is there).")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Training time to plan for: 20m, 8h (default: 30m on a CPU, 1h on a GPU)."),
    ] = None,
    jobs: words.Jobs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that is there (never one with weights).")
    ] = False,
) -> None:
    """Set up a bundle for a dataset: spacing, intensities, network, patch and training follow from the scans.

    Reads every case once, measures on this machine what a training step takes, and writes a complete bundle whose
    configs/bundle.yaml gives the reason for each setting.
    """
    names = None if channels is None else words.names(channels, "--channels")
    named = None if classes is None else words.classes(classes)
    budget_s = None if budget is None else words.seconds(budget)
    changed = words.overrides(changes, paths=(dataset, bundle))
    from pipeline.bundle import create
    from pipeline.bundle.data_rules import taken_on_trust
    from pipeline.cli.check_table import refused_lines
    from pipeline.data import fingerprint_dataset
    from pipeline.data.stack_rules import stack_rules

    settings = taken_on_trust(changed)

    if not dry_run:
        create.require_writable(bundle, force)
    with keeps("nothing is written; what was read of the cases is kept, the same command goes on from there"):
        description, reference = create.describe(dataset, names, layout, settings)
        rules = stack_rules(description.channel_names, **settings)
        why = f" ({reference})" if reference else ""
        number = len(description.cases)
        typer.echo(f"{number} case{'s' if number != 1 else ''}; channels {', '.join(description.channel_names)}{why}")
        with counted("cases read") as count:
            fingerprint = fingerprint_dataset(description, jobs, count, rules=rules)
        for line in refused_lines(fingerprint):
            typer.secho(f"refused: {line}", fg="yellow", err=True)
        refusals = (case.refusal for case in fingerprint.cases if case.refusal)
        again = words.with_setting(refusals, changed)
        if fingerprint.cases and not fingerprint.usable:
            raise DataError(
                "no case that can be used, as said above",
                file=dataset,
                expected="at least two",
                fix=again or f"{words.typed('pipeline', 'check', dataset)} says what is wrong with each",
            )
        if again is not None:
            typer.secho(f"{again}; the bundle then says so, too", fg="yellow", err=True)
        typer.echo(
            "Measuring what a training step takes on this machine: two to four of them, a line each, in a minute or two"
            " where nothing else runs"
        )
        made = create.create(
            fingerprint,
            bundle,
            memory_gb=memory,
            budget_s=budget_s,
            classes=named,
            layout=layout,
            settings=settings,
            force=force,
            dry_run=dry_run,
            progress=lambda sentence: typer.echo(f"measured: {sentence}"),
        )
    typer.echo(f"\n{made.table}\n\n{made.yaml}")
    if dry_run:
        typer.echo(f"Nothing is written (--dry-run). Without it, this is {bundle / 'configs' / 'bundle.yaml'}")
    else:
        time = () if budget is None else ("--budget", budget)
        train = words.typed("pipeline", "train", bundle, "--data", dataset, *time)
        typer.echo(f"Bundle: {bundle}\nNext:   {train}")
    if len(fingerprint.usable) < len(fingerprint.cases):
        raise typer.Exit(SOME_REFUSED)
