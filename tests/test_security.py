"""What SECURITY.md promises."""

import re

import numpy as np
import pytest
from conftest import ROOT, make_dicom
from PIL import Image

from medtl_monai.model import Model
from medtl_monai.utils import UserError

PROMISED = re.findall(r"`(tests/\S+)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), PROMISED)
def test_every_promise_has_its_test(file, name):
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "setting",
    [
        {"image_size": 10**9},
        {"channels": 10**9},
        {"dimensions": 10**3},
        {"scales": [1e9]},
        {"crop": -1.0},
        {"std": [0.0]},
        {"mean": [float("nan")]},
        {"percentiles": [99.0, 1.0]},
        {"calibration": "x"},
        {"images": "everything"},
    ],
)
def test_settings_of_a_checkpoint_are_in_range(setting):
    about = {"task": "classification", "classes": ["a", "b"], "backbone": "resnet18", "image_size": 32}
    about |= {"mean": [0.5], "std": [0.5]}
    Model.from_dict(about)
    with pytest.raises(UserError, match=next(iter(setting))):
        Model.from_dict({**about, **setting})


def test_names_are_never_expressions(make_cli, tmp_path):
    for name in ("$__import__('os').mkdir('ran')", "@device", "%train.json"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"$p{i}_{len(name)}.png")
    brain = make_cli("brain_mri_classification", tmp_path / "data")
    brain.train(tmp_path / "out", "--weights", "none", "--patient_column", "null")
    header = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[0]
    assert "$__import__('os').mkdir('ran')" in header
    assert not list(tmp_path.rglob("ran"))
    assert not (brain.bundle / "ran").exists()


def test_who_the_patient_is_stays_in_the_file(make_cli, tmp_path):
    secrets = {"PatientName": "Doe^Jane", "PatientBirthDate": "19500101", "OtherPatientIDs": "HOSP-4711"}
    rows = ["image,label,patient"]
    (tmp_path / "data").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 4000, (32, 32), dtype=np.uint16)
        make_dicom(tmp_path / "data" / f"{i}.dcm", pixels, SeriesInstanceUID=f"1.2.{i}", **secrets)
        rows.append(f"{i}.dcm,{'ab'[i % 2]},p{i}")
    (tmp_path / "data" / "index.csv").write_text("\n".join(rows) + "\n")
    brain = make_cli("brain_mri_classification", tmp_path / "data")
    brain.train(tmp_path / "out", "--weights", "none")
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        for secret in secrets.values():
            assert secret.encode() not in path.read_bytes(), path
