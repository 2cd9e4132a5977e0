"""Publishing: what a run has trained becomes what a bundle ships."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.bundle.build import resolve
from pipeline.bundle.find import find_bundle
from pipeline.bundle.refusals import refuse_other_settings, settled_by_training
from pipeline.errors import BundleError


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
    status = json.loads((run / "run.json").read_text(encoding="utf-8")).get("status")
    if status in ("prepared", "running"):
        raise BundleError(
            "a run that was stopped, or is still at work",
            file=run / "run.json",
            expected="a run that has ended",
            fix=f"wait for it, or let it end: pipeline train BUNDLE --data DATASET --resume {run}",
        )
    own, wanted = (settled_by_training(resolve(folder, "inference")) for folder in (run, target))
    refuse_other_settings(
        own,
        wanted,
        run,
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
