"""Trained networks in another runtime, against torch in evaluation mode; the logits are equal to four digits.

Batches of the bundles' default networks at their image size: 32 slices for a class, 16 to segment.
"""

import torch
from timing import compare

from medtl_monai.backbones import build
from medtl_monai.inference import RUNTIMES, Exported


def measure(repeats: int = 15) -> dict:
    found = {}
    for name, count in (("efficientnet_lite0", 32), ("unet_efficientnet_lite0", 16)):
        network = build(name, in_channels=1, num_classes=3).to(memory_format=torch.channels_last).eval()
        images = torch.rand(count, 1, 160, 160)
        for runtime in RUNTIMES:
            with torch.no_grad():
                ways = (Exported(network, runtime), network)
                ours, torchs = (lambda way=way, images=images: way(images) for way in ways)
                found[f"{name}, {runtime}"] = compare(ours, torchs, repeats=repeats, bar=1)
    return found
