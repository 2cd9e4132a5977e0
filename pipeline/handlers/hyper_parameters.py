"""What a run was set to, in TensorBoard: a line of its HParams table, and the whole config as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


class HyperParameters:
    """Gives a run its line in TensorBoard's HParams table, beside its last measures: runs can be sorted by either.

    The line is there from the start of the training on. TensorBoard's own ``add_hparams`` would make a run of its own
    of it, without curves.

    Args:
        writer: what `summary_writer` gave.
        values: name -> value; lists are written as text, None as ``none``. The network's class is added.
        metrics: tags of scalars that stand beside them.
        config: the file with the run's resolved config, which becomes the text ``config``; plain MONAI, which leaves
            no such file in its run's folder, has no such text.
        further: more values, a bundle's own.
    """

    def __init__(
        self,
        writer: SummaryWriter | None,
        values: Mapping[str, Any],
        metrics: Sequence[str] = ("validate/dice", "validate/iou", "validate/hausdorff_95_mm"),
        config: str | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        self.writer, self.values, self.metrics = writer, {**values, **(further or {})}, tuple(metrics)
        self.config = None if config is None else Path(config)

    def attach(self, engine: Engine) -> None:
        if self.writer is not None:
            engine.add_event_handler(Events.STARTED, self._begin)
            engine.add_event_handler(Events.COMPLETED, self._end)

    def _begin(self, engine: Engine) -> None:
        writer = self._file_writer()
        network = type(engine.network).__name__
        values = {name: _plain(value) for name, value in {"network": network, **self.values}.items()}
        experiment, started, self._ended = hparams(values, dict.fromkeys(self.metrics, 0.0))
        writer.add_summary(experiment)
        writer.add_summary(started)
        if self.config is not None and self.config.is_file():
            lines = self.config.read_text(encoding="utf-8").splitlines()
            assert self.writer is not None
            self.writer.add_text("config", "\n".join(f"    {line}" for line in lines), 0)  # Markdown's code block
        writer.flush()

    def _end(self, engine: Engine) -> None:
        writer = self._file_writer()
        writer.add_summary(self._ended)
        writer.flush()

    def _file_writer(self) -> Any:
        assert self.writer is not None
        return self.writer._get_file_writer()  # the public name of it is None until something was written


def _plain(value: Any) -> Any:
    if value is None:
        return "none"
    return value if isinstance(value, (bool, int, float, str)) else str(list(value))
