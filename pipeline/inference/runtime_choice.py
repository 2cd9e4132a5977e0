"""How `pipeline.inference.Runtime` comes to its choice: every means that may pay is loaded, compared and timed."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.data.case_error import lacks_memory
from pipeline.inference.features import logits_from
from pipeline.inference.means import Means, Run
from pipeline.inference.runtime_agreement import agreement, labels_of
from pipeline.inference.runtime_memory import PLAIN, RuntimeMemory, Trial, machine

logger = logging.getLogger(__name__)

_CALLS = 4  # of a means on trial, the first of which warms it up
_SHORT_S = 1.0  # a call so short that the noise of one measurement matters
_WORTH = 0.5  # of the time that the work ahead takes, the most that trying one means may cost
_NOISE = 1.05  # of two means that are nearer than this, the safer one is taken
_CLOSE = 2.0  # times the fastest: near enough to be timed in turn, where others use the machine too
_AGAIN, _ROUNDS = 0.05, 10  # of the time ahead, what that may take at most; and how often at most
_SLOW = 1.5  # times float32 as it is: not worth a further call


@dataclass(frozen=True)
class Limits:
    """What a means must keep to float32 to be chosen, see `pipeline.inference.Runtime`."""

    least_agreement: float
    least_foreground: float


class Choice:
    """Tries means on a network and takes one.

    Args:
        network: in eval mode, on ``device``.
        examples: windows (n, C, *S) of a real case, on ``device``.
        batch_size: windows per call.
        memory: what is known from earlier processes, and where things are built.
        limits: for ``auto``.
    """

    def __init__(
        self,
        network: nn.Module,
        examples: torch.Tensor,
        batch_size: int,
        device: torch.device,
        memory: RuntimeMemory,
        limits: Limits,
    ) -> None:
        self.network, self.device, self.memory, self.limits = network, device, memory, limits
        repeated = examples.repeat(math.ceil(batch_size / len(examples)), *(1,) * (examples.ndim - 1))
        whole = max(1, len(repeated) // batch_size)
        self.batches = repeated[: whole * batch_size].split(batch_size)
        self.batch_size = batch_size
        self.trials = {name: self._judged(trial) for name, trial in memory.trials().items()}
        self.skipped: list[str] = []
        self.unproven: list[str] = []  # would pay, and round: not to be judged by examples without foreground
        self._runs: dict[str, Run] = {}
        self._reference: list[torch.Tensor | None] = []
        self._passing: set[str] = set()  # refused for what another moment may not lack: memory

    def fastest(self, means: Mapping[str, Means], windows_ahead: int) -> str:
        """The name of the means that takes the least time for so many windows, its own start included.

        Args:
            means: by name, the safest first; the first is the network as it is.
            windows_ahead: from here to the end of the work.
        """
        known = set(self.trials) & set(means)
        if PLAIN not in known:
            self._try(means[PLAIN])
        for one in sorted(means.values(), key=lambda one: one.build_s + one.start_s):
            best_s = min(self._accepted(means).values())
            cost_s = self._start_s(one) + _CALLS * self.batch_size * best_s
            if one.name in self.trials:
                continue
            if cost_s > _WORTH * windows_ahead * best_s:
                self.skipped.append(one.name)
                continue
            if PLAIN not in one.name and not self._shows_foreground():
                self.unproven.append(one.name)
                continue
            self._try(one)
        if set(self.trials) & set(means) != known:
            self._time_again(means, windows_ahead)
            self._keep()
        while True:
            seconds = self._accepted(means)
            total_s = {name: self._start_s(means[name]) + windows_ahead * s for name, s in seconds.items()}
            chosen = next(name for name in means if total_s.get(name, math.inf) <= _NOISE * min(total_s.values()))
            try:
                self.run(means[chosen])
            except Exception as error:  # what another process has left here, on a system that has changed since
                self.trials[chosen] = self._refusal(chosen, error)
                self._keep()
            else:
                return chosen

    def fastest_of_any_size(self, means: Mapping[str, Means]) -> Means:
        """For windows of other sizes than the examples: what needs no building for each."""
        seconds = {name: s for name, s in self._accepted(means).items() if means[name].any_size}
        return means[min(seconds, key=lambda name: seconds[name], default=PLAIN)]

    def run(self, one: Means) -> Run:
        """The network, ready to run by this means."""
        if one.name not in self._runs:
            folder = self.memory.folder / one.artefact
            if one.build is not None and not folder.is_dir():
                self._build(one, folder)
            try:
                self._runs[one.name] = one.load(self.network, self.batches[0], folder)
            except Exception as error:
                if one.build is None:
                    raise
                # damaged, or of another system; what building it anew raises is the caller's
                logger.info("runtime %s is built again, what was kept of it can't be loaded: %s", one.name, error)
                shutil.rmtree(folder, ignore_errors=True)
                self._build(one, folder)
                self._runs[one.name] = one.load(self.network, self.batches[0], folder)
        return self._runs[one.name]

    def measured(self, one: Means) -> Trial:
        """Load a means, run the examples, and say how fast it is and how near to float32.

        Raises:
            Exception: whatever loading or running it raises.
        """
        if one.build is not None and not (self.memory.folder / one.artefact).is_dir():
            self._build(one, self.memory.folder / one.artefact)
        began = time.perf_counter()
        run = self.run(one)
        self._timed(run, self.batches[0])
        start_s = time.perf_counter() - began
        outputs, seconds = [], []
        for batch in self.batches:
            took, logits = self._timed(run, batch)
            seconds.append(took)
            outputs.append(labels_of(logits_from(self.network, logits)))
            del logits  # of many classes they are large
            if PLAIN in self.trials and min(seconds) > _SLOW * self.trials[PLAIN].seconds * self.batch_size:
                return Trial(min(seconds) / self.batch_size, refused="slower than float32")
        while len(seconds) < _CALLS - 1 and seconds[-1] < _SHORT_S:
            seconds.append(self._timed(run, self.batches[0])[0])
        found = Trial(round(min(seconds) / self.batch_size, 6), 0.0 if one.build is None and one.any_size else start_s)
        if one.name == PLAIN:
            self._reference = outputs
            return found
        share, foreground = agreement(outputs, self._float32s())
        return self._judged(replace(found, agreement=share, foreground=foreground))

    def record(self, chosen: str, reason: str, windows_ahead: int) -> dict[str, Any]:
        """What was chosen, for the results' own record."""
        trial = self.trials.get(chosen, Trial())
        return {
            "runtime": chosen,
            "reason": reason,
            "machine": machine(self.device),
            "window": list(self.batches[0].shape[2:]),
            "windows_ahead": windows_ahead,
            "label_agreement": round(trial.agreement, 6),
            "foreground_agreement": None if trial.foreground is None else round(trial.foreground, 6),
            "trials": {name: _rounded(trial) for name, trial in self.trials.items()},
            "not_tried": dict.fromkeys(self.skipped, f"would not pay within {windows_ahead} windows")
            | dict.fromkeys(self.unproven, "no foreground yet on which it could be compared with float32"),
        }

    def forget_losers(self, means: Mapping[str, Means], chosen: str) -> None:
        """Remove what was built for means that were not taken."""
        for one in means.values():
            if one.artefact and one.artefact != means[chosen].artefact:
                shutil.rmtree(self.memory.folder / one.artefact, ignore_errors=True)

    def _judged(self, trial: Trial) -> Trial:
        """By the limits of now: what was found may come from a process that had others."""
        if trial.refused and trial.agreement == 1:  # for another reason
            return trial
        share, foreground = trial.agreement, trial.foreground
        known = 1.0 if foreground is None else foreground
        refused = ""
        if share < self.limits.least_agreement or known < self.limits.least_foreground:
            words = "there is no foreground" if foreground is None else f"{foreground:.3%} of the foreground"
            refused = f"{share:.3%} of the labels are float32's, {words}"
        return replace(trial, refused=refused)

    def _float32s(self) -> list[torch.Tensor | None]:
        """The labels of the examples."""
        if not self._reference:
            self._reference = [
                labels_of(logits_from(self.network, self._timed(self.network, batch)[1])) for batch in self.batches
            ]
        return self._reference

    def _shows_foreground(self) -> bool:
        return any(labels is not None and bool(labels.any()) for labels in self._float32s())

    def _try(self, one: Means) -> None:
        try:
            self.trials[one.name] = self.measured(one)
        except Exception as error:  # compilers and drivers raise anything, and the network as it is goes on
            if one.name == PLAIN:
                raise
            self.trials[one.name] = self._refusal(one.name, error)
        if self.trials[one.name].refused:
            self._runs.pop(one.name, None)
            logger.info("runtime %s not used: %s", one.name, self.trials[one.name].refused)

    def _refusal(self, name: str, error: Exception) -> Trial:
        self._runs.pop(name, None)
        if lacks_memory(error):
            self._passing.add(name)
        words = (str(error).strip().splitlines() or [""])[0]
        return Trial(refused=f"does not work here ({type(error).__name__}: {words[:200]})")

    def _time_again(self, means: Mapping[str, Means], windows_ahead: int) -> None:
        """The close ones in turn: on a machine that is busy, what was timed at different moments can't be compared."""
        seconds = self._accepted(means)
        close = [name for name in seconds if seconds[name] < _CLOSE * min(seconds.values()) and name in self._runs]
        if len(close) < 2 or min(seconds.values()) * self.batch_size > _SHORT_S:
            return
        worth_s = _AGAIN * windows_ahead * min(seconds.values())
        rounds = int(worth_s / (sum(seconds[name] for name in close) * self.batch_size))
        for _ in range(max(1, min(rounds, _ROUNDS))):
            for name in close:
                took = self._timed(self._runs[name], self.batches[0])[0] / self.batch_size
                self.trials[name] = replace(self.trials[name], seconds=min(self.trials[name].seconds, took))

    def _keep(self) -> None:
        self.memory.keep({name: trial for name, trial in self.trials.items() if name not in self._passing})

    def _accepted(self, means: Mapping[str, Means]) -> dict[str, float]:
        return {
            name: self.trials[name].seconds for name in means if name in self.trials and not self.trials[name].refused
        }

    def _start_s(self, one: Means) -> float:
        """Seconds until it could run, from now."""
        if one.name in self._runs:
            return 0.0
        known = self.trials.get(one.name)
        build = one.build is not None and not (self.memory.folder / one.artefact).is_dir()
        return (one.start_s if known is None else known.start_s) + (one.build_s if build else 0.0)

    def _build(self, one: Means, folder: Path) -> None:
        assert one.build is not None
        aside = self.memory.folder / f".{uuid.uuid4().hex}"
        aside.mkdir(mode=0o700)
        try:
            logger.info("runtime %s is being built, once for this machine and these weights", one.name)
            one.build(self.network, self.batches[0], aside)
            if not folder.is_dir():  # another process may have been faster
                os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @torch.no_grad()
    def _timed(self, run: Run, batch: torch.Tensor) -> tuple[float, torch.Tensor]:
        began = time.perf_counter()
        logits = run(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began, logits


def _rounded(trial: Trial) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(trial).items()}
