"""Splits by patient and the leakage audit: invariants, a scipy reference, and what goes wrong."""

import json
from collections import Counter

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from medtl_monai.data import audit, load_cases, perceptual_hash, raise_on_shared_patients, split_patients, write_split_csv
from medtl_monai.utils import UserError


def cohort(sizes, classes=2):
    """Patients ``0, 1, ...`` of alternating class with the given numbers of images."""
    return [
        {"image": f"{p}_{i}", "label": p % classes, "patient": str(p)} for p, n in enumerate(sizes) for i in range(n)
    ]


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
    assert audit(items, parts, dict.fromkeys((i["image"] for i in items), 0)).shared_patients == []
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


@pytest.mark.parametrize(
    ("sizes", "kwargs", "message"),
    [
        ([3, 3, 3], {}, "has images of 1 patient only"),
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


def test_shared_patients_and_near_duplicates_are_found(tmp_path):
    items = [{"image": c, "patient": p, "label": 0} for c, p in zip("abcd", "1123", strict=True)]
    report = audit(items, ["train", "val", "train", "val"], {"a": 0, "b": 0xFF, "c": 0xFFF0, "d": 0xFFF1})
    assert report.shared_patients == ["1"]
    assert report.near_duplicates == [{"images": ["c", "d"], "parts": ["train", "val"], "distance": 1}]
    assert report.parts["val"] == {"images": 2, "patients": 2}
    assert report.verdict.startswith("1 patients and 1 near-duplicate images")
    report.save(tmp_path / "leakage.json")
    assert json.loads((tmp_path / "leakage.json").read_text())["near_duplicate_count"] == 1
    with pytest.raises(UserError, match="1 patients stand in more than one part .1."):
        raise_on_shared_patients(report)


def test_the_hash_equals_one_from_scipys_transform():
    image = np.random.default_rng(0).random((64, 96)) * 255
    small = image.reshape(32, 2, 32, 3).mean((1, 3))
    low = scipy.fft.dctn(small, norm=None)[:8, :8]
    low[0, 0] = 0
    want = int("".join("01"[int(b)] for b in (low > np.median(low)).ravel()), 2)
    assert perceptual_hash(image) == want


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), scale=st.floats(0.5, 2.0), offset=st.floats(-20, 20))
def test_the_hash_hardly_changes_with_brightness_and_size(seed, scale, offset):
    image = np.random.default_rng(seed).normal(size=(8, 8)).repeat(8, 0).repeat(8, 1) * 50 + 100
    code = perceptual_hash(image)
    assert (code ^ perceptual_hash(scale * image + offset)).bit_count() <= 2
    assert (code ^ perceptual_hash(image.repeat(2, 0).repeat(2, 1))).bit_count() <= 2


def test_hashes_of_different_images_differ():
    rng = np.random.default_rng(0)
    codes = [perceptual_hash(rng.normal(size=(8, 8)).repeat(8, 0).repeat(8, 1)) for _ in range(50)]
    distances = [(a ^ b).bit_count() for i, a in enumerate(codes) for b in codes[:i]]
    assert min(distances) > 8
    assert Counter(codes).most_common(1)[0][1] == 1
