"""2 volumes of 96 x 96 x 96 voxels and their labels, augmented as a batch, against MONAI's dictionary transforms.

Flip, rotation, zoom, Gaussian noise, contrast and intensity scale, each with probability 0.5, on one thread. In the
first case volumes turn about one axis, as scans are often turned about the body's; then about all three, also compared
with torch's `grid_sample` alone, of as many volumes and labels; then `Rand3DElastic` alone changes each volume.
"""

import monai.transforms as reference
import torch
from timing import compare
from torch.nn.functional import affine_grid, grid_sample

import medtl_monai.transforms as ours

KEYS = ["image", "label"]
MODES = ["bilinear", "nearest"]


def chain(library: object, case: str) -> list:
    """The same transforms from either library."""

    def move(name: str, linear: str = "bilinear", **settings: object) -> object:
        if library is reference:
            modes = {} if name == "RandFlip" else {"mode": [linear, "nearest"]}
            return getattr(reference, f"{name}d")(KEYS, **modes, **settings)
        return getattr(ours, name)(**settings)

    def change(name: str, **settings: object) -> object:
        return (
            getattr(library, f"{name}d")("image", **settings)
            if library is reference
            else getattr(ours, name)(**settings)
        )

    if case == "elastic":
        how = {"sigma_range": (5, 8), "magnitude_range": (50, 150), "padding_mode": "border"}
        return [move("Rand3DElastic", prob=1.0, **how)]
    angles = {"range_x": 0.3} if case == "one axis" else {"range_x": 0.3, "range_y": 0.3, "range_z": 0.3}
    return [
        move("RandFlip", prob=0.5, spatial_axis=2),
        move("RandRotate", **angles, prob=0.5, padding_mode="border"),
        move("RandZoom", "trilinear", prob=0.5, padding_mode="edge"),
        change("RandGaussianNoise", prob=0.5, std=0.05),
        change("RandAdjustContrast", prob=0.5, gamma=(0.7, 1.5)),
        change("RandScaleIntensity", prob=0.5, factors=0.2),
    ]


def measure(repeats: int = 15) -> dict:
    torch.set_num_threads(1)
    images = torch.rand(2, 1, 96, 96, 96, generator=torch.Generator().manual_seed(0))
    labels, batches = (images > 0.5).float(), 8
    found = {}
    turned = torch.eye(3, 4)[None] + 0.1 * torch.tensor([[0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0]])
    grid = affine_grid(turned, [1, 1, 96, 96, 96], align_corners=False)
    share = round(batches * len(images) * (1 - 0.5 * 0.5))  # of volumes that are turned, magnified or both

    def resampling() -> None:
        for _ in range(share):
            for volume, mode in zip((images[:1], labels[:1]), MODES, strict=True):
                grid_sample(volume, grid, mode=mode, padding_mode="border", align_corners=False)

    for case, bar in {"one axis": 1.7, "three axes": 1.7, "elastic": 4}.items():
        augment, each = ours.BatchCompose(chain(ours, case)), reference.Compose(chain(reference, case))
        times = 1 if case == "elastic" else batches  # batches of two volumes differ in what is drawn

        def one_by_one(each: object = each, times: int = times) -> None:
            each.set_random_state(0)
            for _ in range(times):
                for image, label in zip(images, labels, strict=True):
                    each({"image": image, "label": label})

        def batch(augment: object = augment, times: int = times) -> None:
            torch.manual_seed(0)
            for _ in range(times):
                augment({"image": images, "label": labels})

        found[case] = compare(batch, one_by_one, repeats=repeats, bar=bar)
        if case == "three axes":
            found["three axes, against grid_sample alone"] = compare(batch, resampling, repeats=repeats, bar=1)
    return found
