"""The command line, as users call it."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medtl_monai.cli import main
from medtl_monai.data import load_cases, make_dbt_cohort

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(*arguments, flags=()):
    environment = {**os.environ, "PYTHONPATH": ROOT}
    command = [sys.executable, *flags, "-m", "medtl_monai", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def volume(path, array, zooms):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*zooms, 1.0])), path)


@pytest.fixture
def pictures(tmp_path):
    """Eight pictures of four patients with one of each fault; patient 3 stands in both parts."""
    rng = np.random.default_rng(0)
    root, rows = tmp_path / "pictures", ["image,label,patient,split,domain"]
    root.mkdir()
    for i in range(8):
        pixels = rng.integers(0, 255, (32, 32) if i != 4 else (32, 96), dtype=np.uint8)
        if i == 5:
            pixels = np.full((32, 32), 7, dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]},{i // 2},{'train' if i < 7 else 'test'},site {i % 2}")
    (root / "1.png").write_bytes((root / "0.png").read_bytes())
    (root / "2.png").write_bytes(b"no picture")
    (root / "index.csv").write_text("\n".join(rows))
    return root


def test_help_needs_no_torch():
    done = run("data", "check", "--help", flags=["-X", "importtime"])
    assert done.returncode == 0
    assert "--datalist" in done.stdout
    assert " torch" not in done.stderr
    assert " monai" not in done.stderr


def test_a_folder_of_pictures(pictures, tmp_path):
    done = run("data", "check", pictures, "--json", tmp_path / "out.json", "--datalist", tmp_path / "list.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["layout"], report["task"], report["cases"], report["patients"]) == ("table", "classification", 8, 4)
    assert report["classes"] == {"a": {"images": 4, "patients": 4}, "b": {"images": 4, "patients": 4}}
    assert report["split"] == {"train": {"images": 7, "patients": 4}, "test": {"images": 1, "patients": 1}}
    assert report["domains"]["site 0"] == {"images": 4, "patients": 4}
    assert report["sizes"] == {"32 x 32": 6, "32 x 96": 1}
    assert report["depths"] == {"uint8": 7}
    found = {doubt["what"]: doubt["examples"] for doubt in report["suspicious"]}
    assert found["constant images"] == ["5.png"]
    assert found["images of an unusual size"] == ["4.png (32 x 96)"]
    assert found["groups of identical images"] == ["0.png = 1.png (different label)"]
    assert found["cannot be read"][0].startswith("2.png (")
    assert report["leakage"]["shared_patients"] == ["3"]
    for text in ("8 of 4 patients", "site 1", "warning: 1 constant images", "leakage: 1 patients"):
        assert text in done.stdout
    again = load_cases(tmp_path, table="list.json")
    assert again.items == load_cases(pictures).items


def test_volumes_and_masks(tmp_path):
    """Values without a name, an empty mask, a mask of another size, spacing that cannot be."""
    rng = np.random.default_rng(0)
    for i, spacing in enumerate([(1.5, 1.5, 8.0), (1.5, 1.5, 8.0), (1.5, 1.5, 8.0), (1.0, 1.0, 1.0)]):
        mask = np.zeros((24, 24, 4 if i != 2 else 5), np.uint8)
        if i != 1:
            mask[8:12, 8:12] = 1
        if i == 0:
            mask[0, 0, 0], mask[1, 1, 1] = 2, 9
        volume(tmp_path / "imagesTr" / f"{i}.nii.gz", rng.random((24, 24, 4), np.float32), spacing)
        volume(tmp_path / "labelsTr" / f"{i}.nii.gz", mask, spacing)
    about = {"labels": {"0": "background", "1": "core", "2": "rim"}}
    pairs = [{"image": f"imagesTr/{i}.nii.gz", "label": f"labelsTr/{i}.nii.gz"} for i in range(4)]
    (tmp_path / "dataset.json").write_text(json.dumps(about | {"training": pairs}))
    done = run("data", "check", tmp_path, "--json", tmp_path / "out.json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["layout"], report["task"]) == ("decathlon", "segmentation")
    assert report["classes"] == {"core": {"images": 3, "patients": 3}, "rim": {"images": 1, "patients": 1}}
    assert report["spacings"] == {"1.5 x 1.5 x 8": 3, "1 x 1 x 1": 1}
    found = {doubt["what"]: doubt["examples"] for doubt in report["suspicious"]}
    assert found["masks with values without a name"] == ["imagesTr/0.nii.gz (9)"]
    assert found["empty masks"] == ["imagesTr/1.nii.gz"]
    assert found["masks of another size than their image"] == ["imagesTr/2.nii.gz (24 x 24 x 5, not 24 x 24 x 4)"]
    assert found["volumes of doubtful spacing"][0].startswith("imagesTr/3.nii.gz: its spacing is 1.0 mm along all axes")
    assert report["split"] is report["leakage"] is None


def test_a_mistake_is_one_sentence():
    done = run("data", "check", "nowhere")
    assert done.returncode == 1
    assert done.stderr == "error: dataset_dir: there is no folder nowhere: check the path.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "acdcs"], "no layout 'acdcs'"),
        (["--layout", "acdc"], "does not look like acdc"),
        (["--datalist", f"{ROOT}/pyproject.toml"], "exists and is not a datalist"),
    ],
)
def test_other_mistakes(pictures, capsys, arguments, message):
    assert main(["data", "check", str(pictures), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_real_npz(shared_data, tmp_path, capsys):
    assert main(["data", "check", str(shared_data / "chest_pneumoniamnist28"), "--json", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out").read_text())
    parts = {part: counts["images"] for part, counts in report["split"].items()}
    assert parts == {"train": 388 + 3494, "val": 524, "test": 624}
    assert "26 groups of identical images" in capsys.readouterr().out


def test_tomosynthesis_by_its_tables(tmp_path, capsys):
    make_dbt_cohort(tmp_path / "dbt", patients=4, frames=6, size=(96, 64), progress=False)
    assert main(["data", "check", str(tmp_path / "dbt"), "--json", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out").read_text())
    assert (report["layout"], report["cases"], report["patients"]) == ("bcs_dbt", 16, 4)
    assert "x 6" in next(iter(report["sizes"]))


def test_strategies_are_listed_from_the_code_without_importing_torch(tmp_path):
    from medtl_monai.strategies import FAMILIES

    code = "import sys; from medtl_monai.cli import main; main(['strategies']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    *lines, torch_imported = done.stdout.splitlines()
    assert torch_imported == "False"
    listed, family = {}, ""
    for line in lines:
        if line.startswith("  "):
            name, summary = line.split(maxsplit=1)
            listed[family][name] = summary
        else:
            family = line.rstrip(":")
            listed[family] = {}
    assert listed == {
        family: {name: cls.__doc__.splitlines()[0] for name, cls in members.items()}
        for family, members in FAMILIES.items()
    }
    assert [(family, *names) for family, names in listed.items()] == [(f, *names) for f, names in FAMILIES.items()]
