"""Sliding-window inference: a network that sees one window at a time, an image of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer
from monai.utils import fall_back_tuple
from tqdm import tqdm

from pipeline.errors import ConfigError
from pipeline.inference.margin import output_margin
from pipeline.inference.mirroring import mirrored
from pipeline.inference.padding import PADDING_MODES, pad

Place = tuple[Any, ...]  # one slice per spatial axis
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SlidingWindowInferer(Inferer):
    """Logits of a whole image from overlapping windows, blended by their distance to the window's centre.

    Takes the arguments of ``monai.inferers.SlidingWindowInferer`` that concern one tensor in and one tensor out, in the
    same order, and gives the same result where the windows lie in the same places. What differs: mirror padding works
    for an image of any size; windows are spread evenly, so the overlap is at least the one asked for, everywhere.

    A network that loses a margin (``output_margin``) is run by overlapping tiles, as Ronneberger et al. (MICCAI 2015,
    figure 2) do: what it labels covers the image, and the margin around each tile holds what surrounds the tile in the
    image, mirrored beyond it. Where the network names its ``total_stride``, tiles begin at multiples of it. Then its
    poolings fall alike in every tile, and the result is seamless: that of one pass over the whole image.

    Args:
        roi_size: window size in voxels, margins included, one number or one per spatial axis; an entry that is None or
            not positive means the whole axis, and as many voxels more as the network needs: up to a multiple of its
            ``total_stride``, or up to its ``input_size_for`` the image, where it names one.
        sw_batch_size: windows per call of the network.
        overlap: share of a window (of its labelled part, where there is a margin) that at least overlaps with the next,
            in [0, 1), one number or one per axis.
        mode: ``"gaussian"`` or ``"constant"`` weights. The Gaussian is MONAI's, with its floor of 1e-3 of the peak.
        sigma_scale: standard deviation of the Gaussian as a share of the window size, one number or one per axis.
        padding_mode: how an image smaller than the window is filled up: ``"mirror"`` (or ``"reflect"``),
            ``"replicate"``, ``"circular"`` or ``"constant"``.
        cval: the value for ``padding_mode="constant"``.
        sw_device: where the network runs; by default where the inputs are.
        device: where the logits are put together and returned; by default where the inputs are.
        progress: show a progress bar over the windows.
        mirror_axes: spatial axes for test-time mirroring, see `pipeline.inference.mirrored`.
        precision: ``"bfloat16"`` or ``"float16"`` run the network under autocast; ``"float32"`` opens no autocast, and
            leaves one that the caller has opened. Blending is in float32 always.

    Raises:
        ConfigError: where an argument is out of its range, or does not fit the inputs or the network.
    """

    def __init__(
        self,
        roi_size: Sequence[int | None] | int,
        sw_batch_size: int = 1,
        overlap: Sequence[float] | float = 0.5,
        mode: str = "gaussian",
        sigma_scale: Sequence[float] | float = 0.125,
        padding_mode: str = "mirror",
        cval: float = 0.0,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        *,
        mirror_axes: Sequence[int] = (),
        precision: str = "float32",
    ) -> None:
        overlaps = [overlap] if isinstance(overlap, (int, float)) else overlap
        _require("overlap", overlap, all(0 <= share < 1 for share in overlaps), "at least 0 and below 1")
        _require("mode", mode, mode in ("gaussian", "constant"), "gaussian or constant")
        _require("padding_mode", padding_mode, padding_mode in PADDING_MODES, f"one of {', '.join(PADDING_MODES)}")
        _require("sw_batch_size", sw_batch_size, sw_batch_size >= 1, "at least 1")
        _require("precision", precision, precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self.roi_size = roi_size
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.mode = mode
        self.sigma_scale = sigma_scale
        self.padding_mode = padding_mode
        self.cval = cval
        self.sw_device = sw_device
        self.device = device
        self.progress = progress
        self.mirror_axes = tuple(mirror_axes)
        self.precision = precision

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run ``network`` over ``inputs``, without gradients.

        Args:
            inputs: (B, C, *spatial) with two or three spatial axes.
            network: (b, C, *window) -> logits (b, K, *window), smaller by ``output_margin`` where it has one.
            args, kwargs: handed to every call of the network.

        Returns:
            Logits (B, K, *spatial), float32; a MetaTensor with the inputs' meta data where the inputs are one.
        """
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        spatial_dims = images.ndim - 2
        _require("inputs of shape", tuple(images.shape), spatial_dims in (2, 3), "(B, C, H, W) or (B, C, H, W, D)")
        window = self._per_axis("roi_size", self.roi_size, spatial_dims)
        overlap = self._per_axis("overlap", self.overlap, spatial_dims)
        margin = output_margin(network, spatial_dims)
        size = images.shape[2:]
        window = fall_back_tuple(window, _window_around(size, network, margin))
        tile = [w - 2 * m for w, m in zip(window, margin, strict=True)]
        _require("windows of", window, min(tile) > 0, f"more than twice the network's margin of {margin}")

        if any(margin):
            corners = tile_corners(size, tile, overlap, _total_stride(network, spatial_dims))
            # Mirrored by the margin, and at the end by what the last tile reaches over.
            widths = [(m, c + t - n + m) for m, c, t, n in zip(margin, corners[-1], tile, size, strict=True)]
            inside: tuple[Any, ...] = tuple(slice(0, n) for n in size)
            padded = pad(images, widths, self.padding_mode, self.cval)
        else:
            missing = [max(w - n, 0) for w, n in zip(window, size, strict=True)]
            widths = [(n // 2, n - n // 2) for n in missing]
            inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, size, strict=True))
            padded = pad(images, widths, self.padding_mode, self.cval)
            corners = window_corners(padded.shape[2:], window, overlap)
        windows = self._predicted(padded, window, tile, corners, mirrored(network, self.mirror_axes), args, kwargs)
        if len(corners) == 1:
            logits = torch.cat([logits for _, _, logits in windows])
        else:
            covered = [n - 2 * m for n, m in zip(padded.shape[2:], margin, strict=True)]
            logits = self._blended((len(images), *covered), self.device or images.device, tile, windows)
        logits = logits[(..., *inside)].contiguous()
        return MetaTensor(logits).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else logits

    def _predicted(
        self,
        images: torch.Tensor,
        window: Sequence[int],
        tile: Sequence[int],
        corners: Sequence[tuple[int, ...]],
        network,
        args,
        kwargs,
    ) -> Iterator[tuple[int, Place, torch.Tensor]]:
        """Every window of every image, in order: its image in the batch, its tile's place, its logits (1, K, *tile)."""
        run_on = torch.device(self.sw_device or images.device)
        give_on = torch.device(self.device or images.device)
        autocast: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self.precision != "float32":
            autocast = torch.autocast(run_on.type, dtype=PRECISIONS[self.precision])
        places = list(product(range(len(images)), corners))
        for first in tqdm(range(0, len(places), self.sw_batch_size), desc="windows", disable=not self.progress):
            batch = places[first : first + self.sw_batch_size]
            inputs = torch.cat([images[b : b + 1][(..., *_box(corner, window))] for b, corner in batch]).to(run_on)
            with autocast:
                logits = network(inputs, *args, **kwargs)
            if not isinstance(logits, torch.Tensor):
                raise ConfigError(
                    f"a network that returns a {type(logits).__name__}",
                    expected="one tensor of logits",
                    fix="put the network into eval mode, where deep supervision gives its first output alone",
                )
            _require("logits of shape", tuple(logits.shape), list(logits.shape[2:]) == list(tile), f"{tuple(tile)}")
            for (b, corner), one in zip(batch, logits.to(give_on, torch.float32).split(1), strict=True):
                yield b, _box(corner, tile), one

    def _blended(
        self,
        size: Sequence[int],
        device: torch.device | str,
        tile: Sequence[int],
        windows: Iterator[tuple[int, Place, torch.Tensor]],
    ) -> torch.Tensor:
        """The weighted mean of all windows, (B, K, *spatial); ``size`` is (B, *spatial)."""
        importance = compute_importance_map(tuple(tile), mode=self.mode, sigma_scale=self.sigma_scale, device=device)
        weights = torch.zeros(tuple(size[1:]), device=device)
        total = torch.empty(0)
        for b, place, logits in windows:
            if not total.numel():
                total = torch.zeros((size[0], logits.shape[1], *size[1:]), device=device)
            total[(b, slice(None), *place)].addcmul_(logits[0], importance)
            if b == 0:  # the windows lie in the same places in every image
                weights[place] += importance
        return total.div_(weights)

    @staticmethod
    def _per_axis(name: str, value: Any, spatial_dims: int) -> tuple:
        """One entry per spatial axis; a number stands for all of them."""
        if not isinstance(value, Sequence):
            return (value,) * spatial_dims
        _require(name, list(value), len(value) == spatial_dims, f"{spatial_dims} entries for {spatial_dims}D inputs")
        return tuple(value)


def window_corners(size: Sequence[int], window: Sequence[int], overlap: Sequence[float]) -> list[tuple[int, ...]]:
    """The first voxel of every window, last axis fastest: as few windows as cover the image with at least ``overlap``.

    Args:
        size: of the image, voxels per axis, not below ``window``.
        window: voxels per axis.
        overlap: share of the window per axis, in [0, 1).

    >>> window_corners([10, 4], [4, 4], [0.5, 0.5])
    [(0, 0), (2, 0), (4, 0), (6, 0)]
    >>> window_corners([11], [4], [0.25])
    [(0,), (2,), (5,), (7,)]
    """
    starts = []
    for n, w, share in zip(size, window, overlap, strict=True):
        step = max(1, int(w * (1 - share) + 1e-6))  # 10 * (1 - 0.9) is a little below 1
        steps = ceil((n - w) / step)
        starts.append([round(i * (n - w) / steps) for i in range(steps + 1)] if steps else [0])
    return list(product(*starts))


def tile_corners(
    size: Sequence[int], tile: Sequence[int], overlap: Sequence[float], stride: Sequence[int]
) -> list[tuple[int, ...]]:
    """The first voxel of every tile, last axis fastest, at multiples of ``stride``; the last ones may reach beyond the
    image.

    Args:
        size: of the image, voxels per axis.
        tile: voxels per axis that one pass labels. One below the stride can't be laid without gaps at its multiples,
            and is laid at any voxel.
        overlap: share of the tile per axis, in [0, 1).
        stride: voxels.

    >>> tile_corners([512], [388], [0.0], [16])
    [(0,), (128,)]
    >>> tile_corners([5], [8], [0.5], [4]), tile_corners([9], [4], [0.0], [16])
    ([(0,)], [(0,), (2,), (5,)])
    """
    starts = []
    for n, t, share, multiple in zip(size, tile, overlap, stride, strict=True):
        unit = multiple if t >= multiple else 1
        step = max(1, int((t * (1 - share) + 1e-6) / unit))
        last = max(0, ceil((n - t) / unit))
        steps = ceil(last / step)
        starts.append([round(i * last / steps) * unit for i in range(steps + 1)] if steps else [0])
    return list(product(*starts))


def _window_around(size: Sequence[int], network: Any, margin: Sequence[int]) -> tuple[int, ...]:
    """The smallest window that holds the whole image and that the network takes, as far as it tells what it takes."""
    if not any(margin):
        return tuple(ceil(n / step) * step for n, step in zip(size, _total_stride(network, len(size)), strict=True))
    # Without padding, the sizes that fit are no multiples of the stride.
    input_size_for = getattr(getattr(network, "module", network), "input_size_for", None)
    if input_size_for is not None:
        return tuple(input_size_for(size))
    return tuple(n + 2 * m for n, m in zip(size, margin, strict=True))


def _total_stride(network: Any, spatial_dims: int) -> tuple[int, ...]:
    stride = getattr(getattr(network, "module", network), "total_stride", (1,) * spatial_dims)
    stride = tuple(int(step) for step in stride)
    _require("a network with a total_stride of", stride, len(stride) == spatial_dims, f"{spatial_dims} spatial axes")
    return stride


def _box(corner: Sequence[int], size: Sequence[int]) -> Place:
    return tuple(slice(start, start + n) for start, n in zip(corner, size, strict=True))


def _require(name: str, found: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} {found}", expected=expected)
