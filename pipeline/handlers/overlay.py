"""Pictures of validation cases in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from pipeline.handlers.case_measures import case_id_of
from pipeline.handlers.panel import case_panel
from pipeline.io import read_image
from pipeline.io.atomic import printable
from pipeline.io.policy import STRICT
from pipeline.metrics import class_names
from pipeline.transforms import LoadImageStackd


class OverlayImages:
    """Writes the same few cases after every validation: slices with the contours of reference and prediction.

    The evaluator's output has, per case, ``image`` (its meta names the file), and ``label`` and ``pred``, label maps
    (1, H, W, D) or (1, H, W) on the case's own grid; ``label_instances`` and ``pred_instances``, where there are any,
    take their place, and each object has an outline of its own. The image shown is read from its file, because the
    one in the output lies on the network's grid. The step is the trainer's iteration where the evaluator's state has
    ``trainer_iteration``, or else the evaluator's epoch, which MONAI's ``ValidationHandler`` sets to the trainer's.

    Args:
        writer: TensorBoard writer, one for all handlers of a run (TensorBoard follows one event file per folder); None
            on all processes of a distributed run but the first, where nothing is done.
        cases: how many, the first that the loader gives.
        slices: how many per case at most.
        classes: id -> name, for the legend.
        tag: the pictures are called ``<tag>/<case id>``.
        window: values shown as black and as white, say (0, 80) for a brain CT in HU; by default from the image.
        loader: the transform that has loaded the cases, by whose rules their files are read.
    """

    def __init__(
        self,
        writer: SummaryWriter | None,
        cases: int = 3,
        slices: int = 4,
        classes: Mapping[int, str] | Mapping[str, str] | None = None,
        tag: str = "validate",
        window: Sequence[float] | None = None,
        loader: LoadImageStackd | None = None,
    ) -> None:
        self.writer, self.cases, self.slices, self.tag = writer, cases, slices, tag
        self.classes = None if classes is None else class_names(classes)
        self.policy = STRICT if loader is None else loader.rules.policy_of(loader.channels[0])
        self.window = None if window is None else (float(window[0]), float(window[1]))
        self._kept: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}

    def attach(self, engine: Engine) -> None:
        if self.writer is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self._forget)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _forget(self, engine: Engine) -> None:
        self._kept.clear()

    def _keep(self, engine: Engine) -> None:
        for case in engine.state.output[: max(0, self.cases - len(self._kept))]:
            file = str(case["image"].meta["filename_or_obj"])
            maps = (case.get(f"{key}_instances", case[key])[0] for key in ("label", "pred"))
            reference, prediction = (label_map.cpu().numpy() for label_map in maps)
            self._kept[case_id_of(case["pred"], case["label"])] = file, reference, prediction

    def __call__(self, engine: Engine) -> None:
        assert self.writer is not None
        step = getattr(engine.state, "trainer_iteration", engine.state.epoch)
        for case_id, (file, reference, prediction) in self._kept.items():
            volume = read_image(file, policy=self.policy)
            image = volume.array
            spacing_mm, orientation = volume.grid.spacing_mm, volume.grid.orientation
            section = reference.ndim == 2
            if section:  # a volume of one slice; shown as it is stored: rows go down, columns to the right
                image, reference, prediction = (array[..., None] for array in (image, reference, prediction))
                spacing_mm, orientation = (*spacing_mm, 1.0), "PLS"
            shown = (image, reference, prediction, spacing_mm, orientation)
            picture = case_panel(*shown, self.slices, self.classes, self.window, letters=not section)
            self.writer.add_image(f"{self.tag}/{printable(case_id)}", picture, step, dataformats="HWC")
        self.writer.flush()
