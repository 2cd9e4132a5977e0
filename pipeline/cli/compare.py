"""`pipeline compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:

pipeline compare runs/baseline runs/with_elastic

pipeline compare measured/nnunet measured/ours measured/ours_int8 --measure dice --measure lesion_f1

pipeline compare old/cases.csv new/cases.csv --out compared

Exit status: 0 compared; 2 fewer than two runs, or one that was not measured.
"""


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_A RUN_B...", help="Two or more runs that were measured, or their cases.csv."),
    ],
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            metavar="NAME",
            help="What is compared, several times if wanted (default: dice and hausdorff_95_mm_penalised).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the tables there, with every case's difference.")
    ] = None,
) -> None:
    """Compare results on the same cases: differences within cases, their interval, and whether it may be luck.

    The first run is the one that the others are compared with. p is that of the Wilcoxon signed-rank test, and is not
    corrected for the number of comparisons. Cases that only one run has are named and not compared.
    """
    from pipeline.errors import ConfigError
    from pipeline.io.destination import require_folder
    from pipeline.metrics import compare_rows, format_comparison, read_cases, write_comparison

    if len(runs) < 2:
        raise ConfigError("one run", expected="two or more to compare: pipeline compare RUN_A RUN_B")
    if out is not None:
        require_folder(out)
    rows = [read_cases(run) for run in runs]
    for number, (run, own) in enumerate(zip(runs[1:], rows[1:], strict=True), start=2):
        results = compare_rows(rows[0], own, *([measures] if measures else []))
        typer.echo(f"{runs[0]} (first) and {run} (second): {len({case.case_id for case in results.cases})} cases")
        typer.echo(format_comparison(results) + "\n")
        if out is not None:
            folder = out if len(runs) == 2 else out / f"{number - 1}"
            write_comparison(results, folder)
            typer.echo(f"Tables: {folder}")
