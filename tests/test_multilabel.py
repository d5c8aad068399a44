"""Findings that may stand together: equal to scikit-learn on what is known, blind to what is not."""

import numpy as np
import pytest
from sklearn import metrics as sk

from medtl_monai.metrics import (
    CLASSIFICATION_METRICS,
    classification_metrics,
    finding_metrics,
    part_findings,
    render_metrics,
)
from medtl_monai.utils import UserError

FINDINGS = ["effusion", "mass", "hernia"]


def cohort(n=120, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < [0.4, 0.2, 0.1]).astype(float)
    probabilities = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(size=(n, 3)))))
    labels[rng.random((n, 3)) < 0.15] = np.nan
    return probabilities, labels, [f"p{i // 3}" for i in range(n)]


def test_each_finding_equals_scikit_learn_on_the_images_where_it_is_known():
    p, y, _ = cohort()
    found = finding_metrics(p, y, FINDINGS)
    for k, name in enumerate(FINDINGS):
        known = ~np.isnan(y[:, k])
        truth, score = y[known, k], p[known, k]
        said = score > 0.5
        expected = {
            "accuracy": sk.accuracy_score(truth, said),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
            "precision": sk.precision_score(truth, said),
            "recall": sk.recall_score(truth, said),
            "specificity": sk.recall_score(truth, said, pos_label=0),
            "f1": sk.f1_score(truth, said),
            "auc": sk.roc_auc_score(truth, score),
            "average_precision": sk.average_precision_score(truth, score),
        }
        for metric, value in expected.items():
            assert found["per_class"][name][metric]["value"] == pytest.approx(value), metric
        assert found["confusion_matrix"][name] == sk.confusion_matrix(truth, said).tolist()
    for metric in CLASSIFICATION_METRICS:
        mean = np.mean([found["per_class"][name][metric]["value"] for name in FINDINGS])
        assert found["metrics"][metric]["value"] == pytest.approx(mean)


def test_one_finding_is_the_positive_class_of_a_two_class_problem():
    p, y, _ = cohort()
    score, truth = p[:, :1], np.nan_to_num(y[:, :1])
    two = classification_metrics(np.hstack([1 - score, score]), truth[:, 0].astype(int), ["no", "yes"])
    one = finding_metrics(score, truth, ["yes"])
    for metric in CLASSIFICATION_METRICS:
        assert one["per_class"]["yes"][metric]["value"] == pytest.approx(two["per_class"]["yes"][metric]["value"])


def test_what_is_said_of_an_unknown_finding_changes_nothing():
    p, y, patients = cohort()
    other = np.where(np.isnan(y), 1 - p, p)
    assert part_findings(p, y, patients, FINDINGS, seed=0, n_bootstrap=20) == part_findings(
        other, y, patients, FINDINGS, seed=0, n_bootstrap=20
    )


def test_a_finding_that_no_image_shows_is_left_out_of_the_mean_and_named():
    p, y, patients = cohort()
    y[:, 2] = np.where(np.isnan(y[:, 2]), np.nan, 0)
    part = part_findings(p, y, patients, FINDINGS, seed=0, n_bootstrap=50)
    assert part["per_class"]["hernia"]["auc"]["value"] is None
    assert part["per_class"]["hernia"]["auc"]["reason"] == "no image of class 'hernia'"
    auc = part["metrics"]["auc"]
    assert auc["left_out"] == ["hernia"]
    assert auc["value"] == pytest.approx(
        np.mean([part["per_class"][name]["auc"]["value"] for name in ("effusion", "mass")])
    )
    assert auc["interval"][0] < auc["value"] < auc["interval"][1]
    assert "effusion" not in render_metrics({"val": part})
    y[:] = np.nan
    part = part_findings(p, y, patients, FINDINGS, seed=0, n_bootstrap=5)
    assert part["metrics"]["f1"]["reason"] == "undefined for every finding"
    assert part["metrics"]["f1"]["interval"] is None


def test_a_diverged_network_and_wrong_labels_are_told_apart():
    p, y, _ = cohort(4)
    with pytest.raises(UserError, match="diverged"):
        finding_metrics(p * np.nan, y, FINDINGS)
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        finding_metrics(p, y + 1, FINDINGS)
    with pytest.raises(ValueError, match="sigmoid"):
        finding_metrics(p + 1, y, FINDINGS)
    with pytest.raises(ValueError, match="shape"):
        finding_metrics(p, y, FINDINGS[:2])
