"""U-Nets whose encoder is a classification network, so that its pretrained weights can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from monai.networks.nets.basic_unet import UpCat
from monai.networks.nets.flexible_unet import SegmentationHead
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ..utils import UserError
from .blocks import Anatomy, Block, anatomy

__all__ = ["TransferUNet"]

_PROBE = 64  # side of the image that finds the strides
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class TransferUNet(nn.Module):
    """Any backbone as encoder, MONAI's U-Net blocks as decoder.

    The encoder's head is taken off. Of each stride (2, 4, 8 ...) the last block's output is a skip connection; an
    image of zeros finds them, so that every backbone whose strides are powers of two can serve. The decoder ends at
    the first skip's stride; its logits are enlarged linearly to the image, which may have any size. Without a decoder
    it is a fully convolutional network: the classifier's linear layer, at every place of the last map.

    Args:
        make_encoder: constructor of the backbone, as in :data:`medtl_monai.backbones.BACKBONES`.
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of outputs, background included.
        decoder_channels: channels of the decoder's blocks, from the deepest up; one for each but the deepest stride, or
            none for no decoder.
        dropout: probability in the decoder.
        encoder_options: of the encoder's constructor.

    Shape:
        ``(B, in_channels, *spatial)`` to ``(B, num_classes, *spatial)``.

    Raises:
        UserError: the backbone's strides are no powers of two, or the decoder has too few channels for them.

    References:
        Ronneberger, Fischer, Brox. U-Net: convolutional networks for biomedical image segmentation. MICCAI 2015.
        Long, Shelhamer, Darrell. Fully convolutional networks for semantic segmentation. CVPR 2015.
        Iglovikov, Shvets. TernausNet: U-Net with VGG11 encoder pre-trained on ImageNet. arXiv:1801.05746, 2018.
    """

    def __init__(
        self,
        make_encoder: Callable[..., nn.Module],
        *,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 2,
        decoder_channels: Sequence[int] = (96, 48, 32, 24),
        dropout: float = 0.0,
        **encoder_options: Any,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(
            spatial_dims=spatial_dims, in_channels=in_channels, num_classes=num_classes, **encoder_options
        )
        parts = anatomy(self.encoder)
        parent, _, name = parts.head.rpartition(".")
        setattr(self.encoder.get_submodule(parent), name, nn.Identity())
        self._blocks = parts.blocks[:-1]
        self._taps = [prefix for block in self._blocks for prefix in block.prefixes]
        self._taps, skips = self._probe(torch.zeros(1, in_channels, *[_PROBE] * spatial_dims))
        self._cut_behind(self._taps[-1])
        if 0 < len(decoder_channels) < len(skips) - 1:
            raise UserError(f"decoder_channels: {len(skips) - 1} numbers are needed, got {list(decoder_channels)}.")
        inputs = skips[-1]
        ups = []
        for skip, outputs in zip(skips[-2::-1], decoder_channels, strict=False):
            ups.append(
                UpCat(
                    spatial_dims, inputs, skip, outputs, act=("relu", {"inplace": True}), norm="batch", bias=False,
                    dropout=dropout, upsample="nontrainable", interp_mode=_MODES[spatial_dims], align_corners=False,
                )
            )  # fmt: skip
            inputs = outputs
        self.decoder = nn.ModuleList(ups)
        self.head = SegmentationHead(spatial_dims, inputs, num_classes, kernel_size=3 if ups else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        size, deepest = x.shape[2:], 2 ** len(self._taps)
        x = pad(x, [n for side in reversed(size) for n in (0, -side % deepest)], "replicate")
        features = self._features(x)
        y = features[self._taps[-1]]
        for up, tap in zip(self.decoder, self._taps[-2::-1], strict=False):
            y = up(y, features[tap])
        y = interpolate(self.head(y), x.shape[2:], mode=_MODES[x.ndim - 2], align_corners=False)
        places: tuple[Any, ...] = (..., *map(slice, size))
        return y[places]

    def anatomy(self) -> Anatomy:
        """The encoder's blocks, the decoder's, and the head."""
        encoder = [block.within("encoder") for block in self._blocks]
        decoder = [Block(f"decoder.{i}", (f"decoder.{i}",)) for i in range(len(self.decoder))]
        features = cast("int", self.head[0].in_channels)
        return Anatomy((*encoder, *decoder, Block("head", ("head",))), "head", features, encoder="encoder")

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs of the tapped modules by name, in the order of execution."""
        found: dict[str, Tensor] = {}

        def keep(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            found[name] = output

        # hooks for this call alone: they would not follow a copy of the network
        handles = [self.encoder.get_submodule(n).register_forward_hook(partial(keep, n)) for n in self._taps]
        try:
            self.encoder(x)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _cut_behind(self, last: str) -> None:
        """Take out the dense layers behind the module ``last``, which nothing uses."""
        names = [prefix for block in self._blocks for prefix in block.prefixes]
        behind = names[names.index(last) + 1 :]
        for name in behind:
            self.encoder.set_submodule(name, nn.Identity())
        kept = ((block.name, tuple(name for name in block.prefixes if name not in behind)) for block in self._blocks)
        self._blocks = tuple(Block(name, prefixes) for name, prefixes in kept if prefixes)

    def _probe(self, image: Tensor) -> tuple[list[str], list[int]]:
        """Names and channels of the last output at each stride."""
        self.encoder.eval()
        kind = type(self.encoder).__name__
        try:
            with torch.no_grad():
                found = self._features(image)
        except RuntimeError as error:  # the Inceptions' unpadded convolutions
            raise UserError(f"{kind} cannot be an encoder: it does not take an image of {_PROBE} pixels.") from error
        self.encoder.train()
        last = {output.shape[-1]: (name, output.shape[1]) for name, output in found.items()}
        sides = [_PROBE >> i for i in range(1, len(last) + 1) if _PROBE >> i in last]
        if len(sides) < 2 or [side for side in last if side < _PROBE] != sides:
            raise UserError(
                f"{kind} cannot be an encoder: an image of {_PROBE} pixels gives maps of "
                f"{', '.join(map(str, last))}, and each must be half of the one before."
            )
        return [last[side][0] for side in sides], [last[side][1] for side in sides]
