"""What a training step costs, found by doing it: memory and seconds of forward, loss, backward and optimizer.

Two instruments. `account` runs the real network and loss on fake tensors (shapes without data) and adds up the storage
that is alive at any moment: exact for tensors, in about a second, on any machine, for steps that would not fit it. What
it can't see is the workspace of convolutions and the time. `measure` runs the step, on a CPU in a fresh process whose
peak of resident memory is read, on CUDA by the allocator's own peak, in the fastest arithmetic that the trainer would
choose too. The search for a patch uses the first, scaled by the second.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pipeline.data.memory import available_memory_bytes
from pipeline.engines.devices import keep_freed_memory
from pipeline.engines.muon import Muon, is_matrix, orthogonal
from pipeline.engines.precision import Precision, candidates, fastest
from pipeline.losses import DeepSupervision, DiceCrossEntropy
from pipeline.networks import UNet

_ENOUGH_IDLE = 0.8  # of the cores that torch would use; below, the clock on the wall tells nothing
_PARALLEL = 0.8  # of the ideal: what several threads gain on convolutions of this kind
_WATCHED_S = 0.5
_CLEAR_PEAK = "5"  # what /proc/PID/clear_refs takes to forget the peak of resident memory (proc(5))


@dataclass(frozen=True)
class StepSpec:
    """A training step: a U-Net's arguments and the batch that it is given."""

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    convolutions_per_stage: tuple[int, ...]
    patch_size: tuple[int, int, int]
    batch_size: int

    def network(self) -> torch.nn.Module:
        return UNet(
            spatial_dims=3,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            channels=self.channels,
            strides=self.strides,
            kernel_sizes=self.kernel_sizes,
            convolutions_per_stage=self.convolutions_per_stage,
        )

    def batch(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        shape = (self.batch_size, self.in_channels, *self.patch_size)
        label = torch.randint(0, self.out_channels, (self.batch_size, 1, *self.patch_size), device=device)
        return torch.randn(shape, device=device), label


@dataclass(frozen=True)
class Account:
    """A step, counted.

    Args:
        activation_bytes: of all tensors alive at the peak but the weights; grows with the batch's voxels.
        weight_bytes: of the weights, once.
        voxel_flops: multiplications and additions; grow with the batch's voxels.
        step_flops: those of the optimizer, the same for any number of voxels.
    """

    activation_bytes: int
    weight_bytes: int
    voxel_flops: int
    step_flops: int = 0

    @property
    def flops(self) -> int:
        return self.voxel_flops + self.step_flops

    @property
    def bytes(self) -> int:
        """Of a training: beside weights, gradients, momentum and averaged copy, activations or what a step makes."""
        return 4 * self.weight_bytes + max(self.activation_bytes, 3 * self.weight_bytes)

    def scaled(self, ratio: float) -> Account:
        """Of the same network on ``ratio`` times as many voxels."""
        activation_bytes, voxel_flops = int(self.activation_bytes * ratio), int(self.voxel_flops * ratio)
        return Account(activation_bytes, self.weight_bytes, voxel_flops, self.step_flops)


@dataclass(frozen=True)
class Measurement:
    """A step as it ran.

    Args:
        bytes: that it added to the process (CPU) or took on the device (CUDA).
        seconds: of a training that has the machine for itself.
        precision: its arithmetic.
        busy: whether other programs took the cores meanwhile. Threads that wait for each other are then slowed down a
            hundredfold, so the computing time of one thread was measured and divided among the cores.
    """

    bytes: int
    seconds: float
    precision: str
    busy: bool = False


def account(spec: StepSpec, precision: str = "float32") -> Account:
    """Count a step without computing it.

    Args:
        precision: as in a config; half the bytes per activation where it is 16 bits wide.
    """
    arithmetic = Precision.parse(precision)
    with FakeTensorMode():
        network, loss = spec.network(), DeepSupervision(DiceCrossEntropy())
        weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        alive, counter = _Alive(), FlopCounterMode(display=False)
        with counter, alive:
            image, label = spec.batch()
            with arithmetic.autocast(torch.device("cpu")):
                value = loss(network(image), label)
            value.backward()
        with FlopCounterMode(display=False) as of_step:
            orthogonal([parameter.flatten(1) for parameter in network.parameters() if is_matrix(parameter)])
    return Account(alive.peak, weights, int(counter.get_total_flops()), int(of_step.get_total_flops()))


class _Alive(TorchDispatchMode):
    """Adds up the storage of all tensors made under it, until each is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._bytes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._bytes:
                    self._bytes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage._cdata)
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


def measure(spec: StepSpec, device: str, precision: str | None = None) -> Measurement | None:
    """Run a step and read what it took; None where it does not fit into memory.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        precision: the arithmetic; by default the fastest of those that a training would try.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
        try:
            return _measured(spec, device, precision)
        except torch.OutOfMemoryError:
            return None
    # A fresh process: this one's peak may lie behind it, and its freed memory would be taken again unseen.
    question = json.dumps({"spec": asdict(spec), "device": device, "precision": precision})
    code = "from pipeline.planning.memory import _answer; _answer()"
    package = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    ran = subprocess.run(
        [sys.executable, "-c", code],
        input=question,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        check=False,
    )
    if ran.returncode == -signal.SIGKILL:  # how Linux ends a process that takes more memory than there is
        return None
    if ran.returncode != 0:
        raise RuntimeError(f"the measured step ended with {ran.returncode}:\n{ran.stderr}")
    answer = json.loads(ran.stdout.splitlines()[-1])
    return None if answer is None else Measurement(**answer)


def _answer() -> None:
    """Measure what stdin asks for, in this process, and print the result as JSON; null where memory is too small."""
    question = json.loads(sys.stdin.read())
    levels = {key: _tuples(value) for key, value in question["spec"].items()}
    try:
        measured = _measured(StepSpec(**levels), question["device"], question["precision"])
    except MemoryError:
        print("null")
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's CPU allocator has no exception of its own
            raise
        print("null")
    else:
        print(json.dumps(asdict(measured)))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _measured(spec: StepSpec, device: str, precision: str | None) -> Measurement:
    threads = torch.get_num_threads()
    busy = device == "cpu" and _idle_cores() < _ENOUGH_IDLE * threads
    if busy:
        torch.set_num_threads(1)
    if device == "cpu":
        keep_freed_memory()  # as a training does
    else:
        torch.backends.cudnn.benchmark = True
    before = _restart_peak() if device == "cpu" else 0
    place = torch.device(device)
    network = spec.network().to(place)
    averaged = [parameter.detach().clone() for parameter in network.parameters()]
    loss = DeepSupervision(DiceCrossEntropy())
    optimizer = Muon(network.parameters())
    image, label = spec.batch(place)

    def step(precision: Precision) -> None:
        precision.prepare(network)
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast(place):
            value = loss(network(precision.store(image)), label)
        value.backward()
        optimizer.step()
        torch._foreach_lerp_(averaged, [parameter.detach() for parameter in network.parameters()], 0.03)

    if precision is None and not busy:
        chosen = fastest(step, place, network)
        seconds = chosen.seconds[chosen.name]
    else:
        tried = candidates(place, network) if precision is None else [Precision.parse(precision)]
        times = {candidate.name: _seconds(step, candidate, place, busy) for candidate in tried}
        chosen = min(tried, key=lambda candidate: times[candidate.name])
        seconds = times[chosen.name] / (threads * _PARALLEL if busy and threads > 1 else 1)
    name = chosen.name
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(chosen)
        # Reserved, not allocated: what the allocator can't give back counts for the device as well.
        return Measurement(int(torch.cuda.max_memory_reserved()), seconds, name)
    peak = _status_bytes("VmHWM:")
    # Where the system does not tell (no Linux), what is counted stands in: the tensors without any workspace.
    return Measurement(peak - before if peak else account(spec, name).bytes, seconds, name, busy)


def _seconds(step: Callable[[Precision], None], precision: Precision, device: torch.device, busy: bool) -> float:
    """Of the faster of two steps, after one in which kernels are chosen and compiled."""
    clock = time.process_time if busy else time.perf_counter
    taken = []
    for _ in range(3):
        start = clock()
        step(precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return min(taken[1:])


def _idle_cores() -> float:
    """How many cores nobody uses while this process sleeps; infinite where the system does not tell."""

    def ticks() -> tuple[int, int]:
        try:
            numbers = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        except OSError:  # no Linux
            return 0, 0
        return sum(map(int, numbers)), int(numbers[3]) + int(numbers[4])

    total, idle = ticks()
    time.sleep(_WATCHED_S)
    later_total, later_idle = ticks()
    if later_total == total:
        return math.inf
    return (later_idle - idle) / (later_total - total) * (os.cpu_count() or 1)


def _restart_peak() -> int:
    """Let the peak of this process's resident memory begin now; returns what is resident now, bytes."""
    try:
        Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK, encoding="ascii")
    except OSError:  # no Linux, or a container that forbids it: then the peak of the imports counts as before
        return _status_bytes("VmHWM:")
    return _status_bytes("VmRSS:")


def _status_bytes(field: str) -> int:
    """A field of this process's status, bytes; 0 where the system has no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(field)), 0)


def device_memory_bytes(device: str) -> int:
    """What a training may take at most: of a GPU its whole memory, of a CPU what is available now."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return available_memory_bytes()
