"""The network over all windows of an image: batched, and not run where its answer is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from pipeline.errors import ConfigError, DataError
from pipeline.inference.finite import all_finite
from pipeline.inference.placement import Placement, box

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_KEPT = 2  # logits of constant windows: of the air, and of what lies outside the field of view
_MOST_AT_ONCE = 8  # windows: more fill no GPU better, and keep more memory from others
_SURE = 16.0  # by how much the background leads where a window holds nothing: a probability of 1 - 1e-7


class NetworkCall:
    """What is called with batches of windows: the one place where an inferer runs a network.

    Args:
        prepare: (example batch) -> what is called for this and all further batches; called once.
        tile: voxels per axis that the logits must have.
        run_on, give_on: devices of the network and of its logits.
        precision: see `PRECISIONS`.
    """

    def __init__(
        self,
        prepare: Callable[[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]],
        tile: Sequence[int],
        run_on: torch.device,
        give_on: torch.device,
        precision: str = "float32",
    ) -> None:
        self._prepare = prepare
        self._network: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._tile = list(tile)
        self.run_on, self.give_on = run_on, give_on
        self._precision = precision

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(b, C, *window) -> logits (b, K, *tile), float32.

        Raises:
            ConfigError: the network gives no tensor, or one of another size.
            DataError: it gives logits that are not finite, of which background would be made without a word.
        """
        windows = windows.to(self.run_on)
        autocast: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self._precision != "float32":
            autocast = torch.autocast(self.run_on.type, dtype=PRECISIONS[self._precision])
        with torch.no_grad(), autocast:
            if self._network is None:
                self._network = self._prepare(windows)
            logits = self._network(windows)
        if not isinstance(logits, torch.Tensor):
            raise ConfigError(
                f"a network that returns a {type(logits).__name__}",
                expected="one tensor of logits",
                fix="put the network into eval mode, where deep supervision gives its first output alone",
            )
        if list(logits.shape[2:]) != self._tile:
            raise ConfigError(f"logits of shape {tuple(logits.shape)}", expected=f"{tuple(self._tile)}")
        if not all_finite(logits):
            raise DataError(
                f"a network that answers with {int(logits.isnan().sum())} NaN and {int(logits.isinf().sum())} infinite "
                f"logits of {logits.numel()} in {len(windows)} windows",
                expected="finite ones: no label follows from these",
                fix="try runtime=float32 (in Python also precision='float32'), since half precision holds no large "
                "numbers; where that is of no help, look for extreme values in the images, and at the weights",
            )
        return logits.to(self.give_on, torch.float32)


def predicted(
    images: torch.Tensor,
    placement: Placement,
    call: NetworkCall,
    *,
    batch_size: int | str = 1,
    background: float | None = None,
    progress: bool = False,
) -> Iterator[torch.Tensor]:
    """Logits (K, *tile) of every window of every image, image by image in the placement's order.

    A window that is constant in every channel is run once and its logits are used wherever it comes again: the network
    would say the same.

    Args:
        images: (B, C, *spatial), large enough for the placement.
        batch_size: windows per call; ``"auto"`` is what half of a GPU's free memory takes, by what the first window
            took, and 1 on a CPU, where more gain little.
        background: see `pipeline.inference.SlidingWindowInferer`.
    """
    corners = [(b, placement.corner(numbers)) for b in range(len(images)) for numbers in placement]
    limits = None if background is None else _background_limits(images, background)
    known: dict[Any, torch.Tensor] = {}
    if batch_size == "auto" and call.run_on.type != "cuda":
        batch_size = 1
    bar = tqdm(total=len(corners), desc="windows", disable=not progress)
    to_run: list[torch.Tensor] = []
    waiting: list[tuple[Any, int]] = []  # windows in order: a key of `known`, or a number in the batch
    classes = 0
    with bar:
        for at, (b, corner) in enumerate(corners):
            window = images[b : b + 1][(slice(None), slice(None), *box(corner, placement.window))]
            key: Any = constant_values(window)
            running = {name: number for name, number in waiting if name is not None and number >= 0}
            if key is None and limits is not None and classes and _holds_nothing(window, limits[b]):
                key = "nothing"
                if key not in known:
                    logits = torch.full((classes, *placement.tile), -_SURE, device=call.give_on)
                    logits[0] = 0
                    known[key] = logits
            if key is not None and key in known:
                known[key] = known.pop(key)  # the last used are kept
                waiting.append((key, -1))
            elif key is not None and key in running:
                waiting.append((key, running[key]))
            else:
                waiting.append((key, len(to_run)))
                to_run.append(window)
            limit = 1 if batch_size == "auto" else int(batch_size)
            if to_run and len(to_run) < limit and at + 1 < len(corners):
                continue
            batch: torch.Tensor | None = None
            if to_run:
                if batch_size == "auto":
                    batch, batch_size = _measured(call, to_run[0])
                else:
                    batch = call(torch.cat(to_run))
                classes = batch.shape[1]
            for name, number in waiting:
                if number < 0:
                    yield known[name]
                else:
                    assert batch is not None
                    if name is not None:
                        known[name] = batch[number].clone() if len(batch) > 1 else batch[number]
                    yield batch[number]
                bar.update()
            while len(known) > _KEPT:
                known.pop(next(iter(known)))
            to_run, waiting = [], []


def constant_values(window: torch.Tensor) -> bytes | None:
    """The channels' values where each is the same everywhere in a window (1, C, *window); None elsewhere."""
    all_axes = [slice(None)] * 2
    first = window[(*all_axes, *[slice(0, 1)] * (window.ndim - 2))]
    coarse = window[(*all_axes, *[slice(None, None, 8)] * (window.ndim - 2))]  # settles nearly all, for next to nothing
    if bool((coarse == first).all()) and bool((window == first).all()):
        return first.flatten().cpu().numpy().tobytes()
    return None


def _background_limits(images: torch.Tensor, share: float) -> list[torch.Tensor]:
    """Per image (C, 1): the value up to which a channel shows background."""
    flat = images.flatten(2)
    low, high = flat.amin(2), flat.amax(2)
    return list((low + share * (high - low))[..., None])


def _holds_nothing(window: torch.Tensor, limits: torch.Tensor) -> bool:
    return bool((window[0].flatten(1) <= limits).all())


def _measured(call: NetworkCall, window: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Logits of one window, and how many windows at once the GPU's memory takes."""
    torch.cuda.synchronize(call.run_on)
    torch.cuda.reset_peak_memory_stats(call.run_on)
    before = torch.cuda.memory_allocated(call.run_on)
    logits = call(window)
    taken = max(1, torch.cuda.max_memory_allocated(call.run_on) - before)
    unused = torch.cuda.memory_reserved(call.run_on) - torch.cuda.memory_allocated(call.run_on)
    free = torch.cuda.mem_get_info(call.run_on)[0] + unused
    return logits, max(1, min(_MOST_AT_ONCE, free // (2 * taken)))
