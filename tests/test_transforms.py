"""Inference on several views."""

import pytest
import torch
from monai.inferers import SliceInferer

from medtl_monai.transforms import MultiViewInferer
from medtl_monai.utils import UserError


def test_one_view_is_plain_inference_and_several_are_averaged():
    def network(x):
        return x.mean((2, 3)) * x.shape[-1]

    x = torch.ones(2, 3, 10, 10)
    torch.testing.assert_close(MultiViewInferer()(x, network), network(x))
    torch.testing.assert_close(MultiViewInferer([1.0, 1.5])(x, network), torch.full((2, 3), 12.5))
    volume = torch.ones(1, 1, 4, 4, 4)
    assert MultiViewInferer([2.0])(volume, lambda v: v.flatten(1)).shape == (1, 512)


def test_mirrored_views_are_averaged():
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    found = MultiViewInferer(mirrors=[[], [0], [1], [0, 1]])(image, lambda x: x[:, :, 0, 0])
    assert found.item() == (1 + 3 + 2 + 4) / 4
    assert MultiViewInferer(mirrors=[[1]])(image, lambda x: x[:, :, 0, 0]).item() == 2


def test_maps_of_mirrored_and_enlarged_views_are_laid_back_over_the_image():
    stack = torch.arange(2 * 4 * 6 * 3.0).reshape(1, 2, 4, 6, 3)
    slices = SliceInferer(roi_size=(4, 6), spatial_dim=2, sw_batch_size=2)
    views = MultiViewInferer(mirrors=[[], [0], [1], [0, 1]], inferer=slices)
    torch.testing.assert_close(views(stack, lambda x: 2 * x), 2 * stack)
    ramp = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    found = MultiViewInferer([1.0, 1.5], [[], [1]])(ramp, lambda x: 3 * x)
    torch.testing.assert_close(found, 3 * ramp, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": []}, "scales must be numbers above 0"),
        ({"scales": [1.0, 0.0]}, "scales must be numbers above 0"),
        ({"mirrors": []}, "mirrors must be lists of axes"),
        ({"mirrors": [[3]]}, "mirrors must be lists of axes"),
    ],
)
def test_impossible_views_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MultiViewInferer(**settings)
