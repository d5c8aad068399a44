"""Damaged images: each is read as it was, or refused in one sentence that names it, in time and without much memory.

``python tests/test_fuzz.py`` writes what became of the files of the slow test into the results, from which the docs
render their table.
"""

import io
import json
import os
import random
import resource
import select
import signal
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import h5py
import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from conftest import ROOT, make_dicom
from PIL import Image
from pydicom.uid import RLELossless

from medtl_monai.data.read.any import read_image
from medtl_monai.utils import UserError

RESULT = ROOT / "benchmarks" / "results" / "data" / "fuzz.json"
SECONDS, BYTES = 10, 4 * 2**30  # for one file, above what the process has
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 20), dtype=np.uint8)
VOLUME = np.random.default_rng(1).normal(size=(12, 10, 6)).astype(np.float32)


def picture(mode=None, **options):
    def make(path):
        array = PIXELS.astype(np.uint16) * 200 if mode == "I;16" else PIXELS
        array = np.stack([PIXELS, PIXELS.T.reshape(24, 20), 255 - PIXELS], -1) if mode == "RGB" else array
        image = Image.fromarray(array)
        image.quantize(16).save(path) if mode == "P" else image.save(path, **options)

    return make


def nifti(path):
    nib.save(nib.Nifti1Image(VOLUME, np.diag([1, 1.5, 2, 1])), path)


def by_itk(path):
    itk.imwrite(itk.image_from_array(VOLUME), str(path), compression=path.suffix == ".nrrd")


def hdf5(path):
    with h5py.File(path, "w") as file:
        file["image"] = VOLUME[..., 0]


def dicom(frames=0, compressed=False):
    def make(path):
        pixels = np.stack([PIXELS.astype(np.uint16)] * frames) if frames else PIXELS.astype(np.uint16)
        make_dicom(path, pixels, PixelSpacing=[1.0, 1.0])
        if compressed:
            file = pydicom.dcmread(path)
            file.compress(RLELossless)
            file.save_as(path)

    return make


KINDS = {
    "8 bits.png": picture(),
    "16 bits.png": picture("I;16"),
    "palette.png": picture("P"),
    "colour.png": picture("RGB"),
    "grey.jpg": picture(),
    "colour.jpg": picture("RGB", quality=90),
    "grey.bmp": picture(),
    "grey.gif": picture(),
    "grey.webp": picture(lossless=True),
    "grey.tif": picture(),
    "lzw.tif": picture(compression="tiff_lzw"),
    "16 bits.tif": picture("I;16"),
    "plain.nii": nifti,
    "gzip.nii.gz": nifti,
    "gzip.nrrd": by_itk,
    "plain.mha": by_itk,
    "image.h5": hdf5,
    "zip.npz": lambda path: np.savez_compressed(path, image=PIXELS),
    "one.dcm": dicom(),
    "frames.dcm": dicom(frames=5),
    "rle.dcm": dicom(compressed=True),
    "rle frames.dcm": dicom(frames=3, compressed=True),
}
CHECKED = ("png", "gz", "npz")  # these formats have checksums over all values


def mutated(content, chance):
    """The bytes with a few changed, cut off, put in, repeated or blanked."""
    data, kind = bytearray(content), chance.choice(["bytes", "head", "cut", "insert", "blank", "repeat"])
    at, length = chance.randrange(len(data)), chance.randint(1, 64)
    if kind in ("bytes", "head"):
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(min(len(data), 400) if kind == "head" else len(data))] = chance.randrange(256)
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = chance.randbytes(length)
    elif kind == "blank":
        data[at : at + length] = chance.choice([b"\0", b"\xff"]) * len(data[at : at + length])
    else:
        data[at:at] = data[at : at + length]
    return bytes(data)


def outcome(path, expected):
    """What reading a file comes to: ``same``, ``other`` values, ``refused``, or the exception that must not be."""
    try:
        array, _ = read_image(path)
    except UserError as error:
        return "refused" if path.name.partition("#")[0] in str(error) else f"unnamed: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if not np.isfinite(array).all():
        return "not finite"
    return "same" if array.shape == expected.shape and np.array_equal(array, expected) else "other"


def outcomes(name, count, seed):
    """Of ``count`` mutations, read in a process of their own that may be killed; with the number of each."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        KINDS[name](path)
        image = f"{path}#image" if name.endswith("npz") else path
        expected, content, chance = read_image(image)[0], path.read_bytes(), random.Random(f"{name} {seed}")
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + BYTES
            resource.setrlimit(resource.RLIMIT_AS, (room, room))
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            warnings.simplefilter("ignore")
            for _ in range(count):
                path.write_bytes(mutated(content, chance))
                line = outcome(Path(image), expected).replace("\n", " ")[:300]
                os.write(writing, f"{line}\n".encode())
            os._exit(0)
        os.close(writing)
        found = _listen(reading, child, count)
        os.close(reading)
        os.waitpid(child, 0)
    return found


def _listen(reading, child, count):
    text = io.BytesIO()
    while text.getvalue().count(b"\n") < count:
        ready, _, _ = select.select([reading], [], [], SECONDS)
        chunk = os.read(reading, 2**16) if ready else b""
        if not chunk:  # it hangs, or is gone
            os.kill(child, signal.SIGKILL)
            text.write(b"killed\n" if ready else b"over time\n")
            break
        text.write(chunk)
    return text.getvalue().decode(errors="replace").splitlines()


def wrong(name, found):
    """The outcomes that must not be, with their numbers."""
    allowed = {"same", "refused"} | (set() if name.endswith(CHECKED) else {"other"})
    return [(number, said) for number, said in enumerate(found) if said not in allowed]


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_as_it_was_or_refused(name):
    found = outcomes(name, 50, 0)
    assert len(found) == 50
    assert wrong(name, found) == []
    assert "refused" in found


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_thousand_damaged_files_of_each_kind(name):
    assert wrong(name, outcomes(name, 1000, 1)) == []


if __name__ == "__main__":
    table = {}
    for kind in KINDS:
        every = outcomes(kind, 1000, 1)
        assert wrong(kind, every) == [], wrong(kind, every)
        table[kind] = dict(sorted(Counter(every).items()))
        print(kind, table[kind], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
