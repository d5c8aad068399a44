"""Images standardized each on its own, and fixed windows: the same in training, scoring and prediction."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medtl_monai.model import Model
from medtl_monai.transforms import PrepareBatch, StandardizeImaged, standardized
from medtl_monai.utils import UserError

BASE = {"task": "classification", "classes": ["a", "b"], "backbone": "resnet18", "image_size": 32}


def model(**fields):
    start = {"mean": [0.0], "std": [1.0], "standardize": True, **fields}
    return Model(**{**BASE, **start})


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.1, 100), offset=st.floats(-100, 100), seed=st.integers(0, 99))
def test_scale_and_offset_drop_out(scale, offset, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, 8, 8)))
    got = standardized(scale * x + offset, (2, 3)).numpy()
    want = (x.numpy() - x.numpy().mean((2, 3), keepdims=True)) / x.numpy().std((2, 3), keepdims=True)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_constant_image_becomes_zero():
    assert not standardized(torch.full((1, 1, 4, 4), 7.0), (2, 3)).any()


def test_batches_of_images_and_stacks_and_single_items_are_standardized_alike():
    stack = torch.rand(3, 8, 8, 5)
    prepare = PrepareBatch([0.0] * 3, [1.0] * 3, standardize=True)
    whole, _ = prepare({"image": stack[None]})
    item = StandardizeImaged("image")({"image": stack})["image"]
    torch.testing.assert_close(whole[0], item)
    for i in range(5):  # as the slices were trained on
        one, _ = prepare({"image": stack[None, ..., i]})
        torch.testing.assert_close(one[0], item[..., i])
    assert torch.equal(StandardizeImaged("other", allow_missing_keys=True)({"image": stack})["image"], stack)


@pytest.fixture
def picture(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "x.png")
    return {"image": str(tmp_path / "x.png")}


@pytest.mark.parametrize("fields", [{}, {"window": [50, 200]}, {"mean": [0.2], "std": [0.5]}, {"standardize": False}])
def test_prediction_prepares_an_image_as_scoring_does(fields, picture):
    made = Model.from_dict(json.loads(json.dumps(model(**fields).to_dict())))  # as a checkpoint holds it
    predicted = made.preparation()(dict(picture))["image"]
    scored, _ = made.prepare_batch()({"image": made.preparation("score")({**picture, "label": 0})["image"][None]})
    torch.testing.assert_close(torch.as_tensor(predicted), scored[0])
    if fields == {}:
        assert (abs(scored.mean()) < 1e-5, scored.std(correction=0).item()) == (True, pytest.approx(1, abs=1e-4))


def test_a_window_gives_values_their_places_whatever_the_image(tmp_path):
    from nibabel import Nifti1Image, save

    values = np.full((40, 40), -1000.0, dtype=np.float32)
    values[:20] = [[-2000.0], [-400.0], [200.0], [3000.0]] * 5
    save(Nifti1Image(values, np.eye(4)), tmp_path / "x.nii.gz")
    made = model(standardize=False, window=[-1000, 200], image_size=40)
    got = torch.as_tensor(made.preparation("score")({"image": str(tmp_path / "x.nii.gz"), "label": 0})["image"])
    found = {round(float(value), 5) for value in got.unique()}
    assert found == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("window", [[200, -1000], [0, 0], [1], [0, float("nan")], "0,1", [0, 1, 2]])
def test_windows_that_are_none_are_refused(window):
    with pytest.raises(UserError, match="window must be two values of images, the lower first"):
        model(window=window)


@pytest.mark.parametrize(
    ("field", "value"), [("mean", [float("nan")]), ("std", [0.0]), ("std", [float("inf")]), ("standardize", 1)]
)
def test_statistics_that_are_none_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} must be"):
        model(**{field: value})


def test_windows_of_a_breast_have_no_statistics_of_their_own():
    with pytest.raises(UserError, match="standardize and crop_size exclude each other"):
        model(images="breasts", crop_size=16)
