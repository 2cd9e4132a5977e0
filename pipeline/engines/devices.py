"""Where a run computes, and how a process is set up for it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

import torch
from monai.utils import set_determinism

from pipeline.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes this process's GPU (``LOCAL_RANK`` under torchrun), or else the CPU.

    Apple's ``mps`` is taken only when it is asked for by name: 3D convolutions are not complete there.

    Raises:
        ConfigError: a name that torch does not know, or a GPU that it does not see.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
        return chosen
    if str(name).startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"device {name!r}, but torch {torch.__version__} sees no CUDA GPU",
            expected="a GPU that torch can use, or device=cpu",
            fix="leave device at 'auto', or install a CUDA build of torch",
        )
    try:
        return torch.device(str(name))
    except RuntimeError as error:
        raise ConfigError(
            f"device {name!r}", expected="auto, cpu, cuda, or one GPU of several, such as cuda:1"
        ) from error


def on_device(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """``network``, moved to ``device``: what ``$@network_def.to(@device)`` says in configs that hold code."""
    return network.to(device)


def keep_freed_memory() -> bool:
    """Let the C allocator keep large freed blocks instead of giving them back to the system.

    A 3D network allocates and frees tensors of many megabytes at every layer; by default glibc maps each one anew and
    the kernel has to zero its pages again, which costs more than the arithmetic (1.4-1.5x on a forward pass).
    Results are bit-identical. Returns whether it was done: only glibc on Linux knows these settings.
    """
    name = ctypes.util.find_library("c") if sys.platform == "linux" else None
    if name is None:
        return False
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def initialise(seed: int = 0, deterministic: bool = False) -> None:
    """Set up this process for a run: random seeds, and memory that is kept (see :func:`keep_freed_memory`).

    Args:
        seed: seeds Python, NumPy, torch and MONAI's random transforms.
        deterministic: on CUDA, also force deterministic convolutions, at the cost of their speed. A CPU run is
            deterministic either way.
    """
    keep_freed_memory()
    set_determinism(seed=seed)
    if torch.cuda.is_available() and not deterministic:
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True
