"""`pipeline init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import SOME_REFUSED, keeps
from pipeline.cli.progress import counted
from pipeline.errors import ConfigError

EXAMPLES = """Examples:

pipeline init Task04_Hippocampus hippocampus_mri

pipeline init my_scans stroke_ctp --channels cbf,cbv,mtt --classes 1=core,2=penumbra

pipeline init my_scans liver_ct --budget 8h --memory 10 --dry-run

Then: pipeline train hippocampus_mri --data Task04_Hippocampus
"""


def command(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The folder of the scans, or a CSV or JSON list.")],
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The folder of the new bundle; its name is its own.")
    ],
    layout: Annotated[
        str | None, typer.Option(metavar="LAYOUT", help="How the files lie (default: found out, and said).")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Channels to use, by commas; the first one's grid is the reference."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="What the label values mean: 1=core,2=penumbra, or core,penumbra."),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GB", min=0.1, help="Memory of a training step (default: what is there).")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Training time to plan for: 20m, 8h (default: 30m on a CPU, 1h on a GPU)."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Cases read at once (default: as many as cores, at most 8).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that is there (never one with weights).")
    ] = False,
) -> None:
    """Set up a bundle for a dataset: spacing, intensities, network, patch and training follow from the scans.

    Reads every case once, measures on this machine what a training step takes, and writes a complete bundle whose
    configs/bundle.yaml gives the reason for each setting.
    """
    names = None if channels is None else _names(channels, "--channels")
    named = None if classes is None else _classes(classes)
    budget_s = None if budget is None else words.seconds(budget)
    from pipeline.bundle import create
    from pipeline.data import fingerprint_dataset

    if not dry_run:
        create.require_writable(bundle, force)
    with keeps("nothing is written; what was read of the cases is kept, the same command goes on from there"):
        description, reference = create.describe(dataset, names, layout)
        why = f" ({reference})" if reference else ""
        number = len(description.cases)
        typer.echo(f"{number} case{'s' if number != 1 else ''}; channels {', '.join(description.channel_names)}{why}")
        with counted("cases read") as count:
            fingerprint = fingerprint_dataset(description, jobs, count)
        for case in fingerprint.cases:
            if case.refusal is not None:
                typer.secho(f"refused: {case.refusal}", fg="yellow", err=True)
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


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len({name.lower() for name in names}) < len(names):
        raise ConfigError(f"{option} {text}", expected="names with commas between them, each once")
    return names


def _classes(text: str) -> dict[int, str]:
    """``1=core,2=penumbra``, or ``core,penumbra`` for 1 and 2.

    >>> _classes("core,penumbra"), _classes("255=cell")
    ({1: 'core', 2: 'penumbra'}, {255: 'cell'})
    """
    words_given = _names(text, "--classes")
    if not any("=" in word for word in words_given):
        return dict(enumerate(words_given, 1))
    pairs = [word.partition("=") for word in words_given]
    if not all(value.strip().isdecimal() and int(value) > 0 and name.strip() for value, _, name in pairs):
        raise ConfigError(
            f"--classes {text}", expected="VALUE=NAME with commas between them, such as 1=core,2=penumbra"
        )
    if len({int(value) for value, _, _ in pairs}) < len(pairs):
        raise ConfigError(f"--classes {text}", expected="each value once")
    return {int(value): name.strip() for value, _, name in pairs}
