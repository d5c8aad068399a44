"""Draw the phantoms' pictures of the docs: ``python docs/pictures.py``. They follow from code and seed."""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = Path(__file__).resolve().parent / "images"


def sheet(make, name: str, columns: int = 4) -> None:
    """The first pictures of each label of a cohort, a label in a row."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = make(Path(folder) / "cohort", patients=3 * columns, progress=False)
        labels = sorted(path for path in cohort.iterdir() if path.is_dir())
        rows = []
        for label in labels:
            first = {path.stem.partition("_")[0]: path for path in sorted(label.glob("*.png"), reverse=True)}
            rows.append(np.hstack([np.asarray(Image.open(path)) for path in sorted(first.values())[:columns]]))
        Image.fromarray(np.vstack(rows)).quantize(32).save(IMAGES / name, optimize=True)


def hearts() -> None:
    """The cardiac phantom: a patient of each group in a row, two slices at ED and at ES, without and with contours."""
    from matplotlib.figure import Figure

    from medtl_monai.data import make_cardiac_cohort, read_stack

    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cardiac_cohort(Path(folder) / "cohort", patients=5, progress=False)
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        panels = figure.subplots(5, 8)
        for patient, row in zip(sorted(cohort.glob("patient*")), panels, strict=True):
            group = re.search(r"Group: (\w+)", (patient / "Info.cfg").read_text())[1]
            shown = [(frame, z, drawn) for frame in ("01", "10") for z in (2, 5) for drawn in (False, True)]
            for axes, (frame, z, drawn) in zip(row, shown, strict=True):
                image, label = (
                    read_stack(patient / f"{patient.name}_frame{frame}{kind}.nii.gz")[0, 24:104, 24:104, z].numpy().T
                    for kind in ("", "_gt")
                )
                axes.imshow(image, cmap="gray", vmin=0, vmax=255)
                if drawn:
                    _contours(axes, label)
                axes.set(xticks=[], yticks=[])
            row[0].set_ylabel(group, fontsize=8)
        for axes, title in zip(panels[0, ::4], ("end diastole", "end systole"), strict=True):
            axes.set_title(title, fontsize=8, loc="left")
        _save(figure, Path(folder), "phantom_cardiac.png")


def _contours(axes, label: np.ndarray) -> None:
    for k, color in enumerate(("#E69F00", "#009E73", "#56B4E9"), start=1):
        if np.any(label == k):
            axes.contour(label == k, levels=[0.5], colors=[color], linewidths=1)


def breasts() -> None:
    """The tomosynthesis phantom: four views, and slices below and above a lesion."""
    from medtl_monai.data.phantoms.dbt import VIEWS, Lesion, draw_breast

    cancer = Lesion("Cancer", 12, (0.5, 0.4), 0.08, 3)
    volumes = {
        view: draw_breast((24, 192, 160), view, cancer if view[0] == "r" else None, np.random.default_rng(5))
        for view in VIEWS
    }
    rows = [[volume[12] for volume in volumes.values()], [volumes["rcc"][z] for z in (6, 10, 12, 16)]]
    picture = np.vstack([np.hstack(row) for row in rows]) / 36_000
    Image.fromarray(np.clip(255 * picture, 0, 255).astype(np.uint8)).save(IMAGES / "phantom_dbt.png")


def augmentations() -> None:
    """Each transform of a batch on one slice, and five draws of each bundle's augmentation on its phantom."""
    import torch
    from matplotlib.figure import Figure

    from medtl_monai import transforms as t
    from medtl_monai.data import make_brain_cohort, make_cardiac_cohort, make_chest_cohort, read_stack
    from medtl_monai.data.phantoms.dbt import draw_breast

    with tempfile.TemporaryDirectory() as folder:
        first = [
            np.asarray(
                Image.open(min(make(Path(folder) / name, patients=3, progress=False).rglob("*.png"))).convert("L")
            )
            for name, make in (("brain", make_brain_cohort), ("chest", make_chest_cohort))
        ]
        cohort = make_cardiac_cohort(Path(folder) / "cardiac", patients=1, progress=False)
        heart = read_stack(min(cohort.glob("patient*/*_frame01.nii.gz")))[0, 24:104, 24:104, 4].numpy().T
        breast = draw_breast((24, 192, 160), "lcc", None, np.random.default_rng(5))[12]
        brain, chest, breast, heart = (
            torch.as_tensor(x / np.percentile(x, 99.9)).float().clamp(0, 1)[None, None] for x in (*first, breast, heart)
        )
        side = brain.shape[-1]
        colours = torch.cat([brain, brain**2, brain**0.5], 1)
        effects = {
            "as it was": t.RandFlip(0.0),
            "RandFlip": t.RandFlip(1.0, 1),
            "RandRotate": t.RandRotate((0.4, 0.4), prob=1.0),
            "RandRotate90": t.RandRotate90(1.0, max_k=1),
            "RandZoom": t.RandZoom(1.0, 1.4, 1.4),
            "RandAffine (translation)": t.RandAffine(
                1.0, translate_range=[(side / 6, side / 6)] * 2, padding_mode="zeros"
            ),
            "RandAffine (shear)": t.RandAffine(1.0, shear_range=[(0.3, 0.3)], padding_mode="zeros"),
            "RandSpatialCrop": t.RandSpatialCrop(2 * side // 3),
            "Rand2DElastic": t.Rand2DElastic(side / 8, (side / 50, side / 50), 1.0, padding_mode="zeros"),
            "RandGaussianNoise": t.RandGaussianNoise(1.0, std=0.1, sample_std=False),
            "RandGaussianSmooth": t.RandGaussianSmooth((2, 2), (2, 2), prob=1.0),
            "RandBiasField": t.RandBiasField(coeff_range=(-0.6, 0.6), prob=1.0),
            "RandAdjustContrast": t.RandAdjustContrast(1.0, (0.5, 0.5)),
            "RandShiftIntensity": t.RandShiftIntensity((0.25, 0.25), 1.0),
            "RandScaleIntensity": t.RandScaleIntensity((-0.5, -0.5), 1.0),
            "RandSimulateLowResolution": t.RandSimulateLowResolution(1.0, (0.25, 0.25)),
            "RandHistogramShift": t.RandHistogramShift(5, 1.0),
            "RandCoarseDropout": t.RandCoarseDropout(3, side // 6, prob=1.0),
            "RandColor": t.RandColor(1.0, hue=120, saturation=1.0),
            "mixup with a radiograph": None,
        }
        torch.manual_seed(2)
        figure = Figure(figsize=(10, 8.6), layout="constrained")
        for axes, (name, transform) in zip(figure.subplots(4, 5).flat, effects.items(), strict=True):
            if transform is None:
                picture = (brain + torch.nn.functional.interpolate(chest, brain.shape[2:])) / 2
            else:
                picture = transform(colours if name == "RandColor" else brain)
            axes.imshow(picture[0].permute(1, 2, 0).clamp(0, 1), cmap="gray", vmin=0, vmax=1)
            axes.set_title(name, fontsize=8)
            axes.set_axis_off()
        _save(figure, Path(folder), "augmentation_effects.png")
        figure = Figure(figsize=(10, 7), layout="constrained")
        shown = {"brain_mri": brain, "chest_xray": chest, "breast_dbt": breast, "cardiac_unet": heart}
        for row, (name, image) in zip(figure.subplots(4, 6), shown.items(), strict=True):
            (config,) = (IMAGES.parents[1] / "bundles").glob(f"{name}_*/configs/train.json")
            settings = {k: v for k, v in json.loads(config.read_text())["augmentation"].items() if k != "_target_"}
            drawn = t.AugmentBatch(**settings)(image.expand(5, -1, -1, -1))
            for axes, picture in zip(row, torch.cat([image, drawn]), strict=True):
                axes.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
            row[0].set_ylabel(name.partition("_")[0], fontsize=8)
        _save(figure, Path(folder), "augmentation_bundles.png")


def _save(figure, folder: Path, name: str) -> None:
    figure.savefig(picture := folder / name, dpi=70)
    Image.open(picture).convert("RGB").quantize(48).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    from medtl_monai.data import make_brain_cohort, make_chest_cohort

    sheet(make_brain_cohort, "phantom_brain.png")
    sheet(make_chest_cohort, "phantom_chest.png")
    breasts()
    hearts()
    augmentations()
