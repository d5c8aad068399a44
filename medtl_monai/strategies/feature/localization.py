"""Where the lesion lies, learnt beside what it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from ...backbones import anatomy
from ...backbones.tap import Tap
from ...utils import UserError, unwrap
from ..base import NEEDED, Step
from ..listening import FeatureStrategy

__all__ = ["Localization"]


class Localization(FeatureStrategy):
    r"""Learn where the lesion lies beside what it is.

    .. math:: L = L_{task} - w \sum_p m_p \log \mathrm{softmax}_p(u^\top f_p)

    - **What it does**: a linear layer u of its own, a softmax over the places p of the last map f, is trained to find
      the lesion: m is the share of the boxes around lesions that lies in each place, as the augmentation moved them.
      The network stays what it was, so that predicting needs no boxes; images without a box count for the task alone.
    - **When it helps**: few images with small lesions, whose surroundings tell patients apart.
    - **Cost**: a box around the lesion of each training image, or of some; almost no time.
    - **Settings**: ``weight`` (w) in [0, inf): 0 is ``finetune``, too large finds lesions and forgets what they are.
    - **What it cannot do**: outline the lesion: a place is 32 pixels wide in most networks.

    References:
        Caruana. Multitask learning. Machine Learning 28, 1997. Vapnik, Vashist. A new learning paradigm: learning using
        privileged information. Neural Networks 22, 2009. Yan, Kawahara, Hamarneh. Melanoma recognition via visual
        attention. IPMI 2019.
    """

    needs = ("boxes", "source")
    tasks = ("classification", "multilabel")

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)

    def prepare(self, network: nn.Module) -> nn.Module:
        """Listen to the last map."""
        assert self.context.source is not None, "bind comes first"
        image = next(iter(self.context.source))[:1]
        module, channels = _last_map(network, image)
        self.where = nn.Parameter(torch.zeros(channels, device=image.device))  # all places alike
        self._tap = Tap(network, module, entering=False)
        return network

    def loss(self, step: Step) -> Tensor | None:
        """Of this batch's boxes: ``batch["lesion"]``, 1 within and 0 elsewhere, ``(B, 1, *spatial)``."""
        if "lesion" not in step.batch:
            raise UserError(f"Localization needs {NEEDED['boxes']}")
        assert self._tap is not None, "prepare comes first"
        lesion = torch.as_tensor(step.batch["lesion"])
        seen = self._tap.value[: len(lesion)]  # of a network that compares sides, the other ones follow
        with torch.autocast(seen.device.type, enabled=False):
            places = torch.einsum("bc...,c->b...", seen.float(), self.where)
            lesion = lesion.to(places)
            share = interpolate(lesion, size=places.shape[1:], mode="area").flatten(1)
            # a row without a lesion is 0 everywhere, and so is its loss
            target = share / share.sum(1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
            return self.weight * cross_entropy(places.flatten(1), target)


@torch.no_grad()
def _last_map(network: nn.Module, image: Tensor) -> tuple[str, int]:
    """The last block whose output has several places, and its channels."""
    names = [block.prefixes[-1] for block in anatomy(network).blocks[:-1]]
    taps = [Tap(network, name, entering=False) for name in names]
    training = network.training
    network.eval()(image)
    network.train(training)
    seen = [(name, tap.latest) for name, tap in zip(names, taps, strict=True)]
    found = [(name, out.shape[1]) for name, out in seen if out.ndim == image.ndim and out[0, 0].numel() > 1]
    for tap in taps:
        tap.close()
    if not found:
        raise UserError(f"localization needs maps, and no block of {type(unwrap(network)).__name__} gives one here.")
    return found[-1]
