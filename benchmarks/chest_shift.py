"""Judge the chest X-ray bundle's defaults on images unlike those it was trained on: a subgroup is left out.

    python benchmarks/chest_shift.py DATA [--seeds 0 1]

``DATA`` is a folder with an ``index.csv`` whose columns are image, label, subtype and patient. From each of three
subgroups (viral pneumonia, bacterial pneumonia, the normal images whose names begin with ``NORMAL2``) nothing is
trained or validated on: it is the test, with a quarter of the patients of the other class. The stock command is run on
small images for a few epochs, with the defaults, without calibration, and with flips as the only augmentation. AUC, the
accuracy at the threshold 0.5 and the commands go to ``results/chest_xray/shift.json``.
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

RESULT = ROOT / "benchmarks" / "results" / "chest_xray" / "shift.json"
SETTINGS = ("--image_size", "128", "--epochs", "4", "--inferer::scales", "[1.0]", "--layout", "table")
FLIPS = "{'_target_':'medtl_monai.transforms.AugmentBatch','flip':0.5}"
WAYS = {"default": (), "no calibration": ("--calibrate", "false"), "flips only": ("--augmentation", FLIPS)}
LEFT_OUT = {
    "viral": lambda row: row["subtype"] == "virus",
    "bacterial": lambda row: row["subtype"] == "bacteria",
    "other normal": lambda row: Path(row["image"]).name.startswith("NORMAL2"),
}
METRICS = ("accuracy", "balanced_accuracy", "auc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    runs = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else {}
    for seed in args.seeds:
        for group in LEFT_OUT:
            with tempfile.TemporaryDirectory() as folder:
                data = Path(folder) / "data"
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


def write(runs: dict) -> None:
    """The runs so far and the means of each way and subgroup over the seeds."""
    means: dict[str, dict] = {}
    for group in LEFT_OUT:
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
