"""Which arithmetic a training step runs in: chosen by timing the real step on this machine.

bf16 halves or thirds a step on a CPU with AMX or AVX512-BF16, but doubles it where it is emulated, and its gain
shrinks for small networks; channels-last storage helps most networks and slows some. So nothing is inferred from the
name of the hardware: each candidate runs the real step on a real batch. Only what has no kernels at all is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch

from pipeline.errors import ConfigError
from pipeline.inference.means import half_types

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CHANNELS_LAST = "channels_last"
_LONG_S = 1.0  # a step beside which the start-up of its kernels, and the noise of one measurement, are small


@dataclass(frozen=True)
class Precision:
    """An arithmetic for a network.

    Args:
        dtype: of convolutions under autocast; float32 means no autocast. Weights stay float32 always.
        channels_last: whether activations are stored channels-last.
        seconds: what each candidate of the probe took per step, where there was a probe.
    """

    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as ``bfloat16+channels_last``: what ``precision:`` in a config takes to have it without a probe."""
        dtype = next(name for name, dtype in _DTYPES.items() if dtype is self.dtype)
        return f"{dtype}+{_CHANNELS_LAST}" if self.channels_last else dtype

    @classmethod
    def parse(cls, name: str) -> Precision:
        dtype, _, storage = name.partition("+")
        if dtype not in _DTYPES or storage not in ("", _CHANNELS_LAST):
            raise ConfigError(
                f"precision {name!r}",
                expected=f"auto, or one of {', '.join(_DTYPES)}, each with or without '+channels_last'",
            )
        return cls(_DTYPES[dtype], bool(storage))

    def autocast(self, device: torch.device):
        """The context in which the network runs."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def store(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` (B, C, H, W[, D]) in this precision's storage order; values unchanged."""
        if not self.channels_last:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d)

    def prepare(self, network: torch.nn.Module) -> None:
        """Store the convolution weights of ``network`` in this precision's order, in place.

        Raises:
            ConfigError: where this processor can't train the network in channels-last.
        """
        if self.channels_last and (layer := _overrun(network)):
            raise ConfigError(
                f"precision {self.name!r} for layer {layer}, a strided 1x1 convolution of fewer than 8 channels, whose "
                "kernel in channels-last writes where it must not on a processor without AVX-512",
                expected=f"precision auto, or {self.name.partition('+')[0]}",
            )
        for parameter in network.parameters():
            if parameter.ndim in (4, 5):
                order = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
                parameter.data = parameter.data.contiguous(
                    memory_format=order if self.channels_last else torch.contiguous_format
                )


def _overrun(network: torch.nn.Module) -> str | None:
    """The first layer of ``network``, if any, whose training in channels-last would corrupt this process's memory.

    Without AVX-512, oneDNN's gradient of a 2D 1x1 convolution's weights takes input channels by eights: with a stride
    and fewer than eight of them it writes past its buffer (torch 2.13; 8 and more, 3D and other kernels are right).
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return None
    return next(
        (
            name
            for name, layer in network.named_modules()
            if isinstance(layer, torch.nn.Conv2d)
            and layer.weight.device.type == "cpu"
            and (layer.in_channels < 8 and layer.kernel_size == (1, 1) and layer.stride != (1, 1))
        ),
        None,
    )


def candidates(device: torch.device, network: torch.nn.Module) -> list[Precision]:
    """What is worth timing on ``device`` for the training of ``network``, the safest first."""
    half = half_types(device)
    if device.type == "cuda":
        best = Precision(_DTYPES[half[-1]])  # bfloat16 where it is there: it needs no loss scale
        return [Precision(), best, replace(best, channels_last=True)]
    if device.type == "cpu":
        dtypes = [_DTYPES[name] for name in ("float32", *half)]
        storages = (False,) if _overrun(network) else (False, True)
        return [Precision(dtype, channels_last) for dtype in dtypes for channels_last in storages]
    return [Precision()]


def fastest(
    step: Callable[[Precision], None], device: torch.device, network: torch.nn.Module, repeats: int = 2
) -> Precision:
    """Time ``step`` under each candidate and return the fastest, with all timings.

    Args:
        step: runs forward and backward of ``network`` once, and leaves nothing behind.
        network: what is to be trained.
        repeats: timed runs after a warm-up and a first timing; a candidate that takes twice the best is not repeated,
            nor is a step of more than a second, so that the probe of a large network leaves the budget to its training.
    """

    def timed(precision: Precision) -> float:
        start = time.perf_counter()
        step(precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    safest_first = candidates(device, network)
    seconds: dict[str, float] = {}
    # The likely fastest first, so that the slow ones are seen to be slow at once.
    for candidate in reversed(safest_first):
        best_s = min(seconds.values(), default=math.inf)
        taken = timed(candidate)  # kernels are chosen and compiled at the first step
        if taken < _LONG_S or taken < 1.5 * best_s:
            taken = timed(candidate)
        if taken < _LONG_S and taken < 2 * best_s:
            taken = min(taken, *(timed(candidate) for _ in range(repeats)))
        seconds[candidate.name] = round(taken, 4)
    # Within a twentieth is noise: the safer of two candidates is taken.
    best = next(candidate for candidate in safest_first if seconds[candidate.name] <= 1.05 * min(seconds.values()))
    return Precision(best.dtype, best.channels_last, seconds)
