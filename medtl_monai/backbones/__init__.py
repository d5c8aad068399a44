"""Networks by name, and where their blocks are."""

from .blocks import Anatomy, Block, anatomy, modules_of
from .efficientnet import EfficientNet
from .efficientnet_lite import EfficientNetLite
from .factory import BACKBONES, INPUT_SIZES, UNETS, build
from .heads import HEADS, Head, SpatialPyramidPool, set_head
from .inception import GoogLeNet, InceptionResNetV2, InceptionV3, InceptionV4
from .mobilenet import MobileNetV2, MobileNetV3
from .plain import VGG, AlexNet, LeNet5
from .preact_resnet import PreActResNet
from .sides import compare_sides
from .tap import Tap, extract
from .target import build_target
from .unet import TransferUNet

__all__ = [
    "BACKBONES",
    "HEADS",
    "INPUT_SIZES",
    "UNETS",
    "VGG",
    "AlexNet",
    "Anatomy",
    "Block",
    "EfficientNet",
    "EfficientNetLite",
    "GoogLeNet",
    "Head",
    "InceptionResNetV2",
    "InceptionV3",
    "InceptionV4",
    "LeNet5",
    "MobileNetV2",
    "MobileNetV3",
    "PreActResNet",
    "SpatialPyramidPool",
    "Tap",
    "TransferUNet",
    "anatomy",
    "build",
    "build_target",
    "compare_sides",
    "extract",
    "modules_of",
    "set_head",
]
