"""Draw the phantoms' pictures of the docs: ``python docs/pictures.py``. They follow from code and seed."""

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
                for k, color in enumerate(("#E69F00", "#009E73", "#56B4E9"), start=1) if drawn else ():
                    if np.any(label == k):
                        axes.contour(label == k, levels=[0.5], colors=[color], linewidths=1)
                axes.set(xticks=[], yticks=[])
            row[0].set_ylabel(group, fontsize=8)
        for axes, title in zip(panels[0, ::4], ("end diastole", "end systole"), strict=True):
            axes.set_title(title, fontsize=8, loc="left")
        figure.savefig(picture := Path(folder) / "picture.png", dpi=70)
        small = Image.open(picture).convert("RGB").quantize(48)
        small.save(IMAGES / "phantom_cardiac.png", optimize=True)


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


if __name__ == "__main__":
    from medtl_monai.data import make_brain_cohort, make_chest_cohort

    sheet(make_brain_cohort, "phantom_brain.png")
    sheet(make_chest_cohort, "phantom_chest.png")
    breasts()
    hearts()
