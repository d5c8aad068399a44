"""The bundles' augmentation: hand-worked pictures and invariants."""

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from scipy import ndimage
from torch.nn.functional import affine_grid, grid_sample

from medtl_monai.transforms import AugmentBatch, geometry
from medtl_monai.transforms.augment import BiasField, Blur, Erase, LowResolution, Tone, placements
from medtl_monai.utils import UserError

OFF = dict.fromkeys(["flip", "rotate", "zoom", "stretch", "shift", "gamma", "contrast", "brightness", "noise"], 0)


def warp(image, angle=0.0, zoom=(1.0, 1.0), shift=(0.0, 0.0), flip=False):
    one = (torch.tensor([x]) for x in (angle, zoom, shift, flip))
    return geometry.resample(image, placements(*one, image.shape[2:]))


def picture():
    return torch.arange(16.0).reshape(1, 1, 4, 4)


def test_a_quarter_turn_is_rot90():
    got = warp(picture(), angle=math.pi / 2)
    torch.testing.assert_close(got, torch.rot90(picture(), 1, (2, 3)), rtol=0, atol=1e-5)


def test_flip_mirrors_left_and_right():
    torch.testing.assert_close(warp(picture(), flip=True), picture().flip(-1), rtol=0, atol=1e-5)


def test_shift_moves_the_picture_to_the_right_and_down():
    got = warp(picture(), shift=(0.25, 0.0))
    torch.testing.assert_close(got[0, 0, :, 1:], picture()[0, 0, :, :3], rtol=0, atol=1e-5)
    got = warp(picture(), shift=(0.0, 0.25))
    torch.testing.assert_close(got[0, 0, 1:], picture()[0, 0, :3], rtol=0, atol=1e-5)


def test_zoom_magnifies():
    disc = (torch.linspace(-1, 1, 64)[:, None].square() + torch.linspace(-1, 1, 64).square() < 0.16).float()
    area = warp(disc[None, None], zoom=(2.0, 1.0)).sum() / disc.sum()
    assert area == pytest.approx(2.0, rel=0.03)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 4), h=st.integers(2, 9), w=st.integers(2, 9), seed=st.integers(0, 99))
def test_a_batch_equals_its_images_one_by_one_by_torchs_affine_grid(n, h, w, seed):
    torch.manual_seed(seed)
    x, angle, zoom, shift = torch.rand(n, 2, h, w), torch.rand(n), 0.5 + torch.rand(n, 2), torch.rand(n, 2) / 4
    flip = torch.rand(n) < 0.5
    moved = geometry.resample(x, placements(angle, zoom, shift, flip, (h, w)))
    for i, got in enumerate(moved):
        cos, sin, (zx, zy) = float(angle[i].cos()), float(angle[i].sin()), (1 / zoom[i]).tolist()
        zx = -zx if flip[i] else zx
        linear = torch.tensor([[zx * cos, -zx * sin], [zy * sin, zy * cos]])
        theta = torch.cat([linear, -2 * linear @ shift[i, :, None]], 1)
        grid = affine_grid(theta[None], [1, 2, h, w], align_corners=False)
        torch.testing.assert_close(got, grid_sample(x[i : i + 1], grid, align_corners=False)[0], atol=1e-5, rtol=1e-4)


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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rotate": -1}, "rotate must lie between 0 and 180, got -1"),
        ({"flip": 2}, "flip must lie between 0 and 1, got 2"),
        ({"contrast": float("nan")}, "contrast must lie between 0 and 1, got nan"),
        ({"zoom": -0.1}, "zoom must lie between 0 and inf, got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        AugmentBatch(**setting)


def test_volumes_are_refused():
    with pytest.raises(ValueError, match="batch of 2D images"):
        AugmentBatch()(torch.rand(1, 1, 4, 4, 4))


@pytest.mark.parametrize("name", ["blur", "low_resolution", "bias_field", "tone", "erase"])
def test_every_effect_can_be_switched_on_and_leaves_the_geometry(name):
    image = torch.rand(8, 1, 32, 32)
    assert torch.equal(AugmentBatch(**OFF)(image), image)
    changed = AugmentBatch(**OFF, **{name: 1.0 if name != "bias_field" else 0.2})(image)
    assert changed.shape == image.shape
    assert all(not torch.equal(a, b) for a, b in zip(changed, image, strict=True))
    mask = (image > 0.5).long()
    assert torch.equal(AugmentBatch(**OFF, **{name: 0.5})(image, mask)[1], mask)


def test_contrast_and_brightness_are_drawn_together():
    image = torch.rand(200, 1, 4, 4)
    brighter = AugmentBatch(**OFF | {"brightness": 0.1})(image) - image
    assert brighter.flatten(1).std(1).max() < 1e-6
    assert 0.09 < brighter.abs().max() < 0.1 + 1e-6
    torch.manual_seed(0)
    both = AugmentBatch(**OFF | {"brightness": 0.1, "contrast": 0.2})(image)
    torch.manual_seed(0)
    scale, offset = (1 + size * (2 * torch.rand(200) - 1) if size > 0.1 else size * (2 * torch.rand(200) - 1)
                     for size in (0.2, 0.1))  # fmt: skip
    assert torch.equal(both, image * scale.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1))


def test_elastic_bends_image_and_mask_alike_and_about_as_far_as_it_says():
    ramp = torch.linspace(0, 1, 65).expand(300, 1, 65, 65)
    mask = (ramp > 0.5).long()
    image, moved = AugmentBatch(**OFF | {"elastic": 0.02})(ramp, mask)
    away = (image - ramp)[:, 0, 20:-20, 20:-20].flatten(1)
    assert 0.001 < away.std(1).median() < 0.02
    assert away.std(1).max() < 0.05
    assert away.std(1).min() < 0.003  # each image gets between none and this
    assert set(moved.unique().tolist()) == {0, 1}
    inside = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    assert (((image > 0.5) == (moved == 1))[inside]).float().mean() > 0.98
    wide = AugmentBatch(**OFF | {"elastic": 0.1})(torch.rand(2, 3, 5, 40))
    assert wide.isfinite().all()
    with pytest.raises(UserError, match=r"elastic must lie between 0 and 0\.1, got 0\.5"):
        AugmentBatch(elastic=0.5)


def test_the_command_line_of_the_docs_puts_another_chain_in_its_place():
    page = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    text = re.search(r'--augmentation "(\{.*?\})"', page, re.DOTALL)[1]
    parser = ConfigParser({"augmentation": ast.literal_eval(text)})
    image = torch.rand(16, 1, 48, 48)
    mask = (image > 0.5).long()
    got, moved = parser.get_parsed_content("augmentation")(image, mask)
    assert not torch.equal(got, image)
    assert set(moved.unique().tolist()) == {0, 1}


def test_the_draws_are_those_with_which_the_bundles_were_measured():
    """A change here changes every default training: the README's numbers must then be measured again."""
    chosen = {
        "flip": 0.5, "rotate": 30, "zoom": 0.3, "stretch": 0.15, "shift": 0.12, "blur": 0.3, "low_resolution": 0.3,
        "bias_field": 0.15, "tone": 0.5, "gamma": 0.4, "contrast": 0.3, "brightness": 0.05, "noise": 0.02, "erase": 0.5,
    }  # fmt: skip
    image = torch.linspace(0, 1, 4 * 32 * 32).view(4, 1, 32, 32)
    torch.manual_seed(0)
    got = AugmentBatch(**chosen)(image)
    np.testing.assert_allclose(got.mean((1, 2, 3)), [0.0574171, 0.2595578, 0.7107298, 0.5780712], atol=1e-5)
    assert float(torch.rand(())) == pytest.approx(0.0242805, abs=1e-6)


def test_effects_do_to_each_image_what_its_parameter_says():
    torch.manual_seed(0)
    image, boxes = torch.rand(2, 1, 24, 20), torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.5] * 4])
    first = {
        "blur": Blur(1.0).change(image.clone(), {"amount": torch.tensor([1.0, 0.0])}),
        "bias": BiasField(0.1).change(
            image.clone(), {"knots": torch.stack([torch.full((3, 3), 0.5), torch.zeros(3, 3)])}
        ),
        "tone": Tone(1.0).change(image.clone(), {"steps": torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]])}),
        "erase": Erase(1.0).change(image.clone(), {"boxes": boxes, "fill": torch.tensor([7.0, 7.0])}),
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
    coarse = LowResolution(1.0).change(image, {"factor": torch.tensor([0.5, 0.5])})
    spectrum = [torch.fft.rfft2(x).abs()[8:16, 6:].mean() for x in (image[0, 0], coarse[0, 0])]
    assert spectrum[1] < 0.3 * spectrum[0]  # no fine detail is left


def test_a_tone_curve_is_monais_histogram_shift():
    image, steps = torch.rand(1, 1, 16, 16), torch.tensor([[0.5, 1.5, 0.2, 1.8]])
    knots = np.concatenate([[0], steps[0].cumsum(0) / steps.sum()])
    expected = np.interp(image[0, 0].numpy(), np.linspace(0, 1, 5), knots)
    np.testing.assert_allclose(Tone(1.0).change(image, {"steps": steps})[0, 0], expected, atol=1e-6)
