"""Compare normalizations and dropout rates of the chest X-ray bundle on real radiographs, split by patient.

    python benchmarks/variants.py DATA [--seeds 0 1 2] [--variants batch frozen ...] [--again]

``DATA`` is a folder with an ``index.csv`` whose columns are image, label and patient. For every variant and seed, which
chooses the split too, the stock command is run on small images for a few epochs. Runs whose result is there are left
out, unless ``--again``. The radiographs name no scanner, so the domain is their exposure: ``light`` if the mean grey
value is at least 0.48, about the median, else ``dark``; it is known of any image and says next to nothing of the
diagnosis, as the result shows. Each run's ``metrics.json`` goes to ``results/variants/chest/``, their summary to
``results/variants/chest.json``, from which ``docs/variants.md`` is rendered (``make docs``). The seconds of
a run are by the clock, whatever else the machine did: they compare nothing.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

import numpy as np
from bundle_runs import METRICS, ROOT, copy_with_table, cpu, read_table, run
from PIL import Image
from scipy.stats import t

RESULTS = ROOT / "benchmarks" / "results" / "variants" / "chest"
SETTINGS = ("--image_size", "96", "--epochs", "3", "--strategy", "finetune")
SETTINGS += ("--inferer::scales", "[1.0]", "--layout", "table")
VARIANTS = {
    "batch": (),  # with the network's own dropout, 0.2
    **{name: ("--variant::norm", name) for name in ("frozen", "renorm", "group", "domain")},
    **{f"dropout {rate}": ("--variant::dropout", rate) for rate in ("0.0", "0.5", "0.8")},
}
LIGHT = 0.48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    path = RESULTS.with_suffix(".json")
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        exposure = with_domains(args.data.resolve(), data)
        for seed in args.seeds:
            for variant in args.variants:
                name = f"{variant}-seed{seed}"
                if name not in runs or args.again:
                    given = (*SETTINGS, *VARIANTS[variant], "--seed", str(seed))
                    result = RESULTS / f"{name.replace(' ', '_')}.json"
                    runs[name] = run("chest_xray_classification", data, result, given)
                    path.write_text(json.dumps({"exposure": exposure, **summary(runs)}, indent=2) + "\n")


def with_domains(source: Path, folder: Path) -> dict:
    """A copy of the data with a column ``domain``; how many images it divides."""
    rows = read_table(source)
    counts: dict[str, dict[str, int]] = {"dark": {}, "light": {}}
    for row in rows:
        grey = np.asarray(Image.open(source / row["image"]).convert("L")).mean() / 255
        row["domain"] = "light" if grey >= LIGHT else "dark"
        counts[row["domain"]][row["label"]] = counts[row["domain"]].get(row["label"], 0) + 1
    copy_with_table(source, folder, rows)
    return counts


def summary(runs: dict) -> dict:
    """The machine, every run, and of each variant mean and 95% interval over the seeds, and both of its differences to
    ``batch`` on the same seeds."""
    seeds = {variant: seeds_of(runs, variant) for variant in VARIANTS}
    found = {}
    for variant, mine in ((name, those) for name, those in seeds.items() if those):
        both = [seed for seed in mine if seed in seeds["batch"]]
        found[variant] = {"seeds": mine}
        for key in METRICS:
            values = {s: runs[f"{variant}-seed{s}"][key] for s in mine}
            found[variant][key] = over(list(values.values()))
            if both and variant != "batch":
                found[variant][f"{key}_difference"] = over([values[s] - runs[f"batch-seed{s}"][key] for s in both])
    machine = {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    return {"machine": machine, "settings": " ".join(SETTINGS), "variants": found, "runs": dict(sorted(runs.items()))}


def seeds_of(runs: dict, variant: str) -> list[int]:
    """The seeds that a variant was run with."""
    return sorted(int(name.rsplit("-seed", 1)[1]) for name in runs if name.rsplit("-seed", 1)[0] == variant)


def over(values: list[float]) -> dict:
    """Mean, and its interval after Student's t; ``None`` of a single value."""
    if len(values) < 2:
        return {"mean": values[0], "interval": None}
    mean = statistics.mean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": mean, "interval": [mean - half, mean + half]}


if __name__ == "__main__":
    main()
