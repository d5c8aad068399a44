"""Smoothing and deformations: against MONAI's own."""

import pytest
import torch
from monai.networks.layers import GaussianFilter
from monai.transforms.utils import create_control_grid

from medtl_monai.transforms.smooth import control_offsets, control_points, gaussian_smooth


@pytest.mark.parametrize("shape", [(15, 12), (9, 12, 10), (3, 1, 8)])
def test_each_image_is_smoothed_by_its_own_gaussian(shape):
    image, sigma = torch.rand(3, 2, *shape), 0.3 + 1.5 * torch.rand(3, len(shape))
    for truncated in (3.0, 4.0):
        got = gaussian_smooth(image, sigma, truncated)
        for i in range(3):
            expected = GaussianFilter(len(shape), sigma[i].tolist(), truncated)(image[i : i + 1])
            torch.testing.assert_close(got[i : i + 1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spacing", [1, 3, 4.5, 30])
def test_there_are_as_many_control_points_as_monai_lays(spacing):
    for length in range(1, 40):
        assert control_points(length, spacing) == create_control_grid((length, 4), (spacing, 4)).shape[1]


def test_offsets_follow_their_control_points():
    size, spacing = (24, 30), (6, 5)
    points = [control_points(*pair) for pair in zip(size, spacing, strict=True)]
    same = control_offsets(torch.full((1, 2, *points), 1.5), size, spacing)
    torch.testing.assert_close(same, torch.full((1, 2, *size), 1.5))
    one = torch.zeros(1, 2, *points)
    one[0, 0, points[0] // 2, points[1] // 2] = 1.0
    found = control_offsets(one, size, spacing)
    assert found.shape == (1, 2, *size)
    assert not found[0, 1].any()
    assert 0.7 < found.max() <= 1.0
    y, x = divmod(int(found[0, 0].argmax()), size[1])
    assert abs(y - size[0] / 2) <= spacing[0]
    assert abs(x - size[1] / 2) <= spacing[1]
    assert not found[0, 0, :, 0].any()  # far from the point nothing moves
