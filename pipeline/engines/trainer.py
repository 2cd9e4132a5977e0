"""The training engine: MONAI's ``SupervisedTrainer`` with a step of our own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from pipeline.engines.errors import raise_again
from pipeline.engines.precision import Precision, fastest
from pipeline.engines.schedule import Schedule
from pipeline.errors import DataError
from pipeline.inference import inside_margin, output_margin
from pipeline.inference.means import half_types

logger = logging.getLogger("pipeline.engines")

WEIGHT = "weight"
"""Key of a batch's weights per voxel."""


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Without MONAI's metadata: every operation on a ``MetaTensor`` pays for its bookkeeping."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


class _Clock:
    """Times iterations, and how long each waited for its data."""

    def __init__(self) -> None:
        self._mark = self._wait_s = self._epoch_wait_s = self._epoch_s = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._batch_arrived)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)

    def restart(self) -> None:
        self._mark = time.perf_counter()

    def _start(self, engine: Engine) -> None:
        self._epoch_wait_s = self._epoch_s = 0.0
        self.restart()

    def _batch_arrived(self, engine: Engine) -> None:
        self._wait_s = time.perf_counter() - self._mark

    def _count(self, engine: Engine) -> None:
        engine.state.iteration_s = time.perf_counter() - self._mark
        self._epoch_wait_s += self._wait_s
        self._epoch_s += engine.state.iteration_s
        engine.state.data_wait_share = self._epoch_wait_s / self._epoch_s
        self.restart()


class Trainer(SupervisedTrainer):
    """Trains a network on batches ``{"image": (B, C, H, W[, D]), "label": (B, 1, H, W[, D])}``.

    A ``"weight"`` (B, 1, H, W[, D]) beside them is the loss's third argument. Of a network that loses a margin
    (``output_margin``), label and weight are cropped to what it has logits for.

    What MONAI's own step lacks: bf16 on CPUs (MONAI's is ``torch.autocast("cuda")``, with no effect elsewhere), the
    choice of precision by measurement, gradient clipping, losses that take the list of a deeply supervised network, and
    an error instead of a silently ruined network when the loss stops being finite.

    Args:
        precision: ``auto`` times the step on the first batch (see :mod:`pipeline.engines.precision`); or its name.
        clip_gradient_norm: largest L2 norm of all gradients together; ``None`` leaves them.
        schedule: of learning rate and time; without one the rate stays and ``max_epochs`` ends the run.
        augmentation: called with each batch as the loader gives it and the device, before all else; what it returns is
            the batch (`pipeline.transforms.AugmentationChain.on_batch`).
        kwargs: of MONAI's ``SupervisedTrainer``, by its names.

    ``engine.state`` gains ``precision``, ``gradient_norm``, ``iteration_s`` (seconds of the last iteration, waiting
    included) and ``data_wait_share`` (share of the epoch's time so far spent waiting for data, 0 to 1).
    """

    raises_again = True

    def __init__(
        self,
        device: torch.device,
        max_epochs: int,
        train_data_loader: Any,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: torch.nn.Module,
        precision: str = "auto",
        clip_gradient_norm: float | None = 12.0,
        schedule: Schedule | None = None,
        augmentation: Callable[[dict, torch.device], dict] | None = None,
        **kwargs: Any,
    ) -> None:
        self.augmentation = augmentation
        self.requested_precision, self.clip_gradient_norm = precision, clip_gradient_norm
        self._clock = _Clock()
        # Before all other handlers: they read how far the run has come and what its steps took.
        first = [self._clock] if schedule is None else [self._clock, schedule]
        kwargs["train_handlers"] = [*first, *(kwargs.get("train_handlers") or [])]
        kwargs.setdefault("decollate", False)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            **kwargs,
        )
        self.state.precision = None
        self._scaler = torch.amp.GradScaler(self.state.device.type, enabled=False)
        self._resumed_scale: dict[str, Any] | None = None
        self.add_event_handler(Events.EXCEPTION_RAISED, raise_again)

    def restart_clock(self) -> None:
        """Forget the time since the last iteration: it was spent on something else, a validation."""
        self._clock.restart()

    def scaler_state_dict(self) -> dict[str, Any]:
        """The gradient scaler's state: empty but in float16."""
        return self._scaler.state_dict()

    def load_scaler_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with this scale: it took the stopped run its first steps, some of them skipped, to find it."""
        self._resumed_scale = state or None

    def _choose_precision(self, inputs: torch.Tensor, targets: Sequence[torch.Tensor]) -> Precision:
        device = self.state.device
        if self.requested_precision != "auto":
            chosen = Precision.parse(self.requested_precision)
            if chosen.dtype is torch.bfloat16 and "bfloat16" not in half_types(device):
                logger.warning("precision bfloat16, as asked for: %s has no kernels for it, and is slow", device)
        else:
            # The probe must leave nothing behind: no gradients, no drawn random numbers, no moved statistics.
            buffers = [buffer.clone() for buffer in self.network.buffers()]
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                chosen = fastest(lambda precision: self._probe(precision, inputs, targets), device, self.network)
            if idist.get_world_size() > 1:  # all ranks in step: the first one's choice
                chosen = replace(Precision.parse(str(idist.broadcast(chosen.name, src=0))), seconds=chosen.seconds)
            with torch.no_grad():
                for buffer, before in zip(self.network.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            self.optimizer.zero_grad(set_to_none=True)
            timings = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in chosen.seconds.items())
            logger.info("precision %s, the fastest step measured here (%s)", chosen.name, timings)
            self.restart_clock()  # the probe is no part of the first iteration
        chosen.prepare(self.network)
        self._scaler = torch.amp.GradScaler(device.type, enabled=chosen.dtype is torch.float16)
        if self._resumed_scale is not None and self._scaler.is_enabled():
            self._scaler.load_state_dict(self._resumed_scale)
        return chosen

    def _probe(self, precision: Precision, inputs: torch.Tensor, targets: Sequence[torch.Tensor]) -> None:
        # Without DistributedDataParallel's wrapper: ranks that probe differently often must not wait for each other.
        network: Any = getattr(self.network, "module", self.network)
        precision.prepare(network)
        network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with precision.autocast(inputs.device):
            loss = self.loss_function(self.inferer(precision.store(inputs), network), *targets)
        loss.backward()

    def _targets(self, labels: torch.Tensor, batchdata: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """What the loss compares with: the labels, and the weights where the batch has some."""
        targets = [labels]
        if WEIGHT in batchdata:
            weights = batchdata[WEIGHT].to(self.state.device, non_blocking=self.non_blocking, **self.to_kwargs)
            targets.append(_plain(weights))
        margin = output_margin(self.network, labels.ndim - 2)
        return [inside_margin(tensor, margin) for tensor in targets]

    def _iteration(self, engine: Engine, batchdata: dict[str, torch.Tensor]) -> dict:
        state = self.state
        if self.augmentation is not None:
            batchdata = engine.state.batch = self.augmentation(batchdata, state.device)
        batch = self.prepare_batch(batchdata, state.device, self.non_blocking, **self.to_kwargs)
        inputs, targets = _plain(batch[0]), self._targets(_plain(batch[1]), batchdata)
        if state.precision is None:
            state.precision = self._choose_precision(inputs, targets)
        output = state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets[0]}

        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with state.precision.autocast(state.device):
            output[Keys.PRED] = self.inferer(state.precision.store(inputs), self.network)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            output[Keys.LOSS] = loss = self.loss_function(output[Keys.PRED], *targets)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        if not torch.isfinite(loss):
            raise DataError(
                f"a loss of {loss.item()} at iteration {state.iteration} (precision {state.precision.name}, "
                f"learning rate {self.optimizer.param_groups[0]['lr']:.3g})",
                expected="a finite loss",
                fix="resume from the last checkpoint with a smaller learning_rate, or with precision=float32",
            )
        self._scaler.scale(loss).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if self.clip_gradient_norm is not None:
            self._scaler.unscale_(self.optimizer)
            state.gradient_norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_gradient_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        output[Keys.LOSS] = loss.detach()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output
