"""Chains for whole batches: an image's result is its own, whatever is beside it, and nothing else is touched."""

import monai.transforms as monai_transforms
import numpy as np
import pytest
import torch
from chains import MOVES, VALUES, everything, pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import nn

import medtl_monai.transforms as ours
from medtl_monai.transforms import BatchCompose, geometry
from medtl_monai.transforms.batched import uniform, whole
from medtl_monai.utils import UserError


def of_image(i, parameters):
    """What was drawn for image ``i`` alone."""
    chosen = parameters["chosen"]
    before, after = int(chosen[:i].sum()), int(chosen[: i + 1].sum())
    return {name: (value[i : i + 1] if name == "chosen" else value[before:after]) for name, value in parameters.items()}


SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=3)


@settings(deadline=None, max_examples=20)
@given(shape=SHAPES, channels=st.integers(1, 3), seed=st.integers(0, 99))
def test_probability_0_is_bit_exact_identity(shape, channels, seed):
    image = torch.rand(3, channels, *shape, generator=torch.Generator().manual_seed(seed))
    label = (image > 0.5).long()
    got, moved = BatchCompose(everything(len(shape), 0.0))(image, label)
    assert torch.equal(got, image)
    assert torch.equal(moved, label)


@settings(deadline=None, max_examples=15)
@given(side=st.integers(1, 9), depth=st.sampled_from([None, 1, 6]), seed=st.integers(0, 99))
def test_a_batch_equals_its_images_one_by_one_and_its_input_is_untouched(side, depth, seed):
    shape = (side, side) if depth is None else (side, side, depth)
    image = pictures(4, 2, *shape, seed=seed)
    label, before = (image > image.mean()).long(), image.clone()
    augment = BatchCompose(everything(len(shape), 0.5))
    torch.manual_seed(seed)
    drawn = augment.sample(image.shape)
    got, moved = augment.transform(drawn, image, label)
    assert torch.equal(image, before)
    assert set(moved.unique().tolist()) <= {0, 1}
    for i in range(4):
        its = [of_image(i, parameters) for parameters in drawn]
        one, its_label = augment.transform(its, image[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], one, rtol=1e-4, atol=1e-5)
        assert torch.equal(moved[i : i + 1], its_label)
    torch.manual_seed(seed)
    assert torch.equal(augment(image), got)  # a seed fixes all of it
    assert torch.equal(image, before)


@pytest.mark.parametrize("dims", [2, 3])
def test_images_for_which_nothing_was_drawn_stay_as_they_are_bit_by_bit(dims):
    image = torch.rand(64, 1, *[5] * dims)
    label = (image > 0.5).long()
    for transform in everything(dims, 0.5)[:-1]:
        chain = BatchCompose([transform])
        drawn = chain.sample(image.shape)
        (got, moved), kept = chain.transform(drawn, image, label), ~drawn[0]["chosen"]
        assert 10 < kept.sum() < 54
        assert torch.equal(got[kept], image[kept]), transform
        assert torch.equal(moved[kept], label[kept]), transform
        assert not torch.equal(got, image), transform


def test_neighbouring_moves_resample_once(monkeypatch):
    calls, image = [], pictures(3, 1, 16, 16)
    resample = geometry.resample
    monkeypatch.setattr(geometry, "resample", lambda *a, **k: (calls.append(1), resample(*a, **k))[1])
    chain = [
        ours.RandFlip(1.0, 0),
        ours.RandRotate(0.3, prob=1.0),
        ours.RandZoom(1.0),
        ours.RandAffine(1.0, 0.1, padding_mode="border"),
        ours.RandSpatialCrop(9),
    ]
    augment = BatchCompose(chain)
    drawn = augment.sample(image.shape)
    got, _ = augment.transform(drawn, image)
    assert len(calls) == 1
    assert got.shape == (3, 1, 9, 9)
    stepwise, size = image, (16, 16)
    for transform, parameters in zip(chain, drawn, strict=True):
        after = transform.size(size)
        stepwise = resample(stepwise, transform.matrices(parameters, size), after, padding_mode="border")
        size = after
    torch.testing.assert_close(got[:, :, 2:-2, 2:-2], stepwise[:, :, 2:-2, 2:-2], atol=0.08, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_nothing_changes_under_autocast_and_the_dtype_stays(dims):
    image, augment = pictures(2, 1, *[10] * dims), BatchCompose(everything(dims, 1.0))

    def seeded(image):
        torch.manual_seed(0)
        return augment(image)

    plain = seeded(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(seeded(image), plain)
    half = seeded(image.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=0.1, rtol=0.1)
    assert seeded(image.double()).dtype == torch.float64
    assert seeded((image * 255).byte()).dtype == torch.float32  # grey levels become real numbers


def test_plain_tensors_come_back():
    image = MetaTensor(torch.rand(2, 1, 4, 4))
    got, label = ours.RandFlip(1.0, 1)(image, (image > 0.5).float())
    assert type(got) is type(label) is torch.Tensor
    assert torch.equal(got, image.as_tensor().flip(3))


def test_a_chain_goes_with_the_network_to_another_device_or_type():
    image = torch.rand(2, 1, 4, 4)
    chain = BatchCompose([ours.RandFlip(1.0, spatial_axis=1)]).to("cpu")
    assert torch.equal(nn.Sequential(chain).double()(image), image.flip(3))


def test_mistakes_are_explained():
    with pytest.raises(UserError, match=r"RandFlip: prob must lie between 0 and 1, got 2"):
        ours.RandFlip(2)
    with pytest.raises(UserError, match="mode bilinear or nearest"):
        ours.RandRotate(0.1, mode="bicubic")
    with pytest.raises(UserError, match="whole batches"):
        BatchCompose([monai_transforms.RandFlip(0.1)])
    with pytest.raises(UserError, match=r"'label': expected a batch \(2, channels, 4, 4\), got \(2, 1, 4, 5\)"):
        ours.RandFlip(1.0)(torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 5))
    with pytest.raises(UserError, match=r"'image': expected a batch \(B, C, \*spatial\), got \(4, 4\)"):
        ours.RandFlip(1.0)(torch.rand(4, 4))
    with pytest.raises(UserError, match=r"'image': expected a batch \(B, C, \*spatial\), got \('list',\)"):
        ours.RandFlip(1.0)([1, 2])
    with pytest.raises(UserError, match=r"needs an entry 'image'; it has \['picture'\]"):
        ours.RandFlip(1.0)({"picture": torch.rand(2, 1, 4, 4)})


def test_of_a_dictionary_image_and_label_are_moved_alike_and_the_rest_is_kept():
    mask = (pictures(4, 1, 20, 20) > 0.5).long()
    batch = {"image": mask.float(), "label": mask, "name": ["a", "b", "c", "d"]}
    chain = BatchCompose([
        ours.RandFlip(0.5, spatial_axis=1),
        ours.RandRotate(0.6, prob=0.9, padding_mode="border"),
        ours.RandShiftIntensity((1.0, 1.0), prob=1.0),
    ])  # fmt: skip
    got = chain(batch)
    assert got["name"] == batch["name"]
    assert got["label"].dtype == torch.int64
    assert set(got["label"].unique().tolist()) == {0, 1}
    assert ((got["image"] - 1 > 0.5) == (got["label"] == 1)).float().mean() > 0.95
    assert not torch.equal(got["label"], mask)
    assert batch["label"] is mask
    torch.manual_seed(0)
    alone = chain({"image": mask.float()})
    torch.manual_seed(0)
    assert torch.equal(alone["image"], chain(mask.float()))
    assert set(alone) == {"image"}


def test_every_transform_takes_monais_arguments():
    for name in (*MOVES, *VALUES, "Rand2DElastic", "Rand3DElastic", "RandSpatialCrop"):
        known = vars(monai_transforms)[name].__init__.__code__.co_varnames
        mine = getattr(ours, name).__init__.__code__
        assert set(mine.co_varnames[1 : mine.co_argcount]) <= set(known), name


def test_numbers_fill_their_range_evenly():
    torch.manual_seed(0)
    numbers = uniform(-1, 3, 2000, 10)
    counts = np.histogram(numbers, bins=10, range=(-1, 3))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # chi-squared with 9 degrees of freedom: p = 0.001
    dice = whole(1, 6, 5000)
    assert torch.bincount(dice)[1:].min() > 700
    assert (int(dice.min()), int(dice.max())) == (1, 6)
    assert uniform(0.3, 0.3, 4).tolist() == torch.full((4,), 0.3).tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dims", [2, 3])
def test_a_gpu_does_the_same(dims):
    image, augment = pictures(3, 1, *[12] * dims), BatchCompose(everything(dims, 1.0))
    drawn = augment.sample(image.shape)
    here, there = (augment.transform(drawn, x)[0] for x in (image, image.cuda()))
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-3)
