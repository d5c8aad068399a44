"""Class folders: patients by folder or pattern, helper folders, masks, parts."""

import pytest
from PIL import Image

from medtl_monai.data import load_cases
from medtl_monai.utils import UserError


def pictures(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(path, "PNG")
    return root


def patients(root, **settings):
    return sorted({item["patient"] for item in load_cases(root, layout="folders", **settings).items})


def test_masks_in_a_class_are_no_patients(tmp_path):
    pictures(tmp_path, *(f"{c}/{kind}/{c}{i}.png" for c in "ab" for kind in ("images", "masks") for i in range(3)))
    with pytest.raises(UserError, match="lies in the folder images of its class, so its patient is not known"):
        load_cases(tmp_path)
    cases = load_cases(tmp_path, patient_column=None)
    assert len(cases.items) == 6
    assert cases.unused == {"masks": 6}


def test_a_helper_folder_between_is_passed_over(tmp_path):
    pictures(tmp_path, "a/p1/images/x.png", "b/images/p2/x.png")
    assert patients(tmp_path) == ["p1", "p2"]


@pytest.mark.parametrize("kind", ["masks", "labels", "annotations", "GT"])
@pytest.mark.parametrize("below", ["", "p1/"])
def test_images_and_masks_are_no_two_classes(tmp_path, kind, below):
    pictures(tmp_path, *(f"{folder}/{below}{i}.png" for folder in ("images", kind) for i in range(4)))
    with pytest.raises(UserError, match=f"the folders images and {kind} hold images and their masks, not two classes"):
        load_cases(tmp_path)


def test_the_same_patients_under_every_class_are_said(tmp_path):
    pictures(tmp_path, *(f"{c}/{side}/{c}{i}.png" for c in "ab" for side in ("left", "right") for i in range(2)))
    assert "every class folder has the same patients (left, right)" in load_cases(tmp_path).doubts[0]


def test_a_pattern_finds_the_patient_in_the_path(tmp_path):
    pictures(tmp_path, *(f"{c}/{c}{i}_{k}.png" for c in "ab" for i in range(2) for k in range(2)))
    assert patients(tmp_path, patient_column="([^/_]+)_[^/]*$") == ["a0", "a1", "b0", "b1"]
    with pytest.raises(UserError, match=r"the pattern 'x\(.\)' finds no patient in a/a0_0.png"):
        load_cases(tmp_path, patient_column="x(.)")


@pytest.mark.parametrize("wanted", ["subject", "(a)(b)", "(a"])
def test_what_is_no_pattern_is_refused_and_not_ignored(tmp_path, wanted):
    pictures(tmp_path, "a/p1/x.png", "b/p2/x.png")
    with pytest.raises(UserError, match="class folders take auto, null or a pattern with one group"):
        load_cases(tmp_path, patient_column=wanted)


@pytest.mark.parametrize("key", ["image_column", "label_column"])
def test_a_column_without_a_table_is_refused_and_not_ignored(tmp_path, key):
    pictures(tmp_path, "a/p1/x.png", "b/p2/x.png")
    with pytest.raises(UserError, match=f"{key} names a column, and there is no table"):
        load_cases(tmp_path, **{key: "other"})


def test_parts_beside_other_folders_are_refused(tmp_path):
    pictures(tmp_path, "train/a/p1/x.png", "train/b/p2/x.png", "extra/c/p3/x.png")
    with pytest.raises(UserError, match="the folders train are parts of a split and extra are not"):
        load_cases(tmp_path)


def test_tables_of_other_names_are_pointed_at(tmp_path):
    pictures(tmp_path, "x.png")
    for name in ("labels.csv", "labels_v2.csv"):
        (tmp_path / name).write_text("image,label\nx.png,a\n")
    with pytest.raises(UserError, match="there is labels.csv, labels_v2.csv: name a table with --table 'labels.csv'"):
        load_cases(tmp_path)


@pytest.mark.parametrize("names", [("train_set", "test_set"), ("TrainData", "ValidationData"), ("training images",)])
def test_folders_named_as_sets_are_no_classes(tmp_path, names):
    pictures(tmp_path, *(f"{name}/{c}/p{i}/x.png" for name in names for i, c in enumerate("ab")))
    with pytest.raises(UserError, match="look like parts of a split, not like classes: call them train, val and test"):
        load_cases(tmp_path)


def test_a_result_of_a_test_is_a_class(tmp_path):
    pictures(tmp_path, *(f"test_{result}/p_{result}{i}/x.png" for result in ("positive", "negative") for i in range(2)))
    assert load_cases(tmp_path).classes == ["test_negative", "test_positive"]


@pytest.mark.parametrize("ending", ["_roi", "-manual", "_1stHO", " overlay"])
def test_images_that_have_the_names_of_others_may_be_masks_and_are_said(tmp_path, ending):
    pictures(tmp_path, *(f"{c}/{c}{i}/x{i}{e}.png" for c in "ab" for i in range(3) for e in ("", ending)))
    said = any(f"names of others with {ending!r} at the end" in doubt for doubt in load_cases(tmp_path).doubts)
    assert said == (ending != "_1stHO")


@pytest.mark.parametrize("ending", ["_2", "0", "_mask"])
def test_numbers_and_known_masks_are_not_said(tmp_path, ending):
    pictures(tmp_path, *(f"{c}/{c}{i}/x{i}{e}.png" for c in "ab" for i in range(3) for e in ("", ending)))
    assert load_cases(tmp_path).doubts == []


def test_a_workbook_is_named_where_patients_are_not_known(tmp_path):
    pictures(tmp_path, "images/1.png", "images/2.png")
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match="patient is not known.*there is labels.xlsx: save it as index.csv"):
        load_cases(tmp_path)


def test_what_is_there_in_place_of_images_is_said(tmp_path):
    for name in ("a/1.npy", "b/2.npy", "b/3.ppm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"there is no image below .*; not used: 2 .npy files, 1 .ppm files\."):
        load_cases(tmp_path)
