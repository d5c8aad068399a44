"""Calibration recovers what was done to the logits, and the network then gives it."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from medtl_monai.backbones import anatomy, build
from medtl_monai.calibration import fit_calibration, fold_into_head


def test_a_known_distortion_of_calibrated_probabilities_is_undone():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 3))
    labels = (softmax(logits, axis=1).cumsum(1) < rng.random((len(logits), 1))).sum(1)
    offset = np.array([0.7, -0.2, -0.5])
    scale, found = fit_calibration(softmax((logits - offset) / 0.4, axis=1), labels)
    np.testing.assert_allclose(scale, 0.4, atol=0.02)
    np.testing.assert_allclose(found, offset, atol=0.04)


def test_each_finding_is_a_logistic_regression_of_its_own_over_what_is_known():
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 1.5, (3000, 2))
    labels = (rng.random(scores.shape) < expit(2 * scores - [0.5, -1.0])).astype(float)
    labels[::3, 1] = np.nan
    scale, offset = fit_calibration(expit(scores), labels, "multilabel")
    for k in range(2):
        known = ~np.isnan(labels[:, k])
        reference = LogisticRegression(C=np.inf).fit(scores[known, k : k + 1], labels[known, k])
        assert scale[k] == pytest.approx(reference.coef_[0, 0], rel=0.02)
        assert offset[k] == pytest.approx(reference.intercept_[0], abs=0.02)


def test_separable_classes_and_a_finding_nobody_has_give_finite_numbers():
    labels = np.repeat([0, 1], 20)
    p = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    scale, offset = fit_calibration(p, labels)
    assert np.isfinite([*scale, *offset]).all()
    findings = np.column_stack([labels, np.zeros(40)])
    scale, offset = fit_calibration(p, findings, "multilabel")
    assert (scale[1], offset[1]) == (1, 0)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "densenet121", "resnet18"])
def test_the_head_gives_the_calibrated_logits(name):
    torch.manual_seed(0)
    network = build(name, in_channels=1, num_classes=3).eval()
    x, scale, offset = torch.randn(2, 1, 64, 64), [0.5, 2.0, 1.0], [1.0, -1.0, 0.0]
    with torch.no_grad():
        wanted = network(x) * torch.tensor(scale) + torch.tensor(offset)
        fold_into_head(network.get_submodule(anatomy(network).head), scale, offset)
        torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-5)


def test_a_head_without_a_bias_is_refused():
    with pytest.raises(ValueError, match="with a bias"):
        fold_into_head(torch.nn.Linear(2, 2, bias=False), [1, 1], [0, 0])
