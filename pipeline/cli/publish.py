"""`pipeline publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words

EXAMPLES = """Examples:

pipeline publish runs/my_bundle/2026-01-31_12-00-00 my_bundle

pipeline publish runs/best bundles/stroke_perfusion_segmentation

Exit status: 0 published; 2 no finished run, or no bundle that its weights fit.
"""


def command(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished training run.")],
    bundle: words.Bundle,
) -> None:
    """Copy the best weights of a run into a bundle's models/: the only way by which a run changes a bundle."""
    from pipeline.bundle.publish import publish

    typer.echo(f"published: {publish(source, bundle)}")
