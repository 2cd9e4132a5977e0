"""What a person sees in the terminal: a bar per epoch or over the cases of an evaluation, a line per validation."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import ignite.distributed as idist
from ignite.engine import Engine, Events
from tqdm import tqdm

_SECONDS_BETWEEN_LINES_OF_A_LOG = 30.0


def _bar(engine: Engine, desc: str, unit: str, initial: int = 0, delay_s: float = 0.0) -> tqdm:
    """A bar over the engine's epoch; in a log file, where it can't move, a line now and then.

    Args:
        delay_s: what is done before that shows no bar, and one that has a delay leaves none behind.
    """
    shown = sys.stderr.isatty()
    return tqdm(
        total=engine.state.epoch_length,
        initial=initial,
        desc=desc,
        unit=unit,
        file=sys.stderr,
        mininterval=0.1 if shown else _SECONDS_BETWEEN_LINES_OF_A_LOG,
        leave=shown and not delay_s,
        delay=delay_s,
    )


class EpochProgress:
    """A bar per training epoch: loss, seconds per iteration, and the share of the run that is done."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._move)
        for event in (Events.EPOCH_COMPLETED, Events.TERMINATE, Events.COMPLETED):
            engine.add_event_handler(event, self._close)

    def _open(self, engine: Engine) -> None:
        done = (engine.state.iteration) % engine.state.epoch_length
        self.bar = _bar(engine, desc=f"epoch {engine.state.epoch}", unit="it", initial=done)

    def _move(self, engine: Engine) -> None:
        assert self.bar is not None
        self.bar.set_postfix_str(
            f"loss {float(engine.state.output['loss']):.3f}, {engine.state.progress:.0%} of the run", refresh=False
        )
        self.bar.update(1)

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class CaseProgress:
    """A bar over the cases of an evaluation, or of a validation within a training.

    Args:
        desc: what stands before it.
        delay_s: seconds after which it appears. With a delay it vanishes at the end, where a line says what came out.
    """

    def __init__(self, desc: str = "evaluating", delay_s: float = 0.0) -> None:
        self.desc, self.delay_s = desc, delay_s
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self._open)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._move)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        self.bar = _bar(engine, desc=self.desc, unit="case", delay_s=self.delay_s)

    def _move(self, engine: Engine) -> None:
        assert self.bar is not None
        self.bar.update(1)

    def _close(self, engine: Engine) -> None:
        assert self.bar is not None
        self.bar.close()


class ValidationLine:
    """One line per validation: when, mean Dice and its classes, IoU, Hausdorff 95.

    Args:
        classes: class id -> name, as in the bundle.
        figures: names of further metrics of the evaluator to show, such as ``v_rand``.
    """

    def __init__(self, classes: dict[str, str], figures: Sequence[str] = ()) -> None:
        self.names, self.figures = list(classes.values()), tuple(figures)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        metrics, state = engine.state.metrics, engine.state
        when = f"iteration {state.trainer_iteration}" if hasattr(state, "trainer_iteration") else "evaluation"
        classes = ", ".join(f"{name} {metrics[f'dice_{name}']:.3f}" for name in self.names if f"dice_{name}" in metrics)
        of_classes = f" ({classes})" if len(self.names) > 1 else ""
        unit = state.summary.length_unit
        line = f"{when}: Dice {metrics['dice']:.3f}{of_classes}, IoU {metrics['iou']:.3f}"
        if (
            metrics["missed"] or metrics["false_alarms"]
        ):  # whose distances do not exist: without them it would look good
            line += f", Hausdorff 95 {metrics['hausdorff_95_mm_penalised']:.1f} {unit} with misses"
        elif "hausdorff_95_mm" in metrics:
            line += f", Hausdorff 95 {metrics['hausdorff_95_mm']:.1f} {unit}"
        line += "".join(f", {name} {metrics[name]:.4f}" for name in self.figures if name in metrics)
        counts = (f"{int(metrics[name])} {name.replace('_', ' ')}" for name in ("cases", "missed", "false_alarms"))
        line += f", {', '.join(counts)}"
        tqdm.write(line, file=sys.stderr)
