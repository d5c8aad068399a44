"""Transforms of whole batches: against MONAI's with the same parameters, one by one, and by properties."""

import math

import monai.transforms as monai_transforms
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch
from torch import nn

import medtl_monai.transforms as ours
from medtl_monai.transforms import BatchCompose, effects, geometry
from medtl_monai.utils import UserError

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
    chain = [make(name, options, prob=prob) for name, options in (*MOVES.items(), ELASTIC[dims], *VALUES.items())]
    return [*chain, ours.RandSpatialCrop(4)] if prob else chain


def pictures(*shape, seed=0):
    """Smooth, so that interpolation has something to agree on."""
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return effects.gaussian_smooth(noise, torch.full((shape[0], len(shape) - 2), 1.0))


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
    image, keys = pictures(4, 2, *shape, seed=seed), torch.randint(2**62, (4,))
    label, before = (image > image.mean()).long(), image.clone()
    augment = BatchCompose(everything(len(shape), 0.5))
    got, moved = augment(image, label, keys=keys)
    assert torch.equal(image, before)
    assert set(moved.unique().tolist()) <= {0, 1}
    for i in range(4):
        one, its = augment(image[i : i + 1], label[i : i + 1], keys=keys[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], one, rtol=1e-4, atol=1e-5)
        assert torch.equal(moved[i : i + 1], its)


def test_images_do_not_depend_on_the_batch_they_come_in():
    image, chain = pictures(6, 1, 12, 12), everything(2, 0.5)
    whole = BatchCompose(chain, seed=3)(image)
    parts = BatchCompose(chain, seed=3)
    torch.testing.assert_close(torch.cat([parts(image[:1]), parts(image[1:])]), whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(BatchCompose(chain, seed=4)(image), whole)
    torch.manual_seed(0)
    first = BatchCompose(chain)(image)
    torch.manual_seed(0)
    assert torch.equal(BatchCompose(chain)(image), first)


def test_numbers_are_uniform_and_streams_differ():
    draw = ours.draw.Draw(torch.arange(2000), 0)
    numbers = draw.uniform(0, 1, 10)
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # chi-squared with 9 degrees of freedom: p = 0.001
    assert abs(np.corrcoef(numbers.T) - np.eye(10)).max() < 0.1
    other = ours.draw.Draw(torch.arange(2000), 1).uniform(0, 1)
    assert abs(np.corrcoef(numbers[:, 0], other)[0, 1]) < 0.1
    assert numbers.unique().numel() == 20000
    dice = draw.integers(1, 6, 5)
    assert sorted(dice.unique().tolist()) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", [(15, 12), (9, 12, 10), (7, 1, 8)])
def test_moves_agree_with_monais_transforms_of_the_same_parameters(shape):
    image, dims = pictures(2, 2, *shape), len(shape)
    for mode in ("bilinear", "nearest"):
        rotate = ours.RandRotate(0.7, 0.3, 0.2, prob=1.0)
        plan = BatchCompose([rotate]).sample(2, shape)
        turned = geometry.resample(image, rotate.matrices(plan.parameters[0], shape), mode=mode, padding_mode="border")
        affine = ours.RandAffine(1.0, [0.4] * 3, [0.1] * 6, [2.0] * 3, [0.2] * 3, mode=mode)
        moved = BatchCompose([affine])
        drawn = moved.sample(2, shape)
        got = moved.apply(drawn, {"image": image})["image"] if mode == "bilinear" else None
        for i in range(2):
            angles = plan.parameters[0]["angles"][i].tolist()
            reference = monai_transforms.Rotate(angles[0] if dims == 2 else angles, mode=mode, padding_mode="border")
            off = (reference(image[i]).as_tensor() - turned[i]).abs()
            assert off.max() < 1e-4 or (mode == "nearest" and (off > 1e-4).float().mean() < 0.01)  # ties
            if got is not None:
                params = {f"{name}_params": drawn.parameters[0][name][i].tolist() for name in
                          ("rotate", "shear", "translate", "scale")}  # fmt: skip
                reference = monai_transforms.Affine(**params, padding_mode="reflection", image_only=True)
                torch.testing.assert_close(reference(image[i]).as_tensor(), got[i], rtol=0, atol=1e-4)


def test_exact_moves_are_monais_bit_by_bit():
    image = torch.rand(8, 2, 6, 6, 5)
    for axes in (None, 0, (0, 2)):
        got = ours.RandFlip(1.0, axes)(image)
        assert torch.equal(got[0], monai_transforms.Flip(axes)(image[0]).as_tensor())
    turn = BatchCompose([ours.RandRotate90(1.0)])
    plan = turn.sample(8, image.shape[2:])
    assert set(plan.parameters[0]["k"].tolist()) == {1, 2, 3}
    for k, one, got in zip(plan.parameters[0]["k"], image, turn.apply(plan, {"image": image})["image"], strict=True):
        assert torch.equal(got, torch.rot90(one, int(k), (1, 2)))
    crop = BatchCompose([ours.RandSpatialCrop((4, 9, 3))])
    plan = crop.sample(8, image.shape[2:])
    assert plan.parameters[0]["start"][:, 0].unique().tolist() == [0, 1, 2]
    for start, one, got in zip(
        plan.parameters[0]["start"].tolist(), image, crop.apply(plan, {"image": image})["image"], strict=True
    ):
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
    offsets = effects.control_offsets(noise, shape, (spacing, spacing))
    # MONAI's splines bend the points' own positions too
    points = torch.stack(torch.meshgrid(*(spacing * positions(n) for n in noise.shape[2:]), indexing="ij"))[None]
    pixels = torch.stack(torch.meshgrid(*map(positions, shape), indexing="ij"))
    bent = effects.control_offsets(points, shape, (spacing, spacing)) - pixels
    assert bent.abs().max() < 0.05 * spacing
    matrix = torch.as_tensor(reference.rand_affine_grid.affine).double()
    got = geometry.resample(image, matrix[None], offsets=offsets + bent)
    torch.testing.assert_close(got[0], expected.as_tensor(), rtol=0, atol=2e-4)
    mine = ours.Rand2DElastic(spacing, (1.0, 2.0), 1.0, padding_mode="zeros")
    found = mine.offsets(BatchCompose([mine]).sample(200, shape).parameters[0], shape, image.device)
    assert found.std() == pytest.approx(float(offsets.std()), rel=0.5)


def test_3d_elastic_is_monais_with_the_same_noise():
    image = pictures(1, 1, 14, 12, 15)
    reference = monai_transforms.Rand3DElastic((1.0, 2.0), (5.0, 9.0), 1.0, translate_range=[1.0] * 3)
    reference.set_random_state(0)
    expected = reference(image[0])
    noise = torch.from_numpy(reference.rand_offset)[None]
    smooth = effects.gaussian_smooth(noise, torch.full((1, 3), reference.sigma), truncated=3.0)
    matrix = torch.as_tensor(reference.rand_affine_grid.affine).double()[None]
    got = geometry.resample(image, matrix, padding_mode="reflection", offsets=reference.magnitude * smooth)
    torch.testing.assert_close(got[0], expected.as_tensor(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", [(16, 13), (8, 9, 7)])
def test_values_agree_with_monais_transforms_of_the_same_parameters(shape):
    image, dims = pictures(2, 2, *shape), len(shape)
    one = image[0].clone()

    def run(name, **options):
        chain = BatchCompose([getattr(ours, name)(prob=1.0, **options)])
        plan = chain.sample(2, shape)
        return {k: v[0] for k, v in plan.parameters[0].items()}, chain.apply(plan, {"image": image})["image"][0]

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


def close(got, expected, atol=1e-4):
    torch.testing.assert_close(got, torch.as_tensor(expected).as_subclass(torch.Tensor), rtol=0, atol=atol)


def test_colours_turn_about_the_greys():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    one = torch.ones(1)
    turned = effects.colour(red, one * 2 * math.pi / 3, one)
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(effects.colour(red, 0 * one, 0 * one).flatten(), torch.full((3,), 1 / 3))
    grey = torch.full((4, 3, 5, 5), 0.4)
    torch.testing.assert_close(ours.RandColor(1.0)(grey), grey)
    with pytest.raises(UserError, match="3 channels, got 1"):
        ours.RandColor(1.0)(grey[:, :1])


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
    plan = augment.sample(3, (16, 16))
    got = augment.apply(plan, {"image": image})["image"]
    assert len(calls) == 1
    assert got.shape == (3, 1, 9, 9)
    stepwise = image
    size = (16, 16)
    for transform, parameters in zip(chain, plan.parameters, strict=True):
        after = transform.size(size)
        matrices = transform.matrices(parameters, size)
        stepwise = resample(stepwise, matrices, after, padding_mode="border")
        size = after
    torch.testing.assert_close(got[:, :, 2:-2, 2:-2], stepwise[:, :, 2:-2, 2:-2], atol=0.08, rtol=0)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), dims=st.integers(2, 3))
def test_forward_and_inverse_agree(seed, dims):
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 31)] * 2, indexing="ij")
    image = torch.exp(-4 * ((x - 0.1) ** 2 + (y + 0.2) ** 2))[None, None].expand(2, 1, -1, -1)
    if dims == 3:
        image = image[..., None] * torch.exp(-4 * torch.linspace(-1, 1, 31) ** 2)
    chain = [ours.RandFlip(0.5), ours.RandRotate90(0.5), ours.RandRotate(0.4, 0.2, 0.1, prob=0.8),
             ours.RandAffine(0.8, 0.2, translate_range=[2.0], padding_mode="border"), ours.RandGaussianNoise(0.0),
             ours.RandSpatialCrop(29)]  # fmt: skip
    augment = BatchCompose(chain, seed=seed)
    plan = augment.sample(2, image.shape[2:])
    seen = augment.apply(plan, {"image": image})["image"]
    back = augment.inverse(plan, seen)
    assert back.shape == image.shape
    inside = (slice(None), slice(None), *[slice(9, -9)] * dims)
    torch.testing.assert_close(back[inside], image[inside], atol=0.06, rtol=0)
    exact = BatchCompose([ours.RandFlip(0.5), ours.RandRotate90(0.5)], seed=seed)
    plan = exact.sample(2, image.shape[2:])
    assert torch.equal(exact.inverse(plan, exact.apply(plan, {"image": image})["image"]), image)


def test_a_deformation_has_no_inverse():
    augment = BatchCompose([ours.Rand2DElastic(3, (1.0, 1.0), 1.0)])
    plan = augment.sample(1, (9, 9))
    with pytest.raises(UserError, match="Rand2DElastic has no inverse"):
        augment.inverse(plan, torch.rand(1, 1, 9, 9))


@pytest.mark.parametrize("dims", [2, 3])
def test_nothing_changes_under_autocast_and_the_dtype_stays(dims):
    image = pictures(2, 1, *[10] * dims)
    chain = everything(dims, 1.0)
    plain = BatchCompose(chain, seed=0)(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(BatchCompose(chain, seed=0)(image), plain)
    half = BatchCompose(chain, seed=0)(image.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=0.1, rtol=0.1)
    assert BatchCompose(chain, seed=0)(image.double()).dtype == torch.float64
    assert BatchCompose(chain, seed=0)((image * 255).byte()).dtype == torch.float32  # grey levels become real numbers


def test_dictionaries_move_their_entries_alike_and_keep_the_rest():
    mask = (pictures(4, 1, 20, 20) > 0.5).long()
    one_hot = torch.cat([mask == 0, mask == 1], 1).float()
    batch = {"image": mask.float(), "mask": mask, "shares": one_hot, "name": ["a", "b", "c", "d"]}
    keys = ["image", "mask", "shares"]
    chain = BatchCompose([
        ours.RandFlipd(keys, prob=0.5, spatial_axis=1),
        ours.RandRotated(keys, 0.6, prob=0.9, mode=["bilinear", "nearest", "bilinear"], padding_mode="border"),
        ours.RandShiftIntensityd("image", offsets=(1.0, 1.0), prob=1.0),
    ])  # fmt: skip
    got = chain(batch)
    assert got["name"] == batch["name"]
    assert got["mask"].dtype == torch.int64
    assert set(got["mask"].unique().tolist()) == {0, 1}
    torch.testing.assert_close(got["shares"].sum(1), torch.ones(4, 20, 20))
    torch.testing.assert_close(got["image"] - 1, got["shares"][:, 1:], atol=1e-5, rtol=0)
    assert ((got["shares"][:, 1:] > 0.5) == (got["mask"] == 1)).float().mean() > 0.95
    with pytest.raises(UserError, match="no 'mask'"):
        chain({"image": batch["image"]})
    loose = ours.RandFlipd(["image", "other"], prob=1.0, allow_missing_keys=True)
    assert torch.equal(loose({"image": batch["image"]})["image"], batch["image"].flip(2, 3))


def test_the_affine_follows_the_image_where_asked():
    affine = torch.tensor([[2.0, 0, 0, 5], [0, 3, 0, -1], [0, 0, 4, 2], [0, 0, 0, 1]], dtype=torch.float64)
    image = MetaTensor(pictures(2, 1, 8, 8, 6), affine=affine.repeat(2, 1, 1))
    image.is_batch = True
    chain = [
        ours.RandFlip(1.0, 2),
        ours.RandRotate90(1.0),
        ours.RandSpatialCrop((5, 4, 3)),
        ours.RandRotate(0.3, prob=0.5),
    ]
    assert not isinstance(BatchCompose(chain)(image), MetaTensor)
    got = BatchCompose(chain, seed=1, track_meta=True)(image)
    plain = BatchCompose(chain[:3], seed=1, track_meta=True)(image)
    for one, source in zip(decollate_batch(plain), image.as_tensor(), strict=True):
        index = torch.tensor([1.0, 2, 1, 1], dtype=torch.float64)
        i, j, k = (torch.linalg.inv(affine) @ one.affine @ index)[:3].round().int().tolist()
        assert one[0, 1, 2, 1] == source[0, i, j, k]
    reference = monai_transforms.Flip(2)(MetaTensor(image.as_tensor()[0], affine=affine))
    flipped = BatchCompose(chain[:1], track_meta=True)(image)
    torch.testing.assert_close(flipped.affine[0], reference.affine)
    assert got.affine.shape == (2, 4, 4)


def test_a_chain_goes_with_the_network_to_another_device_or_type():
    image = torch.rand(2, 1, 4, 4)
    chain = BatchCompose([ours.RandFlip(1.0, spatial_axis=1)]).to("cpu")
    assert torch.equal(nn.Sequential(chain).double()(image), image.flip(3))


def test_mistakes_are_explained():
    with pytest.raises(UserError, match=r"RandFlip: prob must lie between 0 and 1, got 2"):
        ours.RandFlip(2)
    with pytest.raises(UserError, match="mode bilinear or nearest"):
        ours.RandRotate(0.1, mode="bicubic")
    with pytest.raises(UserError, match="axes of one length"):
        ours.RandRotate90(1.0)(torch.rand(1, 1, 4, 5))
    with pytest.raises(UserError, match="whole batches"):
        BatchCompose([monai_transforms.RandFlip(0.1)])
    with pytest.raises(UserError, match=r"'label': expected a batch \(2, channels, 4, 4\), got \(2, 1, 4, 5\)"):
        ours.RandFlip(1.0)(torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 5))


def test_every_transform_has_a_dictionary_form_that_takes_monais_arguments():
    for name in (*MOVES, *VALUES, "Rand2DElastic", "Rand3DElastic", "RandSpatialCrop"):
        assert issubclass(getattr(ours, f"{name}d"), getattr(ours, name))
        known = vars(monai_transforms)[name].__init__.__code__.co_varnames
        mine = getattr(ours, name).__init__.__code__
        taken = mine.co_varnames[1 : mine.co_argcount]
        assert set(taken) <= set(known), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dims", [2, 3])
def test_a_gpu_does_the_same(dims):
    image = pictures(3, 1, *[12] * dims)
    chain = [
        t
        for t in everything(dims, 1.0)
        if not {"field", "count"} & set(t.draw(ours.draw.Draw(torch.zeros(1), 0), [12] * dims))
    ]
    here, there = BatchCompose(chain, seed=0)(image), BatchCompose(chain, seed=0)(image.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-3)
    assert BatchCompose(everything(dims, 1.0))(image.cuda()).is_cuda
