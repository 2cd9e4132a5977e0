"""Seconds and ratios: this project's networks against their peers', same architecture, same input, in one run.

    python benchmarks/networks.py [--threads 2] [--repeats 5] [--keep-memory]
    python benchmarks/networks.py --peers [ROW ...] [--device cuda]  # 1x2x96^3 and 4x1x512^2; all rows, or some
    python benchmarks/networks.py --norms      # convolution, up-convolution and instance norm against torch's

A ratio above 1 says how many times faster ours is. Candidates take turns, so that a drifting machine slows all
of them; the median of the repeats counts. ``--keep-memory`` tells glibc to keep freed memory: bit-identical
results, fewer page faults. ``--layouts``, ``--types`` and ``--modes`` choose what a row is measured in.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus, DynUNet
from torch import nn

import pipeline.networks
from pipeline.networks import UNet
from pipeline.networks.convolution3d import Convolution3d
from pipeline.networks.instance_norm import InstanceNorm
from pipeline.networks.transposed_convolution import TransposedConvolution3d

CHANNELS = (32, 64, 128, 256)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last_3d}
BASIC = (32, 32, 64, 128, 256)
INPUTS = {2: (4, 1, 512, 512), 3: (1, 2, 96, 96, 96)}


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


def settle(x: torch.Tensor) -> None:
    """Wait until what was started on the tensor's device is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def forward(network: nn.Module, x: torch.Tensor, bf16: bool) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            network.eval()(x)
        settle(x)

    return run


def forward_backward(network: nn.Module, x: torch.Tensor, bf16: bool) -> Callable[[], None]:
    def run() -> None:
        network.train().zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            logits = network(x)
        outputs = [logits] if isinstance(logits, torch.Tensor) else logits
        sum(level.float().square().mean() for level in outputs).backward()
        settle(x)

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


def unet_and_dynunet(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    strides = [1, 2, 2, 2]
    peer = DynUNet(dims, channels, 3, [3] * 4, strides, strides[1:], filters=CHANNELS)
    return UNet(dims, channels, 3, channels=CHANNELS, deep_supervision=False), peer


def unet_and_basic_unet(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    ours = UNet(dims, channels, 3, channels=BASIC, downsampling="max_pool", deep_supervision=False)
    return ours, BasicUNet(dims, channels, 3, features=(*BASIC, BASIC[0]))


def unet_and_residual_dynunet(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    strides = [1, 2, 2, 2]
    peer = DynUNet(dims, channels, 3, [3] * 4, strides, strides[1:], filters=CHANNELS, res_block=True)
    return UNet(dims, channels, 3, channels=CHANNELS, deep_supervision=False, encoder="residual"), peer


def unet_plus_plus_and_basic(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    ours = pipeline.networks.UNetPlusPlus(
        dims,
        channels,
        3,
        channels=BASIC,
        norm="instance",
        activation="leaky_relu",
        deep_supervision=False,
        inference_mode="fast",
    )
    return ours, BasicUNetPlusPlus(dims, channels, 3, features=(*BASIC, BASIC[0]))


def unet_and_plain_conv_unet(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    convolution, norm = (nn.Conv2d, nn.InstanceNorm2d) if dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    peer = PlainConvUNet(
        channels,
        len(CHANNELS),
        CHANNELS,
        convolution,
        3,
        [1, 2, 2, 2],
        2,
        3,
        2,
        conv_bias=False,
        norm_op=norm,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return UNet(dims, channels, 3, channels=CHANNELS, deep_supervision=False), peer


def deeplab_and_segmentation_models(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """On a ResNet-50, separable. Behind the pyramid the peer has one convolution and one in its decoder, ours two."""
    import segmentation_models_pytorch

    peer = segmentation_models_pytorch.DeepLabV3Plus(
        "resnet50", encoder_weights=None, in_channels=channels, classes=3, decoder_atrous_rates=(6, 12, 18)
    )
    return pipeline.networks.DeepLabV3Plus(dims, channels, 3, blocks_per_stage=(3, 4, 6, 3), separable=True), peer


def deeplab_as_published_and_segmentation_models(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """The same with the peer's convolution behind the pyramid moved into its decoder: there the paper has both."""
    ours, peer = deeplab_and_segmentation_models(dims, channels)
    decoder = peer.decoder
    decoder.aspp, behind = decoder.aspp[:1], decoder.aspp[1:]
    decoder.block2 = nn.Sequential(*decoder.block2, *behind)
    return ours, peer


def rows() -> dict[str, tuple[Callable[[int, int], tuple[nn.Module, nn.Module]], int]]:
    """What can be compared here: name of the row -> how to build ours and the peer, and the dimensions."""
    pairs = {"unet-dynunet": unet_and_dynunet, "unet-basicunet": unet_and_basic_unet}
    pairs["residual-dynunet"] = unet_and_residual_dynunet
    if hasattr(pipeline.networks, "UNetPlusPlus"):
        pairs["unetplusplus-basicunetplusplus"] = unet_plus_plus_and_basic
    if find_spec("dynamic_network_architectures"):  # nnU-Net's
        pairs["unet-plainconvunet"] = unet_and_plain_conv_unet
    found = {f"{name}-{dims}d": (build, dims) for name, build in pairs.items() for dims in (3, 2)}
    if find_spec("segmentation_models_pytorch"):
        found["deeplab-segmentationmodels-2d"] = (deeplab_and_segmentation_models, 2)
        found["deeplab-segmentationmodels-published-2d"] = (deeplab_as_published_and_segmentation_models, 2)
    return found


def compare_peers(
    names: Sequence[str],
    layouts: Sequence[str],
    types: Sequence[str],
    modes: Sequence[str],
    repeats: int,
    device: torch.device,
) -> None:
    available = rows()
    unknown = set(names) - set(available)
    if unknown:
        raise SystemExit(f"no row {', '.join(sorted(unknown))}; there are {', '.join(available)}")
    print(f"{'':74}{'peer s':>9}{'ours s':>9}{'ratio':>7}")
    for name in names or available:
        build, dims = available[name]
        shape = INPUTS[dims]
        ours, peer = build(dims, shape[1])
        counts = [sum(p.numel() for p in network.parameters()) for network in (ours, peer)]
        print(f"{name}, {'x'.join(map(str, shape))}; parameters: ours {counts[0]:,}, peer {counts[1]:,}")
        for layout in layouts:
            memory_format = torch.contiguous_format
            if layout == "channels-last":
                memory_format = torch.channels_last if dims == 2 else torch.channels_last_3d
            x = torch.randn(shape, device=device).contiguous(memory_format=memory_format)
            for network in (ours, peer):
                network.to(device, memory_format=memory_format)
            for kind in types:
                for mode in modes:
                    make = forward if mode == "forward" else forward_backward
                    bf16 = kind == "bf16"
                    seconds = median_seconds({"peer": make(peer, x, bf16), "ours": make(ours, x, bf16)}, repeats)
                    print(
                        f"  {f'{mode}, {kind}, {layout}':72}{seconds['peer']:9.3f}{seconds['ours']:9.3f}"
                        f"{seconds['peer'] / seconds['ours']:7.2f}",
                        flush=True,
                    )


def compare_norms(repeats: int) -> None:
    print(f"convolution, batch 1, forward {'':9}{'torch Conv3d ms':>26}{'ours ms':>9}{'ratio':>7}")
    for into, out, *size in ((1, 32, 40, 56, 40), (1, 8, 96, 96, 96), (3, 32, 64, 64, 64), (256, 256, 5, 7, 5)):
        x = torch.randn(1, into, *size)
        runs = {kind: forward(kind(into, out, 3, padding=1), x, False) for kind in (nn.Conv3d, Convolution3d)}
        theirs, ours = median_seconds(runs, repeats).values()
        label = f"{into} -> {out}, {'x'.join(map(str, size))}"
        print(f"{label:38}{1e3 * theirs:19.2f}{1e3 * ours:9.2f}{theirs / ours:7.2f}", flush=True)
    print(f"up-convolution, batch 1, 64 -> 32, 32^3 {'':7}{'torch ConvTranspose3d ms':>26}{'ours ms':>9}{'ratio':>7}")
    for layout, memory_format in LAYOUTS.items():
        x = torch.randn(1, 64, 32, 32, 32).contiguous(memory_format=memory_format).requires_grad_()
        ups = {kind: kind(64, 32, 2, 2, bias=False) for kind in (nn.ConvTranspose3d, TransposedConvolution3d)}
        for mode, make in (("forward", forward), ("forward+backward", forward_backward)):
            runs = {kind.__name__: make(up.to(memory_format=memory_format), x, False) for kind, up in ups.items()}
            theirs, ours = median_seconds(runs, repeats).values()
            label = f"{mode}, float32, {layout}"
            print(f"{label:38}{1e3 * theirs:19.2f}{1e3 * ours:9.2f}{theirs / ours:7.2f}", flush=True)
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
    parser.add_argument("--peers", nargs="*", metavar="ROW", help=f"of {', '.join(rows())}; all by default")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--types", nargs="+", choices=("float32", "bf16"), default=["float32"])
    parser.add_argument("--device", default="cpu", help="of --peers")
    modes = ("forward", "forward+backward")
    parser.add_argument("--modes", nargs="+", choices=modes, default=list(modes))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    if arguments.peers is not None:
        device = torch.device(arguments.device)
        torch.backends.cudnn.benchmark = True  # on a GPU, for both
        compare_peers(arguments.peers, arguments.layouts, arguments.types, arguments.modes, arguments.repeats, device)
    else:
        (compare_norms if arguments.norms else compare_unets)(arguments.repeats)


if __name__ == "__main__":
    main()
