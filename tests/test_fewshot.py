"""Few-shot classification on features: against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from medtl_monai.fewshot import class_prototypes, episodes, nearest_neighbours, prototype_probabilities
from medtl_monai.utils import UserError


def data(n=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return rng.normal(size=(n, 6)) + 1.5 * np.eye(3)[labels] @ rng.normal(size=(3, 6)), labels


def test_prototypes_are_the_nearest_centroids():
    x, y = data()
    prototypes = class_prototypes(x[:60], y[:60], 3)
    reference = NearestCentroid().fit(x[:60], y[:60])
    np.testing.assert_allclose(prototypes, reference.centroids_)
    p = prototype_probabilities(x[60:], prototypes, temperature=2.0)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p.argmax(1) == reference.predict(x[60:])).all()
    with pytest.raises(UserError, match=r"none of \[3\]"):
        class_prototypes(x, y, 4)


def test_neighbours_are_scikit_learns():
    x, y = data()
    found = nearest_neighbours(x[60:], x[:60], y[:60], 3, k=7, temperature=0.2)
    reference = KNeighborsClassifier(7, metric="cosine", weights=lambda d: np.exp(-d / 0.2)).fit(x[:60], y[:60])
    np.testing.assert_allclose(found, reference.predict_proba(x[60:]), atol=1e-9)
    with pytest.raises(UserError, match="from 1 to the number of examples"):
        nearest_neighbours(x, x[:3], y[:3], 3, k=4)


def test_episodes_divide_no_patient_and_are_reproducible():
    labels, patients = np.repeat([0, 1, 2], 20), np.repeat(np.arange(30), 2)
    tasks = list(episodes(labels, patients, shots=3, count=5, seed=1))
    for support, query in tasks:
        assert np.bincount(labels[support]).tolist() == [3, 3, 3]
        assert len(set(patients[support])) == 9
        assert not set(patients[support]) & set(patients[query])
        assert len(query) == 60 - 18
    again = list(episodes(labels, patients, shots=3, count=5, seed=1))
    assert all((a[0] == b[0]).all() for a, b in zip(tasks, again, strict=True))
    with pytest.raises(UserError, match="more than 10 patients"):
        next(episodes(labels, patients, shots=10, count=1))
