"""Time one slice of a large multi-frame DICOM file, against pydicom's own single-frame access and MONAI's LoadImage.

    python benchmarks/dicom_frames.py [--repeats 9]

A breast tomosynthesis volume of 60 frames of 2457 x 1996 pixels is drawn and stored raw and as JPEG-LS; the middle
frame is then read in turn by each way, file cache warm. Medians go to ``results/dicom/frames.json``.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from monai.transforms import LoadImage
from pydicom.pixels import pixel_array

from medtl_monai.data import read_frame
from medtl_monai.data.phantoms.dbt import write_tomosynthesis

RESULTS = Path(__file__).resolve().parent / "results" / "dicom" / "frames.json"
SHAPE = (60, 2457, 1996)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        volume = breast(SHAPE)
        for name, compress in (("raw", False), ("JPEG-LS", True)):
            path = Path(folder) / f"{name}.dcm"
            write_tomosynthesis(path, volume, compress=compress)
            found[name] = {"megabytes": round(path.stat().st_size / 1e6, 1), **measure(path, args.repeats)}
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    result = {"shape": SHAPE, "frame": SHAPE[0] // 2, "repeats": args.repeats, "machine": machine, "seconds": found}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def breast(shape: tuple[int, int, int]) -> np.ndarray:
    """Noise inside half an ellipse: about as compressible as a breast."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : shape[1] * 1j, 0 : 1 : shape[2] * 1j]
    inside = (y**2 / 0.7 + x**2 / 0.6) < 1
    return np.stack([inside * rng.normal(500, 12, shape[1:]) for _ in range(shape[0])]).astype(np.uint16)


def measure(path: Path, repeats: int) -> dict[str, float]:
    middle = SHAPE[0] // 2
    ways = {
        "ours": lambda: read_frame(path, middle),
        "pydicom, one frame": lambda: pixel_array(path, index=middle),
        "MONAI LoadImage": lambda: LoadImage("PydicomReader", image_only=True)(path),
    }
    times = {name: [] for name in ways}
    np.testing.assert_array_equal(ways["ours"](), ways["pydicom, one frame"]())
    for turn in range(repeats):
        for name, way in ways.items():
            if name != "MONAI LoadImage" or turn < 3:  # slow
                began = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - began)
    return {name: round(statistics.median(values), 5) for name, values in times.items()}


if __name__ == "__main__":
    main()
