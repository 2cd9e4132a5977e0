"""From a trained network to a result: predict images of any size, return to the case's own grid, write.

To add an inferer: a subclass of ``monai.inferers.Inferer`` in a file of its own, ``inferer(inputs, network) -> logits``
on the inputs' own spatial size; name it here, and ``tests/contracts/test_inferers.py`` holds it to that.
"""

from pipeline.inference.components import remove_small_components
from pipeline.inference.dense_crf import DenseCRFd, dense_crf
from pipeline.inference.margin import inside_margin, output_margin
from pipeline.inference.mirroring import mirrored
from pipeline.inference.padding import pad
from pipeline.inference.restore import Restored, own_grid, restore_to_grid
from pipeline.inference.save import SaveImageOnGridd
from pipeline.inference.sliding_window import SlidingWindowInferer, tile_corners, window_corners

__all__ = [
    "DenseCRFd",
    "Restored",
    "SaveImageOnGridd",
    "SlidingWindowInferer",
    "dense_crf",
    "inside_margin",
    "mirrored",
    "output_margin",
    "own_grid",
    "pad",
    "remove_small_components",
    "restore_to_grid",
    "tile_corners",
    "window_corners",
]
