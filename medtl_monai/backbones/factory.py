"""Every backbone by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from monai.networks import nets
from monai.networks.layers.utils import get_norm_layer
from torch import nn

from ..utils import UserError
from .efficientnet import EFFICIENTNETS, EfficientNet
from .efficientnet_lite import LITES, EfficientNetLite
from .heads import set_head
from .inception import GoogLeNet, InceptionResNetV2, InceptionV3, InceptionV4
from .mobilenet import MobileNetV2, MobileNetV3
from .plain import VGG, AlexNet, LeNet5
from .preact_resnet import PreActResNet
from .target import refuse_download
from .unet import TransferUNet

__all__ = ["BACKBONES", "INPUT_SIZES", "UNETS", "build"]


def _monai_resnet(
    make: Callable[..., nn.Module], *, spatial_dims: int, in_channels: int, norm: str | tuple = "batch", **kwargs: Any
) -> nn.Module:
    # torchvision's layout: MONAI's own default is a stem stride of 1, four times the work
    kwargs = {"conv1_t_stride": 2, "bias_downsample": False, **kwargs}
    net = make(spatial_dims=spatial_dims, n_input_channels=in_channels, **kwargs)
    if norm != "batch":  # MONAI's own option reaches the stem alone
        for name, module in list(net.named_modules()):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                net.set_submodule(name, get_norm_layer(norm, spatial_dims, module.num_features))
    return net


def _monai_densenet(make: Callable[..., nn.Module], *, num_classes: int, **kwargs: Any) -> nn.Module:
    if "dropout" in kwargs:
        kwargs["dropout_prob"] = kwargs.pop("dropout")
    return make(out_channels=num_classes, **kwargs)


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "alexnet": AlexNet,
    **{f"vgg{n}{'_bn' * norm}": partial(VGG, n, norm=norm) for n in (11, 13, 16, 19) for norm in (False, True)},
    "googlenet": GoogLeNet,
    "inception_v3": InceptionV3,
    "inception_v4": InceptionV4,
    "inception_resnet_v2": InceptionResNetV2,
    "mobilenet_v2": MobileNetV2,
    **{f"mobilenet_v3_{size}": partial(MobileNetV3, size) for size in ("small", "large")},
    **{f"efficientnet_b{i}": partial(EfficientNet, i) for i in range(8)},
    **{f"efficientnet_lite{i}": partial(EfficientNetLite, i) for i in range(5)},
    **{f"resnet{n}": partial(_monai_resnet, getattr(nets, f"resnet{n}")) for n in (10, 18, 34, 50, 101, 152)},
    **{f"resnet{n}_v2": partial(PreActResNet, n) for n in (18, 34, 50, 101, 152)},
    **{f"densenet{n}": partial(_monai_densenet, getattr(nets, f"DenseNet{n}")) for n in (121, 169, 201, 264)},
    "senet154": nets.SENet154,
    **{f"seresnet{n}": getattr(nets, f"SEResNet{n}") for n in (50, 101, 152)},
    "seresnext50": nets.SEResNext50,
    "seresnext101": nets.SEResNext101,
}
"""Name to constructor: ``(*, spatial_dims, in_channels, num_classes, **options)``."""


def _monai_unet(make: Callable[..., nn.Module], *, num_classes: int, **kwargs: Any) -> nn.Module:
    return make(out_channels=num_classes, norm="batch", **kwargs)


UNETS: dict[str, Callable[..., nn.Module]] = {
    **{f"unet_{name}": partial(TransferUNet, make) for name, make in BACKBONES.items()},
    **{f"fcn_{name}": partial(TransferUNet, make, decoder_channels=()) for name, make in BACKBONES.items()},
    "unet": partial(
        _monai_unet, nets.UNet, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2, act="relu"
    ),
    "basicunet": partial(_monai_unet, nets.BasicUNet),
    "flexibleunet": partial(_monai_unet, nets.FlexibleUNet, backbone="efficientnet-b0"),
}
"""Networks that label every pixel, likewise: ``unet_<backbone>`` takes the backbone's pretrained weights, and so does
``fcn_<backbone>``, which has no decoder."""


INPUT_SIZES: dict[str, int] = {
    **dict.fromkeys(BACKBONES, 224),
    "lenet5": 32,
    **dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2"), 299),
    **{f"efficientnet_lite{i}": size for i, (_, _, size, _) in enumerate(LITES)},
    **{f"efficientnet_b{i}": size for i, (_, _, size, _) in enumerate(EFFICIENTNETS)},
}
"""Side of the square images, in pixels, that each backbone was designed for."""


def build(
    name: str,
    *,
    spatial_dims: int = 2,
    in_channels: int = 3,
    num_classes: int = 2,
    pool: str | None = None,
    head: Sequence[int] | None = None,
    head_dropout: float = 0.5,
    **options: Any,
) -> nn.Module:
    """A backbone with a classification head, or a U-Net, randomly initialized.

    Args:
        name: one of :data:`BACKBONES` or :data:`UNETS`.
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        pool: how the last map becomes a vector: ``avg``, ``max`` or ``spp`` (spatial pyramid); ``None``: the network's
            own way, which is the global average but in LeNet, AlexNet and VGG.
        head: widths of hidden dense layers, such as ``[8192, 2048, 512, 128]``; empty: one linear layer; ``None``: the
            network's own head, or one linear layer if ``pool`` is given.
        head_dropout: probability after each layer of ``head``.
        options: of the constructor, such as ``dropout``.

    Raises:
        UserError: an unknown name or pooling, or an option that the network does not have or that starts a download.

    Example:
        >>> build("resnet18", pool="spp", head=[64]).fc[0]
        Linear(in_features=10752, out_features=64, bias=True)
    """
    known = BACKBONES | UNETS
    if name not in known:
        near = get_close_matches(name, known, n=1)
        listed = f"choose from {', '.join(BACKBONES)}, or one of them after unet_ or fcn_."
        hint = f"did you mean {near[0]!r}?" if near else listed
        raise UserError(f"there is no backbone {name!r}: {hint}")
    if spatial_dims not in (1, 2, 3):
        raise UserError(f"spatial_dims must be 1, 2 or 3, got {spatial_dims!r}.")
    refuse_download(name, options)
    try:
        net = known[name](spatial_dims=spatial_dims, in_channels=in_channels, num_classes=num_classes, **options)
    except TypeError as error:
        if not options:
            raise
        raise UserError(f"{name} does not take {', '.join(options)} as given ({error}): leave it out.") from error
    if pool is not None or head is not None:
        set_head(net, num_classes, spatial_dims=spatial_dims, pool=pool, widths=head or (), dropout=head_dropout)
    return net
