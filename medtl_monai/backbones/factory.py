"""Every backbone by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

from monai.networks import nets
from torch import nn

from ..utils import UserError
from .efficientnet_lite import EfficientNetLite
from .mobilenet import MobileNetV2
from .unet import TransferUNet

__all__ = ["BACKBONES", "UNETS", "build"]


def _monai_resnet(make: Callable[..., nn.Module], *, in_channels: int, **kwargs: Any) -> nn.Module:
    # torchvision's layout: MONAI's own default is a stem stride of 1, four times the work
    return make(n_input_channels=in_channels, conv1_t_stride=2, bias_downsample=False, **kwargs)


def _monai_densenet(make: Callable[..., nn.Module], *, num_classes: int, **kwargs: Any) -> nn.Module:
    if "dropout" in kwargs:
        kwargs["dropout_prob"] = kwargs.pop("dropout")
    return make(out_channels=num_classes, **kwargs)


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": MobileNetV2,
    **{f"efficientnet_lite{i}": partial(EfficientNetLite, i) for i in range(5)},
    **{f"resnet{n}": partial(_monai_resnet, getattr(nets, f"resnet{n}")) for n in (10, 18, 34, 50, 101, 152)},
    **{f"densenet{n}": partial(_monai_densenet, getattr(nets, f"DenseNet{n}")) for n in (121, 169, 201)},
    **{f"efficientnet_b{i}": partial(nets.EfficientNetBN, f"efficientnet-b{i}", pretrained=False) for i in range(8)},
}
"""Name to constructor: ``(*, spatial_dims, in_channels, num_classes, **options)``."""


def _monai_unet(make: Callable[..., nn.Module], *, num_classes: int, **kwargs: Any) -> nn.Module:
    return make(out_channels=num_classes, norm="batch", **kwargs)


UNETS: dict[str, Callable[..., nn.Module]] = {
    **{f"unet_{name}": partial(TransferUNet, make) for name, make in BACKBONES.items()},
    "unet": partial(
        _monai_unet, nets.UNet, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2, act="relu"
    ),
    "basicunet": partial(_monai_unet, nets.BasicUNet),
    "flexibleunet": partial(_monai_unet, nets.FlexibleUNet, backbone="efficientnet-b0"),
}
"""Networks that label every pixel, likewise: ``unet_<backbone>`` takes the backbone's pretrained weights."""


def build(name: str, *, spatial_dims: int = 2, in_channels: int = 3, num_classes: int = 2, **options: Any) -> nn.Module:
    """A backbone with a classification head, or a U-Net, randomly initialized.

    MobileNetV2 and EfficientNet-Lite are this package's; the others are MONAI's.

    Args:
        name: one of :data:`BACKBONES` or :data:`UNETS`.
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        options: of the constructor, such as ``dropout``.

    Raises:
        UserError: an unknown name, or an option that the network does not have.
    """
    known = BACKBONES | UNETS
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}."
        raise UserError(f"there is no backbone {name!r}: {hint}")
    if spatial_dims not in (1, 2, 3):
        raise UserError(f"spatial_dims must be 1, 2 or 3, got {spatial_dims!r}.")
    try:
        return known[name](spatial_dims=spatial_dims, in_channels=in_channels, num_classes=num_classes, **options)
    except TypeError as error:
        if not options:
            raise
        raise UserError(f"{name} does not take {', '.join(options)} as given ({error}): leave it out.") from error
