"""Judge the chest X-ray bundle's defaults on images unlike those it was trained on: a subgroup is left out.

    python benchmarks/chest_shift.py DATA [--seeds 0 1] [--groups viral altered]

``DATA`` is a folder with an ``index.csv`` whose columns are image, label, subtype and patient. From each of three
subgroups (viral pneumonia, bacterial pneumonia, the normal images whose names begin with ``NORMAL2``) nothing is
trained or validated on: it is the test, with a quarter of the patients of the other class. Then a quarter of all
patients is the test, their images altered: brighter, darker, blurred, coarse or clipped. The stock command is run on
small images, scored in one view, with the defaults, with milder augmentation (that of ``AugmentBatch``'s own defaults:
movements, contrast, noise), and with flips as the only augmentation. AUC, the accuracy at the threshold 0.5 and the
commands go to ``results/chest_xray/shift.json``.
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
from pathlib import Path

from bundle_runs import ROOT, copy_with_table, cpu, read_table, start
from PIL import Image, ImageFilter, ImageOps

RESULT = ROOT / "benchmarks" / "results" / "chest_xray" / "shift.json"
SETTINGS = (
    "--image_size", "128", "--inferer::scales", "[1.0]", "--inferer::mirrors", "[[]]", "--layout", "table"
)  # fmt: skip
FLIPS = dict.fromkeys(("rotate", "zoom", "shift", "gamma", "contrast", "brightness", "noise"), 0)
WAYS = {
    "default": (),
    "milder": ("--augmentation", str({"_target_": "medtl_monai.transforms.AugmentBatch"})),
    "flips only": ("--augmentation", str({"_target_": "medtl_monai.transforms.AugmentBatch", **FLIPS})),
}
LEFT_OUT = {
    "viral": lambda row: row["subtype"] == "virus",
    "bacterial": lambda row: row["subtype"] == "bacteria",
    "other normal": lambda row: Path(row["image"]).name.startswith("NORMAL2"),
}
GROUPS = (*LEFT_OUT, "altered")
ALTERATIONS = (
    lambda image: image.point([round(255 * (v / 255) ** 0.5) for v in range(256)]),
    lambda image: image.point([round(255 * (v / 255) ** 2) for v in range(256)]),
    lambda image: image.filter(ImageFilter.GaussianBlur(0.015 * image.width)),
    lambda image: image.resize((image.width // 4, image.height // 4)).resize(image.size),
    lambda image: ImageOps.autocontrast(image, cutoff=15),
)
METRICS = ("accuracy", "balanced_accuracy", "auc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    args = parser.parse_args()
    runs = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}
    for seed in args.seeds:
        for group in args.groups:
            with tempfile.TemporaryDirectory() as folder:
                data = Path(folder) / "data"
                if group == "altered":
                    alter(args.data.resolve(), data, seed)
                else:
                    leave_out(args.data.resolve(), data, group, seed)
                for way, given in WAYS.items():
                    output = Path(folder) / way.replace(" ", "_")
                    command, _ = start(
                        "chest_xray_classification", data, output, (*SETTINGS, *given, "--seed", str(seed))
                    )
                    test = json.loads((output / "metrics.json").read_text())["test"]
                    values = {key: test["metrics"][key]["value"] for key in METRICS}
                    runs[f"{group}, {way}, seed {seed}"] = {
                        "command": command, **values, "images": test["images"], "patients": test["patients"]
                    }  # fmt: skip
                    write(runs)


def leave_out(source: Path, folder: Path, group: str, seed: int) -> None:
    """A copy of the data whose column ``split`` leaves the group out."""
    rows = read_table(source)
    ours = [row for row in rows if LEFT_OUT[group](row)]
    others = sorted({row["patient"] for row in rows if row["label"] != ours[0]["label"]})
    tested = {row["patient"] for row in ours} | set(random.Random(seed).sample(others, len(others) // 4))
    for row in rows:
        row["split"] = "test" if row["patient"] in tested else "train"
    copy_with_table(source, folder, rows)


def alter(source: Path, folder: Path, seed: int) -> None:
    """A copy of the data whose column ``split`` leaves altered images of a quarter of the patients out."""
    rows, draw = read_table(source), random.Random(seed)
    patients = sorted({row["patient"] for row in rows})
    tested = set(draw.sample(patients, len(patients) // 4))
    made = {}
    for row in rows:
        row["split"] = "test" if row["patient"] in tested else "train"
        if row["split"] == "test":
            with Image.open(source / row["image"]) as image:
                made[f"{len(made)}.png"] = draw.choice(ALTERATIONS)(image.convert("L"))
            row["image"] = f"altered/{len(made) - 1}.png"
    copy_with_table(source, folder, rows)
    (folder / "altered").mkdir()
    for name, image in made.items():
        image.save(folder / "altered" / name)


def write(runs: dict) -> None:
    """The runs so far and the means of each way and subgroup over the seeds."""
    means: dict[str, dict] = {}
    for group in GROUPS:
        for way in WAYS:
            those = [run for name, run in runs.items() if name.startswith(f"{group}, {way}, ")]
            if those:
                mean = {key: statistics.mean(run[key] for run in those) for key in METRICS}
                means.setdefault(group, {})[way] = {**mean, "seeds": len(those)}
    machine = {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    RESULT.write_text(
        json.dumps({"machine": machine, "mean": means, "runs": dict(sorted(runs.items()))}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
