"""The leakage audit: a scipy reference for the hash, copies, near-duplicates, and a real set."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medtl_monai.data import (
    audit,
    check_readable,
    load_cases,
    perceptual_hash,
    raise_on_shared_patients,
    split_patients,
)
from medtl_monai.utils import UserError


def test_shared_patients_and_near_duplicates_are_found(tmp_path):
    items = [{"image": c, "patient": p, "label": 0} for c, p in zip("abcd", "1123", strict=True)]
    report = audit(items, ["train", "val", "train", "val"], {"a": 0, "b": 0xFF, "c": 0xFFF0, "d": 0xFFF1})
    assert report.shared_patients == ["1"]
    assert report.near_duplicates == [
        {"images": ["c", "d"], "parts": ["train", "val"], "distance": 1, "same_file": False}
    ]
    assert report.parts["val"] == {"images": 2, "patients": 2, "classes": 1}
    assert report.verdict.startswith("1 patients and 1 near-duplicate images")
    report.save(tmp_path / "leakage.json")
    assert json.loads((tmp_path / "leakage.json").read_text())["near_duplicate_count"] == 1
    with pytest.raises(UserError, match=r"1 patients stand in more than one part \(1\)"):
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


def test_copies_of_a_file_are_told_from_images_that_look_alike(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for name, pixels in (("a.png", picture), ("c.png", picture // 2)):
        Image.fromarray(pixels).save(tmp_path / name)
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    items = [{"image": str(tmp_path / f"{name}.png"), "patient": name, "label": 0} for name in "abc"]
    hashes = check_readable(items, progress=False)
    copied = audit(items[:2], ["train", "val"], hashes)
    assert [pair["same_file"] for pair in copied.near_duplicates] == [True]
    assert "1 of the 1 pairs listed are copies of one file" in copied.verdict
    alike = audit(items[1:], ["train", "val"], hashes)
    assert [pair["same_file"] for pair in alike.near_duplicates] == [False]


def test_pairs_equal_a_count_by_hand_and_the_list_is_capped():
    items = [{"image": str(i), "patient": str(i), "label": 0} for i in range(120)]
    parts = ["train" if i % 3 else "val" for i in range(120)]
    report = audit(items, parts, {str(i): 2**63 + i for i in range(120)}, max_distance=2)
    apart = [(i ^ j).bit_count() for i in range(120) for j in range(i) if parts[i] != parts[j]]
    want = sorted(distance for distance in apart if distance <= 2)
    assert report.near_duplicate_count == len(want) > 100
    assert [pair["distance"] for pair in report.near_duplicates] == want[:100]


def test_one_part_alone_has_nothing_to_leak_into():
    items = [{"image": "a", "patient": "1", "label": 0}, {"image": "b", "patient": "1", "label": 0}]
    report = audit(items, ["test", "test"], {"a": 0, "b": 0})
    assert (report.near_duplicate_count, report.shared_patients) == (0, [])
    assert report.verdict.startswith("a single part")


def test_real_slices_split_by_block_share_nothing_and_split_by_slice_do(shared_data):
    items = load_cases(shared_data / "brain_tumor_figshare3064", patient_column="block").items
    hashes = check_readable(items, progress=False)
    assert audit(items, split_patients(items), hashes).near_duplicate_count == 0
    slices = [{**item, "patient": item["image"]} for item in items]
    careless = split_patients(slices)
    assert audit(slices, careless, hashes).near_duplicate_count > 3
    with pytest.raises(UserError, match="patients stand in more than one part"):
        raise_on_shared_patients(audit(items, careless, hashes))
