"""Where each family of strategies helps, and where it does not: paired comparisons over seeds.

    python benchmarks/benefits.py DATA [--seeds 0 1 2] [--studies scarcity scanners ...] [--tiny]

``DATA`` is the folder of Kermany's radiographs with an ``index.csv`` of image, subtype and patient. Every way is
trained on the same data as the baseline of its seed; the difference of the two is what counts, with the 95% interval of
Student's t over the seeds. Each core makes a run of its own. Results go to ``results/benefits/benefits.json``
run by run: a killed study goes on where it was.
"""

import argparse
import json
import os
import platform
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from benefit_features import NAMES as ON_FEATURES
from benefit_features import studies as on_features
from benefit_studies import NAMES as ON_IMAGES
from benefit_studies import TINY, Scale, Study
from benefit_studies import studies as on_images
from bundle_runs import cpu
from scipy.stats import ttest_rel

RESULTS = Path(__file__).resolve().parent / "results" / "benefits" / "benefits.json"
NAMES = (*ON_IMAGES, *ON_FEATURES)


def main() -> None:
    """Run what is asked for and not yet there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: five, or twenty where a run takes seconds")
    parser.add_argument("--studies", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--ways", nargs="+", help="only these of each study, besides its baseline")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="few small images for one epoch: to try the script")
    options = parser.parse_args()
    found = json.loads(options.output.read_text()) if options.output.exists() else {"studies": {}}
    scale = TINY if options.tiny else Scale()
    found["machine"] = {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    known = studies(options.data, scale)
    tasks = []
    for name in options.studies:
        study = known[name]
        entry = found["studies"].setdefault(name, {"runs": {}})
        entry |= {"about": study.about, "setting": study.setting, "metrics": study.metrics, "baseline": study.baseline}
        wanted = [way for way in study.ways if not options.ways or way in (*options.ways, study.baseline)]
        for seed in options.seeds or range(study.seeds):
            tasks += [(name, way, seed) for way in wanted if str(seed) not in entry["runs"].setdefault(way, {})]
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, get_context("spawn"), initializer=one_thread) as pool:
        waiting = {pool.submit(measure, options.data, scale, *task): task for task in tasks}
        try:
            for future in as_completed(waiting):
                name, way, seed = waiting[future]
                entry, run = found["studies"][name], future.result()
                entry["runs"][way][str(seed)] = run
                print(f"{name} {way} seed {seed}: {run}", flush=True)
                entry["summary"] = summary(entry)
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(json.dumps(found, indent=2) + "\n")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def studies(data: Path, scale: Scale) -> dict[str, Study]:
    """All of them by name."""
    return {**on_images(data, scale), **on_features(data, scale)}


def one_thread() -> None:
    """Each process has a core to itself."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "`torch.jit")


def measure(data: Path, scale: Scale, name: str, way: str, seed: int) -> dict:
    """The scores of one run and its seconds."""
    began = time.perf_counter()
    return {**studies(data, scale)[name].run(way, seed), "seconds": round(time.perf_counter() - began, 1)}


def summary(entry: dict) -> dict:
    """Of each way and metric: the mean, the mean difference to the baseline on the same seeds, and its interval."""
    base = entry["runs"][entry["baseline"]]
    result = {}
    for way, runs in entry["runs"].items():
        seeds = sorted(set(runs) & set(base), key=int)
        for metric in entry["metrics"] if seeds else ():
            mine, theirs = (np.array([where[seed][metric] for seed in seeds]) for where in (runs, base))
            cell = {"mean": float(mine.mean()), "seeds": len(seeds)}
            if way != entry["baseline"]:
                cell["difference"] = float((mine - theirs).mean())
                cell["interval"] = interval(mine, theirs)
            result.setdefault(way, {})[metric] = cell
    return result


def interval(mine: np.ndarray, theirs: np.ndarray) -> list[float] | None:
    """The 95% interval of the mean paired difference; ``None`` of fewer than two pairs."""
    if len(mine) < 2:
        return None
    if np.ptp(mine - theirs) == 0:
        return [float((mine - theirs)[0])] * 2
    return [float(x) for x in ttest_rel(mine, theirs).confidence_interval(0.95)]


if __name__ == "__main__":
    main()
