"""`data check` and training are one door: what the check passes trains, what training refuses the check names."""

import json
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from PIL import Image

from medtl_monai.bundle import bundle_for, check_folder, render_folder
from medtl_monai.data import load_cases
from medtl_monai.utils import UserError

ROOT = Path(__file__).resolve().parents[1]
AFFINE = np.diag([-1.5, -1.5, 8.0, 1.0])


def pixels(i, size=24):
    return np.random.default_rng(i).integers(0, 255, (size, size), dtype=np.uint8)


def picture(path, i):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(i)).save(path)


def volume(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, AFFINE), path)


# ---- folders: each makes one and says with which settings it is to be read


def table(root, n):
    rows = ["image,label,patient"]
    for i in range(n):
        picture(root / "pictures" / f"{i}.png", i)
        rows.append(f"pictures/{i}.png,{'ab'[i % 2]},p{i}")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    return {}


def findings(root, n):
    table(root, n)
    rows = ["image,mass,effusion,patient", *(f"pictures/{i}.png,{i % 2},{(i // 2) % 2},p{i}" for i in range(n))]
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    return {"label_column": ["mass", "effusion"]}


def datalist(root, n):
    table(root, n)
    (root / "index.csv").unlink()
    entries = [{"image": f"pictures/{i}.png", "label": "ab"[i % 2], "patient": i} for i in range(n)]
    (root / "dataset.json").write_text(json.dumps({"training": entries}))
    return {}


def folders(root, n):
    for i in range(n):
        picture(root / "ab"[i % 2] / f"p{i}" / "slice.png", i)
    return {}


def parts(root, n):
    for i in range(n):
        picture(root / ("train" if i < n - 2 else "test") / "ab"[i % 2] / f"p{i}" / "slice.png", i)
    return {}


def plain_folders(root, n):
    for i in range(n):
        picture(root / "ab"[i % 2] / f"p{i}_0.png", i)
    return {"patient_column": "([^/_]+)_[^/]*$"} if n % 2 else {"patient_column": None}


def masks(root, n):
    rows = ["image,label,patient"]
    for i in range(n):
        picture(root / f"{i}.png", i)
        mask = np.zeros((24, 24), np.uint8)
        mask[5:12, 6:14] = 1
        Image.fromarray(mask).save(root / f"{i}_mask.png")
        rows.append(f"{i}.png,{i}_mask.png,p{i}")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    return {}


def nnunet(root, n):
    mask = np.zeros((20, 22, 3), np.uint8)
    mask[5:12, 6:14], mask[8:10, 8:11] = 1, 2
    for i in range(n):
        noise = np.random.default_rng(i).integers(0, 200, mask.shape)
        volume(root / "imagesTr" / f"h_{i:03d}_0000.nii.gz", (noise + 300 * mask.astype(int)).astype(np.int16))
        volume(root / "labelsTr" / f"h_{i:03d}.nii.gz", mask)
    about = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "LV": 1, "RV": 2}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about))
    return {}


# ---- defects: what happens to folders on their way; those that do not apply change nothing


def images(root):
    return sorted(p for p in root.rglob("*") if p.suffix in (".png", ".gz") and not p.name.startswith("."))


def rewritten(root, change):
    file = root / "index.csv"
    if file.is_file():
        file.write_text(change(file.read_text()))


def hidden(root):
    for path in images(root)[:2]:
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7")
    shutil.copytree(images(root)[0].parent, root / ".ipynb_checkpoints")


def upper(root):
    for path in (
        images(root)[:3] if not (root / "index.csv").is_file() and not (root / "dataset.json").is_file() else []
    ):
        if path.suffix == ".png":
            path.rename(path.with_suffix(".PNG"))


def helpers(root):
    (root / "notes.txt").write_text("read me")
    (root / "Thumbs.db").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "a.png").write_bytes(b"x")


def damaged(root):
    images(root)[1].write_bytes(images(root)[1].read_bytes()[:60])


def empty(root):
    images(root)[-1].write_bytes(b"")


def text(root):
    images(root)[0].write_text("<html>404</html>")


def missing(root):
    images(root)[2].unlink()


def inks(root):
    for path in images(root)[:1]:
        if path.suffix == ".png":
            Image.fromarray(pixels(5)).convert("CMYK").save(path, format="TIFF")


def sizes(root):
    for path in images(root)[:1]:
        if path.suffix == ".png":
            Image.fromarray(pixels(9, 60)).save(path)


def pages(root):
    for path in images(root)[:1]:
        if path.suffix == ".png":
            several = [Image.fromarray(pixels(k)) for k in range(3)]
            several[0].save(path, format="TIFF", save_all=True, append_images=several[1:])


def not_finite(root):
    for path in [path for path in images(root) if path.suffix == ".gz"][:1]:
        volume(path, np.full((20, 22, 3), np.nan, np.float32))


def linked(root):
    path = images(root)[0]
    store = Path(f"{root}-store")
    store.mkdir()
    path.rename(store / "0f3a")
    path.symlink_to(store / "0f3a")


def spreadsheet(root):
    rewritten(root, lambda rows: "\ufeffsep=;\n" + rows.replace(",", ";"))


def backslashes(root):
    rewritten(root, lambda rows: rows.replace("/", "\\"))


def blank_lines(root):
    rewritten(root, lambda rows: rows + ",,\n\n")


def numbers(root):
    rewritten(root, lambda rows: rows.replace(",p", ",").replace(",3\n", ",2.0\n"))


def no_label(root):
    rewritten(root, lambda rows: rows.replace(",a,", ",nan,", 1))


def two_labels(root):
    rewritten(root, lambda rows: rows + rows.splitlines()[1].replace(",a,", ",b,") + "\n")


def twice(root):
    rewritten(root, lambda rows: rows.replace("patient", "patient,patient", 1))


def without_patients(root):
    rewritten(root, lambda rows: rows.replace("patient", "who", 1))


def shared(root):
    def change(rows):
        head, *lines = rows.splitlines()
        kept = [f"{line},{'test' if i % 3 == 0 else 'train'}" for i, line in enumerate(lines)]
        return "\n".join([f"{head},split", *kept, kept[0].replace("test", "train")]) + "\n"

    rewritten(root, change)


def one_patient(root):
    def change(rows):
        head, *lines = rows.splitlines()
        return "\n".join([head, *(f"{line.rpartition(',')[0]},p" for line in lines)]) + "\n"

    rewritten(root, change)


def nul(root):
    rewritten(root, lambda rows: rows.replace("p1", "p\0", 1))


LAYOUTS = [table, findings, datalist, folders, parts, plain_folders, masks, nnunet]
DEFECTS = [
    *(hidden, upper, helpers, damaged, empty, text, missing, inks, sizes, pages, not_finite, linked, spreadsheet),
    *(backslashes, blank_lines, numbers, no_label, two_labels, twice, without_patients, shared, one_patient, nul),
]


def trained(folder, bundle, **given):
    """The sentence with which the bundle's own training stops before its second batch; ``None``: it goes on."""
    parser = ConfigParser()
    parser.read_config(ROOT / "bundles" / bundle / "configs" / "train.json")
    quick = {"weights": "none", "strategy": "finetune", "image_size": 32, "output_dir": "nowhere", "amp": False}
    for key, value in {**quick, "device": "cpu", "dataset_dir": str(folder), "bundle_root": str(ROOT), **given}.items():
        parser[key] = value
    try:
        assert len(parser.get_parsed_content("validate::dataset"))
        assert next(iter(parser.get_parsed_content("train::dataloader")))["image"].ndim == 4
    except Exception as error:
        while error.__cause__ is not None and not isinstance(error, UserError):
            error = error.__cause__
        return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return None


def checked(folder, **given):
    """The same of the check, and the bundle that it would take."""
    try:
        report, cases = check_folder(folder, **given)
    except UserError as error:
        return str(error), "brain_mri_classification"
    assert report["next"].startswith("python -m ")
    return report["refused"], bundle_for(cases)


def same_door(make, defects, n):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "data"
        root.mkdir()
        given = make(root, n)
        for defect in defects:
            defect(root)
        refused, bundle = checked(root, **given)
        assert trained(root, bundle, **given) == refused


folder = {
    "make": st.sampled_from(LAYOUTS),
    "defects": st.lists(st.sampled_from(DEFECTS), max_size=2, unique=True),
    "n": st.integers(8, 11),
}
patient = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=30, deadline=None, suppress_health_check=patient, derandomize=True)
@given(**folder)
def test_what_the_check_passes_trains_and_what_training_refuses_it_names(make, defects, n):
    same_door(make, defects, n)


@pytest.mark.slow
@settings(max_examples=320, deadline=None, suppress_health_check=patient)
@given(**folder)
def test_the_same_of_many_more_folders(make, defects, n):
    same_door(make, defects, n)


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_good_folders_of_every_layout_pass_and_train(tmp_path, make):
    given = make(tmp_path, 10)
    refused, bundle = checked(tmp_path, **given)
    assert refused is None
    assert trained(tmp_path, bundle, **given) is None


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_every_defect_of_a_table_is_one_for_both(defect):
    same_door(table, [defect], 9)


def test_the_command_that_comes_next_runs(tmp_path):
    given = folders(tmp_path, 8)
    report, _ = check_folder(tmp_path, patient_column="auto", layout="folders", **given)
    assert report["next"].endswith(f"configs/train.json --dataset_dir {tmp_path} --layout folders")
    assert Path(report["next"].split()[5]).is_file()


def test_a_folder_without_labels_is_looked_at_too(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png", i)
    (tmp_path / "2.png").write_bytes(b"x")
    report, _ = check_folder(tmp_path)
    assert (report["task"], report["cases"], report["classes"]) == ("none", 3, {})
    assert "lies in no class folder" in report["refused"]
    assert report["suspicious"][0]["what"] == "cannot be read"
    assert "configs/inference.json" in report["next"]


def test_class_folders_without_patients_are_looked_at_and_the_line_is_given(tmp_path):
    for i in range(6):
        picture(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    report, _ = check_folder(tmp_path)
    assert (report["cases"], list(report["classes"])) == (6, ["a", "b"])
    assert "its patient is not known" in report["refused"]
    assert report["next"].endswith("--patient_column null")
    with pytest.raises(UserError, match="its patient is not known"):
        load_cases(tmp_path)


def test_cases_of_several_channels_are_refused_with_the_line_to_type(tmp_path):
    nnunet(tmp_path, 6)
    for path in sorted((tmp_path / "imagesTr").glob("*_0000.nii.gz")):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    refused, bundle = checked(tmp_path)
    assert refused == trained(tmp_path, bundle)
    assert refused.endswith("choose one, such as --layout_options '{\"channel\": 0}'.")
    report, _ = check_folder(tmp_path, layout_options={"channel": 0})
    assert report["refused"] is None
    assert report["next"].endswith("--layout_options '{\"channel\": 0}'")


def test_the_text_ends_with_what_stops_a_training_and_the_command(tmp_path):
    table(tmp_path, 8)
    (tmp_path / "notes.txt").write_text("x")
    report, _ = check_folder(tmp_path)
    *lines, lead, command = render_folder(report).splitlines()
    assert "layout    table: index.csv lies in the folder" in lines
    assert "not used: 1 .txt files" in lines
    assert (lead, command.strip()) == ("next:", report["next"])
    damaged(tmp_path)
    report, _ = check_folder(tmp_path)
    lines = render_folder(report).splitlines()
    assert lines[-3] == f"a training would stop: {report['refused']}"
    assert "cannot be read" in report["refused"]


def test_a_table_beside_a_public_set_is_trained_with_that_sets_bundle(shared_data):
    for name, bundle in (("breast_mini_mias", "breast_dbt"), ("chest_kermany224", "chest_xray")):
        assert bundle_for(load_cases(shared_data / name)) == f"{bundle}_classification"


def test_of_several_mistakes_the_one_is_named_at_which_training_stops():
    same_door(table, [without_patients, no_label], 8)
