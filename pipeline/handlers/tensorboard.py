"""What TensorBoard shows of a run as curves; docs/tensorboard.md has its groups of tags."""

from __future__ import annotations

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from pipeline.errors import DataError
from pipeline.handlers.validation import share_of_time
from pipeline.io.atomic import printable


def summary_writer(log_dir: str) -> SummaryWriter | None:
    """One writer for all handlers of a run; ``None`` on all ranks of a distributed run but the first.

    Raises:
        DataError: a folder whose name holds bytes that are no text: TensorBoard knows no such names.
    """
    if log_dir != printable(log_dir):
        raise DataError(
            f"a folder that TensorBoard can't write to ({printable(log_dir)})",
            expected="a name of letters in UTF-8",
            fix="choose another folder for the run",
        )
    return SummaryWriter(log_dir) if idist.get_rank() == 0 else None


class TrainingScalars:
    """Loss and its parts, learning rate, gradient norm, seconds per iteration and share of it spent waiting for data.

    Args:
        writer: what :func:`summary_writer` gave.
        every: iterations between two points.
    """

    def __init__(self, writer: SummaryWriter | None, every: int = 1) -> None:
        self.writer, self.every = writer, every

    def attach(self, engine: Engine) -> None:
        if self.writer is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        scalars = {
            "train/loss": state.output["loss"],
            "train/learning_rate": engine.optimizer.param_groups[0]["lr"],
            "train/seconds_per_iteration": state.iteration_s,
            "train/data_wait_share": state.data_wait_share,
        }
        parts = getattr(engine.loss_function, "parts", {})
        scalars |= {f"train/loss_{name}": value for name, value in parts.items()}
        if hasattr(state, "gradient_norm"):
            scalars["train/gradient_norm"] = state.gradient_norm
        assert self.writer is not None
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, float(value), state.iteration)


class ValidationScalars:
    """Every measure that the evaluator holds: ``validate/dice``, ``validate/hausdorff_95_mm_anterior`` and so on, and
    ``validate/share_of_time``: of the time since the validation before, what this one has taken.

    Args:
        writer: what :func:`summary_writer` gave.
    """

    def __init__(self, writer: SummaryWriter | None) -> None:
        self.writer = writer

    def attach(self, engine: Engine) -> None:
        if self.writer is not None:
            engine.add_event_handler(Events.COMPLETED, self)  # after all that a validation does

    def __call__(self, engine: Engine) -> None:
        assert self.writer is not None
        share = share_of_time(engine)
        scalars = dict(engine.state.metrics) | ({} if share is None else {"share_of_time": share})
        step = getattr(engine.state, "trainer_iteration", engine.state.epoch)
        for name, value in scalars.items():
            if isinstance(value, (int, float)):
                self.writer.add_scalar(f"validate/{name}", value, step)
        self.writer.flush()
