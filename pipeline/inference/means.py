"""`Means`: one way to run a trained network; and those that torch itself has, in `torch_means`."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pipeline.networks.convolution3d import Convolution3d

Run = Callable[[torch.Tensor], torch.Tensor]
"""Windows (B, C, *S) -> logits (B, K, *S), as the network itself does it."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PACKAGE = "network.pt2"


@dataclass(frozen=True)
class Means:
    """One way to run a network in eval mode.

    Args:
        name: what ``runtime:`` in a config takes to have it without a probe.
        load: (network, window (b, C, *S), folder) -> the network, ready to run; ``folder`` is what ``build`` has made.
        build: (network, window, folder): converts or compiles into the empty ``folder``; None where there is nothing to
            build.
        artefact: name of that folder; two means may share one.
        build_s, start_s: seconds that building and loading take on an ordinary machine, for as long as they were never
            measured on this one.
        any_size: whether what ``load`` gives takes windows of any size, or only such as it was loaded for.
    """

    name: str
    load: Callable[[nn.Module, torch.Tensor, Path], Run]
    build: Callable[[nn.Module, torch.Tensor, Path], None] | None = None
    artefact: str = ""
    build_s: float = 0.0
    start_s: float = 0.0
    any_size: bool = True


def half_types(device: torch.device) -> list[str]:
    """The 16-bit types for whose convolutions there are kernels on ``device``, so that they are worth timing.

    bfloat16 on a CPU needs AVX-512, or what Arm has for it. Elsewhere, as on most laptops, torch takes loops that are
    meant for no one to wait for: 40 times the float32 time, so that even a trial takes minutes.
    """
    if device.type == "cuda":
        return ["float16", *(["bfloat16"] if torch.cuda.is_bf16_supported(including_emulation=False) else [])]
    # What torch's own compiler asks; there is no public name for it.
    has = device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["bfloat16"] if has else []


def torch_means(device: torch.device) -> list[Means]:
    """What torch offers on ``device``, the safest first; the very first is the network as it is, in float32."""
    if device.type not in ("cpu", "cuda"):
        return [Means("float32", _as_it_is)]
    dtypes = ["float32", *half_types(device)]
    found = [Means("float32", _as_it_is)]
    found += [Means(f"{d}+channels_last", partial(_eager, dtype=d, channels_last=True)) for d in dtypes]
    found += [Means(d, partial(_eager, dtype=d, channels_last=False)) for d in dtypes[1:]]
    if _has_compiler(device):
        for name in dtypes:
            build = partial(_compile, dtype=name)
            found.append(Means(f"{name}+compiled", _load_compiled, build, f"compiled_{name}", 60.0, 0.5, False))
    return found


def _as_it_is(network: nn.Module, window: torch.Tensor, folder: Path) -> Run:
    return network


def _eager(network: nn.Module, window: torch.Tensor, folder: Path, dtype: str, channels_last: bool) -> Run:
    run = in_channels_last(network) if channels_last else network

    def eager(x: torch.Tensor) -> torch.Tensor:
        with _autocast(x.device, dtype):
            return run(x)

    return eager


def _autocast(device: torch.device, dtype: str):
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, dtype=DTYPES[dtype])


def in_channels_last(network: nn.Module) -> nn.Module:
    """A copy whose convolutions store their weights, and so give their maps, channels-last.

    Torch's instance norm would go back and forth between the layouts; on a CPU group norm with one group per channel,
    which is the same function and keeps the layout, takes its place. Torch's 3D convolution becomes `Convolution3d`,
    which no single window of few channels slows down.
    """
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if type(module) is nn.Conv3d:
            module.__class__ = Convolution3d
        for name, norm in module.named_children():
            if isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d) and not norm.track_running_stats:
                setattr(module, name, _as_group_norm(norm))
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            order = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=order)
    return network


def _as_group_norm(norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> nn.Module:
    if norm.affine and norm.weight.is_cuda:  # autocast would run group norm in float32 there
        return norm
    same = nn.GroupNorm(norm.num_features, norm.num_features, norm.eps, norm.affine)
    if norm.affine:
        same.weight, same.bias = norm.weight, norm.bias
    return same.train(norm.training)


class _UnderAutocast(nn.Module):
    def __init__(self, network: nn.Module, device: torch.device, dtype: str) -> None:
        super().__init__()
        self.network, self.device_type, self.dtype = network, device.type, DTYPES[dtype]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device_type, dtype=self.dtype):
            return self.network(x)


def _has_compiler(device: torch.device) -> bool:
    """Whether torch's compiler could work here: it writes C++ for a CPU, Triton for a GPU, with C++ around it that is
    built with CUDA's toolkit."""
    found = any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)
    if not found or os.name != "posix":
        return False
    return device.type == "cpu" or (importlib.util.find_spec("triton") is not None and _has_cuda_toolkit())


def _has_cuda_toolkit() -> bool:
    """Where torch looks for it; its own ``CUDA_HOME`` can't be imported without setuptools, which not all have."""
    named = any(os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH"))
    return named or shutil.which("nvcc") is not None or Path("/usr/local/cuda").is_dir()


@torch.no_grad()
def _compile(network: nn.Module, window: torch.Tensor, folder: Path, dtype: str) -> None:
    """Compiled ahead of time, for this machine and this size: loading it again takes a tenth of a second, where
    ``torch.compile`` with all its caches warm traces and loads for several."""
    network, window = in_channels_last(network), window.contiguous()
    if dtype != "float32":
        network = _UnderAutocast(network, window.device, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's about its own use of torch
        program = torch.export.export(network.eval(), (window,))
        # Frozen, a CPU's convolutions keep their weights in the order that their kernels read.
        options = {"freezing": window.device.type == "cpu"}
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / _PACKAGE), inductor_configs=options)


def _load_compiled(network: nn.Module, window: torch.Tensor, folder: Path) -> Run:
    index = window.device.index if window.device.type == "cuda" else -1
    package = torch._inductor.aoti_load_package(str(folder / _PACKAGE), device_index=-1 if index is None else index)
    # It reads every window by the strides that it was compiled for, and does not look at those that it is given.
    return in_batches_of(len(window), lambda x: package(x.contiguous()))


def in_batches_of(size: int, run: Run) -> Run:
    """For what takes batches of one size only: a larger batch in parts, a smaller one filled up.

    >>> in_batches_of(2, lambda x: x + 1)(torch.zeros(3, 1)).flatten().tolist()
    [1.0, 1.0, 1.0]
    """

    def batches(x: torch.Tensor) -> torch.Tensor:
        if len(x) == size:
            return run(x)
        logits = []
        for part in x.split(size):
            missing = x.new_zeros((size - len(part), *x.shape[1:]))
            logits.append(run(torch.cat([part, missing]))[: len(part)])
        return torch.cat(logits)

    return batches
