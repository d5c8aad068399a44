"""The phantom cohort: the same files from the same seed, balanced, safe to write, neither easy nor hopeless."""

import os
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medtl_monai.data import audit, check_readable, load_cases, make_brain_cohort, split_patients
from medtl_monai.data.phantoms import brain
from medtl_monai.utils import UserError

SMALL = {"patients": 6, "slices": (2, 3), "size": 48, "progress": False}


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The default cohort."""
    return make_brain_cohort(tmp_path_factory.mktemp("phantoms") / "brain", progress=False)


def test_a_seed_fixes_every_byte_and_another_changes_every_picture(tmp_path):
    one, same, other = (
        files(make_brain_cohort(tmp_path / name, seed=seed, **SMALL)) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same
    common = [name for name in one if name in other and name.endswith(".png")]
    assert common
    assert all(one[name] != other[name] for name in common)


def test_classes_are_balanced_by_patients_and_domains_are_a_patients_own(cohort):
    cases = load_cases(cohort)
    label_of, domains, counts = {}, defaultdict(set), Counter()
    for item in cases.items:
        assert label_of.setdefault(item["patient"], item["label"]) == item["label"]
        domains[item["patient"]].add(item["domain"])
        counts[item["patient"]] += 1
    assert cases.classes == list(brain.CLASSES)
    assert Counter(label_of.values()) == {0: 20, 1: 20, 2: 20}
    assert set(map(len, domains.values())) == {1}
    assert set.union(*domains.values()) == {"A", "B"}
    assert (min(counts.values()), max(counts.values())) == (3, 6)


def test_pictures_are_grey_and_use_the_range(cohort):
    for item in load_cases(cohort).items[::40]:
        with Image.open(item["image"]) as picture:
            assert (picture.mode, picture.size) == ("L", (160, 160))
            pixels = np.asarray(picture)
        assert pixels.max() > 150
        assert pixels[:8, :8].mean() < 40


def test_slices_of_a_patient_are_near_copies_and_patients_differ(cohort):
    rng = np.random.default_rng(0)
    items = load_cases(cohort).items
    flat = [
        np.asarray(Image.open(item["image"]).resize((32, 32), Image.Resampling.BOX), float).ravel() for item in items
    ]
    likeness = np.corrcoef(flat)
    patients = np.array([item["patient"] for item in items])
    same = (patients[:, None] == patients) & ~np.eye(len(items), dtype=bool)
    assert np.median(likeness[same]) > 0.95 > np.median(likeness[patients[:, None] != patients])
    careless = ["val" if chance < 0.2 else "train" for chance in rng.random(len(items))]
    hashes = check_readable(items, progress=False)
    careful = audit(items, split_patients(items), hashes)
    assert audit(items, careless, hashes).near_duplicate_count > 3 * careful.near_duplicate_count


def test_raw_pixels_tell_something_but_not_all(cohort):
    items = load_cases(cohort).items
    pixels = [
        np.asarray(Image.open(item["image"]).resize((16, 16), Image.Resampling.BOX), float).ravel() for item in items
    ]
    labels, patients = ([item[key] for item in items] for key in ("label", "patient"))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    scores = cross_val_score(probe, np.array(pixels), labels, groups=patients, cv=GroupKFold(5))
    assert 0.38 < scores.mean() < 0.8


def test_a_cohort_made_before_is_kept_and_another_replaces_it(tmp_path):
    folder = make_brain_cohort(tmp_path / "brain", **SMALL)
    before = (folder / "index.csv").stat().st_ino
    assert (make_brain_cohort(folder, **SMALL) / "index.csv").stat().st_ino == before
    bigger = load_cases(make_brain_cohort(folder, **{**SMALL, "patients": 9})).items
    assert len({item["patient"] for item in bigger}) == 9


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "scan.png").write_bytes(b"precious")
    with pytest.raises(UserError, match="holds files that are no phantom cohort"):
        make_brain_cohort(tmp_path, **SMALL)
    assert files(tmp_path) == {"scan.png": b"precious"}


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    calls = []

    def stop(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    original = brain._patient
    monkeypatch.setattr(brain, "_patient", stop)
    with pytest.raises(KeyboardInterrupt):
        make_brain_cohort(tmp_path / "brain", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_the_cohort_of_a_quicker_process_is_kept(tmp_path, monkeypatch):
    folder = tmp_path / "brain"

    def race(*args):
        monkeypatch.undo()  # the other process does its work undisturbed
        make_brain_cohort(folder, **SMALL)
        (folder / "in_use").touch()
        return original(*args)

    original = brain._patient
    monkeypatch.setattr(brain, "_patient", race)
    make_brain_cohort(folder, **SMALL)
    assert (folder / "in_use").exists()
    assert os.listdir(tmp_path) == ["brain"]


def test_the_default_cohort_is_made_once_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path))
    made = []
    monkeypatch.setattr(brain, "make_brain_cohort", made.append)
    folder = brain.brain_cohort()
    assert made == [tmp_path / "phantoms" / "brain-v1"] == [type(tmp_path)(folder)]
