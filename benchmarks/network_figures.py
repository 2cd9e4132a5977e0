"""The figures of docs/networks.md, counted from the networks themselves as they are built by default.

    python benchmarks/network_figures.py
    python benchmarks/network_figures.py --bundle hippocampus_mri_segmentation [--repeats 5] [--device cuda] [KEY=VALUE]

Parameters; operations of one forward pass of 512 x 512 pixels or 96 x 96 x 96 voxels (a multiplication and an addition
are two; the published U-Nets at the papers' 572 and 132); how far the network sees. One channel, two classes.

With ``--bundle``: the networks as `network=NAME` builds them for a bundle, and one forward pass of one window of its
patch size in float32, in evaluation mode; the networks take turns, and the median of the repeats counts.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from monai.bundle import ConfigParser
from networks import forward, median_seconds
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pipeline.networks.segnet
from pipeline import networks
from pipeline.bundle import find_bundle, resolve
from pipeline.networks.aspp import ASPP
from pipeline.networks.instance_norm import InstanceNorm
from pipeline.networks.pyramid_pooling import PyramidPooling
from pipeline.networks.unpooling import PoolWithIndices

SIZE = {2: 512, 3: 96}
SMALL = {"channels": [64] * 6, "inner_channels": 16, "decoder_inner_channels": 16}
BUILD: dict[str, Any] = {
    "unet": networks.UNet,
    "unet_published": networks.UNetAsPublished,
    "unet_plus_plus": networks.UNetPlusPlus,
    "unet_3plus": networks.UNet3Plus,
    "multi_encoder_unet": networks.MultiEncoderUNet,
    "fcn": networks.FCN,
    "deeplab_v3_plus": networks.DeepLabV3Plus,
    "pspnet": networks.PSPNet,
    "segnet": networks.SegNet,
    "u2net": networks.U2Net,
    "u2net_small": lambda *numbers, **narrow: networks.U2Net(*numbers, **SMALL | narrow),
}
# Arguments that make a network narrow, so that measuring what it sees is cheap: that stays the same.
NARROW: dict[str, dict[str, Any]] = {
    "unet": {"channels": [1] * 4},
    "unet_published": {"features": 1},
    "unet_plus_plus": {"channels": [1] * 5},
    "unet_3plus": {"channels": [1] * 5},
    "multi_encoder_unet": {"channels": [1] * 4},
    "fcn": {"channels": [1] * 6},
    "deeplab_v3_plus": {"channels": [4] * 5, "pyramid_channels": 1, "skip_channels": 1},
    "pspnet": {"channels": [4] * 5, "head_channels": 1},
    "segnet": {"channels": [1] * 5},
    "u2net": {"channels": [4] * 6},
    "u2net_small": {"channels": [4] * 6, "inner_channels": 1, "decoder_inner_channels": 1},
}


def receptive_field(name: str) -> int:
    """How far apart, in pixels along an axis, two pixels may be that both reach one output.

    Measured on a long strip as the extent of the gradient, with all weights positive, no norms or activations, and
    means in the place of maxima. Means over parts of the whole image, which make it the whole image, are left out.
    """
    long, narrow = (4092, 188) if name == "unet_published" else (4096, 64)
    network = BUILD[name](2, 1, 1, **NARROW[name]).double().eval()
    for module in list(network.modules()):
        for child_name, child in module.named_children():
            if isinstance(child, InstanceNorm | nn.BatchNorm2d | nn.ReLU | nn.LeakyReLU | nn.Dropout):
                setattr(module, child_name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, child_name, mean)
            elif isinstance(child, PoolWithIndices):
                setattr(module, child_name, MeanAndSize(child.factor))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1 / max(parameter[0].numel(), 1))
        for module in network.modules():
            if isinstance(module, ASPP):
                module.mean[0].weight.zero_()  # type: ignore[operator]
            if isinstance(module, PyramidPooling):
                for grid in module.grids:
                    grid[0].weight.zero_()  # type: ignore[index, operator]
    x = torch.ones(1, 1, long, narrow, dtype=torch.float64, requires_grad=True)
    logits = network(x)
    # Outputs of one block of the deepest grid differ in what they reach: the widest counts.
    widest = 0
    for pixel in range(logits.shape[2] // 2, logits.shape[2] // 2 + 32, 5):
        (gradient,) = torch.autograd.grad(logits[0, 0, pixel].sum(), x, retain_graph=True)
        reached = gradient[0, 0].abs().sum(1).nonzero().flatten()
        widest = max(widest, int(reached[-1] - reached[0]) + 1)
    return widest  # no more than the strip's length


class MeanAndSize(nn.Module):
    """In the place of `PoolWithIndices`, for an `unpool` that spreads each value over its window."""

    def __init__(self, factor: list[int]) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(factor, factor, 0, True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pool(x), x


def spread(x: torch.Tensor, indices: torch.Tensor, size: list[int]) -> torch.Tensor:
    return nn.functional.interpolate(x, size, mode="nearest")


def table() -> None:
    pipeline.networks.segnet.unpool = spread  # type: ignore[attr-defined]
    print(f"{'':20}{'2D parameters':>15}{'GFLOP 512^2':>13}{'receptive':>11}{'3D parameters':>15}{'GFLOP 96^3':>12}")
    for name, build in BUILD.items():
        line = f"{name:20}"
        for dims in (2, 3):
            with torch.device("meta"):
                network = build(dims, 1, 2).eval()
                size = SIZE[dims] if name != "unet_published" else {2: 572, 3: 132}[dims]
                counter = FlopCounterMode(display=False)
                with counter, torch.no_grad():
                    network(torch.empty(1, 1, *[size] * dims))
            parameters = sum(p.numel() for p in network.parameters())
            line += f"{parameters:>15,}{counter.get_total_flops() / 1e9:>{13 if dims == 2 else 12}.0f}"
            line += f"{receptive_field(name):>11}" if dims == 2 else ""
        print(line, flush=True)


def bundle_table(bundle: str, overrides: list[str], threads: int, repeats: int, device: torch.device) -> None:
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    folder = find_bundle(bundle)
    built: dict[str, nn.Module] = {}
    for name in BUILD:
        if name == "unet_published":  # its windows are of other sizes
            continue
        config = resolve(folder, "evaluate", overrides=[f"network={name}", *overrides])
        built[name] = ConfigParser(config).get_parsed_content("network_def").eval().to(device)
    window = torch.randn(1, config["in_channels"], *config["patch_size"], device=device)
    seconds = median_seconds({name: forward(network, window, False) for name, network in built.items()}, repeats)
    print(f"{folder.name}, window {' x '.join(map(str, config['patch_size']))}, {threads} threads, {device}")
    print(f"{'':20}{'parameters':>13}{'GFLOP':>8}{'seconds':>9}")
    for name, network in built.items():
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():  # of shapes alone: it does not know oneDNN's convolution by its name
            network.to("meta")(window.to("meta"))
        parameters = sum(p.numel() for p in network.parameters())
        print(f"{name:20}{parameters:>13,}{counter.get_total_flops() / 1e9:>8.1f}{seconds[name]:>9.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", metavar="BUNDLE")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of --bundle, such as other channels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of --bundle")
    options = parser.parse_args()
    if options.bundle is None:
        table()
    else:
        device = torch.device(options.device)
        bundle_table(options.bundle, options.overrides, options.threads, options.repeats, device)


if __name__ == "__main__":
    main()
