"""From a trained network to a result: predict images of any size, return to the case's own grid, write.

To add an inferer: a subclass of ``monai.inferers.Inferer`` in a file of its own, ``inferer(inputs, network) -> logits``
on the inputs' own spatial size; name it here, and ``tests/contracts/test_inferers.py`` holds it to that.
"""

from pipeline.inference.averaging import mean_logits
from pipeline.inference.components import fill_holes, keep_largest_component, remove_small_components
from pipeline.inference.crf import DenseCRFd, dense_crf
from pipeline.inference.ensemble import Ensemble
from pipeline.inference.instances import number_instances
from pipeline.inference.margin import inside_margin, output_margin
from pipeline.inference.mirroring import mirrored
from pipeline.inference.overlap_tile import OverlapTileInferer
from pipeline.inference.padding import pad
from pipeline.inference.placement import tile_corners, window_corners
from pipeline.inference.restore import own_grid, restore_to_grid
from pipeline.inference.restored import Restored
from pipeline.inference.runtime import Runtime
from pipeline.inference.save import SaveImageOnGridd
from pipeline.inference.slabs import Slabs
from pipeline.inference.sliding_window import SlidingWindowInferer

__all__ = [
    "DenseCRFd",
    "Ensemble",
    "OverlapTileInferer",
    "Restored",
    "Runtime",
    "SaveImageOnGridd",
    "Slabs",
    "SlidingWindowInferer",
    "dense_crf",
    "fill_holes",
    "inside_margin",
    "keep_largest_component",
    "mean_logits",
    "mirrored",
    "number_instances",
    "output_margin",
    "own_grid",
    "pad",
    "remove_small_components",
    "restore_to_grid",
    "tile_corners",
    "window_corners",
]
