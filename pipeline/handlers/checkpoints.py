"""What a run keeps of its weights, and how it goes on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.engine.events import RemovableEventHandle

from pipeline.data.sampler import EpochSampler
from pipeline.errors import DataError
from pipeline.io.atomic import write_whole


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` into a file that exists only when whole.

    Raises:
        DataError: it can't be written.
    """

    def save(raw: BinaryIO) -> None:
        try:
            torch.save(content, raw)
        except RuntimeError as error:  # torch's archive, in the place of the disk's own error
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    write_whole(path, save)


class BestWeights:
    """Saves the weights whenever the evaluator's key metric is the best so far, as a plain state dict.

    Args:
        network: whose weights are validated.
        path: of the file, ``models/model.pt`` of the run. ``model_last.pt`` beside it always holds the latest.
    """

    def __init__(self, network: torch.nn.Module, path: str) -> None:
        self.network, self.path = network, Path(path)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        save_atomically(weights, self.path.with_stem(self.path.stem + "_last"))
        best = getattr(engine.state, "best_validation", None)
        metric = float(engine.state.metrics[engine.state.key_metric_name])
        if best is None or metric > best:
            engine.state.best_validation = metric
            save_atomically(weights, self.path)


class Resumable:
    """Saves all that a run needs to go on exactly where it stopped, and goes on from it. Attach it to a trainer, last.

    Saved after every epoch, at the end, and when the run is interrupted by Ctrl-C; an error leaves the last good one.

    Args:
        parts: name -> object with ``state_dict`` / ``load_state_dict``: network, average, optimizer, schedule.
        path: of the checkpoint.
        resume: whether to start from the checkpoint at ``path``, which must exist then.
        validator: the evaluator whose best result must survive.
    """

    def __init__(self, parts: dict[str, Any], path: str, resume: bool = False, validator: Engine | None = None) -> None:
        self.parts, self.path, self.resume, self.validator = parts, Path(path), resume, validator
        if resume and not self.path.is_file():
            raise DataError("no checkpoint", file=self.path, expected="a run that trained for at least one epoch")

    def attach(self, engine: Engine) -> None:
        if self.resume:
            self.load(engine)
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
            engine.add_event_handler(Events.COMPLETED, self.save)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._save_and_raise)

    def save(self, engine: Engine) -> None:
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        state["trainer"] = {"iteration": engine.state.iteration, "epoch_length": engine.state.epoch_length}
        state["torch_random"] = torch.get_rng_state()
        if hasattr(engine, "scaler_state_dict"):
            state["gradient_scaler"] = engine.scaler_state_dict()
        state["precision"] = getattr(getattr(engine.state, "precision", None), "name", None)
        if self.validator is not None:
            state["best_validation"] = getattr(self.validator.state, "best_validation", None)
        save_atomically(state, self.path)

    def _save_and_raise(self, engine: Engine, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            # At most the iteration in flight is lost: the optimiser's step is the only thing that changes weights.
            self.save(engine)
        if not getattr(engine, "raises_again", False):  # Ignite has left it to its listeners
            raise error

    def load(self, engine: Engine) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        length = engine.state.epoch_length
        if state["trainer"]["epoch_length"] != length:
            raise DataError(
                f"a checkpoint of epochs of {state['trainer']['epoch_length']} iterations, now {length}",
                file=self.path,
                expected="the same training cases and batch size",
                fix="resume with the dataset and settings of the run, or start a new run",
            )
        if engine.state.max_epochs * length <= state["trainer"]["iteration"]:
            raise DataError(
                f"a run that has completed its {engine.state.max_epochs} epochs",
                file=self.path,
                expected="one that was stopped before",
                fix="give a larger max_epochs=N to train on",
            )
        engine.state.iteration = state["trainer"]["iteration"]
        engine.state.epoch = engine.state.iteration // length
        sampler = getattr(engine.data_loader, "sampler", None)
        if isinstance(sampler, EpochSampler):
            sampler.skip = engine.state.iteration % length * engine.data_loader.batch_size
        if state["precision"] and getattr(engine, "requested_precision", None) == "auto":
            engine.requested_precision = state["precision"]
        if hasattr(engine, "load_scaler_state_dict"):
            engine.load_scaler_state_dict(state["gradient_scaler"])
        if engine.state.iteration % length == 0:
            torch.set_rng_state(state["torch_random"])
        else:
            # In the middle of an epoch the loader that is about to start has drawn already, in the run that was
            # stopped.
            handle: RemovableEventHandle

            def restore(_: Engine) -> None:
                torch.set_rng_state(state["torch_random"])
                handle.remove()

            handle = engine.add_event_handler(Events.GET_BATCH_COMPLETED, restore)
        if self.validator is not None and state["best_validation"] is not None:
            self.validator.state.best_validation = state["best_validation"]
