"""`pipeline build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import words
from pipeline.errors import ConfigError

EXAMPLES = """Examples:

pipeline build bundles/stroke_perfusion_segmentation

pipeline build --check

pipeline build stroke_perfusion_segmentation --out my_bundle

pipeline build hippocampus_mri_segmentation network=unet_plus_plus --out unet_plus_plus_configs

Exit status: 0 written or up to date; 2 a bundle is not usable, or with --check not up to date.
"""


def command(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Bundles to build (default: all shipped). With --out: one, and network=NAME for another network.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where a generated file is missing or stale.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Copy the bundle there, without its weights, to change its bundle.yaml; with network=NAME the JSON "
            "configs alone.",
        ),
    ] = None,
) -> None:
    """Write a bundle's complete JSON configs from the shared base and its own bundle.yaml."""
    from pipeline.bundle import build, find_bundle, is_bundle, shipped_bundles

    names = [word for word in bundles or () if "=" not in word]
    changes = [word for word in bundles or () if "=" in word]
    network = changes[0].removeprefix("network=") if changes else None
    if len(changes) > 1 or changes[:1] == [network]:
        raise ConfigError(
            " ".join(changes), expected="network=NAME alone: other values stand in a bundle's bundle.yaml"
        )
    if (network or out) and len(names) != 1:
        raise ConfigError(f"{len(names)} bundles with network=NAME or --out", expected="one bundle")
    if names:
        folders = [find_bundle(name) for name in names]
    else:
        folders = [folder for folder in sorted(shipped_bundles().iterdir()) if is_bundle(folder)]
    for folder in folders:
        changed = build(folder, check=check, network=network, out=out).changed
        written = ", ".join(file.name for file in changed)
        if out is not None and network is None and changed:
            typer.echo(f"{folder.name}: copied to {out}, without weights")
            typer.echo(f"Change: {out / 'configs' / 'bundle.yaml'}, and what metadata.json and docs say of it")
            typer.echo(f"Then:   {words.typed('pipeline', 'train', out, '--data', 'DATASET')}")
            continue
        where = f" to {out / 'configs'}" if out is not None else ""
        typer.echo(f"{folder.name}: {f'wrote {written}{where}' if changed else 'up to date'}")
