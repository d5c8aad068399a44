"""Segmentation metrics against SciPy, hand-worked numbers, and the convention for absent structures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from monai.networks import one_hot
from scipy.ndimage import binary_erosion, distance_transform_edt

from medtl_monai.metrics.segmentation import (
    SEGMENTATION_METRICS,
    ejection_fractions,
    hausdorff_95,
    measure,
    summarize,
    surface_distances,
    volumes_ml,
)

AT = {name: i for i, name in enumerate(SEGMENTATION_METRICS)}


def certain(mask, classes):
    return one_hot(mask[:, None].float(), classes)


def ball(shape, centre, radius):
    grid = np.indices(shape).astype(float)
    return torch.from_numpy(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2).long()


@pytest.mark.parametrize(("shape", "spacing"), [((24, 24), (1.5, 2.0)), ((20, 20, 9), (1.5, 1.5, 8.0))])
def test_distances_equal_those_by_scipy(shape, spacing):
    middle = [s / 2 for s in shape]
    truth, found = ball(shape, middle, 5), ball(shape, [m + 1 for m in middle], 4)
    values = measure(found[None], truth[None], certain(found[None], 2), spacing=spacing)[0, 0]
    a, b = truth.numpy().astype(bool), found.numpy().astype(bool)
    edges = [mask & ~binary_erosion(mask) for mask in (a, b)]
    there, back = (distance_transform_edt(~to, sampling=spacing)[on] for on, to in (edges, edges[::-1]))
    assert values[AT["hd95"]] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)
    assert values[AT["surface_distance"]] == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-4)
    assert values[AT["dice"]] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert values[AT["volume_error_ml"]] == pytest.approx(abs(a.sum() - b.sum()) * np.prod(spacing) / 1000)


def test_absent_structures_count_as_false_positives_only():
    truth = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]])
    found = torch.tensor([[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[0, 0, 0, 0]]])
    values = measure(found, truth, certain(found, 2))[:, 0]
    np.testing.assert_array_equal(values[:, AT["dice"]], [1, 0, np.nan])
    np.testing.assert_array_equal(values[:, AT["false_positives"]], [np.nan, 1, 0])
    np.testing.assert_array_equal(values[:, AT["hd95"]], [0, np.nan, np.nan])
    np.testing.assert_array_equal(np.isnan(values[:, AT["volume_error_ml"]]), True)
    found = summarize(values[:, None], ["a", "a", "b"], ["LV"], n_bootstrap=50)
    assert found["metrics"]["dice"]["value"] == 0.5
    assert found["metrics"]["false_positives"]["value"] == 0.5
    assert found["metrics"]["volume_error_ml"]["reason"] == "the spacing is not known"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**16))
def test_known_relations_hold(seed):
    torch.manual_seed(seed)
    truth, probabilities = torch.randint(0, 3, (2, 6, 6)), torch.randn(2, 3, 6, 6).softmax(1)
    v = measure(probabilities.argmax(1), truth, probabilities)
    dice, iou, mae, mse = (v[..., AT[name]] for name in ("dice", "iou", "mae", "mse"))
    np.testing.assert_allclose(iou, dice / (2 - dice), atol=1e-6)
    assert (mae**2 <= mse + 1e-9).all()


def test_every_patient_counts_the_same_and_intervals_resample_them():
    values = np.full((4, 2, len(SEGMENTATION_METRICS)), 0.5)
    values[:, 0, 0] = [1.0, 1.0, 1.0, 0.2]  # three slices of one patient, one of another
    values[:, 1, 2] = np.nan
    patients = ["a", "a", "a", "b"]
    slices, people = (summarize(values, patients, ["LV", "RV"], by_patient=b, n_bootstrap=200) for b in (False, True))
    assert slices["per_structure"]["LV"]["dice"]["value"] == pytest.approx(0.8)
    assert people["per_structure"]["LV"]["dice"]["value"] == pytest.approx(0.6)
    assert people["per_structure"]["LV"]["dice"]["interval"] == pytest.approx([0.2, 1.0])
    assert people["metrics"]["dice"]["value"] == pytest.approx(0.55)
    assert people["metrics"]["hd95"]["value"] is None
    assert people["metrics"]["hd95"]["reason"] == "no mask has the RV in both label and prediction"
    one = summarize(values[:3], patients[:3], ["LV", "RV"])
    assert one["metrics"]["dice"]["reason"] == "no interval: fewer than two patients"


def test_volumes_and_ejection_fraction_by_hand():
    mask = torch.zeros(10, 10, 4)
    mask[:5] = 1
    assert volumes_ml(mask, 2, [2.0, 2.0, 10.0]) == [8.0, 0.0]  # 200 voxels of 40 cubic mm
    assert ejection_fractions({("p", "ed"): 100.0, ("p", "ES"): 40.0, ("q", "ES"): 1.0, ("r", "ED"): 0.0}) == {"p": 0.6}


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers(0, 2**16), st.floats(0.1, 0.95), st.booleans())
def test_surface_distances_equal_monais(shape, seed, share, spaced):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, *shape)) < share
    masks[:, *(n // 2 for n in shape)] = True  # neither is empty
    spacing = rng.uniform(0.5, 8, len(shape)).tolist() if spaced else None
    assert_monais_distances(masks, spacing)


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges")
@pytest.mark.parametrize("spacing", [None, [1.5, 1.5, 8.0], [5.0, 0.7, 1.0]])
def test_surface_distances_of_large_structures_near_and_far(spacing):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 60, 20)], indexing="ij"))
    balls = [(grid**2).sum(0) < radius for radius in (0.5, 0.44)]
    balls[0][:4, :4, :4] = True  # far from the other
    assert_monais_distances(balls, spacing)


def assert_monais_distances(masks, spacing):
    pair = [torch.from_numpy(mask)[None, None].float() for mask in masks]
    options = {"include_background": True, "spacing": spacing}
    distances = surface_distances(*masks, spacing)
    assert hausdorff_95(*distances) == float(compute_hausdorff_distance(*pair, percentile=95, **options))
    wanted = float(compute_average_surface_distance(*pair, symmetric=True, **options))
    assert float(torch.cat(distances).mean()) == pytest.approx(wanted, rel=1e-6, abs=1e-7)
