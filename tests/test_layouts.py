"""The layouts of real data sets, in faithful miniature and, where they are at hand, in the original."""

import csv
import json
import math

import h5py
import numpy as np
import pytest
import torch
from conftest import make_dicom
from monai.transforms import Compose, LoadImaged
from PIL import Image

from medtl_monai.data import (
    LAYOUTS,
    AnyReader,
    MarkLesiond,
    ToSliced,
    load_cases,
    read_array,
    read_stack,
    write_datalist,
)
from medtl_monai.utils import UserError


def picture(path, value=100, shape=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def table(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n", encoding="utf-8")


class TestTasks:
    def masks(self, root):
        for name in ("a", "b"):
            picture(root / f"{name}.png")
            picture(root / "masks" / f"{name}.png", 1)
        table(root / "index.csv", "image,label,patient\na.png,masks/a.png,p1\nb.png,masks/b.png,p2")

    def test_paths_of_files_as_labels_are_masks(self, tmp_path):
        self.masks(tmp_path)
        cases = load_cases(tmp_path, classes=["left ventricle"], task="segmentation")
        assert (cases.task, cases.classes, cases.label_values) == ("segmentation", ["left ventricle"], [1])
        assert cases.items[1]["label"] == str(tmp_path / "masks" / "b.png")

    def test_a_missing_mask_and_a_wrong_task_are_refused(self, tmp_path):
        self.masks(tmp_path)
        with pytest.raises(UserError, match="for segmentation, not for classification"):
            load_cases(tmp_path, task="classification")
        (tmp_path / "masks" / "b.png").unlink()
        with pytest.raises(UserError, match="1 of 2 masks .* masks/b.png"):
            load_cases(tmp_path)

    @pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
    def test_a_datalist_is_read_back_as_it_was_written(self, tmp_path, task):
        self.masks(tmp_path)
        if task != "segmentation":
            labels = {"classification": ("no", "yes"), "multilabel": ("Mass|Nodule", "No Finding")}[task]
            rows = [f"a.png,{labels[0]},p,train", f"b.png,{labels[1]},p,test"]
            table(tmp_path / "index.csv", "\n".join(["image,label,patient,split", *rows]))
        cases = load_cases(tmp_path)
        if task == "multilabel":
            cases.items[0]["label"][0] = math.nan
        write_datalist(tmp_path / "list.json", cases)
        again = load_cases(tmp_path, table="list.json")
        assert repr(again.items) == repr(cases.items)  # as text, since NaN differs from itself
        assert (again.task, again.classes, again.label_values) == (task, cases.classes, cases.label_values)
        content = json.loads((tmp_path / "list.json").read_text())
        assert content["training"][0]["image"] == "a.png"

    def test_findings_are_selected_by_name(self, tmp_path):
        self.masks(tmp_path)
        table(tmp_path / "index.csv", "image,label,patient\na.png,Mass|Nodule,1\nb.png,Edema,2")
        write_datalist(tmp_path / "list.json", load_cases(tmp_path))
        cases = load_cases(tmp_path, table="list.json", classes=["Nodule", "Edema"])
        assert [item["label"] for item in cases.items] == [[1, 0], [0, 1]]


def chestxray14(root):
    for name in ("00000001_000", "00000001_001"):
        picture(root / "images_001" / "images" / f"{name}.png")
    picture(root / "images_002" / "images" / "00000002_000.png")
    table(
        root / "Data_Entry_2017_v2020.csv",
        """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position
        00000001_000.png,Cardiomegaly|Hernia,0,1,57,M,PA
        00000001_001.png,No Finding,1,1,58,M,AP
        00000002_000.png,Mass,0,2,81,F,PA
        00000003_000.png,Mass,0,3,81,F,PA""",
    )
    table(root / "train_val_list.txt", "00000001_000.png\n00000001_001.png")
    table(root / "test_list.txt", "00000002_000.png")
    labels = [[0.0] * 14 for _ in range(3)]
    labels[0][1] = labels[0][13] = labels[2][4] = 1.0  # Atelectasis, Cardiomegaly, ..., Mass the fifth, Hernia the last
    return {
        "task": "multilabel",
        "label": labels,
        "patient": ["1", "1", "2"],
        "split": ["train", "train", "test"],
        "view": ["PA", "AP", "PA"],
    }


def chexpert(root):
    from medtl_monai.data.layouts.chexpert import OBSERVATIONS

    head = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS])
    for part, number in (("train", 1), ("valid", 64541)):
        path = f"{part}/patient{number:05d}/study1/view1_frontal.jpg"
        picture(root / path)
        marks = ["", "", "1.0", "0.0", "", "-1.0", *[""] * 8]
        table(root / f"{part}.csv", f"{head}\nCheXpert-v1.0-small/{path},Male,68,Frontal,AP,{','.join(marks)}")
    label = [0.0, 0.0, 1.0, 0.0, 0.0, math.nan, *[0.0] * 8]
    patients = ["patient00001", "patient64541"]
    return {"task": "multilabel", "label": [label, label], "patient": patients, "split": ["train", "val"]}


def kermany(root):
    for path in (
        "train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/NORMAL2-IM-0501-0001-0002.jpeg",
        "train/PNEUMONIA/person1_virus_6.jpeg", "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg", "test/NORMAL/IM-0001-0001.jpeg",
    ):  # fmt: skip
        picture(root / path)
    return {
        "classes": ["NORMAL", "PNEUMONIA"],
        "label": [0, 0, 0, 1, 1, 1],
        "patient": [
            "IM-0001",
            "IM-0115",
            "NORMAL2-IM-0501",
            "person1_bacteria",
            "person1_virus",
            "person1946_bacteria",
        ],
        "split": ["test", "train", "train", "train", "train", "val"],
        "subtype": ["normal", "normal", "normal", "bacteria", "virus", "bacteria"],
    }


def medmnist(root):
    arrays = {f"{part}_images": np.zeros((2, 28, 28), np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.array([[0], [1]], np.uint8) for part in ("train", "val", "test")}
    np.savez(root / "pneumoniamnist.npz", **arrays, **labels)
    return {
        "classes": ["normal", "pneumonia"],
        "label": [0, 1] * 3,
        "patient": ["train-0", "train-1", "val-0", "val-1", "test-0", "test-1"],
        "split": ["train", "train", "val", "val", "test", "test"],
        "image": [f"{root}/pneumoniamnist.npz#{part}_images/{i}" for part in ("train", "val", "test") for i in (0, 1)],
    }


def bcs_dbt(root):
    key = "PatientID,StudyUID,View"
    table(
        root / "BCS-DBT labels-train-v2.csv",
        f"""{key},Normal,Actionable,Benign,Cancer
        DBT-P00013,DBT-S00163,rmlo,0,0,1,0
        DBT-P00013,DBT-S00163,lcc,1,0,0,0""",
    )
    table(root / "BCS-DBT labels-validation.csv", f"{key},Normal,Actionable,Benign,Cancer\nDBT-P1,DBT-S1,lcc2,0,0,0,1")
    table(
        root / "BCS-DBT boxes-train-v2.csv",
        f"{key},Subject,Slice,X,Y,Width,Height,Class,AD,VolumeSlices\n"
        "DBT-P00013,DBT-S00163,rmlo,0,16,1116,1724,218,105,benign,0,49",
    )
    rows = [("DBT-P00013,DBT-S00163", "rmlo"), ("DBT-P00013,DBT-S00163", "lcc"), ("DBT-P1,DBT-S1", "lcc2")]
    paths = [f"Breast-Cancer-Screening-DBT/{ids.partition(',')[0]}/{view}/1-1.dcm" for ids, view in rows]
    for path in paths:
        touch(root / "manifest-1617905855234" / path)
    for part, chosen in (("train-v2", slice(2)), ("validation", slice(2, 3))):
        lines = [f"{ids},{view},{path},x" for (ids, view), path in zip(rows[chosen], paths[chosen], strict=True)]
        table(root / f"BCS-DBT file-paths-{part}.csv", "\n".join([f"{key},descriptive_path,classic_path", *lines]))
    box = {"slice": 16, "x": 1116, "y": 1724, "width": 218, "height": 105, "class": "benign"}
    return {
        "classes": ["normal", "actionable", "benign", "cancer"],
        "label": [2, 0, 3],
        "patient": ["DBT-P00013", "DBT-P00013", "DBT-P1"],
        "split": ["train", "train", "val"],
        "laterality": ["R", "L", "L"],
        "view": ["rmlo", "lcc", "lcc2"],
        "boxes": [[box], [], []],
    }


def mini_mias(root):
    for number in (1, 2, 5):
        picture(root / f"mdb{number:03d}.pgm")
    table(
        root / "Info.txt",
        """mdb001 G CIRC B 535 425 197
        mdb002 G NORM
        mdb005 F CIRC B 477 133 30
        mdb005 F CALC M *NOTE 3*""",
    )
    return {
        "classes": ["normal", "benign", "malignant"],
        "label": [1, 0, 2],
        "patient": ["P001", "P001", "P003"],
        "laterality": ["R", "L", "R"],
        "lesions": [
            [{"x": 535, "y": 599, "radius": 197, "kind": "CIRC"}],
            [],
            [{"x": 477, "y": 891, "radius": 30, "kind": "CIRC"}],
        ],
    }


def figshare_brain(root):
    for number, label, patient in ((1, 1, "100360"), (10, 3, "MR0402"), (2, 2, "100360")):
        with h5py.File(root / f"{number}.mat", "w") as file:
            file["cjdata/PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
            file["cjdata/label"] = np.array([[float(label)]])
            file["cjdata/image"] = np.zeros((8, 8), np.int16)
            file["cjdata/tumorMask"] = np.eye(8, dtype=np.uint8)
    return {
        "classes": ["meningioma", "glioma", "pituitary"],
        "label": [0, 1, 2],
        "patient": ["100360", "100360", "MR0402"],
        "image": [f"{root}/{number}.mat#cjdata/image" for number in (1, 2, 10)],
    }


def brats(root):
    for case in ("HGG/Brats18_CBICA_AAB_1", "LGG/Brats18_TCIA01_131_1"):
        name = case.partition("/")[2]
        for sequence in ("t1", "t1ce", "t2", "flair", "seg"):
            touch(root / case / f"{name}_{sequence}.nii.gz")
    return {
        "task": "segmentation",
        "label_values": [1, 2, 4],
        "patient": ["Brats18_CBICA_AAB", "Brats18_TCIA01_131"],
        "domain": ["CBICA", "TCIA01"],
        "group": ["HGG", "LGG"],
    }


def decathlon(root):
    for folder in ("imagesTr", "labelsTr"):
        touch(root / folder / "hippocampus_003.nii.gz")
    about = {
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": "./imagesTr/hippocampus_003.nii.gz", "label": "./labelsTr/hippocampus_003.nii.gz"}],
        "test": ["./imagesTs/hippocampus_002.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return {
        "task": "segmentation",
        "classes": ["Anterior", "Posterior"],
        "label_values": [1, 2],
        "patient": ["hippocampus_003"],
        "label": [str(root / "labelsTr" / "hippocampus_003.nii.gz")],
    }


def acdc(root):
    for part, patient in (("testing", "patient101"), ("training", "patient001")):
        folder = root / part / patient
        for name in ("4d", "frame01", "frame01_gt", "frame12", "frame12_gt"):
            touch(folder / f"{patient}_{name}.nii.gz")
        table(folder / "Info.cfg", "ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0")
    return {
        "task": "segmentation",
        "classes": ["right ventricle", "myocardium", "left ventricle"],
        "patient": ["patient101"] * 2 + ["patient001"] * 2,
        "split": ["test"] * 2 + ["train"] * 2,
        "phase": ["ED", "ES"] * 2,
        "group": ["DCM"] * 4,
    }


def sunnybrook(root):
    for folder in ("Images", "Labels"):
        for name in ("SC-HF-I-01-IM-0001-0048", "SC-N-02-IM-0898-0080"):
            picture(root / folder / "Sunnybrook_Part1" / f"{name}.dcm.png")
    return {
        "task": "segmentation",
        "label_values": [255],
        "patient": ["SC-HF-I-01", "SC-N-02"],
        "group": ["HF-I", "N"],
    }


def sunnybrook_contours(root):
    contours = root / "scd_manualcontours" / "SCD_ManualContours"
    for name, patient, number in (("SC-HF-I-01", "SCD0000101", 48), ("SC-N-02", "SCD0000201", 80)):
        touch(contours / name / "contours-manual" / "IRCCI-expert" / f"IM-0001-{number:04d}-icontour-manual.txt")
        touch(root / "SCD_IMAGES_01" / patient / "CINESAX_300" / f"IM-0003-{number:04d}.dcm")
    touch(contours / "SC-N-02" / "contours-manual" / "IRCCI-expert" / "IM-0001-0080-ocontour-manual.txt")
    table(
        root / "scd_patientdata.csv",
        """PatientID,OriginalID,Gender,Age,Pathology
        SCD0000101,SC-HF-I-1,Male,50,Heart failure with infarct
        SCD0000201,SC-N-2,Female,30,Normal""",
    )
    return {
        "task": "segmentation",
        "label_values": [1],
        "patient": ["SC-HF-I-01", "SC-N-02"],
        "group": ["HF-I", "N"],
        "image": [
            f"{root}/SCD_IMAGES_01/SCD0000101/CINESAX_300/IM-0003-0048.dcm",
            f"{root}/SCD_IMAGES_01/SCD0000201/CINESAX_300/IM-0003-0080.dcm",
        ],
    }


def mnms(root):
    table(
        root / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv",
        """,External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight
        0,A0S9V9,Siemens,A,1,0,9,28,HCM,M,186.0,90.0
        1,C8O0P2,GE,C,4,2,11,40,NOR,F,160.0,60.0""",
    )
    for name in ("A0S9V9_sa", "A0S9V9_sa_gt"):
        touch(root / "Training" / "Labeled" / "A0S9V9" / f"{name}.nii.gz")
    touch(root / "Training" / "Unlabeled" / "C8O0P2" / "C8O0P2_sa.nii.gz")
    return {
        "task": "segmentation",
        "patient": ["A0S9V9"] * 2,
        "split": ["train"] * 2,
        "phase": ["ED", "ES"],
        "frame": [0, 9],
        "domain": ["Siemens, centre 1"] * 2,
    }


MINIATURES = (
    chestxray14, chexpert, kermany, medmnist, bcs_dbt, mini_mias, figshare_brain, brats, decathlon, acdc, sunnybrook,
    sunnybrook_contours, mnms,
)  # fmt: skip


def test_every_layout_has_a_miniature():
    assert {miniature.__name__ for miniature in MINIATURES} == set(LAYOUTS)


@pytest.mark.parametrize("miniature", MINIATURES, ids=lambda miniature: miniature.__name__)
def test_layout(tmp_path, miniature):
    root = tmp_path / "CheXpert-v1.0-small"
    root.mkdir()
    expected = miniature(root)
    assert [name for name, module in LAYOUTS.items() if module.matches(root)] == [miniature.__name__]
    cases = load_cases(root)
    assert (cases.layout, cases.task) == (miniature.__name__, expected.pop("task", "classification"))
    for key in ("classes", "label_values"):
        assert getattr(cases, key) == expected.pop(key, getattr(cases, key))
    for key, values in expected.items():
        assert repr([item.get(key) for item in cases.items]) == repr(values), key
    write_datalist(tmp_path / "list.json", cases)
    again = load_cases(tmp_path, table="list.json")
    assert sorted(map(repr, again.items)) == sorted(map(repr, cases.items))


@pytest.mark.parametrize(("uncertain", "value"), [("ones", 1.0), ("zeros", 0.0)])
def test_uncertain_labels_of_chexpert(tmp_path, uncertain, value):
    chexpert(tmp_path)
    cases = load_cases(tmp_path, layout="chexpert", layout_options={"uncertain": uncertain}, classes=["Edema"])
    assert [item["label"] for item in cases.items] == [[value]] * 2


def test_figshare_tumours_as_masks(tmp_path):
    figshare_brain(tmp_path)
    cases = load_cases(tmp_path, layout="figshare_brain", layout_options={"task": "segmentation"})
    assert cases.items[0]["image"] == f"{tmp_path}/1.mat#cjdata/image"
    assert (cases.items[0]["label"], cases.items[2]["group"]) == (f"{tmp_path}/1.mat#cjdata/tumorMask", "pituitary")


def test_boxes_around_figshare_tumours_are_where_their_masks_are(tmp_path):
    figshare_brain(tmp_path)
    mask = np.zeros((8, 6), np.uint8)
    mask[2:5, 1:3] = 1  # rows, columns
    with h5py.File(tmp_path / "1.mat", "a") as file:
        del file["cjdata/tumorMask"], file["cjdata/image"]
        file["cjdata/tumorMask"], file["cjdata/image"] = mask.T, mask.T  # as MATLAB stores them
    item = load_cases(tmp_path, box_columns="auto").items[0]
    assert item["box"] == [[1, 2, 2, 3]]
    load = Compose([LoadImaged("image", reader=AnyReader, image_only=True), ToSliced("image"), MarkLesiond("image")])
    found = load(item)
    assert torch.equal(found["lesion"].float(), found["image"].as_tensor())
    assert "box" not in load_cases(tmp_path).items[0]


def test_one_sequence_of_brats(tmp_path):
    brats(tmp_path)
    cases = load_cases(tmp_path, layout="brats", layout_options={"sequence": "t1ce"})
    assert [item["image"][-11:] for item in cases.items] == ["t1ce.nii.gz"] * 2
    with pytest.raises(UserError, match="sequence must be one of t1, t1ce, t2, flair, got 't1c'"):
        load_cases(tmp_path, layout="brats", layout_options={"sequence": "t1c"})


def test_arrays_in_a_file_are_read_upright_by_their_names(tmp_path):
    grey = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", grey=grey, colour=np.stack([grey] * 3, -1))
    with h5py.File(tmp_path / "b.mat", "w") as file:
        file["cj/image"] = grey[1].T  # as MATLAB stores its columns
    load = Compose([LoadImaged("image", reader=AnyReader, image_only=True), ToSliced("image")])
    for name in ("a.npz#grey/1", "a.npz#colour/1", "b.mat#cj/image"):
        found = load({"image": f"{tmp_path}/{name}"})["image"]
        np.testing.assert_array_equal(found, grey[1:], err_msg=name)
        if "colour" not in name:
            np.testing.assert_array_equal(read_stack(f"{tmp_path}/{name}")[0, ..., 0].T, grey[1])
    for name, message in (("a.npz#red/0", "holds no red/0"), ("a.npz#grey/2", "holds no grey/2"), ("a", "names no")):
        with pytest.raises(UserError, match=message):
            read_array(tmp_path / name)


def test_new_names_of_brats(tmp_path):
    for sequence in ("t1n", "t1c", "t2w", "t2f", "seg"):
        touch(tmp_path / "BraTS-GLI-00005-001" / f"BraTS-GLI-00005-001-{sequence}.nii.gz")
    cases = load_cases(tmp_path)
    assert (cases.items[0]["patient"], cases.label_values) == ("BraTS-GLI-00005", [1, 2, 3])
    assert [path[-10:-7] for path in cases.items[0]["image"]] == ["t1n", "t1c", "t2w", "t2f"]


def test_columns_or_a_table_go_before_a_layout(tmp_path):
    kermany(tmp_path)
    table(
        tmp_path / "index.csv",
        "image,label,subtype,patient\ntrain/NORMAL/IM-0115-0001.jpeg,n,a,1\ntest/NORMAL/IM-0001-0001.jpeg,m,b,2",
    )
    assert (load_cases(tmp_path).layout, load_cases(tmp_path).why) == ("table", "index.csv lies in the folder")
    assert load_cases(tmp_path, label_column="subtype").classes == ["a", "b"]
    assert load_cases(tmp_path, layout="table").classes == ["m", "n"]
    assert load_cases(tmp_path, layout="kermany").classes == ["NORMAL", "PNEUMONIA"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "kermani"}, "no layout 'kermani'"),
        ({"layout": "acdc"}, "does not look like acdc: expected that there are folders"),
        ({"layout_options": {"uncertain": "ones"}}, "kermany has no option uncertain"),
        ({"classes": ["NORMAL", "COVID"]}, "no class COVID"),
        ({"classes": ["NORMAL"]}, "images of PNEUMONIA"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, settings, message):
    kermany(tmp_path)
    with pytest.raises(UserError, match=message):
        load_cases(tmp_path, **settings)


def test_a_name_without_a_patient_is_refused(tmp_path):
    kermany(tmp_path)
    picture(tmp_path / "train" / "NORMAL" / "healthy.jpeg")
    with pytest.raises(UserError, match=r"healthy.jpeg tells no patient"):
        load_cases(tmp_path)


@pytest.mark.parametrize(
    ("folder", "layout", "images", "patients", "classes"),
    [
        ("chest_nih_small", "chestxray14", 5, 5, 14),  # the sixth image has no label
        ("chest_kermany224", "kermany", 1500, 1134, 2),
        ("chest_pneumoniamnist28", "medmnist", 388 + 3494 + 524 + 624, 5030, 2),
        ("breast_mini_mias", "mini_mias", 114, 57, 3),
        ("brain_hippocampus_msd04", "decathlon", 100, 100, 1),
        ("cardiac_acdc_h5", "acdc", 20, 10, 3),
        ("cardiac_sunnybrook_png", "sunnybrook", 526, 30, 1),
    ],
)
def test_real_data(shared_data, folder, layout, images, patients, classes):
    cases = load_cases(shared_data / folder, layout=layout)
    assert (cases.layout, len(cases.items), len(cases.classes)) == (layout, images, classes)
    assert len({item["patient"] for item in cases.items}) == patients
    index = shared_data / folder / "index.csv"
    if index.is_file() and folder != "cardiac_acdc_h5":  # made from the sets' own documentation, by other code
        with index.open(newline="") as file:
            known = {row["image"]: row["patient"] for row in csv.DictReader(file)}
        assert {item["image"].removeprefix(f"{cases.root}/"): item["patient"] for item in cases.items} == known


def test_real_tables_of_bcs_dbt(shared_data):
    from medtl_monai.data.layouts.bcs_dbt import read_views

    views = read_views(shared_data / "breast_bcsdbt_labels_csv")
    counts = [sum(view["label"] == k for view in views) for k in range(4)]
    assert counts == [18232, 716, 124, 76]
    assert len({view["patient"] for view in views}) == 4362
    assert sum(len(view["boxes"]) for view in views) == 224


def nnunet(root, channels=1, about=True, ending=".nii.gz"):
    """The raw folder of nnU-Net's second version."""
    for i in range(3):
        for channel in range(channels):
            touch(root / "imagesTr" / f"heart_{i:03d}_{channel:04d}{ending}")
        touch(root / "labelsTr" / f"heart_{i:03d}{ending}")
    touch(root / "imagesTr" / "._heart_000_0000.nii.gz")
    content = {"labels": {"background": 0, "LV": 1, "RV": 2}, "numTraining": 3, "file_ending": ending}
    if about:
        (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MRI"}, **content}))
    return root


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".png"])
def test_raw_folders_of_nnunet(tmp_path, ending):
    cases = load_cases(nnunet(tmp_path, ending=ending))
    assert (cases.layout, cases.classes, cases.label_values) == ("decathlon", ["LV", "RV"], [1, 2])
    assert [item["patient"] for item in cases.items] == ["heart_000", "heart_001", "heart_002"]
    assert cases.items[1]["image"] == str(tmp_path / "imagesTr" / f"heart_001_0000{ending}")
    assert cases.items[1]["label"] == str(tmp_path / "labelsTr" / f"heart_001{ending}")


def test_channels_of_nnunet(tmp_path):
    nnunet(tmp_path, channels=2)
    assert [len(item["image"]) for item in load_cases(tmp_path).items] == [2, 2, 2]
    cases = load_cases(tmp_path, layout="decathlon", layout_options={"channel": 1})
    assert cases.items[0]["image"].endswith("heart_000_0001.nii.gz")
    with pytest.raises(UserError, match="channel must be from 0 to 1, got 2"):
        load_cases(tmp_path, layout_options={"channel": 2})


def test_the_first_version_of_nnunet_lists_cases_without_their_channels(tmp_path):
    nnunet(tmp_path, about=False)
    entries = [
        {"image": f"./imagesTr/heart_{i:03d}.nii.gz", "label": f"./labelsTr/heart_{i:03d}.nii.gz"} for i in range(3)
    ]
    about = {"labels": {"0": "background", "1": "LV"}, "training": entries}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    items = load_cases(tmp_path).items
    assert [item["patient"] for item in items] == ["heart_000", "heart_001", "heart_002"]
    assert items[0]["image"] == str(tmp_path / "imagesTr" / "heart_000_0000.nii.gz")


def test_regions_of_nnunet_are_refused(tmp_path):
    nnunet(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"whole": [1, 2]}, "numTraining": 3}))
    with pytest.raises(UserError, match=r"the label whole: \[1, 2\]: expected one whole number"):
        load_cases(tmp_path)


def test_a_case_may_be_a_folder_of_dicom(tmp_path):
    for i in range(2):
        for z in range(3):
            file = tmp_path / "imagesTr" / f"case{i}" / f"IM{z}"
            file.parent.mkdir(parents=True, exist_ok=True)
            make_dicom(file, np.full((6, 5), z, np.int16), InstanceNumber=z, ImagePositionPatient=[0, 0, z],
                       ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1])  # fmt: skip
        touch(tmp_path / "labelsTr" / f"case{i}.nii.gz")
    cases = load_cases(tmp_path)
    assert [item["image"] for item in cases.items] == [str(tmp_path / "imagesTr" / f"case{i}") for i in range(2)]
    assert cases.unused == {}
    (tmp_path / "index.csv").write_text(
        "image,label,patient\nimagesTr/case0,labelsTr/case0.nii.gz,a\nimagesTr/case1,labelsTr/case1.nii.gz,b\n"
    )
    assert [item["image"] for item in load_cases(tmp_path).items] == [item["image"] for item in cases.items]
    assert read_stack(cases.items[0]["image"]).shape == (1, 5, 6, 3)


@pytest.mark.parametrize("above", ["database", "ACDC/database"])
def test_acdc_as_it_is_zipped(tmp_path, above):
    for part, name in (("training", "patient001"), ("testing", "patient101")):
        folder = tmp_path / above / part / name
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n")
        for frame in ("01", "12"):
            touch(folder / f"{name}_frame{frame}.nii.gz")
            touch(folder / f"{name}_frame{frame}_gt.nii.gz")
        touch(folder / f"{name}_4d.nii.gz")
    root = tmp_path if above == "database" else tmp_path / "ACDC"
    cases = load_cases(root)
    assert (cases.layout, len(cases.items)) == ("acdc", 4)
    assert {(item["patient"], item["split"]) for item in cases.items} == {
        ("patient001", "train"),
        ("patient101", "test"),
    }


def test_chestxray14_of_another_format_than_its_table(tmp_path):
    lines = ["Image Index,Finding Labels,Patient ID", "00000001_000.png,Mass|Nodule,1", "00000002_000.png,No Finding,2"]
    table(tmp_path / "Data_Entry_2017_v2020.csv", "\n".join(lines))
    table(tmp_path / "test_list.txt", "00000002_000.png")
    for i in (1, 2):
        picture(tmp_path / "images_224" / f"{i:08d}_000.jpg")
    cases = load_cases(tmp_path)
    assert [(item["image"][-16:], item.get("split")) for item in cases.items] == [
        ("00000001_000.jpg", None), ("00000002_000.jpg", "test"),
    ]  # fmt: skip
    picture(tmp_path / "other" / "00000001_000.jpg")
    with pytest.raises(UserError, match="are two images of one name: keep one version"):
        load_cases(tmp_path)


def test_a_refusal_says_what_was_found(tmp_path):
    lines = ["Image Index,Finding Labels,Patient ID", "00000001_000.png,Mass,1"]
    table(tmp_path / "Data_Entry_2017.csv", "\n".join(lines))
    with pytest.raises(UserError, match="there is no image below it; copy them below it"):
        load_cases(tmp_path)
    picture(tmp_path / "images" / "scan7.png")
    with pytest.raises(UserError, match=r"found 1 images and 0 masks of other names, such as images/scan7\.png"):
        load_cases(tmp_path)


@pytest.mark.parametrize(("first", "second"), [("", "-v2"), ("-v2", "-v3")])
def test_the_newest_tables_of_bcs_dbt_are_read(tmp_path, first, second):
    for version, marks in ((first, "1,0,0,0"), (second, "0,0,0,1")):
        table(tmp_path / f"BCS-DBT labels-train{version}.csv",
              f"PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\nDBT-P1,1.2,lcc,{marks}")  # fmt: skip
        table(tmp_path / f"BCS-DBT file-paths-train{version}.csv",
              "PatientID,StudyUID,View,descriptive_path,classic_path\nDBT-P1,1.2,lcc,a/b.dcm,a/b.dcm")  # fmt: skip
    touch(tmp_path / "a" / "b.dcm")
    cases = load_cases(tmp_path)
    assert [item["label"] for item in cases.items] == [3]
    assert f"BCS-DBT labels-train{first}.csv is an older version of BCS-DBT labels-train{second}.csv" in cases.doubts[1]


def test_two_downloads_of_one_table_are_refused(tmp_path):
    for name in ("BCS-DBT file-paths-train.csv", "BCS-DBT file-paths-train (1).csv", "BCS-DBT labels-train.csv"):
        table(tmp_path / name, "PatientID,StudyUID,View,descriptive_path,classic_path\nDBT-P1,1.2,lcc,a/b.dcm,a/b.dcm")
    with pytest.raises(UserError, match="are tables of one version: keep one of them"):
        load_cases(tmp_path)


def test_unmentioned_observations_of_chexpert_as_pandas_writes_them(tmp_path):
    chexpert(tmp_path)
    want = load_cases(tmp_path).items
    file = tmp_path / "train.csv"
    file.write_text(
        "\n".join(line.replace(",,", ",nan,").replace(",,", ",nan,") for line in file.read_text().split("\n"))
    )
    assert repr(load_cases(tmp_path).items) == repr(want)


def test_an_index_takes_from_the_layout_what_it_does_not_say(tmp_path):
    sunnybrook(tmp_path)
    known = load_cases(tmp_path)
    rows = [f"{item['image']},{item['label']},{i},{'test' if i else 'train'}" for i, item in enumerate(known.items)]
    table(tmp_path / "index.csv", "\n".join(["image,label,patient,split", *rows]))
    cases = load_cases(tmp_path)
    assert (cases.layout, cases.classes, cases.label_values) == ("table", ["left ventricle"], [255])
    assert [(item["patient"], item["split"]) for item in cases.items][:2] == [("0", "train"), ("1", "test")]


def test_an_index_goes_before_folders_of_images_and_labels(tmp_path):
    for i in range(4):
        for kind in ("images", "labels"):
            touch(tmp_path / kind / f"{i}.nii.gz")
    rows = [f"images/{i}.nii.gz,labels/{i}.nii.gz,p{i // 2},{'train' if i < 2 else 'test'}" for i in range(4)]
    table(tmp_path / "index.csv", "\n".join(["image,label,patient,split", *rows]))
    cases = load_cases(tmp_path)
    assert ([item["patient"] for item in cases.items], cases.items[3]["split"]) == (["p0", "p0", "p1", "p1"], "test")
    table(tmp_path / "index.csv", "\n".join(["image,lable,patient,split", *rows]))
    with pytest.raises(UserError, match=r"--label_column lable\. Or give --layout decathlon"):
        load_cases(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bloodmnist.npz", b"xx", "holds no labels of MedMNIST"),
        (
            "dataset.json",
            b'{"labels": {"0": "b", "1": "x"}, "training": ["a.nii.gz"]}',
            "lists 'a.nii.gz' under training",
        ),
    ],
)
def test_damaged_files_of_public_sets_are_refused_in_a_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_cases(tmp_path)


def test_what_is_no_number_is_named(tmp_path):
    (tmp_path / "patient001").mkdir()
    (tmp_path / "patient001" / "Info.cfg").write_text("ED: one\nES: 2\n")
    with pytest.raises(UserError, match="patient001/Info.cfg has 'one' for ED: expected a number"):
        load_cases(tmp_path)
