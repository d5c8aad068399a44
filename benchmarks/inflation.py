"""What a 2D network sees after its inflation to 3D, in a photograph repeated along the depth.

    python benchmarks/inflation.py WEIGHTS [--depths 4 16 64 128 256]

``WEIGHTS`` is torchvision's ``mobilenet_v2-b0353104.pth``. For every depth and way of inflation the logits are compared
with those of the 2D network on the same photograph (matplotlib's, 224 pixels). Everything goes to
``results/weights/inflation.json``, from which ``docs/weights.md`` is rendered (``make docs``).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib import cbook
from PIL import Image
from torch import Tensor, nn

from medtl_monai.backbones import build
from medtl_monai.weights import SOURCES, load_weights

RESULT = Path(__file__).resolve().parent / "results" / "weights" / "inflation.json"
WAYS = {"centre": ("centre", False), "mean": ("mean", False), "mean, ends repeated": ("mean", True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 16, 64, 128, 256])
    args = parser.parse_args()
    x = photograph()
    want = logits(network(args.weights, 2), x)
    found = {}
    for way, (inflation, repeated) in WAYS.items():
        net = network(args.weights, 3, inflation)
        if repeated:
            repeat_ends(net)
        found[way] = {}
        for depth in args.depths:
            got = logits(net, x[:, :, None].expand(-1, -1, depth, -1, -1))
            difference = (got - want).abs().max().item()
            found[way][depth] = {"largest_difference": difference, "same_class": bool(got.argmax() == want.argmax())}
            print(way, depth, found[way][depth], flush=True)
    result = {"class": int(want.argmax()), "largest_logit": want.max().item(), "depths": args.depths, "ways": found}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def photograph() -> Tensor:
    """A photograph as the network takes it, ``(1, 3, 224, 224)``."""
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("RGB").resize((224, 224))
    source = SOURCES["mobilenet_v2_imagenet"]
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (source.mean, source.std))
    return ((x - mean) / std)[None]


def network(weights: Path, spatial_dims: int, inflation: str = "centre") -> nn.Module:
    """MobileNetV2 with all its weights."""
    net = build("mobilenet_v2", spatial_dims=spatial_dims, num_classes=1000).eval()
    load_weights(net, weights, inflation=inflation)
    return net


@torch.no_grad()
def logits(net: nn.Module, x: Tensor) -> Tensor:
    """``(1000,)``."""
    return net(x)[0]


def repeat_ends(net: nn.Module) -> None:
    """Pad the depth of all convolutions by repetition, so that every path is an interior one."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d) and module.padding[0]:
            sides = (0, 0, 0, 0, module.padding[0], module.padding[0])
            module.register_forward_pre_hook(lambda _, x, s=sides: nn.functional.pad(x[0], s, mode="replicate"))
            module.padding = (0, *module.padding[1:])


if __name__ == "__main__":
    main()
