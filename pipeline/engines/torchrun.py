"""Several processes, one GPU each (or CPU processes, for tests), started by ``torchrun``."""

from __future__ import annotations

import os
from weakref import WeakSet

import torch
import torch.distributed as dist

# Before a process group exists: imported later (ignite does), this module keeps the group of that moment alive for
# good, as the default of its functions' arguments, and `leave` could not end the group's threads.
import torch.distributed.nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ConfigError

_wrapped: WeakSet[DistributedDataParallel] = WeakSet()


def join() -> None:
    """Join the other processes of this run: NCCL where there is a GPU, Gloo on CPUs."""
    if "RANK" not in os.environ:
        raise ConfigError(
            "a multi-GPU config in a process that torchrun did not start",
            expected="torchrun --nproc_per_node=GPUS -m monai.bundle run --config_file configs/multi_gpu_train.json",
            fix="start it with torchrun, or use configs/train.json on one device",
        )
    dist.init_process_group(backend="nccl" if torch.cuda.is_available() else "gloo", init_method="env://")


def leave() -> None:
    """Take leave of the other processes, and wait for the threads that spoke with them.

    Networks that `distributed` gave can't be trained on afterwards. Without this NCCL warns at exit, and a thread of
    Gloo's that is late to let go of its last tensor ends a process whose interpreter is closing, in one of some hundred
    runs, with "terminate called without an active exception" (https://github.com/pytorch/pytorch/issues/190489):
    ``destroy_process_group`` alone does not end those threads while a network holds the group.
    """
    for network in _wrapped:
        for name in ("reducer", "logger", "process_group"):  # the group last: what it is freed by waits for its threads
            setattr(network, name, None)
    if dist.is_initialized():
        dist.destroy_process_group()


def distributed(network: torch.nn.Module, device: torch.device) -> DistributedDataParallel:
    """``network`` (already on ``device``) with its gradients averaged over all processes at every step."""
    devices = [device] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(network, device_ids=devices)
    _wrapped.add(wrapped)
    return wrapped
