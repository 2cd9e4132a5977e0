"""The overlap-tile strategy: a network without padding, an image of any size, and no seam."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.inference.placement import Placement
from pipeline.inference.runtime import Runtime
from pipeline.inference.sliding_window import SlidingWindowInferer


class OverlapTileInferer(SlidingWindowInferer):
    """Logits of a whole image from tiles that neither overlap nor leave gaps.

    Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, figure 2: what a network with unpadded convolutions labels is
    smaller than what it sees, by its ``output_margin`` on each side; each window holds around its tile what surrounds
    the tile in the image, mirrored beyond it.

    Where the network names its ``total_stride``, tiles begin at multiples of it: its poolings fall alike in every tile,
    and the result is that of one pass over the whole mirrored image. Where a tile is no multiple of the stride (388 of
    the published network's 16), what it labels beyond the start of the next one (4) is dropped. So nothing is computed
    twice but for the margins, and nothing is blended.

    A network without a margin is padded: at the borders of its tiles it sees zeros, and its tiles don't fit. For that,
    take `SlidingWindowInferer`.

    Args:
        roi_size: window size in voxels, margins included, as for `SlidingWindowInferer`.
        All further arguments are those of `SlidingWindowInferer`, which has more of them: for blending.

    Raises:
        ConfigError: where an argument is out of its range, or does not fit the inputs or the network.
    """

    def __init__(
        self,
        roi_size: Sequence[int | None] | int | None,
        sw_batch_size: int | str = 1,
        padding_mode: str = "mirror",
        cval: float = 0.0,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        *,
        mirror_axes: Sequence[int] = (),
        precision: str = "float32",
        runtime: Runtime | str | None = None,
        average: str = "logits",
        scales: Sequence[float] = (1.0,),
        background: float | None = None,
        memory_mib: float = 512,
    ) -> None:
        super().__init__(
            roi_size,
            sw_batch_size,
            overlap=0.0,
            mode="constant",
            padding_mode=padding_mode,
            cval=cval,
            sw_device=sw_device,
            device=device,
            progress=progress,
            mirror_axes=mirror_axes,
            precision=precision,
            runtime=runtime,
            average=average,
            scales=scales,
            background=background,
            memory_mib=memory_mib,
        )

    def _importance(self, placement: Placement, device: torch.device | str) -> None:
        return None
