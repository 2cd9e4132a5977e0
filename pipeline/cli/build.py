"""`pipeline build`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """Examples:

pipeline build bundles/stroke_perfusion_segmentation

pipeline build --check
"""


def command(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="BUNDLE", help="Bundles to build (default: all shipped).", show_default=False),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where a generated file is missing or stale.")
    ] = False,
) -> None:
    """Write a bundle's complete JSON configs from the shared base and its own bundle.yaml."""
    from pipeline.bundle import build, find_bundle, is_bundle, shipped_bundles

    if bundles:
        folders = [find_bundle(name) for name in bundles]
    else:
        folders = [folder for folder in sorted(shipped_bundles().iterdir()) if is_bundle(folder)]
    for folder in folders:
        changed = build(folder, check=check).changed
        written = ", ".join(file.name for file in changed)
        typer.echo(f"{folder.name}: {f'wrote {written}' if changed else 'up to date'}")
