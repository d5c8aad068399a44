"""The brain bundle against a plain PyTorch loop on the same slices, split and machine, at every point of the clock.

    python benchmarks/brain_peer.py DATA WEIGHTS [--seeds 0 1 2]

``DATA`` is the folder of ``brain_mri.py``, ``WEIGHTS`` torchvision's file of MobileNetV2's ImageNet weights, which
``peer.py``, the plain loop, starts from. For every seed both are started, the bundle with its defaults, and take turns
of ten seconds in which the other is halted, so that a noisy machine slows both alike; the images are in
the system's cache before. The seconds of each one's turns and its validation metrics after every epoch, and the
bundle's final ones, go to ``results/brain_mri/peer.json``; the README's table is rendered from it (``make docs``).
"""

import argparse
import compileall
import json
import sys
import tempfile
from pathlib import Path

from timing import machine
from turns import ROOT, Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    path = ROOT / "benchmarks" / "results" / "brain_mri" / "peer.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    compileall.compile_dir(ROOT / "medtl_monai", quiet=1)
    for file in filter(Path.is_file, args.data.rglob("*")):  # the first one started would read them for both
        file.read_bytes()
    for seed in args.seeds:
        runs[f"seed{seed}"] = compare(args.data.resolve(), args.weights.resolve(), seed)
        path.write_text(json.dumps({"machine": machine(), "runs": dict(sorted(runs.items()))}, indent=2) + "\n")


def compare(data: Path, weights: Path, seed: int) -> dict[str, list[dict[str, float]]]:
    """What the bundle and the plain loop have reached after how many seconds."""
    bundle = ("-m", "monai.bundle", "run", "--config_file", "bundles/brain_mri_classification/configs/train.json",
              "--dataset_dir", str(data), "--patient_column", "block", "--seed", str(seed))  # fmt: skip
    peer = ("benchmarks/peer.py", str(data), str(weights), "--seed", str(seed))
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        try:
            for name, args in {"bundle": (*bundle, "--output_dir", str(output)), "peer": peer}.items():
                runs[name] = Run([sys.executable, *args], Path(folder) / f"{name}.log")
            while going := [run for run in runs.values() if not run.done]:
                for run in going:
                    run.turn()
        finally:
            for run in runs.values():
                run.stop()
        val = json.loads((output / "metrics.json").read_text())["val"]["metrics"]
    final = {f"val_{key}": round(val[key]["value"], 4) for key in ("auc", "accuracy")}
    runs["bundle"].epochs.append({"seconds": round(runs["bundle"].seconds, 1), **final})
    return {name: run.epochs for name, run in runs.items()}


if __name__ == "__main__":
    main()
