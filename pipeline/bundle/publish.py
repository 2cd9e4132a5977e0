"""Publishing: what a run has trained becomes what a bundle ships."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.bundle.build import resolve
from pipeline.bundle.find import find_bundle
from pipeline.errors import BundleError

WEIGHTS_DEPEND_ON = ("network_def", "channels", "classes", "orientation", "spacing_mm", "normalization", "patch_size")
"""What weights mean something with: another value gives another input, or another meaning to the output."""

CHOSEN_AT_INFERENCE = "inference_"
"""How the arguments of a network begin that change its answer but not its weights, such as ``inference_depth``."""


def publish(run: str | Path, bundle: str | Path) -> Path:
    """Put a run's best weights into a bundle's ``models/``: the one way in. Returns the file.

    The cases that they were trained on go along (``models/split.json``), so that an evaluation never counts them, and
    their sizes (``models/trained_on.json``), so that a prediction says which case is unlike them.
    """
    from pipeline.data.trained_on import FILE as TRAINED_ON  # which loads numpy

    run, target = Path(run), find_bundle(bundle)
    weights, split = run / "models" / "model.pt", run / "models" / "split.json"
    for file in (weights, split, run / "run.json"):
        if not file.is_file():
            raise BundleError("no such file", file=file, expected="a run that pipeline train has completed")
    own, wanted = (_settled_by_training(resolve(folder, "inference")) for folder in (run, target))
    differing = [name for name in own if own[name] != wanted[name]]
    if differing:
        raise BundleError(
            f"weights trained with other values of {', '.join(differing)}: "
            + "; ".join(f"{name} {own[name]}" for name in differing),
            file=run,
            expected="; ".join(f"{name} {wanted[name]}" for name in differing),
            fix="write the run's values into the bundle's bundle.yaml and build it, or train with the bundle's",
        )
    models = target / "models"
    models.mkdir(exist_ok=True)
    for stale in [*models.glob("quantized.*"), models / TRAINED_ON]:  # of the weights that were here
        stale.unlink(missing_ok=True)
    described = run / "models" / TRAINED_ON
    for source in (weights, split, *([described] if described.is_file() else [])):
        shutil.copyfile(source, models / f".{source.name}")
        (models / f".{source.name}").replace(models / source.name)
    return models / "model.pt"


def _settled_by_training(config: dict[str, Any]) -> dict[str, Any]:
    settled = {name: config.get(name) for name in WEIGHTS_DEPEND_ON}
    network = settled["network_def"]
    if isinstance(network, dict):
        settled["network_def"] = {k: v for k, v in network.items() if not k.startswith(CHOSEN_AT_INFERENCE)}
    return settled
