"""The bundles' augmentation by MONAI's own transforms, from the same draws."""

import pytest
import torch
from monai.utils import set_determinism
from test_augment import OFF

from medtl_monai.transforms import AugmentBatch, BatchCompose, RandFlip, choose
from medtl_monai.transforms.augment import Blur
from medtl_monai.utils import UserError


def test_monais_transforms_give_the_same_images_from_the_same_draws():
    settings = dict.fromkeys(OFF, 0) | {"flip": 0.5, "rotate": 40, "zoom": 0.2, "stretch": 0.1, "shift": 0.1}
    values = {"contrast": 0.3, "brightness": 0.1, "noise": 0.05, "tone": 0.5, "erase": 0.5}
    image = torch.rand(6, 1, 21, 32)
    image[:, :, 0, :2] = torch.tensor([0.0, 1.0])  # MONAI's curves span each image's own range
    label = (image > 0.5).long()
    for chosen in (settings, settings | {"elastic": 0.03}, OFF | values):
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
    image = Blur(1.0).change(torch.rand(4, 1, 48, 48), {"amount": torch.ones(4)})
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
        choose("monai", BatchCompose([RandFlip(0.5)]))
