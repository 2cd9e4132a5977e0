"""`pipeline report`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import words
from pipeline.cli.outcome import keeps
from pipeline.cli.progress import counted
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.report import RunResults

EXAMPLES = """Examples:

pipeline report runs/hippocampus_mri_segmentation/2026-01-31_12-00-00 --data Task04_Hippocampus

pipeline report lesions --data my_labelled_scans --serve

pipeline report measured --data Task04_Hippocampus --predictions nnunet_output --out nnunet.html

Exit status: 0 written; 2 what was given is not usable; 130 interrupted.
"""


def command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A training, an evaluation, a prediction, or a measurement."),
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DATASET", help="The images and references: for pictures and the 3D viewer."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The label maps that were measured, where RUN is a measurement.")
    ] = None,
    channel: Annotated[str | None, typer.Option(metavar="NAME", help="Channel to show (default: the first).")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page (default: report.html in RUN).")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Show it at a local address until Ctrl-C.")] = False,
    layout: words.Layout = None,
    pseudonyms: words.Pseudonyms = None,
) -> None:
    """Write one page on a run: curves, distributions, volumes, every case, and the worst, median and best in pictures.

    The page holds all it needs and opens by a double click. With --data, predictions are measured against their
    references, and the cases of a training or an evaluation, which keep no label maps, are predicted once more by its
    weights. A page with pictures shows patients: pass it on as you would their images.
    """
    from pipeline.report import read_run
    from pipeline.report.ranking import ranked
    from pipeline.report.report_page import report_page, require_same_dataset

    with keeps("nothing is written; to redo it: the same command again"):
        results = read_run(run)
        if data is None and not (results.record or results.rows or results.curves):
            raise DataError(
                "nothing to report",
                file=run,
                expected="the folder of a run, of predictions or of measures",
                fix="of label maps that something else has made, give the references: --data DATASET",
            )
        file = out if out is not None else run / "report.html"
        if data is not None and out is None:
            require_same_dataset(file, data)
        if data is not None and not results.rows:
            results = _measured(results, run, data, pseudonyms)
        if data is None or not results.rows:
            report_page(results, file, dataset=data)
        else:
            from pipeline.bundle.shown_cases import shown_cases

            ids = [case.case_id for case in ranked(results.rows)]
            with counted("cases") as count:
                shown = shown_cases(
                    run,
                    results.record,
                    ids,
                    data,
                    predictions=predictions,
                    channel=channel,
                    layout=layout,
                    pseudonyms=pseudonyms,
                    progress=count,
                )
            report_page(results, file, shown.volumes, shown.problems, shown.predicted_again, data)
            for case_id, problem in shown.problems.items():
                typer.echo(f"no picture of {case_id}: {problem}", err=True)
    typer.echo(f"Report: {file}")
    if serve:
        from pipeline.report import serve as serve_page

        serve_page(file, lambda address: typer.echo(f"At {address} until Ctrl-C"))


def _measured(results: RunResults, predictions: Path, data: Path, pseudonyms: Path | None) -> RunResults:
    """Label maps, measured against the references of a dataset."""
    from pipeline.bundle.find import recorded_bundle
    from pipeline.bundle.measure import measure

    bundle = recorded_bundle(results.record)
    with counted("pairs") as count:
        found = measure(predictions, data, bundle=bundle, pseudonyms=pseudonyms, progress=count)
    outcomes = [{"case_id": o.case_id, "status": o.status, "reason": o.reason} for o in found.outcomes]
    return replace(results, rows=found.rows, outcomes=outcomes)
