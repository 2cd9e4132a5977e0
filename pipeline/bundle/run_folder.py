"""The folder of a run: a bundle of its own, whose configs are those that the run was made with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.bundle.base import KINDS
from pipeline.bundle.build import UnknownKeyError, resolve
from pipeline.bundle.overrides import Override, take_network
from pipeline.errors import ConfigError
from pipeline.io.atomic import write_text

OF_THE_DATASET = ("layout", "pseudonyms", "patients")
"""Keys that say something of the dataset that was trained on, and nothing of another."""


def new_folder(name: str) -> Path:
    return Path("runs") / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def settle(config: dict[str, Any], run_dir: Path, data: str | Path) -> None:
    """Tie a config to this run's folder and data, as absolute paths: it can be run again from anywhere."""
    config["bundle_root"] = config["output_dir"] = str(run_dir.resolve())
    config["dataset_dir"] = str(Path(data).resolve())
    config |= {name: str(Path(config[name]).resolve()) for name in ("pseudonyms", "patients") if config.get(name)}
    config["run_dir"] = {"_target_": "pipeline.engines.run_folder", "output_dir": "@output_dir", "name": "."}


def write_bundle(source: Path, run_dir: Path, train_config: dict[str, Any], overrides: Sequence[str]) -> None:
    """The run's folder as a bundle; run again from there, by plain MONAI, it writes to a new folder below it."""
    configs = run_dir / "configs"
    for kind in KINDS:
        config = dict(train_config) | {"resume": False}
        if kind != "train":  # which may see other cases, that lie elsewhere
            config = resolve(source, kind, overrides=_known_to(source, kind, overrides))
            config |= {name: None for name in OF_THE_DATASET if name in config}
        config["bundle_root"] = str(run_dir.resolve())
        write_config(config, kind, run_dir)
    metadata = source / "configs" / "metadata.json"
    if metadata.is_file() and source != run_dir:
        shutil.copyfile(metadata, configs / "metadata.json")


def write_config(config: dict[str, Any], kind: str, run_dir: Path) -> None:
    write_text(run_dir / "configs" / f"{kind}.json", json.dumps(config, indent=1) + "\n")


def _known_to(bundle: Path, kind: str, overrides: Sequence[str]) -> list[str]:
    """Those overrides of a training that another kind of config knows: ``patch_size``, but not ``batch_size``."""
    network, values = take_network(overrides)
    choice = [] if network is None else [f"network={network}"]  # an argument of the network is known beside it alone

    def known(value: Override) -> bool:
        try:
            resolve(bundle, kind, overrides=[*choice, value])
        except UnknownKeyError:
            return False
        except ConfigError:
            pass  # known, and valid beside the others alone, such as channels beside in_channels
        return True

    return [*choice, *(str(value) for value in values if known(value))]
