"""Transforms of every kind, and images for them."""

import torch

import medtl_monai.transforms as ours
from medtl_monai.transforms import smooth

MOVES = {
    "RandFlip": {"spatial_axis": 1},
    "RandRotate90": {},
    "RandRotate": {"range_x": 0.5, "range_y": 0.2},
    "RandZoom": {"min_zoom": 0.8, "max_zoom": 1.3},
    "RandAffine": {"rotate_range": 0.4, "shear_range": [0.1], "translate_range": [2.0, 1.0], "scale_range": [0.2]},
}
VALUES = {
    "RandGaussianNoise": {},
    "RandGaussianSmooth": {},
    "RandBiasField": {"coeff_range": (0.1, 0.3)},
    "RandAdjustContrast": {},
    "RandShiftIntensity": {"offsets": 0.2},
    "RandScaleIntensity": {"factors": 0.2},
    "RandSimulateLowResolution": {"zoom_range": (0.3, 0.7)},
    "RandHistogramShift": {"num_control_points": (4, 8)},
    "RandCoarseDropout": {"holes": 2, "spatial_size": 2, "max_holes": 4, "max_spatial_size": 3},
}
ELASTIC = {
    2: ("Rand2DElastic", {"spacing": 3, "magnitude_range": (0.5, 1.0)}),
    3: ("Rand3DElastic", {"sigma_range": (1.0, 2.0), "magnitude_range": (5.0, 9.0)}),
}


def make(name, options, **more):
    return getattr(ours, name)(**options, **more)


def everything(dims, prob):
    """Each transform once; the crop, which has no probability, only where something is to happen."""
    chain = [make(name, options, prob=prob) for name, options in (*MOVES.items(), ELASTIC[dims], *VALUES.items())]
    return [*chain, ours.RandSpatialCrop(4)] if prob else chain


def pictures(*shape, seed=0):
    """Smooth, so that interpolation has something to agree on."""
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return smooth.gaussian_smooth(noise, torch.full((shape[0], len(shape) - 2), 1.0))


def close(got, expected, atol=1e-4):
    torch.testing.assert_close(got, torch.as_tensor(expected).as_subclass(torch.Tensor), rtol=0, atol=atol)
