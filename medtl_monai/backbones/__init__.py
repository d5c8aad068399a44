"""Networks by name, classifiers and U-Nets, and where their blocks are."""

from .anatomy import Anatomy, Block, anatomy
from .efficientnet_lite import EfficientNetLite
from .factory import BACKBONES, UNETS, build
from .mobilenet import MobileNetV2
from .unet import TransferUNet

__all__ = [
    "BACKBONES",
    "UNETS",
    "Anatomy",
    "Block",
    "EfficientNetLite",
    "MobileNetV2",
    "TransferUNet",
    "anatomy",
    "build",
]
