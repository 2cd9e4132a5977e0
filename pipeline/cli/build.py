"""`pipeline build`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """Examples:

pipeline build bundles/stroke_perfusion_segmentation

pipeline build --check
"""


def build(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="BUNDLE", help="Bundles to build (default: all shipped).", show_default=False),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where a generated file is missing or stale.")
    ] = False,
) -> None:
    """Write a bundle's complete JSON configs from the shared base and its own bundle.yaml."""
    from pipeline import bundle

    for folder in [bundle.find_bundle(name) for name in bundles] if bundles else bundle.shipped_bundles():
        bundle.build(folder, check=check)
        typer.echo(f"{folder}: {'up to date' if check else 'built'}")
