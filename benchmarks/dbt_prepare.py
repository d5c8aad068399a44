"""Prepare a tomosynthesis study for the network: 4 views of 60 frames of 2457 x 1996, one slice a view.

    python benchmarks/dbt_prepare.py

The files are written raw or as JPEG-LS; then five fresh processes read, crop, resize and scale the middle slices, each
once: what a first study costs, imports excluded. The medians of wall time and of the process's peak memory, imports
included, go to ``results/dbt/prepare.json``. MONAI imports whatever it knows and finds installed, so that the memory is
that of the environment too: run it in one of ``medtl_monai[dicom]`` alone.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from dicom_frames import SHAPE, breast

from medtl_monai.data.phantoms.dbt import VIEWS, write_tomosynthesis

RESULTS = Path(__file__).resolve().parent / "results" / "dbt" / "prepare.json"
KINDS = (("raw", False), ("JPEG-LS", True))
PREPARE = """
import json, sys, time
from pathlib import Path
from monai.transforms import Compose, LoadImaged, Resized
from medtl_monai.data import AnyReader, FaceBreastd, ScalePercentilesd, ToSliced, header

def peak():  # of this process alone: ru_maxrss begins with the parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

before = peak()
began = time.perf_counter()
prepare = Compose([
    LoadImaged("image", AnyReader, image_only=True), ToSliced("image"), FaceBreastd("image"),
    Resized("image", (224, 224)), ScalePercentilesd("image", upper=99.9),
])
items = [{"image": f"{path}#{header(path).frames // 2}"} for path in sorted(Path(sys.argv[1]).glob("*.dcm"))]
done = [prepare(item) for item in items]
seconds = time.perf_counter() - began
assert len(done) == 4 and all(item["image"].shape == (1, 224, 224) for item in done)
print(json.dumps({"seconds": round(seconds, 3), "peak_MB": round(peak()), "of_it_imports_MB": round(before)}))
"""


def main() -> None:
    found = {}
    volume = breast(SHAPE)
    for name, compress in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            first = Path(folder) / f"{VIEWS[0]}.dcm"
            write_tomosynthesis(first, volume, view=VIEWS[0], compress=compress)
            for view in VIEWS[1:]:
                shutil.copy(first, first.with_name(f"{view}.dcm"))
            command = [sys.executable, "-c", PREPARE, folder]
            runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(5)]
        values = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
        found[name] = {key: statistics.median(value[key] for value in values) for key in values[0]}
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    result = {"views": len(VIEWS), "shape": SHAPE, "machine": machine, "prepared": found}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
