"""What the real sets beside the checkout give: cases, labels, patients and pixels, as short hashes in a table.

``python tests/real_sets.py`` writes ``tests/real_sets.json`` anew; a difference from the committed table must be meant.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from monai.transforms import Compose, LoadImaged

from medtl_monai.data import AnyReader, ToSliced, load_cases, stack_of, unlabelled

TABLE = Path(__file__).with_suffix(".json")
SETS = {
    "brain_tumor_figshare3064": {"layout": "table", "patient_column": "block"},
    "brain_hippocampus_msd04": {"layout": "decathlon"},
    "chest_kermany224": {"layout": "kermany"},
    "chest_nih_small": {"layout": "chestxray14"},
    "chest_pneumoniamnist28": {"layout": "medmnist"},
    "breast_mini_mias": {"layout": "mini_mias"},
    "cardiac_sunnybrook_png": {"layout": "sunnybrook"},
    "cardiac_acdc_h5": {"layout": "acdc"},
}
"""Folders with labels, and how they are read."""
BY_TABLE = ("chest_kermany224", "breast_mini_mias", "cardiac_sunnybrook_png")
"""Those that bring an ``index.csv`` besides."""
UNLABELLED = ("brain_tumor_progression", "volumes_pyradiomics", "chest_txv_testfiles", "dicom_wg04")
STEP = 25  # every so many images' pixels are hashed: all of them would take minutes

_sliced = Compose([LoadImaged("image", reader=AnyReader, image_only=True), ToSliced("image")])


def digest(parts):
    """A short hash of texts and arrays."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return total.hexdigest()[:16]


def cases_of(folder, pixels=True, **settings):
    """Counts and hashes of one labelled set; the order of the items does not count."""
    cases = load_cases(folder, **settings)

    def name(path):
        return str(path).removeprefix(f"{cases.root}/")

    items = sorted(cases.items, key=lambda item: str(item["image"]))
    masks = cases.task == "segmentation"
    labels = [name(item["label"]) if masks else str(item["label"]) for item in items]
    row = {
        "task": cases.task,
        "classes": cases.classes,
        "cases": len(items),
        "patients": len({str(item["patient"]) for item in items}),
        "names": digest(f"{name(item['image'])}\n" for item in items),
        "labels": digest(f"{label}\n" for label in labels),
        "whose": digest(f"{item['patient']}\n" for item in items),
        "parts": digest(f"{item.get('split')}\n" for item in items),
    }
    if pixels:
        row["pixels"] = digest(array for item in items[::STEP] for array in arrays_of(item, masks))
    return row


def arrays_of(item, masks):
    """The arrays of an item as training reads them."""
    if masks:
        return [stack_of(item, key)[0].numpy() for key in ("image", "label")]
    return [_sliced({"image": item["image"]})["image"][0].numpy()]


def table(data):
    """The whole table."""
    rows = {name: cases_of(data / name, **settings) for name, settings in SETS.items()}
    rows |= {f"{name}/index.csv": cases_of(data / name, pixels=False) for name in BY_TABLE}
    return rows | {name: files_of(data / name) for name in UNLABELLED}


def files_of(folder):
    """The images of a set without labels."""
    files = sorted(str(Path(item["image"]).relative_to(folder)) for item in unlabelled(folder))
    return {"files": len(files), "names": digest(f"{file}\n" for file in files)}


if __name__ == "__main__":
    here = Path(os.environ.get("MEDTL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not here.is_dir():
        sys.exit(f"there are no real sets at {here}")
    TABLE.write_text(json.dumps(table(here), indent=1) + "\n", encoding="utf-8")
