"""The pictures of docs/networks.md, drawn from the networks themselves: one PNG each.

    python benchmarks/network_pictures.py docs/networks

A network runs once on the meta device, where tensors have shapes and no values. Hooks on its blocks note what each
gives, and every operation between two blocks (concatenation, addition, interpolation, a crop) hands on which blocks its
result comes from. So an edge of the picture is a path that the data takes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from PIL import Image
from torch import nn
from torch.overrides import TorchFunctionMode

from pipeline import networks


@dataclass
class Picture:
    """One network: how it is built by default, which of its modules are one box each, its input's size and channels."""

    build: Callable[[int, int, int], nn.Module]
    boxes: Callable[[nn.Module], dict[str, nn.Module]]
    size: int = 512
    in_channels: int = 1


def members(network: nn.Module, **lists: str) -> dict[str, nn.Module]:
    """Boxes from attributes: a module by itself, a list of modules one by one, in the order they run."""
    boxes: dict[str, nn.Module] = {}
    for attribute, label in lists.items():
        module = getattr(network, attribute)
        if isinstance(module, nn.ModuleDict):
            boxes |= {name.replace("_", "", 1).replace("_", ","): child for name, child in module.items()}
        elif isinstance(module, nn.ModuleList):
            boxes |= {f"{label}{i}": child for i, child in enumerate(module)}
        else:
            boxes[label] = module
    return boxes


def decoder_up(network: Any, encoder: str = "encoder", decoder: str = "decoder", **more: str) -> dict[str, nn.Module]:
    """Encoder from the top down, decoder from the bottom up, numbered by their levels."""
    down, up = getattr(network, encoder), getattr(network, decoder)
    boxes = {f"E{i}": stage for i, stage in enumerate(down)}
    boxes |= {f"D{len(up) - 1 - i}": stage for i, stage in enumerate(up)}
    return boxes | members(network, **more)


PICTURES = {
    "unet": Picture(networks.UNet, lambda n: decoder_up(n) | {"logits": n.heads[0]}),
    "unet_published": Picture(
        networks.UNetAsPublished,
        lambda n: decoder_up(n, "contracting", "expanding", head="logits"),
        572,
    ),
    "unet_plus_plus": Picture(
        lambda *a: networks.UNetPlusPlus(*a, inference_mode="fast"),
        lambda n: (
            {f"X{i},0": stage for i, stage in enumerate(n.encoder)} | members(n, nodes="") | {"logits": n.heads[-1]}
        ),
    ),
    "unet_3plus": Picture(networks.UNet3Plus, lambda n: decoder_up(n) | {"logits": n.heads[0]}),
    "multi_encoder_unet": Picture(
        networks.MultiEncoderUNet,
        lambda n: (
            {f"E{i}.{m}": stage for i, level in enumerate(n.encoder) for m, stage in enumerate(level.stages)}
            | {f"F{i}": level.fuse for i, level in enumerate(n.encoder)}
            | {f"D{len(n.decoder) - 1 - i}": stage for i, stage in enumerate(n.decoder)}
            | {"logits": n.heads[0]}
        ),
        in_channels=2,
    ),
    "fcn": Picture(
        networks.FCN,
        lambda n: members(n, encoder="E", fully_connected="fc", score="score", joins="+", up="logits"),
    ),
    "deeplab_v3_plus": Picture(
        networks.DeepLabV3Plus,
        lambda n: (
            {f"E{i}": level for i, level in enumerate(n.encoder.levels)}
            | {f"rate {r[0]}": branch for r, branch in zip([(1,), *n.rates], n.pyramid.branches, strict=True)}
            | {"mean": n.pyramid.mean, "join": n.pyramid.join}
            | members(n, skip="skip", decoder="D", head="logits")
        ),
    ),
    "pspnet": Picture(
        networks.PSPNet,
        lambda n: (
            {f"E{i}": level for i, level in enumerate(n.encoder.levels)}
            | {f"bins {b}": grid for b, grid in zip(n.pyramid.bins, n.pyramid.grids, strict=True)}
            | members(n, head="logits")
        ),
    ),
    "segnet": Picture(networks.SegNet, decoder_up),
    "u2net": Picture(
        networks.U2Net,
        lambda n: decoder_up(n) | {f"side{i}": side for i, side in enumerate(n.sides)} | {"logits": n.fuse},
    ),
}


@dataclass
class Provenance(TorchFunctionMode):
    """Which boxes each tensor comes from; by id, with the tensors kept alive so that an id means one of them."""

    sources: dict[int, set[str]] = field(default_factory=dict)
    kept: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def of(self, values: Any) -> set[str]:
        if isinstance(values, torch.Tensor):  # a mask says which of the others count; it is no feature
            return set() if values.dtype == torch.bool else self.sources.get(id(values), set())
        if isinstance(values, list | tuple):
            return set().union(*(self.of(v) for v in values))
        return set()

    def mark(self, values: Any, boxes: set[str]) -> None:
        if isinstance(values, torch.Tensor):
            self.sources[id(values)] = boxes
            self.kept.append(values)
        elif isinstance(values, list | tuple):
            for value in values:
                self.mark(value, boxes)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        boxes = self.of(list(args)) | self.of(list((kwargs or {}).values()))
        if boxes:
            self.mark(result, boxes)
        return result


def trace(picture: Picture) -> tuple[dict[str, tuple[int, ...]], list[tuple[str, str]]]:
    """The shape (C, *S) that each box gives, in the order they run, and the edges between boxes."""
    with torch.device("meta"):
        network = picture.build(2, picture.in_channels, 2).eval()
        x = torch.empty(1, picture.in_channels, picture.size, picture.size)
    shapes: dict[str, tuple[int, ...]] = {"image": tuple(x.shape[1:])}
    edges: list[tuple[str, str]] = []
    provenance = Provenance()
    provenance.mark(x, {"image"})

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            edges.extend((source, name) for source in sorted(provenance.of([*args, *kwargs.values()])))

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            provenance.mark(output, {name})
            first = output if isinstance(output, torch.Tensor) else output[0]
            shapes[name] = tuple(first.shape[1:])

        return hook

    for name, module in picture.boxes(network).items():
        module.register_forward_pre_hook(enter(name), with_kwargs=True)
        module.register_forward_hook(leave(name))
    with provenance, torch.no_grad():
        network(x)
    return shapes, [edge for edge in dict.fromkeys(edges) if edge[0] in shapes and edge[1] in shapes]


def draw(name: str, picture: Picture, file: Path) -> None:
    """Boxes from left to right as data flows, a row for each resolution; edges that skip are curved."""
    shapes, edges = trace(picture)
    column: dict[str, int] = {}
    for box in shapes:  # in the order in which they ran: sources come first
        column[box] = 1 + max((column[a] for a, b in edges if b == box and a in column), default=-1)
    # An unpadded network is a little smaller on every level, which leaves a level its row.
    row = {box: math.floor(math.log2(picture.size / max(shape[1], 1)) + 0.1) for box, shape in shapes.items()}
    places: dict[tuple[int, int], list[str]] = {}
    for box in shapes:
        places.setdefault((column[box], row[box]), []).append(box)
    # Rows that hold nothing take no space, those with several boxes in one place as much as these need.
    top, heights = {}, 0.0
    for r in sorted(set(row.values())):
        top[r] = heights
        heights += 1.0 + 0.7 * (max(len(boxes) for (_, at_row), boxes in places.items() if at_row == r) - 1)
    at = {box: (float(c), -top[r] - 0.7 * k) for (c, r), boxes in places.items() for k, box in enumerate(boxes)}
    lowest, width = min(y for _, y in at.values()), max(column.values())
    figure, axes = plt.subplots(figsize=(min(1.0 + 0.85 * width, 13), 1.5 + 0.62 * -lowest))
    for a, b in edges:
        (xa, ya), (xb, yb) = at[a], at[b]
        skip, curved = xb - xa > 1, xb - xa > 1 and ya == yb
        axes.annotate(
            "",
            (xb - 0.36, yb),
            (xa + 0.36, ya),
            arrowprops={
                "arrowstyle": "-|>",
                "lw": 0.8,
                "color": "#c2562d" if skip else "#5a6b7b",
                "shrinkA": 0,
                "shrinkB": 0,
                "connectionstyle": f"arc3,rad={-0.9 / (xb - xa) ** 0.7:.3f}" if curved else "arc3,rad=0",
            },
        )
    for box, (x, y) in at.items():
        channels, *size = shapes[box]
        ends = box in ("image", "logits")
        axes.text(
            x,
            y,
            f"{box}\n{channels} x {size[0]}" + (f"$^{len(size)}$" if len(set(size)) == 1 else ""),
            ha="center",
            va="center",
            fontsize=6.5,
            bbox={
                "boxstyle": "round,pad=0.22",
                "facecolor": "#f6d9a8" if ends else "#dbe8f2",
                "edgecolor": "#5a6b7b",
                "lw": 0.6,
            },
        )
    above = 0.9 if any(b[0] - a[0] > 1 and a[1] == b[1] == 0 for a, b in ((at[a], at[b]) for a, b in edges)) else 0.0
    axes.set(xlim=(-0.6, width + 0.6), ylim=(lowest - 0.5, 0.5 + above))
    axes.axis("off")
    figure.savefig(file, dpi=110, bbox_inches="tight", pad_inches=0.03)
    plt.close(figure)
    Image.open(file).convert("RGB").quantize(32).save(file, optimize=True)  # a quarter of the size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in PICTURES.items():
        draw(name, picture, folder / f"{name}.png")


if __name__ == "__main__":
    main()
