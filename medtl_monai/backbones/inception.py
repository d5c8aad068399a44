"""The Inception family: GoogLeNet, Inception v3, v4 and Inception-ResNet v2, in one to three spatial dimensions.

The networks are tables. A convolution is ``(channels, kernel)``, padded to keep the size, or ``(channels, kernel,
stride)``, not padded; kernels are numbers or the pairs of the factorized ones. A pooling is a word. A branch is a list
of steps: each is a convolution, a pooling, a list (one module of several layers) or a tuple of convolutions side by
side. A block is a dictionary of branches, whose ends are concatenated.
"""

# annotations are not postponed here: TorchScript reads those of attributes that may be empty
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from .layers import average, batch_norm, initialize, spread

__all__ = ["GoogLeNet", "InceptionResNetV2", "InceptionV3", "InceptionV4"]

_EPS = 1e-3  # of all batch norm in the family


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU: maps ``(B, C, *spatial)``."""

    def __init__(self, dims: int, inputs: int, outputs: int, kernel: Any, stride: int = 1, padding: Any = None) -> None:
        super().__init__()
        size = spread(kernel, dims)
        padding = tuple(k // 2 for k in size) if padding is None else padding
        self.conv = Conv[Conv.CONV, dims](inputs, outputs, size, stride, padding, bias=False)
        self.bn = batch_norm(dims, outputs, _EPS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


def _layer(dims: int, inputs: int, step: Any, first: int = 1) -> tuple[nn.Module, int]:
    """The module of one entry of a table and how many channels it gives."""
    if isinstance(step, dict):
        block = _Branches(dims, inputs, step, first)
        return block, block.channels
    if isinstance(step, list):
        layers = []
        for part in step:
            layer, inputs = _layer(dims, inputs, part)
            layers.append(layer)
        return nn.Sequential(*layers), inputs
    if isinstance(step, tuple):
        outputs, kernel, *stride = step
        return ConvNorm(dims, inputs, outputs, kernel, *((stride[0], 0) if stride else ())), outputs
    maximum, mean = Pool[Pool.MAX, dims], Pool[Pool.AVG, dims]
    pools = {
        "down": lambda: maximum(3, 2),
        "max": lambda: maximum(3, 1, 1),
        "mean": lambda: mean(3, 1, 1),  # zeros of the padding counted
        "mean inside": lambda: mean(3, 1, 1, count_include_pad=False),
    }
    return pools[step](), inputs


class _Branches(nn.Module):
    """Branches side by side on the same input, concatenated.

    Where a branch has several steps they are numbered from ``first``, those side by side lettered; poolings are not
    counted.
    """

    def __init__(self, dims: int, inputs: int, branches: Mapping[str, Sequence[Any]], first: int = 1) -> None:
        super().__init__()
        self.wiring: dict[str, str] = {}  # what each module sees
        self.channels = 0
        for branch, steps in branches.items():
            several = sum(not isinstance(step, str) for step in steps) > 1
            channels, number = inputs, first
            for i, step in enumerate(steps):
                pooling = isinstance(step, str)
                name = f"{branch}_in" if pooling else f"{branch}_{number}" if several else branch
                channels = self._add(dims, channels, step, name, "previous" if i else "input")
                number += not pooling
            self.channels += channels

    def _add(self, dims: int, inputs: int, step: Any, name: str, sees: str) -> int:
        """Add one step, or two side by side, and say how many channels it gives."""
        split = isinstance(step, tuple) and isinstance(step[0], tuple)
        given = 0
        for j, part in enumerate(step if split else [step]):
            layer, channels = _layer(dims, inputs, part)
            title = name + "ab"[j] * split
            self.add_module(title, layer)
            self.wiring[title] = "same" if j else sees
            given += channels
        return given

    def branches(self, x: Tensor) -> Tensor:
        source = x
        ends: list[Tensor] = []
        for name, module in self.named_children():
            if name in self.wiring:
                if self.wiring[name] == "input":
                    source = x
                elif self.wiring[name] == "previous":
                    source = ends.pop()
                ends.append(module(source))
        return torch.cat(ends, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.branches(x)


class _Staged(nn.Module):
    """Children in order of registration; auxiliary heads, in training, on what an earlier child gave.

    Attributes:
        auxiliary: names of the auxiliary heads.
        taps: the child that each looks at, and its name.
    """

    auxiliary: list[str]
    taps: dict[str, str]

    def __init__(self, taps: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.taps = dict(taps or {})
        self.auxiliary = list(self.taps.values())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits; in training with auxiliary heads a list: the logits, then the auxiliary ones from the input on."""
        tapped: dict[str, Tensor] = {}
        outputs: list[Tensor] = []
        for name, module in self.named_children():
            if name not in self.auxiliary:
                x = module(x)
            elif self.training:
                outputs.append(module(tapped[name]))
            if name in self.taps:
                tapped[self.taps[name]] = x
        if torch.jit.is_scripting() or not outputs:
            return x
        return [x, *outputs]

    def finish(self, dims: int, inputs: int, num_classes: int, dropout: float, head: str = "fc") -> None:
        """Global average, dropout, linear layer; then initial values."""
        self.avgpool = average(dims)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.add_module(head, nn.Linear(inputs, num_classes))
        initialize(self)


# channels of the branches 1x1, 3x3 (reduced, then convolved), "5x5" and pooled (Szegedy et al. 2015, table 1)
_GOOGLENET: dict[str, Any] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": 3,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": 2,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(_Staged):
    """Inception v1 with batch norm: 22 layers with weights; in two dimensions with torchvision's keys.

    As in torchvision, whose weights came from TensorFlow, the paper's branch of 5x5 kernels has 3x3 ones. Those weights
    want images in ``[-1, 1]`` (mean and std 0.5). torchvision's ``transform_input`` gets there from the ImageNet
    statistics and three channels; here the catalogue's entry states 0.5, so there is no such option.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        aux_logits: with the two auxiliary heads: in training the output is then a list of three logits, as
            ``monai.losses.DeepSupervisionLoss(loss, weights=[1, 0.3, 0.3])`` takes them.
        dropout: probability before the head.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``.

    Example:
        >>> sum(p.numel() for p in GoogLeNet().parameters())
        6624904

    References:
        Szegedy et al. Going deeper with convolutions. CVPR 2015.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        aux_logits: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__({"inception4a": "aux1", "inception4d": "aux2"} if aux_logits else None)
        dims, pool = spatial_dims, Pool[Pool.MAX, spatial_dims]
        self.conv1 = ConvNorm(dims, in_channels, 64, 7, 2)
        self.maxpool1 = pool(3, 2, ceil_mode=True)
        self.conv2 = ConvNorm(dims, 64, 64, 1)
        self.conv3 = ConvNorm(dims, 64, 192, 3)
        self.maxpool2 = pool(3, 2, ceil_mode=True)
        channels, given = 192, {}
        for name, row in _GOOGLENET.items():
            if isinstance(row, int):
                self.add_module(name, pool(row, 2, ceil_mode=True))
                continue
            a, b0, b, c0, c, d = row
            branches: dict[str, Any] = {
                "branch1": [(a, 1)],
                "branch2": [[(b0, 1), (b, 3)]],
                "branch3": [[(c0, 1), (c, 3)]],
                "branch4": [["max", (d, 1)]],
            }
            block = _Branches(dims, channels, branches)
            self.add_module(name, block)
            channels = given[name] = block.channels
        for child, head in self.taps.items():
            self.add_module(head, _GoogLeNetAux(dims, given[child], num_classes))
        self.finish(dims, channels, num_classes, dropout)


class _GoogLeNetAux(nn.Module):
    def __init__(self, dims: int, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.avgpool = average(dims, 4)
        self.conv = ConvNorm(dims, inputs, 128, 1)
        self.fc1 = nn.Linear(128 * 4 ** min(dims, 2), 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.avgpool(x)).flatten(1)
        return self.fc2(self.dropout(self.fc1(x).relu()))


def _v3_a(pooled: int) -> dict[str, Any]:
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "branch_pool": ["mean", (pooled, 1)],
    }


def _v3_c(c: int) -> dict[str, Any]:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(c, 1), (c, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [(c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))],
        "branch_pool": ["mean", (192, 1)],
    }


_V3_E = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), ((384, (1, 3)), (384, (3, 1)))],
    "branch3x3dbl": [(448, 1), (384, 3), ((384, (1, 3)), (384, (3, 1)))],
    "branch_pool": ["mean", (192, 1)],
}
_V3: dict[str, Any] = {
    "Conv2d_1a_3x3": (32, 3, 2),
    "Conv2d_2a_3x3": (32, 3, 1),
    "Conv2d_2b_3x3": (64, 3),
    "maxpool1": "down",
    "Conv2d_3b_1x1": (80, 1),
    "Conv2d_4a_3x3": (192, 3, 1),
    "maxpool2": "down",
    "Mixed_5b": _v3_a(32),
    "Mixed_5c": _v3_a(64),
    "Mixed_5d": _v3_a(64),
    "Mixed_6a": {"branch3x3": [(384, 3, 2)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)], "branch_pool": ["down"]},
    "Mixed_6b": _v3_c(128),
    "Mixed_6c": _v3_c(160),
    "Mixed_6d": _v3_c(160),
    "Mixed_6e": _v3_c(192),
    "Mixed_7a": {
        "branch3x3": [(192, 1), (320, 3, 2)],
        "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
        "branch_pool": ["down"],
    },
    "Mixed_7b": _V3_E,
    "Mixed_7c": _V3_E,
}


class InceptionV3(_Staged):
    """Factorized convolutions in parallel branches; in two dimensions with torchvision's keys.

    Kernels ``(1, 7)`` and ``(7, 1)`` become ``(1, 1, 7)`` and ``(7, 7, 1)`` in 3D, and ``7`` and ``1`` in 1D. As
    for :class:`GoogLeNet`, the published weights want images in ``[-1, 1]``.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        aux_logits: with the auxiliary head: in training the output is then a list of two logits, as
            ``monai.losses.DeepSupervisionLoss(loss, weights=[1, 0.4])`` takes them.
        dropout: probability before the head.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``; each side at least 75, in training with the auxiliary
        head 299 (as it was trained).

    Example:
        >>> sum(p.numel() for p in InceptionV3().parameters())
        23834568

    References:
        Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. Rethinking the Inception architecture for computer vision. CVPR 2016.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        aux_logits: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__({"Mixed_6e": "AuxLogits"} if aux_logits else None)
        channels = in_channels
        for name, row in _V3.items():
            layer, channels = _layer(spatial_dims, channels, row)
            self.add_module(name, layer)
            if name in self.taps:
                self.add_module(self.taps[name], _InceptionAux(spatial_dims, channels, num_classes))
        self.finish(spatial_dims, channels, num_classes, dropout)


class _InceptionAux(nn.Module):
    def __init__(self, dims: int, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.pool = Pool[Pool.AVG, dims](5, 3)
        self.conv0 = ConvNorm(dims, inputs, 128, 1)
        self.conv1 = ConvNorm(dims, 128, 768, 5, padding=0)
        self.avgpool = average(dims)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.conv1(self.conv0(self.pool(x)))).flatten(1))


_V4_A = {
    "branch0": [(96, 1)],
    "branch1": [[(64, 1), (96, 3)]],
    "branch2": [[(64, 1), (96, 3), (96, 3)]],
    "branch3": [["mean inside", (96, 1)]],
}
_V4_B = {
    "branch0": [(384, 1)],
    "branch1": [[(192, 1), (224, (1, 7)), (256, (7, 1))]],
    "branch2": [[(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))]],
    "branch3": [["mean inside", (128, 1)]],
}
_V4_C = {
    "branch0": [(256, 1)],
    "branch1": [(384, 1), ((256, (1, 3)), (256, (3, 1)))],
    "branch2": [(384, 1), (448, (3, 1)), (512, (1, 3)), ((256, (1, 3)), (256, (3, 1)))],
    "branch3": [["mean inside", (256, 1)]],
}
_V4: tuple[Any, ...] = (
    (32, 3, 2),
    (32, 3, 1),
    (64, 3),
    {"maxpool": ["down"], "conv": [(96, 3, 2)]},
    {
        "branch0": [[(64, 1), (96, 3, 1)]],
        "branch1": [[(64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1)]],
    },
    {"conv": [(192, 3, 2)], "maxpool": ["down"]},
    *[_V4_A] * 4,
    {"branch0": [(384, 3, 2)], "branch1": [[(192, 1), (224, 3), (256, 3, 2)]], "branch2": ["down"]},
    *[_V4_B] * 7,
    {
        "branch0": [[(192, 1), (192, 3, 2)]],
        "branch1": [[(256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2)]],
        "branch2": ["down"],
    },
    *[_V4_C] * 3,
)


class InceptionV4(_Staged):
    """The purely convolutional, deepest Inception; no residuals. The keys are those of its port to PyTorch (Cadene).

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        dropout: probability before the head.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``; each side at least 75.

    Example:
        >>> sum(p.numel() for p in InceptionV4().parameters())
        42679816

    References:
        Szegedy, Ioffe, Vanhoucke, Alemi. Inception-v4, Inception-ResNet and the impact of residual connections on
        learning. AAAI 2017.
    """

    def __init__(
        self, *, spatial_dims: int = 2, in_channels: int = 3, num_classes: int = 1000, dropout: float = 0.2
    ) -> None:
        super().__init__()
        layers, channels = [], in_channels
        for row in _V4:
            layer, channels = _layer(spatial_dims, channels, row, first=0)
            layers.append(layer)
        self.features = nn.Sequential(*layers)
        self.finish(spatial_dims, channels, num_classes, dropout, "last_linear")


class _Residual(_Branches):
    """Branches whose projection is added to the input, scaled down so that training stays stable."""

    def __init__(
        self, dims: int, inputs: int, branches: Mapping[str, Sequence[Any]], scale: float, last: bool = False
    ) -> None:
        super().__init__(dims, inputs, branches)
        self.conv2d = Conv[Conv.CONV, dims](self.channels, inputs, 1)
        self.channels, self.scale = inputs, scale
        self.relu = nn.Identity() if last else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.conv2d(self.branches(x)))


_BLOCK35 = {"branch0": [(32, 1)], "branch1": [[(32, 1), (32, 3)]], "branch2": [[(32, 1), (48, 3), (64, 3)]]}
_BLOCK17 = {"branch0": [(192, 1)], "branch1": [[(128, 1), (160, (1, 7)), (192, (7, 1))]]}
_BLOCK8: dict[str, Any] = {"branch0": [(192, 1)], "branch1": [[(192, 1), (224, (1, 3)), (256, (3, 1))]]}
# repeats, branches of a residual block, scale: where the name says so
_RESNET_V2: dict[str, Any] = {
    "conv2d_1a": (32, 3, 2),
    "conv2d_2a": (32, 3, 1),
    "conv2d_2b": (64, 3),
    "maxpool_3a": "down",
    "conv2d_3b": (80, 1),
    "conv2d_4a": (192, 3, 1),
    "maxpool_5a": "down",
    "mixed_5b": {
        "branch0": [(96, 1)],
        "branch1": [[(48, 1), (64, 5)]],
        "branch2": [[(64, 1), (96, 3), (96, 3)]],
        "branch3": [["mean inside", (64, 1)]],
    },
    "repeat": (10, _BLOCK35, 0.17),
    "mixed_6a": {"branch0": [(384, 3, 2)], "branch1": [[(256, 1), (256, 3), (384, 3, 2)]], "branch2": ["down"]},
    "repeat_1": (20, _BLOCK17, 0.1),
    "mixed_7a": {
        "branch0": [[(256, 1), (384, 3, 2)]],
        "branch1": [[(256, 1), (288, 3, 2)]],
        "branch2": [[(256, 1), (288, 3), (320, 3, 2)]],
        "branch3": ["down"],
    },
    "repeat_2": (9, _BLOCK8, 0.2),
}


class InceptionResNetV2(_Staged):
    """Inception blocks with residual connections. The keys are those of its port to PyTorch (Cadene).

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs.
        dropout: probability before the head.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes)``; each side at least 75.

    Example:
        >>> sum(p.numel() for p in InceptionResNetV2().parameters())
        55843464

    References:
        Szegedy, Ioffe, Vanhoucke, Alemi. Inception-v4, Inception-ResNet and the impact of residual connections on
        learning. AAAI 2017.
    """

    def __init__(
        self, *, spatial_dims: int = 2, in_channels: int = 3, num_classes: int = 1000, dropout: float = 0.2
    ) -> None:
        super().__init__()
        channels = in_channels
        for name, row in _RESNET_V2.items():
            if name.startswith("repeat"):
                repeats, branches, scale = row
                layer: nn.Module = nn.Sequential(
                    *(_Residual(spatial_dims, channels, branches, scale) for _ in range(repeats))
                )
            else:
                layer, channels = _layer(spatial_dims, channels, row)
            self.add_module(name, layer)
        self.block8 = _Residual(spatial_dims, channels, _BLOCK8, 1.0, last=True)
        self.conv2d_7b, channels = _layer(spatial_dims, channels, (1536, 1))
        self.finish(spatial_dims, channels, num_classes, dropout, "last_linear")
