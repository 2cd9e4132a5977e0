"""Several processes, one GPU each (or CPU processes, for tests), started by ``torchrun``."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

from pipeline.errors import ConfigError


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
    """Take leave of the other processes; without it NCCL warns at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()


def distributed(network: torch.nn.Module, device: torch.device) -> torch.nn.parallel.DistributedDataParallel:
    """``network`` (already on ``device``) with its gradients averaged over all processes at every step."""
    devices = [device] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(network, device_ids=devices)
