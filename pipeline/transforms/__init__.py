"""Dictionary transforms: the steps from files to what the network sees, each named in a bundle's config.

`LoadImageStackd` loads, `NormalizeChannelsd` normalises, `SeparateObjectsd` and `BorderWeightsd` weigh the borders
between objects, `ForegroundIndicesd` ends what is prepared once per case, `RandSpatialPatchd` picks and deforms
patches, `RandElasticd` deforms alone, the members of rand_intensity.py's `RandIntensityd` change intensities (one file
each), `ZeroAbsentChannelsd` comes last. `AugmentationChain` holds them all, and on a GPU makes the patches of a batch
at once. A new one gets a file with its array logic as functions and, below, a thin MONAI `MapTransform` (random ones
draw from `self.R` only, apart from applying it, also to a batch); it joins `tests/contracts`.
"""

from pipeline.transforms.absent_channels import ZeroAbsentChannelsd
from pipeline.transforms.augmentation_chain import AugmentationChain
from pipeline.transforms.bias_field import RandBiasFieldd
from pipeline.transforms.blur import RandBlurd
from pipeline.transforms.border_weights import BorderWeightsd
from pipeline.transforms.brightness import RandBrightnessd
from pipeline.transforms.channel_dropout import RandChannelDropoutd
from pipeline.transforms.contrast import RandContrastd
from pipeline.transforms.deferred import collate_patches
from pipeline.transforms.dispersion import RandDispersiond
from pipeline.transforms.foreground import ForegroundIndicesd
from pipeline.transforms.gamma import RandGammad
from pipeline.transforms.ghosting import RandGhostingd
from pipeline.transforms.load_image_stack import LoadImageStackd
from pipeline.transforms.low_resolution import RandLowResolutiond
from pipeline.transforms.motion import RandMotiond
from pipeline.transforms.noise import RandNoised
from pipeline.transforms.normalize import NormalizeChannelsd
from pipeline.transforms.patch_map import SpatialPatchParameters
from pipeline.transforms.patch_sampling import sample_patch
from pipeline.transforms.perfusion import RandPerfusiond
from pipeline.transforms.putting_back import put_back
from pipeline.transforms.rand_elastic import RandElasticd
from pipeline.transforms.separate_objects import SeparateObjectsd
from pipeline.transforms.slice_dropout import RandSliceDropoutd
from pipeline.transforms.spatial import RandSpatialPatchd
from pipeline.transforms.spike import RandSpiked

__all__ = [
    "AugmentationChain",
    "BorderWeightsd",
    "ForegroundIndicesd",
    "LoadImageStackd",
    "NormalizeChannelsd",
    "RandBiasFieldd",
    "RandBlurd",
    "RandBrightnessd",
    "RandChannelDropoutd",
    "RandContrastd",
    "RandDispersiond",
    "RandElasticd",
    "RandGammad",
    "RandGhostingd",
    "RandLowResolutiond",
    "RandMotiond",
    "RandNoised",
    "RandPerfusiond",
    "RandSliceDropoutd",
    "RandSpatialPatchd",
    "RandSpiked",
    "SeparateObjectsd",
    "SpatialPatchParameters",
    "ZeroAbsentChannelsd",
    "collate_patches",
    "put_back",
    "sample_patch",
]
