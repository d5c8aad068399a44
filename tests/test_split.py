"""Splits by patient: invariants, real blocks, and what goes wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtl_monai.data import load_cases, split_patients, write_split_csv
from medtl_monai.utils import UserError


def cohort(sizes, classes=2):
    """Patients ``0, 1, ...`` of alternating class with the given numbers of images."""
    return [
        {"image": f"{p}_{i}", "label": p % classes, "patient": str(p)} for p, n in enumerate(sizes) for i in range(n)
    ]


def patients_of(items, parts, wanted):
    return {item["patient"] for item, part in zip(items, parts, strict=True) if part == wanted}


sizes = st.lists(st.integers(1, 9), min_size=8, max_size=20)


@settings(deadline=None, max_examples=25)
@given(sizes=sizes, seed=st.integers(0, 9), order=st.randoms())
def test_a_split_does_not_depend_on_the_order_of_the_rows(sizes, seed, order):
    items = cohort(sizes)
    mixed = items.copy()
    order.shuffle(mixed)
    parts = dict(zip((i["image"] for i in items), split_patients(items, seed=seed), strict=True))
    assert split_patients(mixed, seed=seed) == [parts[i["image"]] for i in mixed]


@settings(deadline=None, max_examples=25)
@given(sizes=sizes, seed=st.integers(0, 9))
def test_no_patient_stands_in_two_parts_and_each_class_in_both(sizes, seed):
    items = cohort(sizes)
    parts = split_patients(items, seed=seed)
    assert not patients_of(items, parts, "train") & patients_of(items, parts, "val")
    for label in (0, 1):
        assert {p for i, p in zip(items, parts, strict=True) if i["label"] == label} == {"train", "val"}


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 9), min_size=12, max_size=20), seed=st.integers(0, 9))
def test_folds_cover_every_patient_once(sizes, seed):
    items = cohort(sizes)
    val = [
        {i["patient"] for i, p in zip(items, split_patients(items, fold=k, seed=seed), strict=True) if p == "val"}
        for k in range(5)
    ]
    assert sum(map(len, val)) == len(set.union(*val)) == len(sizes)


def test_a_seed_fixes_the_split_and_another_changes_it():
    items = cohort([3] * 20)
    assert split_patients(items, seed=1) == split_patients(items, seed=1) != split_patients(items, seed=2)


def test_classes_get_their_share_of_images_though_patients_differ_in_size():
    items = cohort([1, 1, 2, 2, 20, 20, 3, 3, 5, 5, 8, 8, 4, 4, 6, 6])
    for seed in range(5):
        parts = split_patients(items, seed=seed)
        for label in (0, 1):
            share = np.mean([p == "val" for i, p in zip(items, parts, strict=True) if i["label"] == label])
            assert share == pytest.approx(0.2, abs=0.06)


def test_real_blocks_of_unequal_size_are_shared_out_evenly(shared_data):
    items = load_cases(shared_data / "brain_tumor_figshare3064", patient_column="block").items
    for seed in range(10):
        parts = split_patients(items, seed=seed)
        for label in range(3):
            share = np.mean([p == "val" for i, p in zip(items, parts, strict=True) if i["label"] == label])
            assert share == pytest.approx(0.2, abs=0.04)


def test_the_datas_own_split_is_kept_and_val_is_made_where_it_is_missing():
    items = cohort([2] * 10)
    given = [{**item, "split": "test" if item["patient"] == "3" else "train"} for item in items]
    parts = split_patients(given)
    assert {i["patient"] for i, p in zip(given, parts, strict=True) if p == "test"} == {"3"}
    assert "val" in parts
    own = [{**item, "split": "val" if item["patient"] == "3" else "train"} for item in items]
    assert split_patients(own) == [item["split"] for item in own]


def test_a_patient_with_two_labels_stays_in_one_part():
    items = [{**item, "label": i % 2} for i, item in enumerate(cohort([5] * 10))]
    parts = split_patients(items)
    assert not patients_of(items, parts, "train") & patients_of(items, parts, "val")


@pytest.mark.parametrize(
    ("split", "kwargs", "message"),
    [
        (["test"] * 6, {}, "no image is for training: the data's own split names only test"),
        (["train", "val"] * 3, {"fold": 1}, "fold 1 has no effect, as the data's own split names val"),
    ],
)
def test_the_datas_own_split_must_fit_the_settings(split, kwargs, message):
    items = [{**item, "split": part} for item, part in zip(cohort([1] * 6), split, strict=True)]
    with pytest.raises(UserError, match=message):
        split_patients(items, **kwargs)


@pytest.mark.parametrize(
    ("sizes", "kwargs", "message"),
    [
        (
            [3, 3, 3],
            {},
            "class number 1 has images of 1 patient only; a split by patient needs at least 2 in each class",
        ),
        ([3, 3, 3], {"classes": ["benign", "cancer"]}, "class cancer has images of 1 patient only;"),
        ([3] * 6, {"fold": 0}, "needs at least 5.*or give a larger val_fraction"),
        ([3] * 20, {"fold": 5}, "fold must be a whole number from 0 to 4"),
        ([3] * 20, {"val_fraction": 0.7}, "at most 0.5"),
    ],
)
def test_impossible_splits_say_why(sizes, kwargs, message):
    with pytest.raises(UserError, match=message):
        split_patients(cohort(sizes), **kwargs)


def test_the_table_says_where_each_image_went(tmp_path):
    items = cohort([1, 1])
    write_split_csv(tmp_path / "split.csv", items, ["train", "val"])
    assert (tmp_path / "split.csv").read_text().splitlines() == [
        "image,patient,label,domain,part",
        "0_0,0,0,,train",
        "1_0,1,1,,val",
    ]


def test_patients_with_findings_are_spread_by_their_rarest_one():
    rng = np.random.default_rng(0)
    items = []
    for patient in range(100):
        label = [float(patient % 2), float(patient % 10 == 0), float(patient == 7)]  # the last finding has one patient
        items += [
            {"image": f"{patient}_{i}", "patient": str(patient), "label": label} for i in range(rng.integers(1, 4))
        ]
    parts = split_patients(items, val_fraction=0.2, seed=3)
    val = patients_of(items, parts, "val")
    assert not val & patients_of(items, parts, "train")
    assert 15 <= len(val) <= 25
    assert 1 <= sum(int(p) % 10 == 0 for p in val) <= 3
    assert parts == split_patients(items, val_fraction=0.2, seed=3)
    folds = [patients_of(items, split_patients(items, val_fraction=0.2, fold=fold), "val") for fold in range(5)]
    assert sorted(p for fold in folds for p in fold) == sorted(str(p) for p in range(100))
    with pytest.raises(UserError, match="at least 2 patients, found 1"):
        split_patients([items[0]])


def test_patients_with_one_healthy_and_one_ill_breast_count_as_ill():
    items = [{"patient": f"p{i}", "label": int(i < 4 and side == 0)} for i in range(12) for side in (0, 1)]
    parts = split_patients(items, val_fraction=0.25)
    assert {"p0", "p1", "p2", "p3"} & patients_of(items, parts, "val")
    for fold in range(4):
        val = patients_of(items, split_patients(items, val_fraction=0.25, fold=fold), "val")
        assert len(val & {"p0", "p1", "p2", "p3"}) == 1
