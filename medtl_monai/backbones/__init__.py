"""Networks by name, and where their blocks are."""

from .anatomy import Anatomy, Block, anatomy
from .efficientnet_lite import EfficientNetLite
from .factory import BACKBONES, build
from .mobilenet import MobileNetV2

__all__ = ["BACKBONES", "Anatomy", "Block", "EfficientNetLite", "MobileNetV2", "anatomy", "build"]
