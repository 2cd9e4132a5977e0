"""Inference against its peers and against the bare windows; and the memory of a volume of many classes.

    python benchmarks/inference.py speed [--implementations bare ours ours:auto monai nnunet] [--size 192 192 96]
    python benchmarks/inference.py speed --device cuda --size 512 512 300 --window 128 128 128
    python benchmarks/inference.py sparse             # the same on a volume of which a quarter holds content
    python benchmarks/inference.py memory [--size 512 512 600] [--classes 105] [--runtime float32+compiled]
    python benchmarks/inference.py batches [--device cuda]  # windows, and mirror images, at once or one by one
    python benchmarks/inference.py tiles              # the overlap-tile strategy against sliding windows, in 2D

``speed``: same weights, same windows, same machine. Every implementation runs in a process of its own, one after the
other, ``rounds`` times; the best seconds count (the least disturbed). ``ours`` runs the network as it is, ``ours:NAME``
by a runtime, built and probed before the clock starts. ``monai`` and ``nnunet`` are as they come: a network of torch's
own layers, and memory as the system gives it; ``monai_memory_kept`` has both from this project. Prints one JSON line
for each: ``seconds``, ``peak_mib`` (resident memory of the process at its highest; on a GPU also ``peak_gpu_mib``),
``to_bare`` (seconds / those of the bare windows), ``against_monai`` (MONAI's seconds / these), ``agreement`` (share of
voxels with the label that MONAI gives) and ``difference`` (the largest between the logits). What is not installed is
left out, and said so.

``memory``: labels on the case's own grid, from slabs and, where the logits fit the memory, from the whole volume; both
results have to be the same. Prints seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer as MonaiInferer

from pipeline.engines import initialise
from pipeline.inference import OverlapTileInferer, Restored, Runtime, SlidingWindowInferer, mirrored, window_corners
from pipeline.networks import UNet, UNetAsPublished
from pipeline.networks.convolution3d import Convolution3d
from pipeline.networks.instance_norm import InstanceNorm
from pipeline.networks.transposed_convolution import TransposedConvolution3d

# Further ones are added here, and in `predictor`.
IMPLEMENTATIONS = ("bare", "ours", "ours:auto", "monai", "monai_memory_kept", "nnunet")
AS_THEY_COME = {"monai", "nnunet"}


def volume(size: list[int], channels: int, sparse: bool = False) -> torch.Tensor:
    """Smooth structures with a little noise, the same in every process; in a sparse one three quarters are constant."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, channels, *(max(2, n // 12) for n in size), generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear")
    if max(size) < 400:
        image += 0.2 * torch.randn(image.shape, generator=generator)
    if sparse:
        image[:, :, size[0] // 2 :] = image[:, :, :, size[1] // 2 :] = 0
    return image


def network(channels: int, classes: int, features: list[int]) -> torch.nn.Module:
    torch.manual_seed(0)
    return UNet(3, channels, classes, channels=features).eval()


def of_torchs_layers(network: torch.nn.Module) -> torch.nn.Module:
    """The network with torch's own layers, of the same weights, as MONAI's and nnU-Net's networks have them."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Convolution3d):
                child.__class__ = torch.nn.Conv3d
            elif isinstance(child, TransposedConvolution3d):
                child.__class__ = torch.nn.ConvTranspose3d
            elif isinstance(child, InstanceNorm):
                norm = torch.nn.InstanceNorm3d(child.channels, child.eps, affine=True).train(child.training)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(module, name, norm)
    return network


def predictor(name: str, net: torch.nn.Module, options: argparse.Namespace) -> Callable[[torch.Tensor], torch.Tensor]:
    """(image) -> logits (1, K, *size), or None of the bare windows."""
    window, overlap = options.window, options.overlap
    if name == "bare":

        def bare(image):
            for corner in window_corners(image.shape[2:], window, [overlap] * 3):
                place = tuple(slice(start, start + n) for start, n in zip(corner, window, strict=True))
                net(image[(slice(None), slice(None), *place)].contiguous())

        return bare
    if name.startswith("ours"):
        runtime = name.partition(":")[2]
        chosen = Runtime(runtime, work=range(1000), cache_dir=options.folder) if runtime else None
        inferer = SlidingWindowInferer(window, overlap=overlap, runtime=chosen)
        return lambda image: inferer(image, net)
    if name.startswith("monai"):
        return lambda image: MonaiInferer(window, overlap=overlap, mode="gaussian")(image, net)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    peer = nnUNetPredictor(
        tile_step_size=1 - overlap,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=options.device != "cpu",
        device=torch.device(options.device),
        allow_tqdm=False,
    )
    peer.network, peer.configuration_manager = net, SimpleNamespace(patch_size=window)
    peer.label_manager, peer.allowed_mirroring_axes = SimpleNamespace(num_segmentation_heads=options.classes), None
    return lambda image: peer.predict_sliding_window_return_logits(image[0])[None]


def one(options: argparse.Namespace) -> None:
    """One implementation, in this process; its logits are left in a file."""
    net = network(3, options.classes, options.features)
    if options.one in AS_THEY_COME:
        net = of_torchs_layers(net)
    else:
        initialise()
    net = net.to(options.device)
    image = volume(options.size, 3, options.command == "sparse").to(options.device)
    run = predictor(options.one, net, options)
    with torch.no_grad():
        first = image[..., : options.window[0], : options.window[1], : options.window[2]]
        (run if ":" in options.one else net)(first)
        results: list = []
        seconds = timed(lambda: results.append(run(image)), options.device)
        logits = results[0]
    peak = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if options.device.startswith("cuda"):
        peak["peak_gpu_mib"] = torch.cuda.max_memory_reserved() / 2**20
    if logits is not None:
        np.save(options.result, logits.float().cpu().numpy())
    print(json.dumps({"seconds": seconds} | peak))


def speed(options: argparse.Namespace) -> None:
    rows: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        results = {name: Path(folder) / f"{name}.npy" for name in options.implementations}
        for _ in range(options.rounds):
            for name in options.implementations:
                command = [sys.executable, *sys.argv, "--one", name, "--result", str(results[name]), "--folder", folder]
                found = subprocess.run(command, capture_output=True, text=True)
                if "No module named 'nnunetv2'" in found.stderr:
                    print(json.dumps({"implementation": name, "left_out": "not installed"}), flush=True)
                    continue
                if found.returncode:
                    raise SystemExit(found.stderr)
                rows.setdefault(name, []).append(json.loads(found.stdout.splitlines()[-1]))
                print(f"{name}: {rows[name][-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
        reference = np.load(results["monai"]) if "monai" in rows else None
        for name, runs in rows.items():
            seconds = min(run["seconds"] for run in runs)
            row = {"implementation": name, "seconds": round(seconds, 2)}
            row |= {name: round(min(run[name] for run in runs)) for name in runs[0] if name.startswith("peak")}
            if "bare" in rows:
                row["to_bare"] = round(seconds / min(run["seconds"] for run in rows["bare"]), 3)
            if reference is not None and results[name].exists():
                found = np.load(results[name])
                row["against_monai"] = round(min(run["seconds"] for run in rows["monai"]) / seconds, 2)
                row["agreement"] = round(float((found.argmax(1) == reference.argmax(1)).mean()), 6)
                row["difference"] = float(f"{np.abs(found - reference).max():.1e}")
            print(json.dumps(row), flush=True)


def memory(options: argparse.Namespace) -> None:
    """Labels of one volume on its own grid: in this process with ``--one``, and from both ways compared without."""
    if options.one is None:
        results = {}
        ways = ["slabs"]
        if np.prod(options.size) * options.classes * 4 < 8 * 2**30:
            ways.append("whole")
        with tempfile.TemporaryDirectory() as folder:
            for way in ways:
                path = Path(folder) / f"{way}.npy"
                command = [sys.executable, *sys.argv, "--one", way, "--result", str(path)]
                found = subprocess.run(command, capture_output=True, text=True)
                if found.returncode:
                    raise SystemExit(found.stderr)
                print(found.stdout.splitlines()[-1], flush=True)
                results[way] = np.load(path)
        if len(ways) == 2 and not np.array_equal(results["slabs"], results["whole"]):
            raise SystemExit("slabs and the whole volume differ")
        return
    initialise()
    image = MetaTensor(volume(options.size, 1)[0], affine=torch.eye(4, dtype=torch.float64))
    own = [round(n * options.own_grid) for n in options.size]
    image.meta |= {"original_affine": np.diag([1 / options.own_grid] * 3 + [1.0]), "spatial_shape": own}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    net = network(1, options.classes, options.features)
    runtime = Runtime(options.runtime, cache_dir=None) if options.runtime else None
    inferer = SlidingWindowInferer(
        options.window, overlap=options.overlap, memory_mib=options.memory_mib, runtime=runtime
    )
    if runtime is not None:  # is built, and compared with float32
        corner = tuple(slice(0, n) for n in options.window)
        inferer(image[(None, slice(None), *corner)], net)
    began = time.perf_counter()
    if options.one == "slabs":
        pred = inferer.slabs(image[None], net)
    else:
        pred = inferer(image[None], net)[0]
    labels = Restored()({"image": image, "pred": pred})["pred"]
    row = {"way": options.one, "size": options.size, "classes": options.classes, "own_grid": own}
    row |= {"seconds": round(time.perf_counter() - began, 1), "before_mib": round(before)}
    row["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    np.save(options.result, labels.as_tensor().numpy())
    print(json.dumps(row))


def tiles(options: argparse.Namespace) -> None:
    """A section of 512 x 512 through a slim U-Net of 2015: by tiles, and by windows that overlap by half."""
    torch.manual_seed(0)
    net, image = UNetAsPublished(2, 1, 2, features=8).eval(), torch.randn(1, 1, 512, 512)
    whole = OverlapTileInferer(None)(image, net)
    ways = {"tiles of 388": OverlapTileInferer(572), "tiles of 180": OverlapTileInferer(364)}
    ways |= {f"windows, overlap {o}": SlidingWindowInferer(364, overlap=o) for o in (0.25, 0.5)}
    for _ in range(options.rounds):
        for name, inferer in ways.items():
            began = time.perf_counter()
            logits = inferer(image, net)
            row = {"way": name, "seconds": round(time.perf_counter() - began, 2)}
            print(json.dumps(row | {"difference_to_one_pass": float((logits - whole).abs().max())}), flush=True)


def batches(options: argparse.Namespace) -> None:
    """Several windows, and the eight mirror images of one, in one call of the network and in as many."""
    net = network(3, options.classes, options.features).to(options.device)
    for window in ([32] * 3, [64] * 3, options.window):
        images = torch.randn(8, 3, *window, device=options.device)
        calls = {f"{n} at once": lambda images=images, n=n: [net(x) for x in images.split(n)] for n in (1, 2, 4, 8)}
        for together in (False, True):
            run = mirrored(net, (0, 1, 2), together=together)
            calls[f"mirrored, {'together' if together else 'one by one'}"] = lambda i=images, r=run: r(i[:1])
        with torch.no_grad():
            rounds = [
                {name: timed(call, options.device) for name, call in calls.items()} for _ in range(options.rounds + 1)
            ]
        best = {name: min(r[name] for r in rounds[1:]) for name in calls}
        row = {name: round(seconds / best["1 at once"], 3) for name, seconds in best.items()}
        print(json.dumps({"window": window, "seconds of 8 one by one": round(best["1 at once"], 3)} | row), flush=True)


def timed(call: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["speed", "sparse", "memory", "batches", "tiles"])
    parser.add_argument("--implementations", nargs="+", default=list(IMPLEMENTATIONS))
    parser.add_argument("--size", type=int, nargs=3)
    parser.add_argument("--window", type=int, nargs=3, default=[96, 96, 96])
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--features", type=int, nargs="+")
    parser.add_argument("--memory_mib", type=float, default=512)
    parser.add_argument("--runtime", help="how the network is run; as it is by default")
    parser.add_argument("--own_grid", type=float, default=1.0, help="voxels of the case's own grid per voxel")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    large = options.command == "memory"
    options.size = options.size or ([512, 512, 600] if large else [192, 192, 96])
    options.classes = options.classes or (105 if large else 4)
    options.features = options.features or ([8, 16] if large else [32, 64, 128, 256, 320])
    if options.command == "tiles":
        tiles(options)
    elif options.command == "batches":
        batches(options)
    elif large:
        memory(options)
    elif options.one:
        one(options)
    else:
        speed(options)


if __name__ == "__main__":
    main()
