"""Fine-tune the brain-MRI bundle on real slices, split by patient block, with and without pretrained weights.

    python benchmarks/brain_mri.py DATA [--seeds 0 1 2] [--starts imagenet none]

``DATA`` is a folder with an ``index.csv`` whose columns are image, label and block. For every seed (which chooses the
split, too) and both starting points the stock command is run; each run's ``metrics.json`` and their summary
go to ``results/brain_mri/``. The README's table is rendered from the summary (``make docs``).
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "brain_mri"
CONFIG = "bundles/brain_mri_classification/configs/train.json"
STARTS = {"imagenet": (), "none": ("--weights", "none")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    args = parser.parse_args()
    path = RESULTS / "summary.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    for start in args.starts:
        for seed in args.seeds:
            runs[f"{start}-seed{seed}"] = run(args.data, start, seed)
            path.write_text(json.dumps(summary(runs), indent=2) + "\n")


def summary(runs: dict) -> dict:
    groups = {start: [result for name, result in sorted(runs.items()) if name.startswith(start)] for start in STARTS}
    keys = ("accuracy", "balanced_accuracy", "auc", "seconds")
    return {
        "machine": {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "runs": dict(sorted(runs.items())),
        "mean": {
            start: {key: statistics.mean(result[key] for result in group) for key in keys}
            for start, group in groups.items()
            if group
        },
    }


def run(data: Path, start: str, seed: int) -> dict:
    command = [
        "python", "-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", "DATA",
        "--patient_column", "block", "--seed", str(seed), *STARTS[start],
    ]  # fmt: skip
    print(" ".join(command), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        began = time.perf_counter()
        filled = [sys.executable, *(str(data.resolve()) if word == "DATA" else word for word in command[1:])]
        subprocess.run([*filled, "--output_dir", str(output)], cwd=ROOT, check=True)
        seconds = time.perf_counter() - began
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(output / "metrics.json", RESULTS / f"{start}-seed{seed}.json")
    val = json.loads((RESULTS / f"{start}-seed{seed}.json").read_text())["val"]
    values = {key: val["metrics"][key]["value"] for key in ("accuracy", "balanced_accuracy", "auc")}
    intervals = {f"{key}_interval": val["metrics"][key]["interval"] for key in ("accuracy", "auc")}
    counts = {"images": val["images"], "patients": val["patients"]}
    return {"command": " ".join(command), "seconds": round(seconds, 1), **values, **intervals, **counts}


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
