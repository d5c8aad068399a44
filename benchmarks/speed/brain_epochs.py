"""The whole brain bundle, from its start to 0.93 validation accuracy, against MONAI's transforms and no cache.

The reference runs the same configuration with ``--transforms monai`` (each image on its own) and a plain ``Dataset``;
both train without boxes and averages of weights, for up to 13 epochs of which a fifth warms up.
``MEDTL_BENCH_DATA`` names a folder with an ``index.csv`` (patients in the column ``block``); without it the synthetic
cohort is used. The folder is split by seed 2: of the accuracy benchmark's three splits the only one on which single
epochs reach 0.93. Both are started, and take turns of ten seconds in which the other is halted, so that a noisy machine
slows both alike; each is stopped when its log tells of an epoch that reaches the accuracy. One training each: how many
epochs it takes is chance as much as method.
"""

import os
import sys
import tempfile
from pathlib import Path

from turns import Run

WANTED = 0.93  # accuracy
CONFIG = "bundles/brain_mri_classification/configs/train.json"
PLAIN = "{'_target_':'Dataset','data':\"$@parts.of('%s')\",'transform':'@%s::preprocessing'}"
REFERENCE = (
    "--transforms", "monai", "--train::dataset", PLAIN % ("train", "train"),
    "--validate::dataset", PLAIN % ("val", "validate"),
)  # fmt: skip


def measure(repeats: int) -> dict:
    data = os.environ.get("MEDTL_BENCH_DATA")
    given = ("--dataset_dir", data, "--patient_column", "block", "--seed", "2") if data else ()
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", CONFIG, "--box_columns", "null",
               "--strategy", "partial_freeze", "--epochs", "13", "--lr_scheduler::pct_start", "0.2",
               *given]  # fmt: skip
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, args in {"ours": (), "reference": REFERENCE}.items():
                output = Path(folder) / name
                runs.append(Run([*command, *args, "--output_dir", str(output)], output.with_suffix(".log")))
            while going := [run for run in runs if not reached(run)]:
                for run in going:
                    run.turn(WANTED)
        finally:
            for run in runs:
                run.stop()
    ours, reference = runs
    ratio = round(reference.seconds / ours.seconds, 2)
    times = {"ours_ms": round(1e3 * ours.seconds), "reference_ms": round(1e3 * reference.seconds)}
    case = f"to {WANTED} accuracy, after {len(ours.epochs)} epochs against {len(reference.epochs)}"
    return {case: {**times, "ratio": ratio, "spread": [ratio, ratio], "bar": 2.0, "repeats": 1}}


def reached(run: Run) -> bool:
    """Whether the last epoch had the accuracy; an end without it is an error."""
    found = bool(run.epochs) and run.epochs[-1]["val_accuracy"] >= WANTED
    if run.done and not found:
        raise SystemExit(f"no epoch reached {WANTED}; the log ends: {run.log.read_text()[-500:]}")
    return found
