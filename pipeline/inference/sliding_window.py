"""Sliding-window inference: a network that sees one window at a time, an image of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer

from pipeline.inference.averaging import AVERAGES, mean_logits
from pipeline.inference.blending import Blending
from pipeline.inference.features import Features, has_fewer_features, logits_from
from pipeline.inference.fitting import fitted, per_axis, require
from pipeline.inference.mirroring import mirrored
from pipeline.inference.network_call import PRECISIONS, NetworkCall, predicted
from pipeline.inference.padding import PADDING_MODES
from pipeline.inference.placement import Box, Placement
from pipeline.inference.rescaling import rescaled
from pipeline.inference.runtime import Runtime
from pipeline.inference.slabs import Slabs

Network = Callable[..., torch.Tensor]

_SMALLEST = 0.125  # of the scales: below, a voxel stands for more than 500, and structures are gone


class SlidingWindowInferer(Inferer):
    """Logits of a whole image from overlapping windows, blended by their distance to the window's centre.

    Takes the arguments of ``monai.inferers.SlidingWindowInferer`` that concern one tensor in and one tensor out, in the
    same order, and gives the same result where the windows lie in the same places. What differs: mirror padding works
    for an image of any size; windows are spread evenly, so the overlap is at least the one asked for, everywhere; a
    window that is constant is run once, however often it comes.

    A network that loses a margin (``output_margin``) is run by the overlap-tile strategy, see `OverlapTileInferer`;
    here tiles may overlap in what they label, too, which matters where the network does not name its ``total_stride``.

    Where a network names its ``last_convolution``, and that makes more logits than it takes features, windows are
    blended before it, see `Features`: many classes then cost little more than few.

    Called, it returns the logits of the whole image. ``slabs`` gives the same logits piece by piece, for an image whose
    logits are more than the memory holds.

    Args:
        roi_size: window size in voxels, margins included, one number or one per spatial axis; an entry that is None or
            not positive means the whole axis, and as many voxels more as the network needs: up to a multiple of its
            ``total_stride``, or up to its ``input_size_for`` the image, where it names one.
        sw_batch_size: windows per call of the network; ``"auto"`` is as many as half of a GPU's free memory takes, by
            what the first window took, at most 8, and 1 on a CPU.
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
        runtime: how the network is run, a `pipeline.inference.Runtime` or a name that it takes; by default as it is.
        average: what is averaged over mirror images and scales, ``"logits"`` or ``"probabilities"``.
        scales: an image pyramid: the image is predicted at these sizes, shares of its own, and the answers are
            averaged. Each from 1/8 to 8.
        background: let windows without content pass for background (class 0) without running the network:
            those in which no channel exceeds its minimum over the image by more than this share of its range. Not
            exact, so only where it is asked for, and only where background is dark.
        memory_mib: how much memory ``slabs`` may use for unfinished logits; what is more lies in a temporary file.

    Raises:
        ConfigError: where an argument is out of its range, or does not fit the inputs or the network.
    """

    def __init__(
        self,
        roi_size: Sequence[int | None] | int | None,
        sw_batch_size: int | str = 1,
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
        runtime: Runtime | str | None = None,
        average: str = "logits",
        scales: Sequence[float] = (1.0,),
        background: float | None = None,
        memory_mib: float = 512,
    ) -> None:
        overlaps = [overlap] if isinstance(overlap, (int, float)) else overlap
        require("overlap", overlap, all(0 <= share < 1 for share in overlaps), "at least 0 and below 1")
        require("mode", mode, mode in ("gaussian", "constant"), "gaussian or constant")
        require("padding_mode", padding_mode, padding_mode in PADDING_MODES, f"one of {', '.join(PADDING_MODES)}")
        auto = sw_batch_size == "auto"
        require("sw_batch_size", sw_batch_size, auto or int(sw_batch_size) >= 1, "at least 1, or auto")
        require("precision", precision, precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        require("average", average, average in AVERAGES, f"one of {', '.join(AVERAGES)}")
        require("scales", scales, _are_scales(scales), f"a list of numbers from {_SMALLEST} to {1 / _SMALLEST:.0f}")
        require("background", background, background is None or 0 <= background < 1, "none, or from 0 to below 1")
        require("memory_mib", memory_mib, memory_mib >= 0, "0 or more")
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
        self.runtime = Runtime(runtime) if isinstance(runtime, str) else runtime
        self.average = average
        self.scales = tuple(scales)
        self.background = background
        self.memory_mib = memory_mib
        self._features: dict[int, tuple[Network, Features]] = {}  # with the network, so that its id stays its own

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run ``network`` over ``inputs``, without gradients.

        Args:
            inputs: (B, C, *spatial) with two or three spatial axes.
            network: (b, C, *window) -> logits (b, K, *window), smaller by ``output_margin`` where it has one.
            args, kwargs: handed to every call of the network.

        Returns:
            Logits (B, K, *spatial), float32; a MetaTensor with the inputs' meta data where the inputs are one.
        """
        images = _plain(inputs)
        if self.scales == (1.0,):
            logits = self._whole(images, network, args, kwargs)
        else:

            def predict(copies: torch.Tensor) -> torch.Tensor:
                return self._whole(copies, network, args, kwargs)

            answers = (rescaled(images, scale, predict) for scale in self.scales)
            logits = mean_logits(answers, self.average)
        return MetaTensor(logits).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else logits

    def slabs(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> Slabs:
        """The same logits piece by piece, each as soon as no window can change it any more.

        With ``scales`` the whole image is one piece, since its sizes are not finished together.

        Args:
            inputs: (1, C, *spatial).
            network, args, kwargs: as for a call; the network runs while the slabs are iterated over.
        """
        images = _plain(inputs)
        require("images", len(images), len(images) == 1, "one at a time in slabs")
        placement, padded = self._fitted(images, network)

        def blocks() -> Iterator[tuple[Box, torch.Tensor]]:
            if self.scales != (1.0,):
                yield tuple(slice(0, n) for n in images.shape[2:]), self(images, network, *args, **kwargs)[0]
                return
            yield from self._blocks(images, network, placement, padded, args, kwargs, int(self.memory_mib * 2**20))

        return Slabs(images.shape[2:], placement.order, blocks)

    def prepared(self, network: Network, example: torch.Tensor, args: Any, kwargs: Any) -> Network:
        """What is called for every batch of windows of an image; ``example`` is the first of them."""
        run = mirrored(network, self.mirror_axes, self.average)
        return lambda windows: run(windows, *args, **kwargs)

    def _whole(self, images: torch.Tensor, network: Network, args: Any, kwargs: Any) -> torch.Tensor:
        placement, padded = self._fitted(images, network)
        logits = torch.empty(0)
        for number, (place, block) in enumerate(self._blocks(images, network, placement, padded, args, kwargs)):
            if not logits.numel():
                logits = block.new_empty((len(images), len(block), *images.shape[2:]))
            logits[number // len(placement)][(slice(None), *place)] = block
        return logits

    def _fitted(self, images: torch.Tensor, network: Network) -> tuple[Placement, torch.Tensor]:
        return fitted(images, network, self.roi_size, self.overlap, self.padding_mode, self.cval)

    def _blocks(
        self,
        images: torch.Tensor,
        network: Network,
        placement: Placement,
        padded: torch.Tensor,
        args: Any,
        kwargs: Any,
        memory_bytes: int | None = None,
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """Final logits (K, *block) and their place, of one image after the other."""
        network = self._blended(network)
        windows = self._windows(images, network, placement, padded, args, kwargs)
        importance = self._importance(placement, self.device or images.device)
        for _ in images:
            of_image = islice(windows, len(placement))
            for place, block in Blending(placement, importance, memory_bytes).blocks(of_image):
                yield place, logits_from(network, block[None])[0]
                del block  # not to be held while the network runs again

    def _blended(self, network: Network) -> Network:
        """What gives the values that are blended: the network, or its features where these are fewer.

        Not where a window's answer is no linear function of its features, or is known by its classes alone.
        """
        linear = not self.mirror_axes or self.average == "logits"
        as_a_whole = self.background is not None or (self.runtime is not None and self.runtime.has_int8)
        if not linear or as_a_whole or not has_fewer_features(network):
            return network
        assert isinstance(network, torch.nn.Module)
        return self._features.setdefault(id(network), (network, Features(network)))[1]

    def _windows(
        self, images: torch.Tensor, network: Network, placement: Placement, padded: torch.Tensor, args: Any, kwargs: Any
    ) -> Iterator[torch.Tensor]:
        """Logits of every window of every image."""

        def prepare(example: torch.Tensor) -> Network:
            return self.prepared(self._fastest(network, padded, placement, example), example, args, kwargs)

        call = NetworkCall(
            prepare,
            placement.tile,
            torch.device(self.sw_device or images.device),
            torch.device(self.device or images.device),
            self.precision,
        )
        settings: dict[str, Any] = {"background": self.background, "progress": self.progress}
        return predicted(padded, placement, call, batch_size=self.sw_batch_size, **settings)

    def _fastest(self, network: Network, images: torch.Tensor, placement: Placement, example: torch.Tensor) -> Network:
        """The network, run as `Runtime` has it, which looks at windows of its own: the example may lie in a corner."""
        if self.runtime is None:
            return network
        corners = [placement.corner(numbers) for numbers in placement]
        passes = 2 ** len(self.mirror_axes)
        return self.runtime(network, images, placement.window, corners, len(example), passes, example.device)

    def _importance(self, placement: Placement, device: torch.device | str) -> torch.Tensor | None:
        """Weights of a tile's voxels; None for tiles that are laid side by side, and for one alone."""
        overlap = per_axis("overlap", self.overlap, len(placement.tile))
        if len(placement) == 1 or (placement.window != placement.tile and not any(overlap)):
            return None
        return compute_importance_map(placement.tile, mode=self.mode, sigma_scale=self.sigma_scale, device=device)


def _plain(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs


def _are_scales(scales: Any) -> bool:
    if isinstance(scales, str) or not isinstance(scales, Sequence) or not scales:
        return False
    return all(isinstance(scale, int | float) and _SMALLEST <= scale <= 1 / _SMALLEST for scale in scales)
