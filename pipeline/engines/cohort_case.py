"""One case through the network and back to its own grid; with less memory, where there is not enough."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from pipeline.data.case_error import lacks_memory
from pipeline.inference import Restored
from pipeline.inference.overlapping import require_for_regions

Item = Mapping[Hashable, Any]

_LITTLE_MIB = 64
"""For unfinished logits, where memory is short; the rest of them lies in a temporary file."""


@dataclass(frozen=True)
class Means:
    """How much memory the network takes.

    Args:
        inferer: (image (1, C, H, W, D), network) -> logits (1, K, H, W, D).
        device: where the network runs.
        images_on: where images are, and logits are put together.
        remark: for the case's record; empty for the means that were asked for.
    """

    inferer: Any
    device: torch.device
    images_on: torch.device
    remark: str = ""


class CasePredictor:
    """A bundle's network between its two chains of transforms.

    Args:
        network: put into eval mode on ``device``.
        inferer: see `Means`. One that has ``slabs`` is asked for finished slabs in place of whole logits, where
            `Restored` is the first to take them: then no more of a volume's logits exist at a time.
        postprocessing: item with ``image`` and the logits ``pred`` (K, H, W, D) -> item with ``pred``, labels
            (1, H, W, D) on the case's own grid.
        device: where the network runs.

    Raises:
        ConfigError: see `pipeline.inference.overlapping`.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        inferer: Callable[..., Any],
        postprocessing: Callable[[Item], Item],
        device: torch.device | str,
    ) -> None:
        require_for_regions(inferer, network, postprocessing)
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.means = Means(inferer, self.device, self.device)
        self.postprocessing = postprocessing
        steps = postprocessing.transforms if isinstance(postprocessing, Compose) else ()
        self._restored_first = isinstance(next(iter(steps), None), Restored)

    @torch.no_grad()
    def through_network(self, item: Item, means: Means | None = None) -> tuple[Item, int]:
        """A prepared item with its logits, or with its labels where they came slab by slab; how many steps of the
        postprocessing that took."""
        means = means or self.means
        image = item["image"]
        inputs = image.as_tensor()[None].to(means.images_on)
        if self._restored_first and hasattr(means.inferer, "slabs"):
            slabs = means.inferer.slabs(inputs, self.network)
            return self.postprocessing({**item, "pred": slabs}, end=1), 1  # type: ignore[call-arg]
        logits = means.inferer(inputs, self.network)[0]
        scored = {**item, "pred": MetaTensor(logits).copy_meta_from(image)}
        if self._restored_first and self.device.type == "cpu":
            # Two threads that share the cores take turns in every layer, and each takes several times as long.
            return self.postprocessing(scored, end=1), 1  # type: ignore[call-arg]
        return scored, 0

    @torch.no_grad()
    def finish(self, item: Item, steps_done: int) -> Item:
        """The rest of the postprocessing: another thread may do it while the network has the next case."""
        return self.postprocessing(item, start=steps_done) if steps_done else self.postprocessing(item)  # type: ignore[call-arg]

    def predict(self, prepared: Item, again: Callable[[], Item]) -> Item:
        """A prepared item to its result; where memory is lacking, with less.

        Args:
            again: prepares the item once more.
        """
        try:
            return self.finish(*self.through_network(prepared))
        except Exception as error:
            if not any(map(lacks_memory, causes(error))):
                raise
            lacking = error
        del prepared
        return self.with_less_memory(again, lacking)[1]

    def with_less_memory(self, prepare: Callable[[], Item], error: Exception) -> tuple[Item, Item]:
        """A case that has found too little memory, once more from its start and with nothing beside it: by the same
        means, then by ever more modest ones. Its prepared item and its result.

        Args:
            prepare: reads and prepares the case.
            error: the lack of memory.

        Raises:
            Exception: of the last attempt, or the first one that is no lack of memory.
        """
        for means in self._ever_less():
            _give_back(error, self.device)
            try:
                prepared = prepare()
                if means.device != self.device:
                    self.network.to(means.device)
                result = self.finish(*self.through_network(prepared, means))
            except Exception as again:
                if not any(map(lacks_memory, causes(again))):
                    raise
                error = again
                continue
            finally:
                if means.device != self.device:
                    self.network.to(self.device)
            if means.remark:
                repairs = prepared["image"].meta.get("repairs", "")
                prepared["image"].meta["repairs"] = "\n".join(filter(None, [repairs, means.remark]))
            return prepared, result
        raise error

    def _ever_less(self) -> Iterator[Means]:
        yield self.means
        inferer, batch = self.means.inferer, getattr(self.means.inferer, "sw_batch_size", 1)
        batch = batch if isinstance(batch, int) else 2  # chosen by the inferer itself
        while batch > 1:
            batch //= 2
            inferer = _with(inferer, sw_batch_size=batch)
            words = "one window" if batch == 1 else f"{batch} windows"
            yield Means(inferer, self.device, self.device, f"memory: predicted {words} at a time")
        if self._restored_first and hasattr(inferer, "memory_mib"):
            inferer = _with(inferer, memory_mib=_LITTLE_MIB)
            yield Means(inferer, self.device, self.device, "memory: unfinished logits kept on the disk")
        if self.device.type != "cpu":
            main = torch.device("cpu")
            yield Means(
                _with(inferer, sw_device=self.device, device=main),
                self.device,
                main,
                "memory: put together in main memory",
            )
            # As it is, without a `Runtime`: one case pays no probe of what the CPU does best.
            on_cpu = _with(inferer, sw_device=main, device=main, runtime=None)
            yield Means(on_cpu, main, main, "memory: predicted on the CPU")


def _with(inferer: Any, **values: Any) -> Any:
    """A copy with other values of the attributes that it has."""
    other = copy.copy(inferer)
    for name, value in values.items():
        if hasattr(other, name):
            setattr(other, name, value)
    return other


def _give_back(error: BaseException, device: torch.device) -> None:
    """What a failed attempt holds on to: the tensors in the frames of its error, and the GPU's blocks."""
    for cause in causes(error):
        traceback.clear_frames(cause.__traceback__)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what is behind it."""
    while error is not None:
        yield error
        error = error.__cause__
