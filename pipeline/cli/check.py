"""`pipeline check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import FAILED, FAILED_INPUT, keeps, own_faults_end_with
from pipeline.cli.progress import counted

EXAMPLES = """Examples:

pipeline check my_scans

pipeline check my_scans --bundle stroke_perfusion_segmentation

pipeline check my_scans volume=0 assume_orientation=RAS

pipeline check my_scans --html check.html --json check.json

Exit status: 0 every case can be used; 1 some are refused; 2 nothing could be checked.
"""


def command(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder of scans, or a list of cases.")],
    changes: words.Settings = None,
    bundle: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Check for this bundle: its channels, classes and policies.")
    ] = None,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with pictures of the cases, the worst first."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all that was found.")] = None,
    jobs: words.Jobs = None,
    every: Annotated[bool, typer.Option("--all", help="List the clean cases too.")] = False,
) -> None:
    """Look at every case of a dataset: what is refused, repaired, odd, or unlike the other cases.

    Every voxel is read once; what is learned is kept in a cache folder (PIPELINE_CACHE), never in the dataset, so that
    the next check, and `pipeline init`, read only what has changed.
    """
    changed = words.overrides(changes, paths=(dataset,))
    from pipeline.bundle.check import check
    from pipeline.cli.check_table import show
    from pipeline.io.destination import require_file

    kept = "the cases that were read are kept; the same command goes on from there"
    with own_faults_end_with(FAILED_INPUT):  # 1 says that cases were refused
        for file in filter(None, (html, json_file)):
            require_file(file)
        with keeps(kept), counted("cases") as count:
            found = check(
                dataset, bundle, layout=layout, pseudonyms=pseudonyms, jobs=jobs, progress=count, overrides=changed
            )
        show(found, every)
        refusals = (case.refusal for case in found.fingerprint.cases if case.refusal)
        again = words.with_setting(refusals, changed)
        if again is not None:
            typer.echo(f"{again}, and likewise with `pipeline init`, `train`, `evaluate` and `predict`")
        if json_file is not None:
            from pipeline.data.summary import write_json

            write_json(found, json_file)
            typer.echo(f"All of it as JSON: {json_file}")
        if html is not None:
            from pipeline.report import check_page

            with counted("pictures") as count:
                check_page(found, html, progress=count)
            typer.echo(f"With pictures: {html}")
    if found.refused:
        raise typer.Exit(FAILED)
