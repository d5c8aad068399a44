"""32 images of 224 x 224 pixels, augmented as a batch, against MONAI's dictionary transforms image by image.

Flip, rotation, zoom, Gaussian noise, contrast and intensity scale, each with probability 0.5, on one thread; then the
same with three channels; then with `Rand2DElastic`; then the brain bundle's own settings, which change every image,
against `--transforms monai`.
"""

import json
from pathlib import Path

import monai.transforms as reference
import torch
from timing import compare

import medtl_monai.transforms as ours

BRAIN = Path(__file__).resolve().parents[2] / "bundles" / "brain_mri_classification" / "configs" / "train.json"


def chain(library: object, *, elastic: bool) -> list:
    """The same transforms from either library."""

    def make(name: str, **settings: object) -> object:
        return (
            getattr(library, f"{name}d")("image", **settings)
            if library is reference
            else getattr(ours, name)(**settings)
        )

    made = [
        make("RandFlip", prob=0.5, spatial_axis=1),
        make("RandRotate", range_x=0.3, prob=0.5, padding_mode="border"),
        make("RandZoom", prob=0.5, mode="bilinear", padding_mode="edge"),
        make("RandGaussianNoise", prob=0.5, std=0.05),
        make("RandAdjustContrast", prob=0.5, gamma=(0.7, 1.5)),
        make("RandScaleIntensity", prob=0.5, factors=0.2),
    ]
    if elastic:
        made.insert(3, make("Rand2DElastic", spacing=32, magnitude_range=(1, 3), prob=0.5, padding_mode="border"))
    return made


def measure(repeats: int = 15) -> dict:
    torch.set_num_threads(1)
    cases = {"1 channel": (1, False, 6), "3 channels": (3, False, 4), "1 channel, elastic": (1, True, 4)}
    found = {}
    for case, (channels, elastic, bar) in cases.items():
        images = torch.rand(32, channels, 224, 224, generator=torch.Generator().manual_seed(0))
        augment = ours.BatchCompose(chain(ours, elastic=elastic))
        each = reference.Compose(chain(reference, elastic=elastic)).set_random_state(0)

        def one_by_one(images: torch.Tensor = images, each: object = each) -> None:
            torch.stack([each({"image": image})["image"].as_tensor() for image in images])

        def batch(images: torch.Tensor = images, augment: object = augment) -> None:
            augment({"image": images})

        found[case] = compare(batch, one_by_one, repeats=repeats, bar=bar)
    settings = {k: v for k, v in json.loads(BRAIN.read_text())["augmentation"].items() if k != "_target_"}
    images, bundles = torch.rand(32, 1, 224, 224), ours.AugmentBatch(**settings)
    by_monai = ours.choose("monai", bundles)
    found["the brain bundle's"] = compare(lambda: bundles(images), lambda: by_monai(images), repeats=repeats, bar=2)
    return found
