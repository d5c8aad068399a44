import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from medtl_monai.metrics import (
    CLASSIFICATION_METRICS,
    calibration_error,
    classification,
    classification_metrics,
    part_metrics,
    patient_bootstrap,
    render_metrics,
)
from medtl_monai.utils import UserError

CLASSES = ["normal", "benign", "cancer"]


def cohort(n, classes=3, *, seed=0, skill=1.0):
    """Random but informative predictions of ``n`` images, three to a patient."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    scores = generator.normal(size=(n, classes))
    scores[np.arange(n), labels] += skill
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return probabilities, labels, [f"p{i // 3}" for i in range(n)]


def binary(tp, fp, tn, fn):
    """Hard predictions with these counts, class 1 being the positive."""
    labels = np.repeat([1, 0, 0, 1], [tp, fp, tn, fn])
    return np.eye(2)[np.repeat([1, 1, 0, 0], [tp, fp, tn, fn])], labels


def numbers(entries):
    return {name: entry["value"] for name, entry in entries.items()}


@st.composite
def predictions(draw):
    """Few images, so that classes go missing; coarse probabilities, so that there are ties and full bin edges."""
    classes, n = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    counts = draw(st.lists(st.lists(st.integers(0, 5), min_size=classes, max_size=classes), min_size=n, max_size=n))
    counts = np.array(counts) + np.eye(classes, dtype=int)[0]
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    return counts / counts.sum(axis=1, keepdims=True), labels


def test_overall_metrics_equal_scikit_learn():
    p, y, _ = cohort(200)
    predicted, truth = p.argmax(axis=1), np.eye(3)[y]
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, predicted, average="macro")
    found = classification_metrics(p, y, CLASSES)
    expected = {
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "average_precision": sk.average_precision_score(truth, p, average="macro"),
    }
    values = numbers(found["metrics"])
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["confusion_matrix"] == sk.confusion_matrix(y, predicted).tolist()
    assert list(found["metrics"]) == list(CLASSIFICATION_METRICS)


@pytest.mark.parametrize("k", range(3))
def test_metrics_of_a_class_equal_scikit_learn_one_against_the_rest(k):
    p, y, _ = cohort(150, seed=1)
    truth, predicted = y == k, p.argmax(axis=1) == k
    found = numbers(classification_metrics(p, y, CLASSES)["per_class"][CLASSES[k]])
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "precision": sk.precision_score(truth, predicted),
        "recall": sk.recall_score(truth, predicted),
        "specificity": sk.recall_score(~truth, ~predicted),
        "f1": sk.f1_score(truth, predicted),
        "auc": sk.roc_auc_score(truth, p[:, k]),
        "average_precision": sk.average_precision_score(truth, p[:, k]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_calibration_error_equals_a_hand_worked_value():
    # bins of width 1/15: (.467, .533] holds .5 and .52, (.933, 1] holds .95, .97 and 1
    confidence, correct = [0.5, 0.52, 0.95, 0.97, 1.0], [True, False, True, False, True]
    expected = 2 / 5 * abs(0.5 - 0.51) + 3 / 5 * abs(2 / 3 - 2.92 / 3)
    assert calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-6)


def test_overall_calibration_is_of_the_most_probable_class_and_per_class_of_its_own_probability():
    found = classification_metrics([[0.8, 0.2], [0.4, 0.6]], [0, 0], ["a", "b"])
    assert found["metrics"]["ece"]["value"] == pytest.approx((0.2 + 0.6) / 2, abs=1e-6)
    assert found["per_class"]["a"]["ece"]["value"] == pytest.approx((0.2 + 0.6) / 2, abs=1e-6)
    assert found["per_class"]["b"]["ece"]["value"] == pytest.approx((0.2 + 0.6) / 2, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(predictions())
def test_the_bootstrap_twin_equals_monai(case):
    p, y = case
    twin = classification._resampled_values(p, y, np.ones((1, len(y))))[0]
    np.testing.assert_allclose(twin, classification._values(p, y), atol=1e-6)  # calibration is float32 in MONAI


@settings(deadline=None, max_examples=25)
@given(predictions(), st.integers(0, 99))
def test_an_image_drawn_twice_counts_like_two_images(case, seed):
    p, y = case
    drawn = np.random.default_rng(seed).integers(0, 3, len(y))
    drawn[0] = 1
    twin = classification._resampled_values(p, y, drawn[None].astype(float))[0]
    np.testing.assert_allclose(
        twin, classification._values(np.repeat(p, drawn, axis=0), np.repeat(y, drawn)), atol=1e-6
    )


@settings(deadline=None, max_examples=25)
@given(predictions())
def test_every_defined_metric_lies_between_0_and_1_and_every_undefined_one_has_a_reason(case):
    p, y = case
    found = classification_metrics(p, y, [str(k) for k in range(p.shape[1])])
    for entries in [found["metrics"], *found["per_class"].values()]:
        for entry in entries.values():
            assert entry["reason"] if entry["value"] is None else 0 <= entry["value"] <= 1 + 1e-12


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(1, 50)] * 4))
def test_f1_lies_between_precision_and_recall_and_accuracy_between_sensitivity_and_specificity(counts):
    found = numbers(classification_metrics(*binary(*counts), ["healthy", "ill"])["per_class"]["ill"])
    low, high = sorted([found["precision"], found["recall"]])
    assert low - 1e-12 <= found["f1"] <= high + 1e-12
    low, high = sorted([found["recall"], found["specificity"]])
    assert low - 1e-12 <= found["accuracy"] <= high + 1e-12


# Angriawan 2023, table 2, prints these for CNN, LeNet and AlexNet
@pytest.mark.parametrize(
    ("precision", "recall", "f1", "printed"),
    [(0.9322, 0.9541, 0.9430, 0.9645), (0.9041, 0.9536, 0.9282, 0.9010), (0.9125, 0.9366, 0.9244, 0.9341)],
)
def test_f1_of_the_surveyed_precision_and_recall_is_not_the_printed_one(precision, recall, f1, printed):
    tp = 3000
    case = binary(tp, round(tp / precision) - tp, 1000, round(tp / recall) - tp)
    found = numbers(classification_metrics(*case, ["healthy", "ill"])["per_class"]["ill"])
    assert (found["precision"], found["recall"]) == pytest.approx((precision, recall), abs=2e-4)
    assert found["f1"] == pytest.approx(f1, abs=2e-4)
    assert abs(found["f1"] - printed) > 0.009


@pytest.mark.parametrize("ill", [10, 500, 990])
def test_no_prevalence_gives_the_surveyed_accuracy(ill):
    tp, tn = round(0.9536 * ill), round(0.9587 * (1000 - ill))  # LeNet's sensitivity and specificity
    found = classification_metrics(*binary(tp, 1000 - ill - tn, tn, ill - tp), ["healthy", "ill"])
    assert found["metrics"]["accuracy"]["value"] > 0.9356 + 0.01


def test_a_class_without_images_leaves_recall_and_auc_undefined_and_says_so():
    p, y, _ = cohort(30, seed=2)
    keep = y != 2
    found = classification_metrics(p[keep], y[keep], CLASSES)
    reason = "no image of class 'cancer'"
    for name in ["balanced_accuracy", "recall", "auc", "average_precision"]:
        assert found["metrics"][name] == {"value": None, "reason": reason}
        assert found["per_class"]["cancer"][name] == {"value": None, "reason": reason}
        assert found["per_class"]["normal"][name]["value"] is not None
    assert found["metrics"]["accuracy"]["value"] is not None
    assert found["per_class"]["cancer"]["f1"]["value"] == 0  # it was predicted, wrongly


def test_a_class_that_is_never_predicted_has_no_precision_but_an_f1_of_0():
    found = classification_metrics(np.eye(3)[[0, 1, 0]], [0, 1, 2], CLASSES)
    reason = "no image was predicted as 'cancer'"
    assert found["metrics"]["precision"] == {"value": None, "reason": reason}
    assert found["per_class"]["cancer"]["precision"] == {"value": None, "reason": reason}
    assert found["per_class"]["cancer"]["f1"] == {"value": 0.0}


def test_with_one_class_only_each_undefined_mean_collects_the_reasons():
    found = classification_metrics([[0.9, 0.1], [0.8, 0.2]], [0, 0], ["a", "b"])
    assert found["metrics"]["auc"]["reason"] == "every image is of class 'a'; no image of class 'b'"
    assert found["per_class"]["a"]["specificity"]["reason"] == "every image is of class 'a'"
    assert found["per_class"]["b"]["f1"]["reason"] == "no image is of class 'b' or was predicted as it"


@pytest.mark.parametrize(
    ("probabilities", "labels", "match"),
    [
        ([[0.5, 0.5]], [2], "labels from 0 to 1"),
        ([[0.5, 0.5]], [-1], "labels from 0 to 1"),
        ([[0.5, 0.5]], [0.0], "1 integer labels"),
        ([[0.5, 0.5]], [0, 1], "1 integer labels"),
        ([[2.0, -1.0]], [0], "softmax"),
        ([[0.9, 0.9]], [0], "softmax"),
        ([[0.2, 0.3, 0.5]], [0], r"shape \(N, 2\)"),
        (np.empty((0, 2)), [], "N > 0"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(probabilities, labels, match):
    with pytest.raises(ValueError, match=match):
        classification_metrics(probabilities, labels, ["a", "b"])


def test_a_diverged_network_is_a_mistake_the_user_can_fix():
    with pytest.raises(UserError, match=r"not finite for 1 of 2 images.*learning rate"):
        classification_metrics([[0.5, 0.5], [np.nan, np.nan]], [0, 1], ["a", "b"])


def test_interval_of_a_mean_over_patients_is_the_normal_one():
    values = np.random.default_rng(0).normal(size=400)
    low, high, _ = patient_bootstrap(lambda w: w @ values / w.sum(axis=1), np.arange(400), n=4000)
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half_width, values.mean() + half_width), abs=0.08 * half_width)


def test_copies_of_an_image_in_the_same_patient_do_not_narrow_the_interval():
    p, y, _ = cohort(40, seed=3)
    patients = np.array([f"p{i}" for i in range(40)])
    once = part_metrics(p, y, list(patients), CLASSES, seed=5, n_bootstrap=50)
    copied = part_metrics(p.repeat(4, 0), y.repeat(4), list(patients.repeat(4)), CLASSES, seed=5, n_bootstrap=50)
    for name in CLASSIFICATION_METRICS:
        assert copied["metrics"][name]["interval"] == pytest.approx(once["metrics"][name]["interval"], abs=1e-9)
    apart = part_metrics(p.repeat(4, 0), y.repeat(4), [str(i) for i in range(160)], CLASSES, seed=5, n_bootstrap=200)
    low, high = once["metrics"]["accuracy"]["interval"]
    assert np.diff(apart["metrics"]["accuracy"]["interval"]) < 0.7 * (high - low)


def test_intervals_do_not_depend_on_the_order_of_the_images_and_the_seed_repeats_them():
    p, y, patients = cohort(60, seed=4)
    order = np.random.default_rng(0).permutation(60)
    first = part_metrics(p, y, patients, CLASSES, seed=1, n_bootstrap=40)
    again = part_metrics(p, y, patients, CLASSES, seed=1, n_bootstrap=40)
    shuffled = part_metrics(p[order], y[order], [patients[i] for i in order], CLASSES, seed=1, n_bootstrap=40)
    other = part_metrics(p, y, patients, CLASSES, seed=2, n_bootstrap=40)
    auc = [part["metrics"]["auc"]["interval"] for part in (first, shuffled, other)]
    assert first == again
    assert auc[0] == pytest.approx(auc[1], abs=1e-12)
    assert auc[0] != pytest.approx(auc[2], abs=1e-6)


def test_resampling_in_blocks_changes_nothing(monkeypatch):
    p, y, patients = cohort(30, seed=6)
    whole = part_metrics(p, y, patients, CLASSES, seed=1, n_bootstrap=50)
    monkeypatch.setattr("medtl_monai.metrics.bootstrap.RESAMPLED_WEIGHTS", 7 * 30)
    blocks = part_metrics(p, y, patients, CLASSES, seed=1, n_bootstrap=50)
    one, two = (  # products of other shapes are summed in another order on some processors
        json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 9)) for found in (whole, blocks)
    )
    assert one == two


def test_undefined_resamples_are_counted():
    # a resample has an AUC when both patients are drawn, which the draws themselves tell
    values = part_metrics([[0.9, 0.1], [0.2, 0.8]], [0, 1], ["p", "q"], ["a", "b"], seed=0, n_bootstrap=300)
    auc = values["metrics"]["auc"]
    both = (np.random.default_rng(0).multinomial(2, [0.5, 0.5], size=300) == 1).all(axis=1).sum()
    assert auc["undefined_resamples"] == 300 - both
    assert (auc["interval"] is None) == (both < 150)


def test_no_interval_when_most_resamples_are_undefined():
    p, y = np.eye(2)[[0, 0, 0, 0, 1]], np.array([0, 0, 0, 0, 1])
    part = part_metrics(p, y, ["p", "p", "q", "r", "r"], ["a", "b"], seed=0, n_bootstrap=100)
    assert part["metrics"]["auc"]["interval"] == [1, 1]  # two thirds of the draws hold r
    nobody = patient_bootstrap(lambda w: np.where(w[:, 0] > 1, 1.0, np.nan), list("pqrst"), n=100)
    assert np.isnan(nobody.low)
    assert np.isnan(nobody.high)
    assert nobody.undefined_resamples > 50


def test_one_patient_gives_values_but_no_interval():
    p, y, _ = cohort(12, seed=7)
    part = part_metrics(p, y, ["only"] * 12, CLASSES, seed=0, n_bootstrap=20)
    entry = part["metrics"]["accuracy"]
    assert entry["value"] is not None
    assert entry["interval"] is None
    assert entry["reason"] == "no interval: fewer than two patients"


@pytest.mark.parametrize(("n", "level"), [(0, 0.95), (10, 1.0), (10, 0.0)])
def test_senseless_bootstrap_settings_are_refused(n, level):
    with pytest.raises(ValueError, match="n of at least 1 and a level"):
        patient_bootstrap(lambda w: w[:, 0], ["a", "b"], n=n, level=level)


def test_part_metrics_is_json_without_nan_and_counts_images_and_patients():
    p, y, patients = cohort(31, seed=8)
    y[y == 2] = 1
    part = part_metrics(p, y, patients, CLASSES, seed=9, n_bootstrap=20)
    assert json.loads(json.dumps(part, allow_nan=False)) == part
    assert (part["images"], part["patients"], part["seed"], part["resamples"]) == (31, 11, 9, 20)
    with pytest.raises(ValueError, match="one patient for each of the 31 images, got 30"):
        part_metrics(p, y, patients[:30], CLASSES, seed=9)


def test_intervals_hold_their_values():
    p, y, patients = cohort(300, seed=10)
    for entry in part_metrics(p, y, patients, CLASSES, seed=0, n_bootstrap=200)["metrics"].values():
        low, high = entry["interval"]
        assert low < high
        assert low <= entry["value"] <= high


def test_a_thousand_resamples_of_a_thousand_images_take_seconds():
    case = cohort(1000)
    start = time.process_time()
    part_metrics(*case, CLASSES, seed=0)
    assert time.process_time() - start < 8


def test_table_shows_a_row_per_metric_a_column_per_part_and_the_reasons():
    part = {"images": 10, "patients": 4}
    train = {
        **part,
        "metrics": {
            "auc": {"value": 0.95312, "interval": [0.9211, 0.97849]},
            "f1": {"value": 0.5, "interval": None, "reason": "no interval: fewer than two patients"},
        },
    }
    val = {**part, "metrics": {"auc": {"value": None, "interval": None, "reason": "no image of class 'b'"}}}
    assert render_metrics({"train": train, "val": val, "seconds": 3.2}).splitlines() == [
        "metric  train                                         val",
        "        10 images, 4 patients                         10 images, 4 patients",
        "auc     0.953 [0.921, 0.978]                          - (no image of class 'b')",
        "f1      0.500 (no interval: fewer than two patients)",
    ]
    with pytest.raises(ValueError, match="at least one part"):
        render_metrics({"seconds": 3.2})


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
