"""`CasesOnDemand`: cases prepared when they are asked for."""

from __future__ import annotations

from typing import Any

from monai.data import Dataset

from pipeline.data.case_error import case_error


class CasesOnDemand(Dataset):
    """MONAI's ``Dataset``, whose errors name case, file and transform.

    Args:
        data: items, as `pipeline.data.data_list` makes them.
        transform: a MONAI ``Compose``, or what one is made of.

    Raises:
        PipelineError: from ``dataset[index]``, whatever the transform raised.
    """

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            raise case_error(error, self.data[index]) from error
