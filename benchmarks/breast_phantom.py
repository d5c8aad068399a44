"""Train the breast bundle on tomosynthesis phantoms by both data strategies and score the patients of another cohort.

    python benchmarks/breast_phantom.py

Forty synthetic patients in the layout of BCS-DBT are read from DICOM for training; every slice of forty others is
scored by ``evaluate.json``, and slices, views and patients are given. Strategy 1 has some thirty times as many slices
and gets fewer epochs. Goes to ``results/breast_phantom/summary.json``.
"""

import json
import tempfile
from pathlib import Path

from bundle_runs import METRICS, ROOT, cpu, start

from medtl_monai.data import make_dbt_cohort

BUNDLE = "breast_dbt_classification"
EPOCHS = {1: 3, 2: 13}


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        cohorts = [make_dbt_cohort(Path(folder) / str(seed), seed=seed) for seed in (0, 1)]
        for strategy, epochs in EPOCHS.items():
            output = Path(folder) / f"run{strategy}"
            given = ("--data_strategy", str(strategy), "--epochs", str(epochs))
            _, seconds = start(BUNDLE, cohorts[0], output, given)
            best = output / "checkpoints" / "best.pt"
            start(BUNDLE, cohorts[1], output / "scored", ("--checkpoint", str(best)), "evaluate")
            metrics = json.loads((output / "scored" / "metrics.json").read_text())
            levels = {"slices": metrics["test"], **metrics["levels"]["test"]}
            found[f"strategy {strategy}"] = {
                "given": " ".join(given),
                "minutes": round(seconds / 60, 1),
                **{level: scores(of) for level, of in levels.items()},
            }
    path = ROOT / "benchmarks" / "results" / "breast_phantom" / "summary.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cpu": cpu(), "runs": found}, indent=2) + "\n")


def scores(part: dict) -> dict:
    values = {name: {key: part["metrics"][name][key] for key in ("value", "interval")} for name in METRICS}
    return {"images": part["images"], "patients": part["patients"], **values}


if __name__ == "__main__":
    main()
