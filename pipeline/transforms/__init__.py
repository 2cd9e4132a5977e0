"""Dictionary transforms: the steps from files to what the network sees, each named in a bundle's config.

`LoadImageStackd` loads, `NormalizeChannelsd` normalises, `SeparateObjectsd` and `BorderWeightsd` weigh the borders
between objects, `ForegroundIndicesd` ends what is prepared once per case, `RandSpatialPatchd` picks and deforms
patches, `RandElasticd` deforms alone, `ZeroAbsentChannelsd` comes last; `AugmentationChain` holds them all, and makes
the patches of a batch at once on a GPU. A new one gets a file with its array logic as
functions and, below, a thin MONAI `MapTransform` (random ones draw from `self.R` only, apart from applying it); it
joins `tests/contracts`.
"""

from pipeline.transforms.absent_channels import ZeroAbsentChannelsd
from pipeline.transforms.augmentation_chain import AugmentationChain
from pipeline.transforms.border_weights import BorderWeightsd
from pipeline.transforms.deferred import collate_patches
from pipeline.transforms.foreground import ForegroundIndicesd
from pipeline.transforms.load_image_stack import LoadImageStackd
from pipeline.transforms.normalize import NormalizeChannelsd
from pipeline.transforms.patch_map import SpatialPatchParameters
from pipeline.transforms.patch_sampling import sample_patch
from pipeline.transforms.put_back import put_back
from pipeline.transforms.rand_elastic import RandElasticd
from pipeline.transforms.separate_objects import SeparateObjectsd
from pipeline.transforms.spatial import RandSpatialPatchd

__all__ = [
    "AugmentationChain",
    "BorderWeightsd",
    "ForegroundIndicesd",
    "LoadImageStackd",
    "NormalizeChannelsd",
    "RandElasticd",
    "RandSpatialPatchd",
    "SeparateObjectsd",
    "SpatialPatchParameters",
    "ZeroAbsentChannelsd",
    "collate_patches",
    "put_back",
    "sample_patch",
]
