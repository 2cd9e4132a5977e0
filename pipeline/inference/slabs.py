"""Logits of a whole image that never exist all at once: slab after slab along its longest axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import torch

from pipeline.inference.placement import Box


class Slabs:
    """Logits of one image, lazily: each iteration runs the network once over the image, and hands out what is final.

    Pieces come in order along the longest axis of the image, and within a slab along the others. They cover the image;
    each begins one voxel before its own part, with the last voxels of its neighbours, on every axis on which it has one
    before it. So there is linear interpolation between any two neighbouring voxels within one piece.

    Args:
        spatial_shape: of the image, voxels per axis.
        order: the axes, the one along which slabs follow each other first, as in `Placement.order`.
        blocks: starts the run: disjoint (place, logits (K, *block)), as `Blending.blocks` gives them.

    What the network raises comes out while the slabs are iterated over.
    """

    def __init__(
        self,
        spatial_shape: Sequence[int],
        order: Sequence[int],
        blocks: Callable[[], Iterator[tuple[Box, torch.Tensor]]],
    ) -> None:
        self.spatial_shape = tuple(spatial_shape)
        self._order = tuple(order)
        self._blocks = blocks

    def __iter__(self) -> Iterator[tuple[Box, torch.Tensor]]:
        """(place in the image, logits (K, *piece)), in memory that the next piece uses again."""
        faces: dict[int, torch.Tensor] = {}  # per axis: the last voxels of the pieces that the next ones will need
        memory = torch.empty(0)
        for place, block in self._blocks():
            largest = len(block) * prod(part.stop - part.start + 1 for part in place)
            if memory.numel() < largest:
                memory = block.new_empty(largest)
            yield self._piece(place, block, memory, faces)
            del block  # not to be held while the network runs again

    def _piece(
        self, place: Box, block: torch.Tensor, memory: torch.Tensor, faces: dict[int, torch.Tensor]
    ) -> tuple[Box, torch.Tensor]:
        # By one voxel more on every axis on which there is one before.
        before = [min(1, part.start) for part in place]
        whole = tuple(slice(part.start - n, part.stop) for part, n in zip(place, before, strict=True))
        size = (len(block), *(part.stop - part.start for part in whole))
        piece = memory[: prod(size)].view(size)
        piece[(slice(None), *(slice(n, None) for n in before))] = block
        for axis in self._order:
            if before[axis]:
                here, there = self._face(axis, place, before)
                piece[here].narrow(axis + 1, 0, 1).copy_(faces[axis][there])
        for axis in self._order:
            if place[axis].stop < self.spatial_shape[axis]:
                here, there = self._face(axis, place, before)
                face = piece[here].narrow(axis + 1, piece.shape[axis + 1] - 1, 1)
                across = list(face.shape)
                for faster in self._faster(axis):
                    across[faster + 1] = self.spatial_shape[faster]
                if axis not in faces or list(faces[axis].shape) != across:
                    faces[axis] = piece.new_empty(across)
                faces[axis][there] = face
        return whole, piece

    def _faster(self, axis: int) -> tuple[int, ...]:
        return self._order[self._order.index(axis) + 1 :]

    def _face(self, axis: int, place: Box, before: Sequence[int]) -> tuple[Box, Box]:
        """Of a piece, and of the faces on ``axis``, what faces that axis.

        Along faster axes the block's own voxels: the face spans the image there. Along slower ones the whole piece,
        which already holds what came from before: so edges and corners come along with the faces.
        """
        here, there = [slice(None)] * (len(place) + 1), [slice(None)] * (len(place) + 1)
        for faster in self._faster(axis):
            here[faster + 1], there[faster + 1] = slice(before[faster], None), place[faster]
        return tuple(here), tuple(there)
