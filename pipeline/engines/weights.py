"""Trained weights into a network, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.errors import BundleError


def with_weights(network: torch.nn.Module, path: str, device: torch.device) -> torch.nn.Module:
    """``network`` with the state dict at ``path``, on ``device``, in eval mode.

    Raises:
        BundleError: no such file, not a state dict, or one of another network (its missing and foreign names are
        given).
    """
    if not Path(path).is_file():
        raise BundleError(
            "no trained weights",
            file=path,
            expected="a state dict",
            fix="train the bundle first (pipeline train), or name the file with --weights",
        )
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
    network.load_state_dict(state)
    return network.to(device).eval()
