"""OpenVINO as a means to run a network on a CPU: in float32, in bfloat16, and in int8 where a bundle has it."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.inference.means import Means, Run, half_types, in_batches_of

INSTALL = "pip install 'monai-volume-pipeline[openvino]'"
MODEL = "network.xml"  # and network.bin beside it
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


@cache
def _core() -> Any:
    """OpenVINO's entry to its devices, one for as long as this process lives.

    Each one gives the thread that first compiles with it a stack of its own for signals, and takes that away at its
    end. Where two of them end in the order in which they began, the thread is left with one that is gone, and the next
    signal, of Ctrl-C or of a data loader's process that has ended, kills the process without a word (OpenVINO 2026.4).
    """
    return openvino().Core()


def has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def openvino() -> Any:
    """The package, imported where it is first used.

    Raises:
        ConfigError: it is not installed; says how to.
    """
    return _imported("openvino")


def nncf() -> Any:
    """The package that quantises, likewise."""
    openvino()  # first, so that it too comes without its telemetry
    return _imported("nncf")


def _imported(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"no package {name}", expected=f"{name}, for networks in OpenVINO's runtime", fix=INSTALL)
    with _without_telemetry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages about packages
        return __import__(name)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Both packages report their use over the network unless their telemetry package is missing. Nothing that looks at
    patients' scans here talks to anyone: it is missing, for as long as they are imported."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module that can't be imported
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def openvino_means() -> list[Means]:
    """OpenVINO in the network's own float32, and with bfloat16 inside where the CPU has it; none where it is not
    installed."""
    if not has_openvino():
        return []
    here = ("float32", *half_types(torch.device("cpu")))
    return [
        Means(f"openvino_{name}", partial(_load, precision=name), _convert, "openvino", 8.0, 1.5, any_size=False)
        for name in _HINTS
        if name in here
    ]


def int8_means(model: Path) -> Means:
    """The quantised network at ``model``, an XML file of OpenVINO's with its weights beside it.

    What is not int8 in it runs in float32: what a bundle's table says then holds on every processor.
    """
    return Means(
        "openvino_int8", lambda network, window, folder: load_model(model, window), start_s=1.5, any_size=False
    )


@torch.no_grad()
def converted(network: nn.Module, window: torch.Tensor) -> Any:
    """``network`` as OpenVINO's model, for windows of this very size (1, C, *S)."""
    # By torch's tracer, which says at length what it leaves out; the probe compares results instead.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return openvino().convert_model(network, example_input=window, input=list(window.shape))


def save_model(model: Any, path: Path) -> None:
    """Write ``path`` (XML) and the weights beside it, none of them rounded."""
    openvino().save_model(model, str(path), compress_to_fp16=False)


def _convert(network: nn.Module, window: torch.Tensor, folder: Path) -> None:
    save_model(converted(network, window[:1]), folder / MODEL)


def _load(network: nn.Module, window: torch.Tensor, folder: Path, precision: str) -> Run:
    return load_model(folder / MODEL, window, precision)


def _load_from(model: Path, network: nn.Module, window: torch.Tensor, folder: Path) -> Run:
    return load_model(model, window)


def load_model(model: Path, window: torch.Tensor, precision: str = "float32") -> Run:
    """A model on disk, ready to run on as many threads as torch has."""
    compiled = _core().compile_model(
        str(model),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # pinned threads wait for whatever else has their core: a reader, say
        },
    )
    found = tuple(compiled.input(0).shape)
    if found[1:] != tuple(window.shape[1:]):
        raise ConfigError(f"a network made for windows of {found[1:]}", expected=f"{tuple(window.shape[1:])}")

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(compiled(x.contiguous().numpy(), share_inputs=True)[0])

    return in_batches_of(1, run)
