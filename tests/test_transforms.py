"""Batched augmentation: against per-image resampling, hand-worked pictures and invariants."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.utils import set_determinism
from scipy import ndimage
from torch.nn.functional import affine_grid, grid_sample

from medtl_monai.transforms import (
    PRESETS,
    AugmentBatch,
    MixBatch,
    PrepareBatch,
    affine_matrices,
    choose,
    effects,
    preset,
    warp,
)
from medtl_monai.utils import UserError

OFF = dict.fromkeys(["flip", "rotate", "zoom", "stretch", "shift", "gamma", "contrast", "brightness", "noise"], 0)


def matrices(angle=0.0, zoom=(1.0, 1.0), shift=(0.0, 0.0), flip=False):
    return affine_matrices(torch.tensor([angle]), torch.tensor([zoom]), torch.tensor([shift]), torch.tensor([flip]))


def picture():
    return torch.arange(16.0).reshape(1, 1, 4, 4)


def test_a_quarter_turn_is_rot90():
    got = warp(picture(), matrices(angle=math.pi / 2))
    torch.testing.assert_close(got, torch.rot90(picture(), 1, (2, 3)), rtol=0, atol=1e-5)


def test_flip_mirrors_left_and_right():
    torch.testing.assert_close(warp(picture(), matrices(flip=True)), picture().flip(-1), rtol=0, atol=1e-5)


def test_shift_moves_the_picture_to_the_right_and_down():
    got = warp(picture(), matrices(shift=(0.25, 0.0)))
    torch.testing.assert_close(got[0, 0, :, 1:], picture()[0, 0, :, :3], rtol=0, atol=1e-5)
    got = warp(picture(), matrices(shift=(0.0, 0.25)))
    torch.testing.assert_close(got[0, 0, 1:], picture()[0, 0, :3], rtol=0, atol=1e-5)


def test_zoom_magnifies():
    disc = (torch.linspace(-1, 1, 64)[:, None].square() + torch.linspace(-1, 1, 64).square() < 0.16).float()
    area = warp(disc[None, None], matrices(zoom=(2.0, 1.0))).sum() / disc.sum()
    assert area == pytest.approx(2.0, rel=0.03)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 4), h=st.integers(2, 9), w=st.integers(2, 9), seed=st.integers(0, 99))
def test_a_batch_equals_its_images_one_by_one(n, h, w, seed):
    torch.manual_seed(seed)
    x, angle, zoom = torch.rand(n, 2, h, w), torch.rand(n), 0.5 + torch.rand(n, 2)
    theta = affine_matrices(angle, zoom, torch.rand(n, 2) / 4, torch.rand(n) < 0.5)
    for i, got in enumerate(warp(x, theta)):
        grid = affine_grid(theta[i : i + 1], [1, 2, h, w], align_corners=False)
        torch.testing.assert_close(got, grid_sample(x[i : i + 1], grid, align_corners=False)[0])


def test_all_off_is_bit_exact_identity():
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(AugmentBatch(**OFF)(x), x)


def test_a_seed_fixes_the_result_and_images_differ():
    x, augment = torch.rand(1, 1, 16, 16).expand(2, 1, 16, 16), AugmentBatch()
    torch.manual_seed(0)
    a = augment(x)
    torch.manual_seed(0)
    assert torch.equal(a, augment(x))
    assert not torch.allclose(a[0], a[1])


@pytest.mark.parametrize("setting", [{"rotate": -1}, {"flip": 2}, {"contrast": float("nan")}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UserError, match="must lie between 0 and"):
        AugmentBatch(**setting)


def test_volumes_are_refused():
    with pytest.raises(ValueError, match="batch of 2D images"):
        AugmentBatch()(torch.rand(1, 1, 4, 4, 4))


def test_prepare_batch_normalizes_per_channel_and_keeps_labels():
    image, label = PrepareBatch([0.5, 0.0], [0.5, 2.0])({"image": torch.ones(2, 2, 3, 3), "label": [1, 0]})
    assert image[0, :, 0, 0].tolist() == [1.0, 0.5]
    assert label.tolist() == [1, 0]


def test_prepare_batch_without_labels_gives_none():
    assert PrepareBatch([0.0], [1.0])({"image": torch.ones(1, 1, 2, 2)})[1] is None


def test_image_and_mask_are_augmented_alike():
    torch.manual_seed(0)
    mask = (torch.rand(4, 1, 12, 12) > 0.5).long() * 3
    mask = torch.nn.functional.interpolate(mask.float(), scale_factor=8, mode="nearest").long()
    augment = AugmentBatch(rotate=90, zoom=0.3, gamma=0, contrast=0, brightness=0, noise=0)
    image, label = PrepareBatch([0.0], [1.0], augment)({"image": mask.float(), "label": mask})
    assert label.dtype == torch.int64
    assert set(label.unique().tolist()) <= {0, 3}
    inside = (image - image.round()).abs() < 1e-4  # away from edges both samplings agree
    assert inside.float().mean() > 0.5
    assert torch.equal(image[inside].round().long(), label[inside])


def test_effects_do_to_each_image_what_its_parameter_says():
    torch.manual_seed(0)
    image, on = torch.rand(2, 1, 24, 20), torch.tensor([True, False])
    first = {
        "blur": effects.blur(image, torch.tensor([1.0, 0.0])),
        "low": effects.low_resolution(image, 0.5, on),
        "bias": effects.bias_field(image, torch.stack([torch.full((3, 3), 0.5), torch.zeros(3, 3)])),
        "tone": effects.tone_curve(image, torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]])),
        "erase": effects.erase(image, torch.tensor([[0.25, 0.5, 0.5, 1.0]] * 2), torch.tensor([7.0, 7.0]), on),
    }
    for name, result in first.items():
        assert not torch.allclose(result[0], image[0]), name
        torch.testing.assert_close(result[1], image[1], msg=name)
    torch.testing.assert_close(first["bias"][0], image[0] * math.exp(0.5))
    kernel = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]) / 81
    blurred = ndimage.correlate(image[0, 0].numpy(), kernel, mode="nearest")
    np.testing.assert_allclose(first["blur"][0, 0], blurred, atol=1e-5)
    box = torch.zeros(24, 20, dtype=torch.bool)
    box[6:12, 10:] = True
    assert torch.equal(first["erase"][0, 0] == 7, box)
    spectrum = [torch.fft.rfft2(x).abs()[8:16, 6:].mean() for x in (image[0, 0], first["low"][0, 0])]
    assert spectrum[1] < 0.3 * spectrum[0]  # no fine detail is left


def test_a_tone_curve_is_monais_histogram_shift():
    image, steps = torch.rand(1, 1, 16, 16), torch.tensor([[0.5, 1.5, 0.2, 1.8]])
    knots = np.concatenate([[0], steps[0].cumsum(0) / steps.sum()])
    expected = np.interp(image[0, 0].numpy(), np.linspace(0, 1, 5), knots)
    np.testing.assert_allclose(effects.tone_curve(image, steps)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["blur", "low_resolution", "bias_field", "tone", "erase"])
def test_every_effect_can_be_switched_on_and_leaves_the_geometry(name):
    image = torch.rand(8, 1, 32, 32)
    assert torch.equal(AugmentBatch(**OFF)(image), image)
    changed = AugmentBatch(**OFF, **{name: 1.0 if name != "bias_field" else 0.2})(image)
    assert changed.shape == image.shape
    assert all(not torch.equal(a, b) for a, b in zip(changed, image, strict=True))
    mask = (image > 0.5).long()
    assert torch.equal(AugmentBatch(**OFF, **{name: 0.5})(image, mask)[1], mask)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_in_the_share_of_the_pixels(kind, dims):
    torch.manual_seed(0)
    label = torch.tensor([0, 1, 2, 0])
    image = label.view(-1, 1, *[1] * dims).float().expand(-1, 1, *[20] * dims)
    changed = False
    for _ in range(20):
        mixed, shares = MixBatch(3, kind=kind, alpha=1.0)(image, label)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
        expected = (shares * torch.arange(3)).sum(1)  # images are their labels, so their means are the mean labels
        torch.testing.assert_close(mixed.flatten(1).mean(1), expected, atol=1e-4, rtol=1e-4)
        changed |= not torch.equal(mixed, image)
    assert changed
    kept, shares = MixBatch(3, kind=kind, probability=0.0)(image, label)
    assert torch.equal(kept, image)
    assert torch.equal(shares.argmax(1), label)


def test_mixing_stands_between_augmentation_and_normalization():
    prepare = PrepareBatch([1.0], [2.0], mix=MixBatch(2))
    image, label = prepare({"image": torch.ones(4, 1, 4, 4), "label": torch.tensor([0, 1, 0, 1])})
    assert torch.equal(image, torch.zeros(4, 1, 4, 4))
    assert label.shape == (4, 2)
    with pytest.raises(UserError, match="kind mixup or cutmix"):
        MixBatch(2, kind="cutup")


def test_monais_transforms_give_the_same_images_from_the_same_draws():
    settings = dict.fromkeys(OFF, 0) | {"flip": 0.5, "rotate": 40, "zoom": 0.2, "stretch": 0.1, "shift": 0.1}
    values = {"contrast": 0.3, "brightness": 0.1, "noise": 0.05, "tone": 0.5, "erase": 0.5}
    image = torch.rand(6, 1, 21, 32)
    image[:, :, 0, :2] = torch.tensor([0.0, 1.0])  # MONAI's curves span each image's own range
    label = (image > 0.5).long()
    for chosen in (settings, OFF | values):
        batched = AugmentBatch(**chosen)
        torch.manual_seed(0)
        expected, moved = batched(image, label)
        torch.manual_seed(0)
        got, its = choose("monai", batched)(image, label)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
        assert (its == moved).float().mean() > 0.999
    assert choose("batched", batched) is batched
    assert choose("monai", None) is None


def test_monais_nearest_to_the_other_effects_are_near():
    image = effects.blur(torch.rand(4, 1, 48, 48), torch.ones(4))
    image = (image - image.amin((2, 3), True)) / (image.amax((2, 3), True) - image.amin((2, 3), True))
    for name, size, near in (("gamma", 0.4, 1e-3), ("blur", 1.0, 0.06), ("low_resolution", 1.0, 0.1)):
        batched = AugmentBatch(**OFF | {name: size})
        torch.manual_seed(0)
        expected = batched(image)
        torch.manual_seed(0)
        got = choose("monai", batched)(image)
        assert (got - expected).abs().mean() < near * 0.5, name
        assert (got - image).abs().mean() > 1e-3, name
    fields = [
        choose(kind, AugmentBatch(**OFF, bias_field=0.2))(torch.ones(200, 1, 16, 16)) for kind in ("batched", "monai")
    ]
    set_determinism(0)  # as the bundles do
    fields.append(choose("monai", AugmentBatch(**OFF, bias_field=0.2))(torch.ones(200, 1, 16, 16)))
    set_determinism(None)
    assert all(len(field.unique(dim=0)) == 200 for field in fields)
    ours, theirs, _ = (float(field.log().std()) for field in fields)
    assert ours == pytest.approx(theirs, rel=0.3)


def test_the_choice_of_transforms_is_checked():
    with pytest.raises(UserError, match="batched or monai, got 'torchio'"):
        choose("torchio", None)
    with pytest.raises(UserError, match="needs an AugmentBatch as augmentation, got BatchCompose"):
        choose("monai", preset("brain_mri"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_augment_pictures_and_volumes(name):
    image = torch.rand(2, 1, 24, 24)
    got, label = preset(name, image_size=24, seed=0)(image, (image > 0.5).long())
    assert got.shape == image.shape
    assert not torch.equal(got, image)
    assert set(label.unique().tolist()) <= {0, 1}
    volume = torch.rand(1, 1, 6, 24, 24)
    assert preset(name, image_size=24, spatial_dims=3, seed=0)(volume).isfinite().all()
    first = next(iter(PRESETS[name]))
    fewer = preset(name, **{first: None})
    assert len(fewer.transforms) == len(PRESETS[name]) - 1


def test_unknown_presets_and_settings_are_refused():
    with pytest.raises(UserError, match="did you mean 'brain_mri'"):
        preset("brain_mir")
    with pytest.raises(UserError, match="preset 'brain_mri' has no RandCoarseDropout"):
        preset("brain_mri", RandCoarseDropout=None)
