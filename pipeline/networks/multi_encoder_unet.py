"""A U-Net with one encoder per modality, fused at every skip, that survives a modality which was not acquired.

Multi-path encoders: Dolz, Ben Ayed, Desrosiers, Dense Multi-path U-Net for Ischemic Stroke Lesion Segmentation in
Multiple Image Modalities, BrainLes 2018 (arXiv 1810.07003). Fusion by the mean over those that are there: Havaei et
al., HeMIS, MICCAI 2016 (arXiv 1607.05194). Fusion by weights that the features themselves decide, voxel by voxel: the
gated fusion of Chen et al., MICCAI 2019 (arXiv 2002.09708). Modality dropout: Neverova et al., ModDrop, 2015 (arXiv
1501.00102).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.networks.blocks import (
    LEAKY_SLOPE,
    ConvNormAct,
    check_input_size,
    convolution,
    initialise_he,
    norms_take_one_voxel,
    whole_numbers,
)
from pipeline.networks.encoders import make_encoder
from pipeline.networks.levels import plan_levels
from pipeline.networks.unet import make_decoder, make_heads

FUSIONS = ("concatenate", "add", "attention")


class MultiEncoderUNet(nn.Module):
    """One encoder per modality, or per group of channels; one decoder.

    On each level i the M feature maps (B, channels[i], *S_i) of the encoders are fused to one of the same shape, which
    is the skip of that level; from the fused deepest level on it is the decoder of :class:`UNet`.

    **A missing modality** is one whose channels are 0 everywhere in the input, or one that ``present`` marks; what adds
    to an image (noise, an offset) must spare such a channel. Its features are left out of every fusion, so that what
    its encoder makes of nothing reaches no logit. In training, ``modality_dropout`` leaves out modalities that are
    there, so that the others learn to do alone. Where all channels are 0 (a window of pure air) nothing is missing.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes K, background included.
        groups: how many channels each encoder takes, in the order of the input: ``[3, 1]`` for CBF, CBV, MTT together
            and a FLAIR of its own; by default one encoder per channel.
        fusion: ``"concatenate"`` and a 1x1 convolution; ``"add"``, the mean of those present; ``"attention"``, their
            sum with weights that add up to 1 in each voxel.
        modality_dropout: probability, in training, of leaving out each modality of each sample; one always stays.
        channels: feature maps per level, of each encoder and of the decoder; by default 16, doubled from level to
            level.
        kernel_sizes, strides, convolutions_per_stage, norm, dropout, deep_supervision, depth, encoder, downsampling,
            upsampling, skip, activation: as in :class:`UNet`.

    Shape:
        - Input: (B, in_channels, *S), each axis a multiple of ``total_stride``; optionally ``present`` (B, M) of bool.
        - Output: (B, out_channels, *S) logits; in training mode with ``deep_supervision`` a list of logits, full
          resolution first. In eval mode and under TorchScript always one tensor.

    Raises:
        ConfigError: unknown or contradictory arguments; in ``forward`` a size that the strides do not divide, or one
            voxel at the deepest level where a norm needs more (it names the nearest sizes to use), or a ``present`` of
            another shape.

    >>> network = MultiEncoderUNet(3, in_channels=4, out_channels=2, groups=[3, 1], channels=[4, 8, 16]).eval()
    >>> x = torch.randn(1, 4, 8, 8, 8)
    >>> without_flair = torch.cat([x[:, :3], torch.zeros(1, 1, 8, 8, 8)], dim=1)
    >>> marked = network(x, present=torch.tensor([[True, False]]))
    >>> torch.allclose(network(without_flair), marked, atol=1e-5)
    True
    """

    last_convolution = "heads.0"  # as in UNet

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        groups: Sequence[int] | None = None,
        fusion: str = "concatenate",
        modality_dropout: float = 0.2,
        channels: Sequence[int] | None = None,
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        convolutions_per_stage: int | Sequence[int] = 2,
        norm: str = "instance",
        dropout: float = 0.0,
        deep_supervision: bool = True,
        depth: int | None = None,
        encoder: str = "plain",
        downsampling: str = "strided_convolution",
        upsampling: str = "transposed_convolution",
        skip: str = "concatenate",
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        self.groups = [1] * in_channels if groups is None else whole_numbers("groups", groups)
        if not self.groups or min(self.groups) < 1 or sum(self.groups) != in_channels:
            raise ConfigError(
                f"groups {self.groups} for {in_channels} channels",
                expected=f"numbers of 1 or more that add up to {in_channels}",
            )
        if not 0 <= modality_dropout < 1:
            raise ConfigError(f"modality_dropout {modality_dropout}", expected="from 0 to below 1")
        levels = plan_levels(
            spatial_dims, depth, channels, kernel_sizes, strides, convolutions_per_stage, first_channels=16
        )

        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, in_channels, out_channels
        self.total_stride = levels.total_stride
        self.deep_supervision, self.modality_dropout = deep_supervision, modality_dropout

        encoders = [
            make_encoder(
                encoder,
                spatial_dims,
                group,
                levels.channels,
                levels.kernel_sizes,
                levels.strides,
                levels.convolutions,
                downsampling,
                norm,
                dropout,
                activation,
            )
            for group in self.groups
        ]
        # By level and then by modality, as they run: of every encoder only one level is kept in memory.
        self.encoder = nn.ModuleList(
            EncoderLevel(stages, fusion_layer(fusion, spatial_dims, maps, len(self.groups), norm, activation))
            for maps, *stages in zip(levels.channels, *encoders, strict=True)
        )
        self.decoder = make_decoder(spatial_dims, levels, upsampling, skip, norm, dropout, activation)
        self.heads = make_heads(spatial_dims, levels, out_channels, deep_supervision)
        self.one_voxel_allowed, self.one_voxel_alone = norms_take_one_voxel(
            stage
            for stages in (self.encoder, self.decoder[::-1])
            for i, stage in enumerate(stages)
            if i in levels.coarsest
        )
        initialise_he(self, slope=LEAKY_SLOPE if activation == "leaky_relu" else 0.0)

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None):  # no return type, as in UNet
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            alone = self.training and x.shape[0] == 1
            check_input_size(x.shape[2:], self.total_stride, self.one_voxel_alone if alone else self.one_voxel_allowed)
            self._check_present(x, present)

        features = list(x.split(self.groups, dim=1))
        if present is None:
            present = torch.stack([image.flatten(1).ne(0).any(dim=1) for image in features], dim=1)
        present = present | ~present.any(dim=1, keepdim=True)
        if self.training and self.modality_dropout > 0:
            present = drop_modalities(present, self.modality_dropout)

        skips: list[torch.Tensor] = []
        for level in self.encoder:
            features, fused = level(features, present)
            skips.append(fused)
        decoded: list[torch.Tensor] = []
        x = skips.pop()
        for decode in self.decoder:
            x = decode(x, skips.pop())
            decoded.append(x)

        if not torch.jit.is_scripting() and self.training and self.deep_supervision:
            return [head(finer) for head, finer in zip(self.heads, reversed(decoded), strict=True)]
        return self.heads[0](x)

    @torch.jit.unused
    def _check_present(self, x: torch.Tensor, present: torch.Tensor | None) -> None:
        wanted = (x.shape[0], len(self.groups))
        if present is not None and (tuple(present.shape) != wanted or present.dtype != torch.bool):
            raise ConfigError(
                f"present of shape {tuple(present.shape)} and type {present.dtype}",
                expected=f"{wanted} of bool: one for each sample and modality",
            )


class EncoderLevel(nn.Module):
    """One stage per modality, and their fusion: M times (B, C', *S') -> M times (B, C, *S), and one more of these."""

    def __init__(self, stages: Sequence[nn.Module], fuse: nn.Module) -> None:
        super().__init__()
        self.stages, self.fuse = nn.ModuleList(stages), fuse

    def forward(self, features: list[torch.Tensor], present: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        deeper: list[torch.Tensor] = []
        for m, stage in enumerate(self.stages):
            deeper.append(stage(features[m]))
        return deeper, self.fuse(deeper, present)


def drop_modalities(present: torch.Tensor, probability: float) -> torch.Tensor:
    """Leave out each modality with ``probability``, but never the last one of a sample: (B, M) -> (B, M) of bool.

    >>> drop_modalities(torch.tensor([[True, False, False]]), 0.99)
    tensor([[ True, False, False]])
    """
    draw = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    return (draw >= probability) | (draw == draw.amax(dim=1, keepdim=True))


def fusion_layer(
    fusion: str, spatial_dims: int, channels: int, modalities: int, norm: str, activation: str
) -> nn.Module:
    """A module (list of M times (B, C, *S), present (B, M)) -> (B, C, *S).

    Raises:
        ConfigError: another name than those of ``FUSIONS``.
    """
    if fusion == "concatenate":
        return ConcatenateModalities(spatial_dims, channels, modalities, norm, activation)
    if fusion == "add":
        return MeanOfModalities()
    if fusion == "attention":
        return AttendToModalities(spatial_dims, channels, modalities)
    raise ConfigError(f"fusion {fusion!r}", expected=f"one of {', '.join(FUSIONS)}")


def _per_sample(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,) -> (B, 1, 1, 1...), with as many axes as the feature map that it is for."""
    return values.view([-1] + [1] * (like.dim() - 1))


class ConcatenateModalities(nn.Module):
    """Features of missing modalities are 0; all are concatenated and summed up by a 1x1 convolution."""

    def __init__(self, spatial_dims: int, channels: int, modalities: int, norm: str, activation: str) -> None:
        super().__init__()
        one = (1,) * spatial_dims
        self.join = ConvNormAct(spatial_dims, modalities * channels, channels, one, norm=norm, activation=activation)

    def forward(self, features: list[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        there = [f * _per_sample(present[:, m], f) for m, f in enumerate(features)]
        return self.join(torch.cat(there, dim=1))


class MeanOfModalities(nn.Module):
    """The mean over the modalities that are there: it keeps its scale however many they are."""

    def forward(self, features: list[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        share = (present / present.sum(dim=1, keepdim=True)).to(features[0].dtype)
        fused = features[0] * _per_sample(share[:, 0], features[0])
        for m in range(1, len(features)):
            fused = fused + features[m] * _per_sample(share[:, m], features[m])
        return fused


class AttendToModalities(nn.Module):
    """A weighted sum: in each voxel every modality's features say by a 1x1 convolution how much they should count;
    a softmax over the modalities that are there makes weights of it."""

    def __init__(self, spatial_dims: int, channels: int, modalities: int) -> None:
        super().__init__()
        one = (1,) * spatial_dims
        self.scores = nn.ModuleList(convolution(spatial_dims, channels, 1, one, bias=True) for _ in range(modalities))

    def forward(self, features: list[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        scores: list[torch.Tensor] = []
        for m, score in enumerate(self.scores):
            scores.append(score(features[m]).masked_fill(_per_sample(~present[:, m], features[m]), -float("inf")))
        weights = torch.cat(scores, dim=1).softmax(dim=1).to(features[0].dtype)
        fused = features[0] * weights[:, 0:1]
        for m in range(1, len(features)):
            fused = fused + features[m] * weights[:, m : m + 1]
        return fused
