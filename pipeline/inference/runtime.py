"""`Runtime`: the fastest way to run a network on this machine, found by timing and held to float32's labels.

Which way that is can't be told from names: bfloat16 is three times as fast on a processor that has it and half as fast
on one that emulates it, and compiling pays only where enough windows follow. So every means runs the first case's own
windows, as far as trying it can pay within the work ahead; what was found is kept for the next process. Where the first
case shows no foreground, what rounds is not believed yet: it is compared on the first windows that do show some.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import BundleError, ConfigError
from pipeline.inference.means import DTYPES, Means, Run, torch_means
from pipeline.inference.openvino_runtime import INSTALL, has_openvino, int8_means, openvino, openvino_means
from pipeline.inference.quantized import RECORD, read_quantized
from pipeline.inference.runtime_agreement import EXAMPLES, example_windows
from pipeline.inference.runtime_choice import Choice, Limits
from pipeline.inference.runtime_memory import PLAIN, RuntimeMemory
from pipeline.inference.runtime_watch import Watched

logger = logging.getLogger(__name__)

AUTO, INT8 = "auto", "openvino_int8"
ALIASES = {"torch": PLAIN, "openvino": "openvino_float32", "int8": INT8}
NAMES = (
    *(dtype + how for dtype in DTYPES for how in ("", "+channels_last", "+compiled")),
    "openvino_float32",
    "openvino_bfloat16",
    INT8,
)


class Runtime:
    """Chooses how a network is run, once per network, and says so in ``record``.

    Args:
        name: ``"auto"`` for the fastest found; ``"float32"`` (or ``"torch"``) for the network as it is, without a
            probe; or a name of `NAMES` for that one.
        quantized: a folder with a quantised network (``models/`` of a bundle), a candidate where its record is of the
            very weights of the network, and `BundleError` says what is wrong where it is asked for by name.
        work: what lies ahead, the cases (anything with a length): trying and compiling must pay within it. None is
            the first image alone.
        cache_dir: where findings are kept, see `pipeline.data.cache.cache_folder`; None for this process alone.
        least_agreement: share of voxels whose label must be float32's, on the first case's windows, for a means to be
            chosen by ``auto``.
        least_foreground: the same as a Dice coefficient of what either calls foreground: in an image that is mostly
            background a lost lesion is few voxels. Until there is foreground only what computes in float32 is taken.

    Attributes:
        record: what was chosen and why, every means that was tried with its seconds per window and its agreement; made
            of what JSON can hold. Empty before the first image.

    Raises:
        ConfigError: another name.
    """

    def __init__(
        self,
        name: str = AUTO,
        *,
        quantized: str | os.PathLike[str] | None = None,
        work: Sized | None = None,
        cache_dir: str | None = AUTO,
        least_agreement: float = 0.999,
        least_foreground: float = 0.98,
    ) -> None:
        self.name = ALIASES.get(name, name)
        if self.name not in (AUTO, *NAMES):
            raise ConfigError(f"runtime {name!r}", expected=f"auto, torch or one of {', '.join(NAMES)}")
        self.quantized = None if quantized is None else Path(quantized)
        self.work, self.cache_dir = work, cache_dir
        self.least_agreement, self.least_foreground = least_agreement, least_foreground
        self.record: dict[str, Any] = {}
        self._settled: dict[int, _Settled] = {}
        self._images = 0  # so far

    @property
    def has_int8(self) -> bool:
        """Whether a quantised network lies there, which stands for the whole of the network that it is made from."""
        return self.name == INT8 or (self.quantized is not None and (self.quantized / RECORD).is_file())

    def __call__(
        self,
        network: Any,
        images: torch.Tensor,
        window: Sequence[int],
        corners: Sequence[Sequence[int]],
        batch_size: int,
        passes: int,
        device: torch.device,
    ) -> Any:
        """What to call instead of ``network`` for the windows of these images.

        Args:
            network: a module in eval mode. Anything else, or one in training mode, is given back as it is.
            images: (B, C, *S), padded.
            window: voxels per axis.
            corners: first voxel of every window.
            batch_size: windows per call.
            passes: how often each window goes through the network, mirrored.
            device: where the network runs.
        """
        if self.name == PLAIN or not isinstance(network, nn.Module) or network.training:
            if self.name == PLAIN:
                self.record.update(runtime=PLAIN, reason="as asked for")
            return network
        size = (images.shape[1], *window)
        tensors = network.state_dict(keep_vars=True).values()
        state = (device, sum(0 if tensor.is_inference() else tensor._version for tensor in tensors))
        settled = self._settled.get(id(network))
        cases = 1 if self.work is None else max(1, len(self.work) - self._images)
        windows = len(corners) * len(images) * passes * cases
        self._images += len(images)
        if settled is None or settled.state != state:
            examples = example_windows(images, window, corners).to(device)
            settled = self._settled[id(network)] = self._chosen(network, state, size, examples, batch_size, windows)
        elif isinstance(settled.run, Watched) and settled.run.found:
            examples, known = torch.cat(settled.run.found), settled.memory
            settled = self._chosen(network, state, settled.size, examples, settled.batch_size, windows, known)
            self._settled[id(network)] = settled
        made_for_it = settled.size == size and settled.batch_size <= batch_size  # a smaller batch is to save memory
        return settled.run if settled.any_size or made_for_it else settled.for_other_sizes

    def _chosen(
        self,
        network: nn.Module,
        state: tuple,
        size: tuple[int, ...],
        examples: torch.Tensor,
        batch_size: int,
        windows: int,
        memory: RuntimeMemory | None = None,
    ) -> _Settled:
        device = examples.device
        means = {one.name: one for one in torch_means(device)}
        if device.type == "cpu":
            means |= {one.name: one for one in openvino_means()} | self._int8(network)
        # Safest first: what computes in float32, then what rounds to half of its bits, int8 last.
        means = dict(sorted(means.items(), key=lambda entry: (PLAIN not in entry[0], entry[0] == INT8)))
        limits = Limits(self.least_agreement, self.least_foreground)
        example = examples[:1].expand(batch_size, *size)
        memory = memory or RuntimeMemory(self.cache_dir, network, example, device, self._digests(means))
        choice = Choice(network, examples, batch_size, device, memory, limits)
        if self.name == AUTO:
            chosen = choice.fastest(means, windows)
            reason = _reason(choice, chosen)
            if memory.kept:
                choice.forget_losers(means, chosen)
        else:
            chosen, reason = self.name, "as asked for"
            trial = choice.measured(self._named(means, device))
            choice.trials = {chosen: trial}
            if trial.refused and trial.agreement < 1:
                logger.warning("runtime %s, as asked for: only %s", chosen, trial.refused)
        counted = {name: self.record[name] for name in ("float32_instead",) if name in self.record}
        self.record.clear()  # the same dict: whoever writes it at the end of a run has it from its start
        self.record.update(choice.record(chosen, reason, windows) | counted)
        logger.info("runtime %s: %s", chosen, reason)
        run, any_size = choice.run(means[chosen]), means[chosen].any_size
        for_other_sizes = run if any_size else choice.run(choice.fastest_of_any_size(means))
        if self.name == AUTO and (chosen != PLAIN or choice.unproven):
            wanted = EXAMPLES if choice.unproven else 0
            run = Watched(run, network, size, wanted, self.record)
            if chosen != PLAIN:
                for_other_sizes = Watched(for_other_sizes, network, size, 0, self.record)
        if device.type == "cuda":  # what the probe took is no part of what a batch takes
            torch.cuda.reset_peak_memory_stats(device)
        return _Settled(network, memory, state, size, batch_size, run, any_size, for_other_sizes)

    def require(self, device: torch.device) -> None:
        """Before the first case: that this machine has what was asked for by name.

        Raises:
            ConfigError: it has not.
        """
        if self.name not in (AUTO, PLAIN, INT8):  # whether there is an int8 network depends on the network
            means = [*torch_means(device), *(openvino_means() if device.type == "cpu" else [])]
            self._named({one.name: one for one in means}, device)

    def _named(self, means: dict[str, Means], device: torch.device) -> Means:
        if self.name in means:
            return means[self.name]
        if self.name.startswith("openvino") and device.type == "cpu":
            openvino()  # says what is missing
        raise ConfigError(
            f"runtime {self.name!r}, which this machine can't give on {device}",
            expected=f"auto, or one of {', '.join(means)}",
            fix=None if any("compiled" in name for name in means) else "for a compiled one, install g++ or clang++",
        )

    def _int8(self, network: nn.Module) -> dict[str, Means]:
        """The bundle's int8 network, if it has one and it is this network's."""
        if self.name == INT8:
            openvino()  # says what is missing
            if self.quantized is None:
                raise ConfigError(
                    f"runtime {INT8!r} without a folder", expected="quantized: a folder of pipeline quantize"
                )
            return {INT8: int8_means(read_quantized(self.quantized, network))}
        if self.name != AUTO or self.quantized is None or not (self.quantized / RECORD).is_file():
            return {}
        if not has_openvino():
            logger.info(
                "this bundle has an int8 network, several times as fast, for which OpenVINO is missing: %s", INSTALL
            )
            return {}
        try:
            return {INT8: int8_means(read_quantized(self.quantized, network))}
        except BundleError as error:
            logger.warning("the int8 network is not used: %s", error)
            return {}

    def _digests(self, means: dict[str, Means]) -> dict[str, str]:
        """So that what is known of one int8 network is not believed of the next."""
        if self.quantized is None or INT8 not in means:
            return {}
        return {INT8: json.loads((self.quantized / RECORD).read_text(encoding="utf-8"))["model_sha256"]}


@dataclass(frozen=True)
class _Settled:
    """A choice that has been made. It holds the network, so that its id stays its own, and what was built."""

    network: nn.Module
    memory: RuntimeMemory
    state: tuple
    size: tuple[int, ...]
    batch_size: int
    run: Run
    any_size: bool
    for_other_sizes: Run


def _reason(choice: Choice, chosen: str) -> str:
    trials = choice.trials
    if chosen != PLAIN:
        trial = trials[chosen]
        return (
            f"{trial.seconds:.3g} s per window, against {trials[PLAIN].seconds:.3g} s of float32 as it is; "
            f"{trial.agreement:.3%} of the labels are the same"
        )
    others = [name for name in trials if name != PLAIN]
    if not others:
        return "too little to predict for a search of something faster to pay"
    unlike = [name for name in others if trials[name].agreement < 1 and trials[name].refused]
    return "nothing is faster" + (f" and gives the same labels (not {', '.join(unlike)})" if unlike else "")
