"""Preparing single images: the bundles' way, against MONAI's transforms with all of torch's threads.

Scaling a slice of 512 x 512 pixels between its percentiles; and augmenting 32 images of 160 x 160 pixels by MONAI's
transforms (`--transforms monai`), which the bundles let run on one thread.
"""

import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentilesd
from timing import compare

from medtl_monai.data import ScalePercentilesd
from medtl_monai.transforms import AugmentBatch
from medtl_monai.transforms.reference import ImageByImage


def measure(repeats: int = 15) -> dict:
    item = {"image": MetaTensor(torch.randint(256, (1, 512, 512)).float())}
    ours = ScalePercentilesd("image", lower=0, upper=99.9)
    monais = ScaleIntensityRangePercentilesd("image", 0, 99.9, 0, 1, clip=True)
    torch.testing.assert_close(ours(item)["image"], monais(item)["image"])
    augment = ImageByImage(AugmentBatch(rotate=15, zoom=0.2, gamma=0.4, contrast=0.3, noise=0.02))
    images = torch.rand(32, 1, 160, 160)
    ways = (lambda: augment(images), lambda: ImageByImage.forward.__wrapped__(augment, images))
    return {
        "scaling": compare(lambda: ours(item), lambda: monais(item), repeats=repeats, bar=1),
        "augmentation by MONAI": compare(*ways, repeats=repeats, bar=1),
    }
