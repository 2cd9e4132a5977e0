"""Networks: one file per architecture, `forward(x (B, C, *S)) -> logits (B, K, *S)`, in 2D and 3D.

To add one: write `pipeline/networks/<name>.py`, export the class here, list it once in
`tests/contracts/test_networks.py` and give it `configs/networks/<name>_<2|3>d.yaml`. In training mode deep supervision
returns a list, full resolution first; in eval mode and under TorchScript every network returns one tensor. An unpadded
network says in `output_margin` how many voxels it loses per side and axis; one whose last step is a 1x1 convolution may
name that in `last_convolution`, which makes many classes cheap (`pipeline.inference.features`). Arguments of one name
mean the same in all (a bundle's `channels` and `strides` go along to another network); those that change answers but no
weights are called `inference_...`.
"""

from pipeline.networks.deeplab import DeepLabV3Plus
from pipeline.networks.fcn import FCN
from pipeline.networks.multi_encoder_unet import MultiEncoderUNet
from pipeline.networks.pspnet import PSPNet
from pipeline.networks.segnet import SegNet
from pipeline.networks.u2net import U2Net
from pipeline.networks.unet import UNet
from pipeline.networks.unet_3plus import UNet3Plus
from pipeline.networks.unet_as_published import UNetAsPublished
from pipeline.networks.unet_plus_plus import UNetPlusPlus

__all__ = [
    "FCN",
    "DeepLabV3Plus",
    "MultiEncoderUNet",
    "PSPNet",
    "SegNet",
    "U2Net",
    "UNet",
    "UNet3Plus",
    "UNetAsPublished",
    "UNetPlusPlus",
]
