"""Trained weights into a network, or a clear refusal."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch

from pipeline.errors import BundleError, ConfigError
from pipeline.inference import Ensemble


def with_weights(
    network: torch.nn.Module, path: str | Sequence[str], device: torch.device, average: str = "logits"
) -> torch.nn.Module:
    """``network`` with the state dict at ``path``, on ``device``, in eval mode.

    Args:
        path: of the weights; several make an `pipeline.inference.Ensemble`: folds of a cross-validation, checkpoints.
        average: what an ensemble averages, ``"logits"`` or ``"probabilities"``.

    Raises:
        BundleError: no such file, not a state dict, one of another network (its missing and foreign names are given),
            or one with NaN or infinite values.
        ConfigError: no path at all.
    """
    if not isinstance(path, str | Path):
        if not path:
            raise ConfigError("an empty list of weights", expected="one file or several")
        members = [_loaded(deepcopy(network), each, device) for each in path]
        return members[0] if len(members) == 1 else Ensemble(members, average).eval()
    return _loaded(network, path, device)


def require_weights(path: str | Path) -> None:
    """Refuse a file of weights that is not there, before any work.

    Raises:
        BundleError: no such file.
    """
    run = Path(path).parent.parent
    if not Path(path).is_file() and Path(path).parent.name == "models" and (run / "run.json").is_file():
        raise BundleError(
            "a run that ended before its first validation: it has no weights",
            file=path,
            expected="a state dict",
            fix=f"train on: pipeline train BUNDLE --data DATASET --resume {run} where it has checkpoints, or anew",
        )
    if not Path(path).is_file():
        raise BundleError(
            "no trained weights",
            file=path,
            expected="a state dict",
            fix="train it (pipeline train) and name the run's folder in the bundle's place; or name other weights "
            "(--weights FILE; in Python weights=)",
        )


def _loaded(network: torch.nn.Module, path: str | Path, device: torch.device) -> torch.nn.Module:
    require_weights(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, from EOFError to UnpicklingError
        raise BundleError(
            f"a file that torch cannot load safely ({type(error).__name__})",
            file=path,
            expected="a state dict, such as models/model.pt of a run",
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):  # MONAI's CheckpointSaver nests it so
        state = state["model"]
    own = network.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        training = isinstance(state, dict) and {"network", "optimizer"} <= state.keys()
        raise BundleError(
            "a checkpoint of a training" if training else f"no tensors by name ({type(state).__name__})",
            file=path,
            expected="a state dict, such as models/model.pt of a run",
            fix="take models/model.pt of that run" if training else None,
        )
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if missing or foreign or shapes:
        raise BundleError(
            f"weights of another network: {len(missing)} tensors missing {missing[:3]}, {len(foreign)} unknown "
            f"{foreign[:3]}, {len(shapes)} of another shape {sorted(shapes)[:3]}",
            file=path,
            expected=f"the {len(own)} tensors of {type(network).__name__} as this bundle configures it",
            fix="use the weights of this bundle, or the network_def that the weights were trained with",
        )
    kinds = [name for name in own if own[name].is_floating_point() != state[name].is_floating_point()]
    odd = sorted({*kinds, *(name for name in own if state[name].is_meta or state[name].layout != own[name].layout)})
    if odd:
        raise BundleError(
            f"weights of another type in {len(odd)} of {len(own)} tensors {odd[:3]}", file=path, expected="dense floats"
        )
    broken = sorted(name for name in own if own[name].is_floating_point() and not state[name].isfinite().all())
    if broken:
        raise BundleError(
            f"weights with NaN or infinite values in {len(broken)} of {len(own)} tensors {broken[:3]}",
            file=path,
            expected="finite numbers",
            fix="take an earlier checkpoint, or train again: that training has diverged, or the file is damaged",
        )
    network.load_state_dict(state)
    return network.to(device).eval()
