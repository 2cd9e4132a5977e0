"""Pictures of validation cases in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from pipeline.handlers.case_measures import case_id_of
from pipeline.handlers.panel import case_panel
from pipeline.io import read_volume
from pipeline.metrics import class_names


class OverlayImages:
    """Writes the same few cases after every validation: slices with the contours of reference and prediction.

    The evaluator's output has, per case, ``image`` (its meta names the file), and ``label`` and ``pred``, label maps
    (1, H, W, D) on the case's own grid. The image shown is read from its file, because the one in the output lies on
    the network's grid. The step is the trainer's iteration, where :class:`pipeline.handlers.Validation` has noted it, else
    the evaluator's epoch, which MONAI's ``ValidationHandler`` sets to the trainer's.

    Args:
        classes: id -> name, for the legend.
        writer: what :func:`pipeline.handlers.summary_writer` gave.
        cases: how many, the first that the loader gives (rank 0's in a distributed run).
        slices: how many per case at most.
        tag: the pictures are called ``<tag>/<case id>``.
        window: values shown as black and as white, say (0, 80) for a brain CT in HU; by default from the image.
    """

    def __init__(
        self,
        classes: Mapping[int, str] | Mapping[str, str],
        writer: SummaryWriter | None,
        cases: int = 3,
        slices: int = 4,
        tag: str = "validate",
        window: Sequence[float] | None = None,
    ) -> None:
        self.classes, self.cases, self.slices, self.tag = class_names(classes), cases, slices, tag
        self.writer = writer
        self.window = None if window is None else (float(window[0]), float(window[1]))
        self._kept: dict[str, tuple[Path, np.ndarray, np.ndarray]] = {}

    def attach(self, engine: Engine) -> None:
        if self.writer is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self._kept.clear)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _keep(self, engine: Engine) -> None:
        for case in engine.state.output[: max(0, self.cases - len(self._kept))]:
            file = Path(case["image"].meta["filename_or_obj"])
            label_maps = (case[key][0].cpu().numpy() for key in ("label", "pred"))
            self._kept[case_id_of(case["pred"], case["label"])] = (file, *label_maps)

    def _write(self, engine: Engine) -> None:
        assert self.writer is not None
        step = getattr(engine.state, "trainer_iteration", engine.state.epoch)
        for case_id, (file, reference, prediction) in self._kept.items():
            volume = read_volume(file)
            spacing, orientation = volume.grid.spacing_mm, volume.grid.orientation
            picture = case_panel(
                volume.array, reference, prediction, spacing, orientation, self.slices, self.classes, self.window
            )
            self.writer.add_image(f"{self.tag}/{case_id}", picture, step, dataformats="HWC")
        self.writer.flush()
