"""Random movements: MONAI's, given the same parameters."""

import monai.transforms as monai_transforms
import pytest
import torch
from chains import pictures

import medtl_monai.transforms as ours
from medtl_monai.transforms import BatchCompose, geometry, smooth
from medtl_monai.utils import UserError


def drawn(transform, image):
    """What the transform draws for the batch, and the batch under it."""
    found = transform.sample(image.shape)
    return found, BatchCompose([transform]).transform([found], image)[0]


@pytest.mark.parametrize("shape", [(15, 12), (9, 12, 10), (7, 1, 8)])
def test_moves_agree_with_monais_transforms_of_the_same_parameters(shape):
    image, dims = pictures(2, 2, *shape), len(shape)
    for mode in ("bilinear", "nearest"):
        rotate = ours.RandRotate(0.7, 0.3, 0.2, prob=1.0)
        turn = rotate.sample(image.shape)
        turned = geometry.resample(image, rotate.matrices(turn, shape), mode=mode, padding_mode="border")
        affine = ours.RandAffine(1.0, [0.4] * 3, [0.1] * 6, [2.0] * 3, [0.2] * 3, mode=mode)
        found, got = drawn(affine, image)
        for i in range(2):
            angles = turn["angles"][i].tolist()
            reference = monai_transforms.Rotate(angles[0] if dims == 2 else angles, mode=mode, padding_mode="border")
            off = (reference(image[i]).as_tensor() - turned[i]).abs()
            assert off.max() < 1e-4 or (mode == "nearest" and (off > 1e-4).float().mean() < 0.01)  # ties
            if mode == "bilinear":
                params = {f"{name}_params": found[name][i].tolist() for name in
                          ("rotate", "shear", "translate", "scale")}  # fmt: skip
                reference = monai_transforms.Affine(**params, padding_mode="reflection", image_only=True)
                torch.testing.assert_close(reference(image[i]).as_tensor(), got[i], rtol=0, atol=1e-4)


def test_exact_moves_are_monais_bit_by_bit():
    image = torch.rand(16, 2, 6, 6, 5)
    for axes in (None, 0, (0, 2)):
        got = ours.RandFlip(1.0, axes)(image)
        assert torch.equal(got[0], monai_transforms.Flip(axes)(image[0]).as_tensor())
    found, turned = drawn(ours.RandRotate90(1.0), image)
    assert set(found["k"].tolist()) == {1, 2, 3}
    for k, one, got in zip(found["k"], image, turned, strict=True):
        assert torch.equal(got, torch.rot90(one, int(k), (1, 2)))
    found, cropped = drawn(ours.RandSpatialCrop((4, 9, 3)), image)
    assert found["start"][:, 0].unique().tolist() == [0, 1, 2]
    for start, one, got in zip(found["start"].tolist(), image, cropped, strict=True):
        assert torch.equal(got, one[:, start[0] : start[0] + 4, :, start[2] : start[2] + 3])
    for size in (3, 4):
        centre = ours.RandSpatialCrop(size, random_center=False)(image)
        assert torch.equal(centre[0], monai_transforms.CenterSpatialCrop(size)(image[0]).as_tensor())


def test_zoom_agrees_with_monais_where_it_rounds_nothing():
    image = pictures(1, 1, 20, 30)
    for factor in (1.2, 1.4, 0.8):
        got = ours.RandZoom(1.0, factor, factor)(image)
        reference = monai_transforms.Zoom(factor, mode="bilinear", padding_mode="edge", align_corners=False)
        inside = (..., slice(2, -2), slice(3, -3))  # beyond, MONAI repeats the shrunk image's last pixel
        torch.testing.assert_close(reference(image[0]).as_tensor()[inside], got[0][inside], rtol=0, atol=1e-4)


def positions(n):
    return torch.arange(n) - (n - 1) / 2


@pytest.mark.parametrize(("shape", "spacing"), [((24, 20), 4), ((21, 15), 5), ((24, 24), 6.0)])
def test_2d_elastic_is_monais_with_the_same_control_points(shape, spacing):
    image, affine = pictures(1, 1, *shape), {"rotate_range": 0.3, "scale_range": (0.1, 0.1)}
    reference = monai_transforms.Rand2DElastic(spacing, (1.0, 2.0), 1.0, padding_mode="zeros", **affine)
    reference.set_random_state(0)
    expected = reference(image[0])
    noise = torch.from_numpy(reference.deform_grid.random_offset * reference.deform_grid.rand_mag)[None]
    offsets = smooth.control_offsets(noise, shape, (spacing, spacing))
    # MONAI's splines bend the points' own positions too
    points = torch.stack(torch.meshgrid(*(spacing * positions(n) for n in noise.shape[2:]), indexing="ij"))[None]
    pixels = torch.stack(torch.meshgrid(*map(positions, shape), indexing="ij"))
    bent = smooth.control_offsets(points, shape, (spacing, spacing)) - pixels
    assert bent.abs().max() < 0.05 * spacing
    matrix = torch.as_tensor(reference.rand_affine_grid.affine).double()
    got = geometry.resample(image, matrix[None], offsets=offsets + bent)
    torch.testing.assert_close(got[0], expected.as_tensor(), rtol=0, atol=2e-4)
    mine = ours.Rand2DElastic(spacing, (1.0, 2.0), 1.0, padding_mode="zeros")
    found = mine.offsets(mine.sample((200, 1, *shape)), shape, image.device)
    assert found.std() == pytest.approx(float(offsets.std()), rel=0.5)


def test_3d_elastic_is_monais_with_the_same_noise():
    image = pictures(1, 1, 14, 12, 15)
    reference = monai_transforms.Rand3DElastic((1.0, 2.0), (5.0, 9.0), 1.0, translate_range=[1.0] * 3)
    reference.set_random_state(0)
    expected = reference(image[0])
    noise = torch.from_numpy(reference.rand_offset)[None]
    moves = smooth.gaussian_smooth(noise, torch.full((1, 3), reference.sigma), truncated=3.0)
    matrix = torch.as_tensor(reference.rand_affine_grid.affine).double()[None]
    got = geometry.resample(image, matrix, padding_mode="reflection", offsets=reference.magnitude * moves)
    torch.testing.assert_close(got[0], expected.as_tensor(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_deformation_leaves_the_images_alone_that_were_not_chosen(dims):
    image = torch.rand(40, 1, *[9] * dims)
    deform = ours.Rand2DElastic(3, (1.0, 2.0), 0.5) if dims == 2 else ours.Rand3DElastic((1, 2), (5.0, 9.0), 0.5)
    found, got = drawn(deform, image)
    assert torch.equal(found["chosen"], (got != image).flatten(1).any(1))


def test_impossible_moves_are_refused():
    with pytest.raises(UserError, match="axes of one length"):
        ours.RandRotate90(1.0)(torch.rand(1, 1, 4, 5))
    with pytest.raises(UserError, match="magnifications must be above 0"):
        ours.RandZoom(1.0, 0.0)
