"""Pictures of validation cases in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from pipeline.errors import ConfigError
from pipeline.handlers.case_measures import case_id_of
from pipeline.handlers.panel import case_panel
from pipeline.io import read_volume
from pipeline.metrics import class_names


class OverlayImages:
    """Writes the same few cases after every validation: slices with the contours of reference and prediction.

    The evaluator's output has, per case, ``image`` (its meta names the file), and ``label`` and ``pred``, label maps
    (1, H, W, D) on the case's own grid. The image shown is read from its file, because the one in the output lies on
    the network's grid. The step is the evaluator's epoch, which MONAI's ``ValidationHandler`` sets to the trainer's.

    Args:
        classes: id -> name, for the legend.
        log_dir: where to write events. TensorBoard follows one event file per folder while a run goes on: where another
            handler writes to the folder too, give both one ``summary_writer`` instead.
        summary_writer: a TensorBoard writer; exactly one of the two.
        cases: how many, the first that the loader gives (rank 0's in a distributed run).
        slices: how many per case at most.
        tag: the pictures are called ``<tag>/<case id>``.
        window: values shown as black and as white, say (0, 80) for a brain CT in HU; by default from the image.
    """

    def __init__(
        self,
        classes: Mapping[int, str] | Mapping[str, str],
        log_dir: str | PathLike[str] | None = None,
        summary_writer: SummaryWriter | None = None,
        cases: int = 3,
        slices: int = 4,
        tag: str = "validation",
        window: Sequence[float] | None = None,
    ) -> None:
        if (log_dir is None) == (summary_writer is None):
            raise ConfigError(f"log_dir {log_dir} and summary_writer {summary_writer}", expected="exactly one of them")
        self.classes, self.cases, self.slices, self.tag = class_names(classes), cases, slices, tag
        self.log_dir, self._writer = log_dir, summary_writer
        self.window = None if window is None else (float(window[0]), float(window[1]))
        self._kept: dict[str, tuple[Path, np.ndarray, np.ndarray]] = {}

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self._kept.clear)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def close(self) -> None:
        """Closes the events file."""
        if self._writer is not None:
            self._writer.close()

    def _keep(self, engine: Engine) -> None:
        for case in engine.state.output[: max(0, self.cases - len(self._kept))]:
            file = Path(case["image"].meta["filename_or_obj"])
            label_maps = (case[key][0].cpu().numpy() for key in ("label", "pred"))
            self._kept[case_id_of(case["pred"], case["label"])] = (file, *label_maps)

    def _write(self, engine: Engine) -> None:
        if self._writer is None:
            self._writer = SummaryWriter(self.log_dir)
        for case_id, (file, reference, prediction) in self._kept.items():
            volume = read_volume(file)
            spacing, orientation = volume.grid.spacing_mm, volume.grid.orientation
            picture = case_panel(
                volume.array, reference, prediction, spacing, orientation, self.slices, self.classes, self.window
            )
            self._writer.add_image(f"{self.tag}/{case_id}", picture, engine.state.epoch, dataformats="HWC")
        self._writer.flush()
