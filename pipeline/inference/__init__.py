"""From a trained network to a result: predict images of any size.

To add an inferer: a subclass of ``monai.inferers.Inferer`` in a file of its own, ``inferer(inputs, network) -> logits``
on the inputs' own spatial size; name it here, and ``tests/contracts/test_inferers.py`` holds it to that.
"""

from pipeline.inference.mirroring import mirrored
from pipeline.inference.padding import pad
from pipeline.inference.sliding_window import SlidingWindowInferer, window_corners

__all__ = ["SlidingWindowInferer", "mirrored", "pad", "window_corners"]
