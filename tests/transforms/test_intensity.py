"""Random changes of values: MONAI's, given the same parameters."""

import math

import monai.transforms as monai_transforms
import numpy as np
import pytest
import torch
from chains import close, pictures

import medtl_monai.transforms as ours
from medtl_monai.transforms import BatchCompose
from medtl_monai.utils import UserError


@pytest.mark.parametrize("shape", [(16, 13), (8, 9, 7)])
def test_values_agree_with_monais_transforms_of_the_same_parameters(shape):
    image, dims = pictures(2, 2, *shape), len(shape)
    one = image[0].clone()

    def run(name, **options):
        chain = BatchCompose([getattr(ours, name)(prob=1.0, **options)])
        drawn = chain.sample(image.shape)
        return {k: v[0] for k, v in drawn[0].items()}, chain.transform(drawn, image)[0][0]

    found, got = run("RandGaussianSmooth")
    close(got, monai_transforms.GaussianSmooth(found["sigma"].tolist())(one))
    found, got = run("RandAdjustContrast")
    close(got, monai_transforms.AdjustContrast(float(found["gamma"]))(one))
    found, got = run("RandShiftIntensity", offsets=0.3)
    close(got, monai_transforms.ShiftIntensity(float(found["offset"]))(one))
    found, got = run("RandScaleIntensity", factors=(0.1, 0.4))
    close(got, monai_transforms.ScaleIntensity(None, None, float(found["factor"]))(one))
    found, got = run("RandSimulateLowResolution")
    low = monai_transforms.RandSimulateLowResolution(
        1.0, upsample_mode="bilinear" if dims == 2 else "trilinear", align_corners=False,
        zoom_range=(float(found["zoom"]),) * 2,
    )  # fmt: skip
    close(got, low(one))
    found, got = run("RandBiasField", coeff_range=(0.1, 0.5))
    bias = monai_transforms.RandBiasField(prob=1.0)
    grid = found["coefficients"].numpy()
    legendre = np.polynomial.legendre
    axes = [np.linspace(-1, 1, n) for n in shape]
    field = legendre.leggrid2d(*axes, grid) if dims == 2 else legendre.leggrid3d(*axes, grid)
    close(got, one * torch.from_numpy(np.exp(field)).float())
    bias.randomize(shape)
    assert int((found["coefficients"] != 0).sum()) == len(bias._coeff) - (dims == 3 and len(bias._coeff) > 20)
    found, got = run("RandHistogramShift", num_control_points=(4, 7))
    count = int(found["count"])
    low, high = float(one.min()), float(one.max())
    knots = found["knots"][:count].double().numpy()
    assert (np.diff(knots) >= 0).all()
    assert (knots[0], knots[-1]) == (0.0, 1.0)
    expected = np.interp(one, np.linspace(low, high, count), low + (high - low) * knots)
    close(got, torch.from_numpy(expected).float())
    found, got = run("RandCoarseDropout", holes=1, spatial_size=2, fill_value=9.0, max_spatial_size=4)
    box = tuple(map(slice, found["start"][0].tolist(), found["stop"][0].tolist()))
    expected = one.clone()
    expected[(slice(None), *box)] = 9.0
    assert torch.equal(got, expected)
    found, got = run("RandGaussianNoise", mean=0.5, std=0.2, sample_std=False)
    assert float((got - one).mean()) == pytest.approx(0.5, abs=0.05)
    assert float((got - one).std()) == pytest.approx(0.2, abs=0.03)


def test_colours_turn_about_the_greys():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    one = torch.ones(1)
    turned = ours.RandColor().change(red, {"hue": one * 2 * math.pi / 3, "saturation": one})
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)
    bleached = ours.RandColor().change(red, {"hue": 0 * one, "saturation": 0 * one})
    torch.testing.assert_close(bleached.flatten(), torch.full((3,), 1 / 3))
    grey = torch.full((4, 3, 5, 5), 0.4)
    torch.testing.assert_close(ours.RandColor(1.0)(grey), grey)
    with pytest.raises(UserError, match="3 channels, got 1"):
        ours.RandColor(1.0)(grey[:, :1])
