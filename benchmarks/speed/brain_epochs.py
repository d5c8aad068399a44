"""The whole brain bundle, from its start to 0.93 validation accuracy, against MONAI's transforms and no cache.

The reference runs the same configuration with ``--transforms monai`` (each image on its own) and a plain ``Dataset``;
both train without boxes, for up to 13 epochs.
``MEDTL_BENCH_DATA`` names a folder with an ``index.csv`` (patients in the column ``block``); without it the synthetic
cohort is used. The folder is split by seed 2: of the accuracy benchmark's three splits the only one on which single
epochs reach 0.93. Both are started, and take turns of ten seconds in which the other is halted, so that a noisy machine
slows both alike; each is stopped when its log tells of an epoch that reaches the accuracy. One training each: how many
epochs it takes is chance as much as method.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WANTED, TURN = 0.93, 10.0  # accuracy; seconds
PLAIN = "{'_target_':'Dataset','data':\"$@parts.of('%s')\",'transform':'@%s::preprocessing'}"
REFERENCE = (
    "--transforms", "monai", "--train::dataset", PLAIN % ("train", "train"),
    "--validate::dataset", PLAIN % ("val", "validate"),
)  # fmt: skip


def measure(repeats: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        runs: list[Run] = []
        try:
            runs += [Run(Path(folder) / "ours", ())]
            runs += [Run(Path(folder) / "reference", REFERENCE)]
            while going := [run for run in runs if not run.epochs]:
                for run in going:
                    run.turn()
        finally:
            for run in runs:
                run.signal(signal.SIGKILL)
                run.process.wait()
    ours, reference = runs
    ratio = round(reference.seconds / ours.seconds, 2)
    times = {"ours_ms": round(1e3 * ours.seconds), "reference_ms": round(1e3 * reference.seconds)}
    case = f"to {WANTED} accuracy, after {ours.epochs} epochs against {reference.epochs}"
    return {case: {**times, "ratio": ratio, "spread": [ratio, ratio], "bar": 2.0, "repeats": 1}}


class Run:
    """A training that is halted but in its turns.

    Attributes:
        seconds: of its turns, until the accuracy was reached.
        epochs: after which it was reached; 0 before.
    """

    def __init__(self, folder: Path, args: tuple[str, ...]) -> None:
        data = os.environ.get("MEDTL_BENCH_DATA")
        given = ("--dataset_dir", data, "--patient_column", "block", "--seed", "2") if data else ()
        config = "bundles/brain_mri_classification/configs/train.json"
        same = ("--box_columns", "null", "--epochs", "13")
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *same, *given, *args]
        self.seconds, self.epochs, self.log = 0.0, 0, folder.with_suffix(".log")
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "--output_dir", str(folder)], cwd=ROOT, stdout=out, stderr=out, start_new_session=True
            )
        self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def turn(self) -> None:
        """Let it run for a while, at most until it has reached the accuracy."""
        self.signal(signal.SIGCONT)
        began = time.perf_counter()
        while time.perf_counter() < began + TURN and not self.epochs:
            time.sleep(0.1)
            found = re.findall(r"epoch (\d+)/\d+: .*val_accuracy (\d\.\d+)", self.log.read_text())
            self.epochs = next((int(epoch) for epoch, accuracy in found if float(accuracy) >= WANTED), 0)
            if self.process.poll() is not None and not self.epochs:
                raise SystemExit(f"no epoch reached {WANTED}; the log ends: {self.log.read_text()[-500:]}")
        self.seconds += time.perf_counter() - began
        self.signal(signal.SIGSTOP)
