"""Fixtures shared by all tests."""

import os

# before torch is imported: the threads of one test process wait for the cores that the others have
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from skimage.measure import find_contours
from warm import Warm

from medtl_monai.data import make_brain_cohort
from medtl_monai.strategies import Context

ROOT = Path(__file__).resolve().parents[1]


def _shared(name: str) -> Path:
    data = Path(os.environ.get("MEDTL_DATA", ROOT.parent / "shared" / "data"))
    path = data if name == "data" else data.parent / name
    if not path.is_dir():
        pytest.skip(f"real {name} not at hand: {path} is missing (MEDTL_DATA names the data folder)")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Folder of real weight files."""
    return _shared("weights")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Folder of reference outputs."""
    return _shared("reference")


class Images:
    """Images without labels for strategies: the same batches after every restart."""

    def __init__(self, channels=1, size=(6, 6)):
        self.shape = (8, channels, *size)
        self.restart()

    def __iter__(self):
        yield from self.next("plain")

    def restart(self):
        self.generator = torch.Generator().manual_seed(1)

    def next(self, *views):
        image = torch.randn(self.shape, generator=self.generator) + 1
        return [image if view == "plain" else image + 0.1 for view in views]


def context(features, classes=2, task="classification", **images):
    """What a run offers to strategies."""
    head = torch.nn.Linear(features, 5)
    return Context(
        labels=[i % classes for i in range(16)],
        classes=classes,
        target=Images(**images),
        source_head=head,
        task=task,
        source=Images(**images).next("plain", "augmented"),
        weights=["0.5", "1.5"] * 8,
        domains=["other", "other", "target", "target"] * 4,
        boxes=[[0, 0, 3, 3]] * 16,
    )


class Cli:
    """Runs ``python -m monai.bundle run`` on a copy of a bundle, so that the repository stays clean."""

    def __init__(self, bundle, dataset, cache, warm):
        self.bundle, self.dataset, self.warm = bundle, dataset, warm
        quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
        offline = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https")}
        self.env = {**os.environ, "MEDTL_CACHE": str(cache), **quiet, **offline}

    def command(self, name, *args, launcher=("-m",)):
        """The command line; ``dataset_dir`` is the test's cohort unless ``args`` name another."""
        files = [str(self.bundle / "configs" / f"{n}.json") for n in name.split("+")]
        config = files[0] if len(files) == 1 else str(files)
        data = () if "--dataset_dir" in args else ("--dataset_dir", str(self.dataset))
        return [sys.executable, *launcher, "monai.bundle", "run", "--config_file", config, *data, *map(str, args)]

    def __call__(self, name, *args, cwd=None, **kwargs):
        """Run to the end, with ``launcher`` in a new Python; the completed process."""
        if "launcher" not in kwargs:
            _, _, module, *words = self.command(name, *args)
            return self.warm(module, words, cwd or self.bundle, self.env)
        return subprocess.run(
            self.command(name, *args, **kwargs), cwd=cwd or self.bundle, env=self.env, text=True, capture_output=True,
            timeout=600, check=False,
        )  # fmt: skip

    def train(self, output, *args, **kwargs):
        """A short training that must succeed."""
        quick = ("--epochs", 1, "--image_size", 32, "--batch_size", 8)
        done = self("train", "--output_dir", output, *quick, *args, **kwargs)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def refuses(self, output, message, *args):
        """A training that must end in one sentence that matches ``message`` and leave nothing."""
        done = self("train", "--output_dir", output, *args)
        assert done.returncode == 1, done.stdout
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert re.search(message, errors[0])
        assert "Traceback" not in done.stdout + done.stderr
        assert not output.exists()

    def train_in_two_processes(self, output, port, *args):
        """A short training in two processes, and the evaluation of its model by a single one; that one's output."""
        launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", "-m")
        quick = ("--epochs", 1, "--image_size", 32, "--output_dir", output)
        # Gloo's threads are gone before Python ends: one that is left may abort the process
        names = "[open(path).read() for path in __import__('glob').glob('/proc/self/task/*/comm')]"
        more = output.with_name("more")
        step = f"$print('threads left:', sum('gloo' in name for name in {names}))"
        more.with_suffix(".json").write_text(json.dumps({"+run": [step]}))
        done = self(f"train+multi_gpu_train+{more}", *quick, *args, launcher=launcher)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("threads left: 0") == 2, done.stdout
        alone = output.with_name("alone")
        done = self("evaluate", "--output_dir", alone, "--checkpoint", output / "checkpoints" / "best.pt")
        assert done.returncode == 0, done.stdout + done.stderr
        return alone

    def kill(self, output, epochs, *args):
        """Start a short training and kill it once ``epochs`` are done; its last checkpoint."""
        quick = ("--image_size", 32, "--batch_size", 8, "--output_dir", output)
        command = self.command("train", *quick, *args)
        process = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        last, deadline = output / "checkpoints" / "last.pt", time.monotonic() + 120
        # held while its checkpoint is read: on a busy machine it would be over meanwhile
        while not (last.exists() and states(last)["trainer"]["epoch"] >= epochs) and time.monotonic() < deadline:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
            assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        return last

    def missing_properties(self, name):
        """Which of MONAI's standard properties a configuration lacks."""
        kind = "train" if name == "train" else "infer"
        small = {"image_size": 32} if name == "train" else {}
        path = str(self.bundle / "configs" / f"{name}.json")
        options = {"dataset_dir": str(self.dataset), "logging_file": False, "initialize": [], **small}
        workflow = ConfigWorkflow(path, workflow_type=kind, **options)
        workflow.initialize()
        return workflow.check_properties()


@pytest.fixture(scope="session")
def make_cli(tmp_path_factory):
    """Makes the command line of a bundle, given its name and the default dataset of the tests."""
    warm = Warm()

    def make(name, dataset):
        folder = tmp_path_factory.mktemp("bundles") / name
        shutil.copytree(ROOT / "bundles" / name, folder, ignore=shutil.ignore_patterns("runs", "*.pt"))
        return Cli(folder, dataset, tmp_path_factory.mktemp("cache"), warm)

    yield make
    warm.close()


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A phantom cohort of 24 patients."""
    return make_brain_cohort(
        tmp_path_factory.mktemp("data") / "brain", patients=24, slices=(1, 2), size=48, progress=False
    )


@pytest.fixture(scope="session")
def cli(make_cli, cohort):
    """The brain bundle's command line."""
    return make_cli("brain_mri_classification", cohort)


def make_dicom(path, pixels, **tags):
    """A CT file of one or several frames; ``tags`` by keyword."""
    pixels = np.asarray(pixels)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = pydicom.uid.generate_uid()
    file.SeriesInstanceUID, file.Modality = "1.2.3", "CT"
    file.Rows, file.Columns = pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.BitsAllocated = file.BitsStored = 8 * pixels.itemsize
    file.HighBit = file.BitsAllocated - 1
    if pixels.ndim == 3:
        file.NumberOfFrames = len(pixels)
    if pixels.dtype.kind == "f":
        del file.BitsStored, file.HighBit, file.PixelRepresentation
        file.FloatPixelData = pixels.tobytes()
    else:
        file.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        setattr(file, keyword, value)
    file.save_as(path, enforce_file_format=True)
    return path


def sunnybrook_original(root, hearts):
    """A phantom cohort of hearts in the folders of the original Sunnybrook data; the mask of each slice by its file.

    Each stack's slices are numbers 1, 2 (ED) and 11, 12 (ES) of its short-axis series; number 5 has no contour. Outer
    contours are drawn in diastole alone, as in the original.
    """
    masks, lines = {}, ["PatientID,OriginalID,Gender,Age,Pathology"]
    for number, folder in enumerate(sorted(hearts.glob("patient*")), start=1):
        group = ("HF-I", "HF-NI", "HYP", "N")[number % 4]
        images = root / "SCD_IMAGES_01" / f"SCD{number:05d}01"
        contours = root / "SCD_ManualContours" / f"SC-{group}-{number:02d}" / "contours-manual" / "IRCCI-expert"
        for path in (images / "CINESAX_300", images / "CINELAX_301", contours):
            path.mkdir(parents=True)
        lines.append(f"SCD{number:05d}01,SC-{group}-{number},F,60,{group}")
        for frame, first in ((1, 1), (10, 11)):
            image, mask = (nib.load(folder / f"{folder.name}_frame{frame:02d}{end}.nii.gz") for end in ("", "_gt"))
            pixel = float(image.header.get_zooms()[0])
            tags = {"PixelSpacing": [pixel, pixel], "SliceThickness": 8.0, "Modality": "MR"}
            for z in range(image.shape[2]):
                picture, truth = (np.asarray(one.dataobj)[..., z].T for one in (image, mask))
                file = images / "CINESAX_300" / f"IM-0003-{first + z:04d}.dcm"
                make_dicom(file, picture, SeriesDescription="CINESAX", **tags)
                masks[str(file)] = truth
                rings = {"i": truth == 3} | ({"o": truth > 1} if frame == 1 else {})
                for kind, inside in rings.items():
                    points = max(find_contours(inside.astype(float), 0.5), key=len)[:, ::-1]
                    np.savetxt(contours / f"IM-0001-{first + z:04d}-{kind}contour-manual.txt", points, "%.2f")
        make_dicom(images / "CINESAX_300" / "IM-0003-0005.dcm", picture, SeriesDescription="CINESAX", **tags)
        for other in range(1, 21):
            file = images / "CINELAX_301" / f"IM-0004-{other:04d}.dcm"
            make_dicom(file, picture, SeriesDescription="CINELAX", **tags)
    (root / "scd_patientdata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return masks


def states(path):
    """A checkpoint's content."""
    return torch.load(path, weights_only=True)


def same_weights(a, b):
    """Assert that two checkpoints hold the same weights, bit by bit."""
    one, two = states(a)["model"], states(b)["model"]
    assert list(one) == list(two)
    for key, value in one.items():
        assert torch.equal(value, two[key]), key
