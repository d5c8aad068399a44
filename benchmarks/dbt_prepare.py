"""Prepare a tomosynthesis study for the network: 4 views of 60 frames of 2457 x 1996, one slice a view.

    python benchmarks/dbt_prepare.py

The files are written raw or as JPEG-LS; then a fresh process reads, crops, scales and resizes the middle slices, once:
what a first study costs, imports excluded. Wall time and the process's peak memory, imports included, go to
``results/dbt/prepare.json``.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from dicom_frames import SHAPE, breast

from medtl_monai.data.phantoms.dbt import VIEWS, write_tomosynthesis

RESULTS = Path(__file__).resolve().parent / "results" / "dbt" / "prepare.json"
PREPARE = """
import json, sys, time
from pathlib import Path
from monai.transforms import Compose, LoadImaged, Resized, ScaleIntensityRangePercentilesd
from medtl_monai.data import READERS, FaceBreastd, ToSliced, header

def peak():  # of this process alone: ru_maxrss begins with the parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

before = peak()
began = time.perf_counter()
prepare = Compose([
    LoadImaged("image", READERS, image_only=True), ToSliced("image"), FaceBreastd("image"),
    Resized("image", (224, 224)), ScaleIntensityRangePercentilesd("image", 0, 99.9, 0, 1, clip=True),
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
    for name, compress in (("raw", False), ("JPEG-LS", True)):
        with tempfile.TemporaryDirectory() as folder:
            for view in VIEWS:
                write_tomosynthesis(Path(folder) / f"{view}.dcm", volume, view=view, compress=compress)
            done = subprocess.run([sys.executable, "-c", PREPARE, folder], check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    result = {"views": len(VIEWS), "shape": SHAPE, "machine": machine, "prepared": found}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
