"""Seconds and ratios: this project's networks against MONAI's, same weights count, same input, in one run.

    python benchmarks/networks.py [--threads 2] [--repeats 5] [--keep-memory]
    python benchmarks/networks.py --norms      # instance norm against group norm with one channel per group

A ratio above 1 says how many times faster ours is. Candidates take turns, so that a drifting machine slows all of them; the median
of the repeats counts. ``--keep-memory`` tells glibc to keep freed memory: bit-identical results, fewer page faults.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
from collections.abc import Callable

import torch
from monai.networks.nets import DynUNet
from torch import nn

from pipeline.networks import UNet
from pipeline.networks.instance_norm import InstanceNorm

CHANNELS = (32, 64, 128, 256)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last_3d}


def keep_freed_memory() -> None:
    """glibc only: serve large tensors from the heap and never give it back."""
    if not sys.platform.startswith("linux"):
        raise SystemExit("--keep-memory needs glibc")
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def median_seconds(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate, taking turns; the first round warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def forward(network: nn.Module, x: torch.Tensor, bf16: bool) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            network.eval()(x)

    return run


def forward_backward(network: nn.Module, x: torch.Tensor, bf16: bool) -> Callable[[], None]:
    def run() -> None:
        network.train().zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(x)
        outputs = logits if isinstance(logits, list) else [logits]
        sum(level.float().square().mean() for level in outputs).backward()

    return run


def compare_unets(repeats: int) -> None:
    strides = [1, 2, 2, 2]
    monai = DynUNet(3, 1, 3, kernel_size=[3] * 4, strides=strides, upsample_kernel_size=strides[1:], filters=CHANNELS)
    plain = UNet(3, 1, 3, channels=CHANNELS, deep_supervision=False)
    supervised = UNet(3, 1, 3, channels=CHANNELS)
    counts = [sum(p.numel() for p in network.parameters()) for network in (monai, plain)]
    print(f"U-Net {CHANNELS}, batch 2, 1x40x56x40; parameters: MONAI DynUNet {counts[0]:,}, ours {counts[1]:,}")
    print(f"{'':38}{'DynUNet s':>10}{'ours s':>9}{'ratio':>7}{'+ deep supervision s':>22}")
    for bf16 in (False, True):
        for layout, memory_format in LAYOUTS.items():
            x = torch.randn(2, 1, 40, 56, 40).contiguous(memory_format=memory_format)
            for network in (monai, plain, supervised):
                network.to(memory_format=memory_format)
            for mode, make in (("forward", forward), ("forward+backward", forward_backward)):
                seconds = median_seconds(
                    {
                        "monai": make(monai, x, bf16),
                        "plain": make(plain, x, bf16),
                        "supervised": make(supervised, x, bf16),
                    },
                    repeats,
                )
                label = f"{mode}, {'bf16' if bf16 else 'float32'}, {layout}"
                print(
                    f"{label:38}{seconds['monai']:10.3f}{seconds['plain']:9.3f}"
                    f"{seconds['monai'] / seconds['plain']:7.2f}{seconds['supervised']:22.3f}",
                    flush=True,
                )


def compare_norms(repeats: int) -> None:
    print(f"batch 2, 32 channels, 40x56x40 {'':8}{'torch InstanceNorm3d ms':>26}{'ours ms':>9}{'ratio':>7}")
    for bf16 in (False, True):
        for layout, memory_format in LAYOUTS.items():
            kind = torch.bfloat16 if bf16 else torch.float32
            x = torch.randn(2, 32, 40, 56, 40, dtype=kind).contiguous(memory_format=memory_format).requires_grad_()
            norms = {"torch": nn.InstanceNorm3d(32, affine=True), "ours": InstanceNorm(32)}
            for mode, make in (("forward", forward), ("forward+backward", forward_backward)):
                seconds = median_seconds({name: make(norm, x, bf16) for name, norm in norms.items()}, repeats)
                label = f"{mode}, {'bf16' if bf16 else 'float32'}, {layout}"
                print(
                    f"{label:38}{1e3 * seconds['torch']:19.2f}{1e3 * seconds['ours']:9.2f}"
                    f"{seconds['torch'] / seconds['ours']:7.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--norms", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    (compare_norms if arguments.norms else compare_unets)(arguments.repeats)


if __name__ == "__main__":
    main()
