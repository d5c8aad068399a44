"""Segment real hearts: the left ventricle on Sunnybrook slices, then three structures on ACDC stacks.

    python benchmarks/cardiac.py SUNNYBROOK ACDC [--seeds 0 1 2] [--kinds sunnybrook ...]

``SUNNYBROOK`` holds the Sunnybrook pictures, ``ACDC`` the ACDC stacks (NIfTI or HDF5). For every seed, which chooses
the split too, the stock command trains on Sunnybrook for 30 epochs, and on ACDC, with the bundle's defaults, from
random weights and from that Sunnybrook run. Each run's ``metrics.json`` and their summary go to ``results/cardiac/``.
The README's table is rendered from the summary (``make docs``).
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bundle_runs import ROOT, cpu

RESULTS = ROOT / "benchmarks" / "results" / "cardiac"
TRAIN = ["python", "-m", "monai.bundle", "run", "--config_file", "bundles/cardiac_unet_segmentation/configs/train.json"]
ALIKE = "{'batch': False}"
RUNS = {
    # every slice shows the cavity in one piece, and counts alike in the loss however small it is
    "sunnybrook": (
        "SUNNYBROOK",
        ("--epochs", "30", "--always_present", "true", "--largest_component", "true", "--loss_options", ALIKE),
    ),
    "acdc-none": ("ACDC", ("--weights", "none")),
    "acdc-sunnybrook": ("ACDC", ("--weights", "SUNNYBROOK_RUN/checkpoints/best.pt")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sunnybrook", type=Path)
    parser.add_argument("acdc", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    path = RESULTS / "summary.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    places = {"SUNNYBROOK": args.sunnybrook.resolve(), "ACDC": args.acdc.resolve()}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            places["SUNNYBROOK_RUN"] = Path(folder) / "sunnybrook"
            for name in args.kinds:
                data, given = RUNS[name]
                output, command = Path(folder) / name, [*TRAIN, "--dataset_dir", data, *given, "--seed", str(seed)]
                runs[f"{name}-seed{seed}"] = run(command, places, output, RESULTS / f"{name}-seed{seed}.json")
                path.write_text(json.dumps(summary(runs), indent=2) + "\n")


def run(command: list[str], places: dict[str, Path], output: Path, result: Path) -> dict:
    """One training; keeps its ``metrics.json`` as ``result`` and returns what the summary says of it."""
    print(shlex.join(command), flush=True)
    filled = [sys.executable, *command[1:]]
    for name in sorted(places, key=len, reverse=True):
        filled = [
            str(places[name]) + word.removeprefix(name) if word.split("/")[0] == name else word for word in filled
        ]
    began, used = time.perf_counter(), os.times()
    subprocess.run([*filled, "--output_dir", str(output)], cwd=ROOT, check=True)
    seconds, after = time.perf_counter() - began, os.times()
    result.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(output / "metrics.json", result)
    val = json.loads(result.read_text())["val"]
    slices, patients = val["per_slice"], val["metrics"]
    return {
        "command": shlex.join(command),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(after[2:4]) - sum(used[2:4]), 1),
        "slice_dice": slices["metrics"]["dice"]["value"],
        "slice_dice_interval": slices["metrics"]["dice"]["interval"],
        "patient_dice": patients["dice"]["value"],
        "patient_dice_interval": patients["dice"]["interval"],
        "structures": {name: table["dice"]["value"] for name, table in slices["per_structure"].items()},
        "false_positives": slices["metrics"]["false_positives"]["value"],
        "slices": val["slices"],
        "patients": val["patients"],
    }


def summary(runs: dict) -> dict:
    """The machine, every run and the means of each kind."""
    keys = ("slice_dice", "patient_dice", "seconds", "cpu_seconds")
    groups = {kind: [run for name, run in sorted(runs.items()) if name.startswith(f"{kind}-seed")] for kind in RUNS}
    return {
        "machine": {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "runs": dict(sorted(runs.items())),
        "mean": {
            kind: {key: statistics.mean(run[key] for run in group) for key in keys}
            for kind, group in groups.items()
            if group
        },
    }


if __name__ == "__main__":
    main()
