"""Runs of a bundle by the stock command, over seeds and variations, summarised in JSON; used by the scripts beside."""

import argparse
import csv
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
METRICS = ("accuracy", "balanced_accuracy", "auc")


def main(bundle: str, folder: str, always: tuple, starts: dict[str, tuple], about: str) -> None:
    """Run ``bundle`` for every seed and start and write ``results/<folder>/{<start>-seed<n>,summary}.json``.

    ``always`` are arguments of every run, ``starts`` those of each variation.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=starts, default=list(starts))
    args = parser.parse_args()
    results = ROOT / "benchmarks" / "results" / folder
    path = results / "summary.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    for start in args.starts:
        for seed in args.seeds:
            name = f"{start}-seed{seed}"
            runs[name] = run(
                bundle, args.data, results / f"{name}.json", (*always, "--seed", str(seed), *starts[start])
            )
            path.write_text(json.dumps(summary(runs, starts), indent=2) + "\n")


def summary(runs: dict, starts: dict) -> dict:
    """Every run and the means of each start."""
    groups = {start: [run for name, run in sorted(runs.items()) if name.startswith(f"{start}-")] for start in starts}
    return {
        "runs": dict(sorted(runs.items())),
        "mean": {
            start: {key: statistics.mean(run[key] for run in group) for key in (*METRICS, "seconds")}
            for start, group in groups.items()
            if group
        },
    }


def run(bundle: str, data: Path, result: Path, args: tuple) -> dict:
    """One training; keeps its ``metrics.json`` as ``result`` and returns what the summary says of it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        command, seconds = start(bundle, data, output, args)
        result.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(output / "metrics.json", result)
    val = json.loads(result.read_text())["val"]
    values = {key: val["metrics"][key]["value"] for key in METRICS}
    intervals = {f"{key}_interval": val["metrics"][key]["interval"] for key in ("accuracy", "auc")}
    counts = {"images": val["images"], "patients": val["patients"]}
    cores = len(os.sched_getaffinity(0))
    machine = f"{cores} core{'s' * (cores > 1)} of an {cpu()}"  # runs may be renewed elsewhere
    return {"command": command, "seconds": round(seconds, 1), **values, **intervals, **counts, "machine": machine}


def start(bundle: str, data: Path, output: Path, args: tuple, name: str = "train") -> tuple[str, float]:
    """Run a bundle's configuration by the stock command; the command, with ``DATA`` for the data, and its seconds."""
    config = f"bundles/{bundle}/configs/{name}.json"
    command = ["python", "-m", "monai.bundle", "run", "--config_file", config, "--dataset_dir", "DATA", *args]
    print(" ".join(command), flush=True)
    filled = [sys.executable, *(str(data.resolve()) if word == "DATA" else word for word in command[1:])]
    began = time.perf_counter()
    subprocess.run([*filled, "--output_dir", str(output)], cwd=ROOT, check=True)
    return " ".join(command), time.perf_counter() - began


def read_table(folder: Path) -> list[dict[str, str]]:
    """The rows of ``index.csv``."""
    with (folder / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def copy_with_table(source: Path, folder: Path, rows: list[dict[str, str]]) -> None:
    """Make ``folder`` with these rows as its ``index.csv``, beside links to the folders of ``source``."""
    folder.mkdir()
    for path in source.iterdir():
        if path.is_dir():
            (folder / path.name).symlink_to(path)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
