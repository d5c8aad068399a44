"""Running networks in half precision, on several views, and on windows."""

import pytest
import torch
from monai.inferers import SimpleInferer, SliceInferer

from medtl_monai.inference import AmpInferer, MultiViewInferer, SuspiciousPlaceInferer
from medtl_monai.utils import UserError


def test_the_network_runs_in_bfloat16_and_answers_in_32_bits():
    seen = []
    network = torch.nn.Linear(4, 2)
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    image = torch.rand(3, 4)
    half = AmpInferer(SimpleInferer())(image, network)
    full = AmpInferer(SimpleInferer(), enabled=False)(image, network)
    assert seen == [torch.bfloat16, torch.float32]
    assert half.dtype == full.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.02, atol=0.02)


def test_unfit_number_types_are_refused():
    with pytest.raises(UserError, match="must be bfloat16 or float16, got 'int8'"):
        AmpInferer(SimpleInferer(), dtype="int8")
    with pytest.raises(UserError, match="float16 needs a GPU"):
        AmpInferer(SimpleInferer(), dtype="float16")(torch.rand(1, 4), torch.nn.Linear(4, 2))


def test_the_most_suspicious_windows_are_averaged():
    def network(window):  # suspicion: the mean of the window
        mean = window.mean((1, 2, 3))
        return torch.stack([torch.ones_like(mean), 1 + mean, 1 - mean], 1)

    image = torch.zeros(2, 1, 8, 8)
    image[0, 0, :4, 4:] = 8.0  # fills one window of 4 by 4, half of its two neighbours and a quarter of a third
    image[1, 0, 6:, :2] = 4.0
    few, all_ = SuspiciousPlaceInferer(4, share=3 / 9), SuspiciousPlaceInferer(4, share=1.0)
    torch.testing.assert_close(few(image, network)[0], torch.tensor([1.0, 1 + 16 / 3, 1 - 16 / 3]))
    torch.testing.assert_close(SuspiciousPlaceInferer(4)(image, network)[1], torch.tensor([1.0, 2.0, 0.0]))
    torch.testing.assert_close(all_(image, network)[0], torch.tensor([1.0, 1 + 18 / 9, 1 - 18 / 9]))
    torch.testing.assert_close(SuspiciousPlaceInferer(None)(image, network), network(image))
    assert few(image[..., :7], network).shape == (2, 3)  # windows reach over the edge
    sides = SuspiciousPlaceInferer(4, compare_sides=True)(torch.cat([image, image.flip(0)], 1), network)
    torch.testing.assert_close(sides, torch.tensor([[0.0, 7.0, -7.0], [0.0, -7.0, 7.0]]))
    with pytest.raises(UserError, match="share must be above 0"):
        SuspiciousPlaceInferer(4, share=0.0)


def test_the_most_suspicious_pixels_of_a_map_are_averaged():
    def network(image):  # a map of logits
        return torch.cat([torch.ones_like(image), image, -image], 1)

    image = torch.zeros(2, 1, 10, 20)
    image[0, 0, 3, 4:6] = torch.tensor([7.0, 5.0])
    few = SuspiciousPlaceInferer(lesion_map=True)  # a hundredth: two pixels
    torch.testing.assert_close(few(image, network), torch.tensor([[1.0, 6.0, -6.0], [1.0, 0.0, 0.0]]))
    sides = SuspiciousPlaceInferer(lesion_map=True, share=1 / 200, compare_sides=True)
    pairs = torch.cat([image, image.flip(0, 3)], 1)
    torch.testing.assert_close(sides(pairs, network), torch.tensor([[0.0, 7.0, -7.0], [0.0, -7.0, 7.0]]))


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
