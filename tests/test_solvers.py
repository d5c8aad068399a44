"""The small fits are scikit-learn's."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipys
from sklearn.covariance import LedoitWolf
from sklearn.datasets import make_blobs
from sklearn.mixture import GaussianMixture

from medtl_monai.solvers import gaussian_mixture, ledoit_wolf, minimize


def test_a_minimum_is_scipys_and_the_parameters_keep_their_shapes():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40) * 2.0 - 1

    def value(w):
        return np.logaddexp(0, -y * (x @ w[:3] + w[3])).sum() + w[:3] @ w[:3] / 2

    weight, offset = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in ((3, 1), (1,)))
    inputs, signs = torch.as_tensor(x), torch.as_tensor(y)

    def loss():
        margins = signs * ((inputs @ weight)[:, 0] + offset)
        return torch.nn.functional.softplus(-margins).sum() + weight.square().sum() / 2

    minimize([weight, offset], loss, steps=100)
    found = np.append(weight.detach().numpy(), offset.detach().numpy())
    assert value(found) == pytest.approx(scipys(value, np.zeros(4)).fun, abs=1e-8)
    assert weight.shape == (3, 1)


def test_a_mixture_stays_where_a_step_of_scikit_learns_leaves_it():
    x, _ = make_blobs(300, 3, centers=4, cluster_std=1.5, random_state=0)
    p = gaussian_mixture(x, 4, seed=0)
    np.testing.assert_allclose(p.sum(1), 1)
    size, regular = p.sum(0), 1e-3 * x.var(0).mean()
    means = p.T @ x / size[:, None]
    variances = p.T @ x**2 / size[:, None] - means**2 + regular
    start = {"weights_init": size / len(x), "means_init": means, "precisions_init": 1 / variances}
    reference = GaussianMixture(4, covariance_type="diag", reg_covar=regular, tol=1e-6, max_iter=200, **start).fit(x)
    np.testing.assert_allclose(p, reference.predict_proba(x), atol=0.02)
    assert reference.n_iter_ < 10


@pytest.mark.parametrize("shape", [(50, 8), (10, 40)])
def test_shrinkage_is_scikit_learns(shape):
    x = np.random.default_rng(1).normal(size=shape) @ np.diag(np.linspace(0.5, 2, shape[1]))
    x -= x.mean(0)
    eigenvalues = np.linalg.svd(x)[1] ** 2
    shrinkage, mean = ledoit_wolf(x, eigenvalues)
    assert shrinkage == pytest.approx(LedoitWolf().fit(x).shrinkage_)
    assert mean == pytest.approx(np.trace(x.T @ x) / x.size)
    assert 0 < shrinkage < 1
