"""Fine-tune the breast bundle on real mammograms, normal against abnormal, and score every patient in a test fold.

    python benchmarks/breast_mini_mias.py DATA [--seed 0] [--ways 224 sides224 ...]

``DATA`` is a folder with an ``index.csv`` whose columns are image, patient, side and label (normal, benign, malignant),
and mini-MIAS's ``Info.txt``, of which the lesions' places come.
For each way five models are trained, each without the patients of one of five folds, who are scored once, at the end.
The last epoch's model counts: twenty images for validation would choose by chance. The score of a way is that of all
images together, each by the model that has not seen the patient, with intervals that resample patients. All goes to
``results/breast_mini_mias/summary.json``.
"""

import argparse
import csv
import json
import math
import statistics
import tempfile
from pathlib import Path

import numpy as np
from bundle_runs import METRICS, ROOT, cpu, read_table, start

from medtl_monai.data import load_breasts, split_patients
from medtl_monai.metrics import part_metrics
from medtl_monai.predictions import read_predictions

WAYS = {
    "224": ("--val_interval", "13"),
    "sides224": ("--val_interval", "13", "--compare_sides", "true"),
    "sides448_freeze": (
        *("--compare_sides", "true", "--image_size", "448", "--batch_size", "8"),
        *("--strategy", "freeze", "--epochs", "6", "--val_interval", "6"),
    ),
    "crops512": (
        *("--compare_sides", "true", "--image_size", "512", "--crop_size", "128"),
        *("--epochs", "16", "--val_interval", "16"),
    ),
    "map512": (
        *("--compare_sides", "true", "--image_size", "512", "--lesion_map", "true", "--batch_size", "8"),
        *("--strategy", "freeze", "--augmentation", "$None", "--cache_features", "memory", "--val_interval", "13"),
    ),
}
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    path = ROOT / "benchmarks" / "results" / "breast_mini_mias" / "summary.json"
    path.parent.mkdir(exist_ok=True)
    found = json.loads(path.read_text())["ways"] if path.exists() else {}
    rows = read_table(args.data)
    for way in args.ways:
        found[way] = cross_validate(args.data.resolve(), rows, (*WAYS[way], "--seed", str(args.seed)), args.seed)
        path.write_text(json.dumps({"cpu": cpu(), "folds": FOLDS, "ways": found}, indent=2) + "\n")


def cross_validate(data: Path, rows: list[dict], given: tuple, seed: int) -> dict:
    """The scores of all images together, and the AUC of each fold."""
    items = [{**row, "label": int(row["label"] != "normal")} for row in rows]
    marked = load_breasts(data, layout="mini_mias", boxes=True).items
    boxes = {item["image"]: ["" if math.isnan(value) else value for value in item["box"][0]] for item in marked}
    probabilities, labels, patients, folds, seconds = [], [], [], [], []
    for fold in range(FOLDS):
        parts = split_patients(items, val_fraction=1 / FOLDS, fold=fold, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "data" / "index.csv"
            table.parent.mkdir()
            with table.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["image", "patient", "laterality", "label", "split", "x", "y", "width", "height"])
                for row, part in zip(rows, parts, strict=True):
                    split = "test" if part == "val" else "train"
                    image = data / row["image"]
                    cells = [image, row["patient"], row["side"], row["label"], split, *boxes[str(image)]]
                    writer.writerow(cells)
            output = Path(folder) / "run"
            command, took = start("breast_dbt_classification", table.parent, output, given)
            seconds.append(took)
            scored = read_predictions(output / "predictions.csv")
            folds.append(json.loads((output / "metrics.json").read_text())["test"]["metrics"]["auc"]["value"])
        by_image = dict(zip(scored.images, scored.probabilities, strict=True))
        for item, part in zip(items, parts, strict=True):
            if part == "val":
                probabilities.append(by_image[str(data / item["image"])])
                labels.append(item["label"])
                patients.append(item["patient"])
    metrics = part_metrics(np.array(probabilities), np.array(labels), patients, ["normal", "abnormal"], seed=seed)
    return {
        "command": command,
        "images": len(labels),
        "patients": len(set(patients)),
        **{name: {key: metrics["metrics"][name][key] for key in ("value", "interval")} for name in METRICS},
        "auc_of_folds": [round(auc, 4) for auc in folds],
        "median_seconds": round(statistics.median(seconds), 1),
    }


if __name__ == "__main__":
    main()
