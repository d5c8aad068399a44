"""Transferability: every score against an independent reference, patients kept apart, and the command line."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from monai.data import Dataset
from PIL import Image
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from medtl_monai.bundle import rank_weights
from medtl_monai.cli import main
from medtl_monai.data import fold_patients, load_cases
from medtl_monai.transferability import (
    assess,
    control_probabilities,
    gbc,
    h_score,
    leep,
    logme,
    nleep,
    patient_halves,
    shuffle_labels,
)
from medtl_monai.utils import UserError

ROOT = Path(__file__).resolve().parents[1]


def data(n=60, f=5, classes=3, apart=1.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return rng.normal(size=(n, f)) + apart * rng.normal(size=(classes, f))[labels] + 2, labels


@pytest.mark.parametrize("shape", [(30, 4), (12, 20)])
def test_logme_is_the_largest_evidence(shape):
    """The marginal likelihood written as a Gaussian of the labels, and both precisions searched for."""
    x, y = data(*shape, classes=2)
    best = []
    for k in range(2):

        def negative(logs, k=k):
            covariance = np.exp(-logs[0]) * x @ x.T + np.exp(-logs[1]) * np.eye(len(x))
            return -multivariate_normal(np.zeros(len(x)), covariance).logpdf(y == k) / len(x)

        starts = ([a, b] for a in (0.0, 3.0) for b in (1.0, 3.0))
        options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000, "maxfev": 4000}
        found = [minimize(negative, start, method="Nelder-Mead", options=options).fun for start in starts]
        best.append(-min(found))
    assert logme(x, y) == pytest.approx(np.mean(best), abs=1e-6)


def test_leep_by_hand():
    # P(y, z): class 0 has (0.9 + 0.6, 0.1 + 0.4), class 1 (0.2, 0.8); of z 1.7 and 1.3
    theta, y = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], [0, 0, 1]
    right = (0.9 * 1.5 / 1.7 + 0.1 * 0.5 / 1.3, 0.6 * 1.5 / 1.7 + 0.4 * 0.5 / 1.3, 0.2 * 0.2 / 1.7 + 0.8 * 0.8 / 1.3)
    assert leep(theta, y) == pytest.approx(np.log(right).mean())
    assert leep(np.eye(2)[y], y) == 0
    assert leep(np.full((3, 4), 0.25), y) == pytest.approx(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    with pytest.raises(UserError, match="which sum to 1"):
        leep([[2.0, -3.0]], [0])


def test_h_score_is_the_trace_of_its_formula():
    x, y = data()
    means = np.stack([x[y == k].mean(0) for k in range(3)])[y]
    direct = np.trace(np.linalg.pinv(np.cov(x.T)) @ np.cov(means.T))
    assert h_score(x, y) == pytest.approx(direct)
    assert 0 < direct < 2
    fitted = LedoitWolf().fit(x)
    shrunk = (1 - fitted.shrinkage_) * np.trace(np.linalg.solve(fitted.covariance_, np.cov(means.T, bias=True)))
    assert h_score(x, y, shrinkage=True) == pytest.approx(shrunk)
    noise, few = np.random.default_rng(1).normal(size=(30, 64)), np.arange(30) % 3
    assert h_score(noise, few) == pytest.approx(2)  # says nothing, and looks perfect
    assert h_score(noise, few, shrinkage=True) < 0.5


def test_gbc_is_the_overlap_of_the_gaussians():
    """Classes whose means and variances are known: four corners of a square around each centre."""
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    centres, widths = np.array([[0, 0], [3, 0], [0, 2]]), [1.0, 2.0, 0.5]
    x = np.concatenate([c + w * square for c, w in zip(centres, widths, strict=True)])
    overlap = 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = widths[i] ** 2 * np.eye(2), widths[j] ** 2 * np.eye(2)
        both, apart = (a + b) / 2, centres[i] - centres[j]
        distance = apart @ np.linalg.solve(both, apart) / 8
        distance += np.log(np.linalg.det(both) / np.sqrt(np.linalg.det(a) * np.linalg.det(b))) / 2
        overlap += 2 * np.exp(-distance)
    y = np.repeat([0, 1, 2], 4)
    assert gbc(x, y) == pytest.approx(-overlap, abs=1e-6)
    turned = x @ np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0] + 7
    assert gbc(turned, y) == pytest.approx(-overlap, abs=1e-6)
    assert gbc(np.concatenate([square, square]), np.repeat([0, 1], 4)) == pytest.approx(-2)


def test_nleep_tells_features_that_separate_from_such_that_do_not():
    x, y = data(120, 8, classes=2, apart=6.0)
    noise = np.random.default_rng(0).permutation(x)
    assert -0.05 < nleep(x, y) <= 0
    assert -np.log(2) <= nleep(noise, y) < -0.5
    assert nleep(x, y, seed=3) == nleep(x, y, seed=3)
    turned = x @ np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0] - 5
    assert nleep(turned, y) > -0.05


def test_all_scores_prefer_features_that_separate():
    good, y = data(90, 6, apart=3.0)
    poor = data(90, 6, apart=0.3)[0]
    for score in (logme, nleep, h_score, gbc):
        assert score(good, y) > score(poor, y), score.__name__


def test_folds_by_patient_share_no_patient_and_spread_the_classes():
    patients = [f"p{i // 3}" for i in range(90)]
    items = [{"label": (i // 3) % 2, "patient": patients[i]} for i in range(90)]
    folds = np.array(fold_patients(items, seed=1))
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    assert all(len(set(folds[np.array(patients) == patient])) == 1 for patient in patients)
    labels = np.array([item["label"] for item in items])
    assert all(np.bincount(labels[folds == fold]).tolist() == [9, 9] for fold in range(5))
    assert max(fold_patients(items[:18])) == 2  # as many as the rarest class has patients
    with pytest.raises(UserError, match="class ill has images of 1 patient only"):
        fold_patients(items[:9], classes=["well", "ill"])


def test_controls_are_scikit_learns_on_the_held_out_folds():
    x, y = data()
    folds = np.repeat(np.arange(4), 15)
    found = control_probabilities(x, y, folds, 3)
    for fold in range(4):
        held, rest = folds == fold, folds != fold
        mean, std = x[rest].mean(0), x[rest].std(0)
        probe = LogisticRegression(tol=1e-10, max_iter=5000).fit((x[rest] - mean) / std, y[rest])
        expected = probe.predict_proba((x[held] - mean) / std)
        np.testing.assert_allclose(found["linear_probe"][held], expected, atol=1e-4)
        weights = {"metric": "cosine", "weights": lambda distance: np.exp(-distance / 0.1)}
        neighbours = KNeighborsClassifier(5, **weights).fit(x[rest], y[rest])
        np.testing.assert_allclose(found["knn"][held], neighbours.predict_proba(x[held]), atol=1e-9)


def test_halves_of_patients_give_the_standard_error_of_a_mean():
    rng = np.random.default_rng(0)
    patients, labels = np.repeat(np.arange(200), 3), np.arange(600) % 2
    values = np.repeat(rng.normal(size=200), 3)  # of one patient all alike: 200 independent values, not 600
    seen = []

    def mean(i):
        seen.append(i)
        return values[i].mean()

    error = patient_halves(mean, labels, patients, n=400, seed=0)
    assert error == pytest.approx(values.std() / np.sqrt(200), rel=0.1)
    for i in seen[:5]:
        chosen = set(patients[i])
        assert len(chosen) == 100
        assert len(i) == len(set(i)) == 300
    rare = np.where(
        patients < 2, patients + 1, 0
    )  # two classes of a patient each: three quarters of the halves lack one
    assert np.isnan(patient_halves(mean, rare, patients, n=40))


def test_shuffled_labels_are_those_of_other_patients():
    patients, labels = np.repeat(np.arange(40), 3), np.repeat(np.arange(40) % 2, 3)
    order = np.random.default_rng(0).permutation(120)
    shuffled = shuffle_labels(labels[order], patients[order])
    assert sorted(shuffled) == sorted(labels)
    assert all(len(set(shuffled[patients[order] == patient])) == 1 for patient in range(40))
    assert 0.2 < (shuffled == labels[order]).mean() < 0.8


def test_assess_gives_every_score_with_its_interval_and_the_controls():
    x, y = data(60, 80, classes=2)
    patients = [f"p{i // 4}-{i % 2}" for i in range(60)]
    folds = fold_patients([{"label": label, "patient": who} for label, who in zip(y.tolist(), patients, strict=True)])
    found = assess(x, y, patients, folds, ["well", "ill"], source_probabilities=np.eye(2)[y] * 0.8 + 0.1)
    assert set(found["scores"]) == {"logme", "leep", "nleep", "h_score", "gbc"}
    assert found["scores"]["logme"]["value"] == pytest.approx(logme(x, y))
    assert found["scores"]["h_score"]["value"] == pytest.approx(h_score(x, y, shrinkage=True))
    for entry in found["scores"].values():
        assert entry["shuffled"] < entry["value"]
    for entry in (*found["scores"].values(), *found["controls"].values()):
        low, high = entry["interval"]
        assert low <= entry["value"] <= high
    json.dumps(found, allow_nan=False)
    absent = assess(x, y, patients, folds, ["well", "ill", "never seen"])
    assert "no classes of its own" in absent["scores"]["leep"]["reason"]
    assert absent["scores"]["gbc"] == found["scores"]["gbc"]
    assert "no image of class 'never seen'" in absent["controls"]["linear_probe_auc"]["reason"]


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ([[1.0], [2.0]], [0], "a label for each image"),
        ([[1.0], [np.nan], [1.0], [2.0]], [0, 0, 1, 1], "finite"),
        ([[1.0], [1.0], [1.0], [1.0]], [0, 0, 1, 1], "differ between images"),
        ([[1.0], [2.0], [3.0]], [0, 0, 1], r"got \[2, 1\] images"),
    ],
)
def test_features_and_labels_that_do_not_fit_are_refused(features, labels, message):
    for score in (logme, nleep, h_score, gbc):
        with pytest.raises(UserError, match=message):
            score(features, labels)


class Counted(Dataset):
    """Keeps which of its items were read."""

    read: set[int] = set()

    def __getitem__(self, index):
        self.read.add(index)
        return super().__getitem__(index)


@pytest.fixture
def small(cohort):
    """The cohort's table, its last two patients for testing."""
    rows = list(csv.DictReader((cohort / "index.csv").read_text().splitlines()))
    last = sorted({row["patient"] for row in rows})[-2:]
    with (cohort / "ranked.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "label", "patient", "split"])
        writer.writeheader()
        for row in rows:
            part = "test" if row["patient"] in last else "train"
            writer.writerow({**{key: row[key] for key in ("image", "label", "patient")}, "split": part})
    yield cohort
    (cohort / "ranked.csv").unlink()


def test_the_command_ranks_and_its_repeat_opens_no_image(small, tmp_path, monkeypatch):
    output, features = tmp_path / "out" / "rank.json", tmp_path / "features"
    arguments = [small, "--table", "ranked.csv", "--weights", "efficientnet_lite0_imagenet", "--image_size", 64]
    arguments += ["--cache_dir", features, "--output", output]
    command = [sys.executable, "-m", "medtl_monai", "rank", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr + done.stdout
    result = json.loads(output.read_text())
    assert result["test_images_left_out"] > 0
    assert result["patients"] == 22
    assert f"{result['images']} images of 22 patients, 3 classes; {result['test_images_left_out']} test images" in (
        done.stdout
    )
    (network,) = result["networks"]
    assert (network["backbone"], network["image_size"], network["features"]) == ("efficientnet_lite0", 64, 1280)
    auc, shown = network["controls"]["linear_probe_auc"], network["scores"]["leep"]
    assert f"{auc['value']:.3f} [{auc['interval'][0]:.3f}, {auc['interval'][1]:.3f}]" in done.stdout
    assert f"{shown['value']:.3f} [{shown['interval'][0]:.3f}, {shown['interval'][1]:.3f}]" in done.stdout
    assert re.search(rf"^  labels shuffled .* {shown['shuffled']:.3f} ", done.stdout, re.MULTILINE)
    assert "No score reliably tells" in done.stdout
    monkeypatch.setattr("medtl_monai.bundle.rank.Dataset", Counted)
    cases = load_cases(small, table="ranked.csv")
    again = rank_weights(cases, [network["weights"]], image_size=64, place=str(features), progress=False)
    assert again == result
    assert Counted.read == set(range(16))  # the first batch, which is compared


def test_help_needs_no_torch():
    code = "import sys; from medtl_monai.cli import main\ntry: main(['rank', '--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'monai', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--cache_dir" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "efficientnet_lite"], "did you mean 'efficientnet_lite"),
        (["--image_size", "8"], "image_size must be a whole number from 32"),
        (["--label_column", "patient"], "a split by patient needs at least 2 in each class"),
        (["--table", "none.csv"], "there is no table none.csv"),
        (["--output", "."], "--output must name a file"),
        (["--cache_dir", __file__], "--cache_dir must name a folder"),
    ],
)
def test_mistakes_are_one_sentence(small, capsys, monkeypatch, arguments, message):
    monkeypatch.delattr("medtl_monai.bundle.rank.extract_features")  # each is found before any work is done
    assert main(["rank", str(small), "--table", "ranked.csv", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_what_cannot_be_ranked_is_refused(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = ["image,label,patient"]
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]},{i}")
    Image.new("CMYK", (40, 40)).save(tmp_path / "3.png", "JPEG")
    (tmp_path / "index.csv").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"3\.png stores its colours as CMYK"):
        rank_weights(load_cases(tmp_path), ["efficientnet_lite0_imagenet"], image_size=32, progress=False)
    (tmp_path / "index.csv").write_text("\n".join(rows).replace(",a,", ",No Finding,"))
    with pytest.raises(UserError, match="labels are for multilabel.*--label_column"):
        rank_weights(load_cases(tmp_path))
    (tmp_path / "index.csv").write_text("\n".join(rows))
    monkeypatch.setattr("medtl_monai.bundle.rank.local", lambda source: None)
    with pytest.raises(UserError, match="no pretrained weights on this machine"):
        rank_weights(load_cases(tmp_path))
