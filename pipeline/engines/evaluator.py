"""The evaluation engine: MONAI's ``SupervisedEvaluator``, at the precision that the run chose."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator

from pipeline.engines.errors import raise_again
from pipeline.engines.precision import Precision
from pipeline.inference.overlapping import require_for_regions


class Evaluator(SupervisedEvaluator):
    """Runs whole volumes through an inferer; post-processing and measures see one case at a time.

    Args:
        precision: a name (see :mod:`pipeline.engines.precision`). ``auto`` is float32, except during training, where
            the validation handler hands over what the trainer's probe chose.
        kwargs: of MONAI's ``SupervisedEvaluator``, by its names.

    Raises:
        ConfigError: see `pipeline.inference.overlapping`.
    """

    raises_again = True

    def __init__(
        self,
        device: torch.device,
        val_data_loader: Any,
        network: torch.nn.Module,
        precision: str = "auto",
        **kwargs: Any,
    ) -> None:
        require_for_regions(kwargs.get("inferer"), network, kwargs.get("postprocessing"))
        self.precision = Precision() if precision == "auto" else Precision.parse(precision)
        self.follows_trainer = precision == "auto"
        super().__init__(device=device, val_data_loader=val_data_loader, network=network, **kwargs)
        self.add_event_handler(Events.EXCEPTION_RAISED, raise_again)

    def _iteration(self, engine: Engine, batchdata: dict[str, torch.Tensor]) -> dict:
        # Storage order is the network's matter alone: convolutions follow their weights'.
        self.precision.prepare(self.network)
        with self.precision.autocast(self.state.device), torch.no_grad():
            output = super()._iteration(engine, batchdata)
        # MONAI hands on the label alone; the numbers of its objects stand beside it.
        for case, of_batch in zip(output, self.state.batch, strict=True) if isinstance(output, list) else ():
            if "label_instances" in of_batch:
                case["label_instances"] = of_batch["label_instances"]
        return output
