"""`pipeline phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.outcome import keeps
from pipeline.cli.progress import counted

EXAMPLES = """Examples:

pipeline phantom scans --cases 40

pipeline phantom scans --cases 100 --seed 7 --penumbra --healthy 0.2

pipeline phantom rare --cases 100 --healthy 0.5 --lesion-ml 1 2

Exit status: 0 written; 2 what was given is not usable; 130 interrupted.
"""


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the dataset.")],
    cases: Annotated[int, typer.Option(metavar="N", min=1, help="Number of cases.")],
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="The same seed makes the same cases.")] = 0,
    penumbra: Annotated[bool, typer.Option("--penumbra", help="Label the penumbra too, as class 2.")] = False,
    healthy: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Share of the cases that have no lesion.")
    ] = 0.0,
    lesion_ml: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="MIN MAX", help="Small lesions, with cores of this volume: 0.1 to 10 ml."),
    ] = None,
) -> None:
    """Write a dataset of digital brain-perfusion phantoms: CBF, CBV and MTT maps with labelled stroke lesions."""
    from pipeline.data.phantom_dataset import write_dataset
    from pipeline.io.destination import require_folder

    require_folder(folder)

    with keeps(f"finished cases stay in {folder}; to have all: delete it and start again"), counted("cases") as count:
        write_dataset(
            folder, cases, seed, penumbra=penumbra, healthy_share=healthy, lesion_ml=lesion_ml, progress=count
        )
    typer.echo(f"{cases} cases in {folder}")
