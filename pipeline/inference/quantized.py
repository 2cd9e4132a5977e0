"""A bundle's int8 network on disk: the model, and the record that says what it came from and what it costs.

    models/
      quantized.json   weights it came from (sha256), cases, Dice of each class in float32 and in int8
      quantized.xml    OpenVINO's model, with quantized.bin, its weights

`pipeline quantize` writes them. A quantised network stands for one set of weights: beside others it is not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import BundleError
from pipeline.io.atomic import write_text

RECORD, MODEL, WEIGHTS = "quantized.json", "quantized.xml", "quantized.bin"
_FIX = "quantise these weights: pipeline quantize BUNDLE --data DATASET"


@dataclass(frozen=True)
class Quantized:
    """What ``quantized.json`` holds.

    Args:
        state_sha256: of the network's tensors, see `state_digest`: what is compared before the model is used.
        weights_sha256: of the file that they were loaded from, as ``sha256sum`` prints it.
        model_sha256: of the model's own two files.
        window: voxels per axis that it takes.
        calibration: cases and windows that the ranges of its activations were taken from.
        validation_cases: how many cases the table is of.
        dice: per class and ``"mean"``: ``{"float32": ..., "int8": ...}``, means over those cases.
        versions: of the packages that made it.
    """

    state_sha256: str
    weights_sha256: str
    model_sha256: str
    window: Sequence[int]
    calibration: dict[str, int]
    validation_cases: int
    dice: dict[str, dict[str, float]]
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def largest_loss(self) -> float:
        """By how much int8 lies below float32 in Dice, in the class where it loses most."""
        return max(scores["float32"] - scores["int8"] for scores in self.dice.values())

    def write(self, folder: Path) -> None:
        """Write the record; raises DataError where that fails."""
        content = asdict(self) | {"largest_loss": round(self.largest_loss, 5)}
        write_text(folder / RECORD, json.dumps(content, indent=1) + "\n")


def read_quantized(folder: Path, network: nn.Module) -> Path:
    """The int8 model of ``network`` in ``folder``.

    Raises:
        BundleError: there is none, or one of other weights, or one that is damaged.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = record["state_sha256"], record["model_sha256"]
    except FileNotFoundError:
        raise BundleError("no quantised network", file=folder / RECORD, fix=_FIX) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"a record that can't be read ({type(error).__name__})", file=folder / RECORD, fix=_FIX
        ) from error
    if found[0] != state_digest(network):
        raise BundleError(
            "an int8 network that was made from other weights", file=folder / RECORD, expected="these weights", fix=_FIX
        )
    if not all((folder / name).is_file() for name in (MODEL, WEIGHTS)) or found[1] != model_digest(folder):
        raise BundleError("a damaged int8 network", file=folder / MODEL, expected="the files of its record", fix=_FIX)
    return folder / MODEL


def model_digest(folder: Path) -> str:
    """SHA-256 over the model's two files."""
    digest = hashlib.sha256()
    for name in (MODEL, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def state_digest(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a network's state, on whichever device and in whichever
    order of storage it lies.

    >>> norm = nn.BatchNorm1d(2)
    >>> before = state_digest(norm)
    >>> _ = norm.weight.data.mul_(2)
    >>> state_digest(norm) == before
    False
    """
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
