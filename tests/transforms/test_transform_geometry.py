"""Resampling under matrices: exact copies, the ways that are taken for speed, and back again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import affine_grid, grid_sample

from medtl_monai.transforms import geometry

MOVES = {
    "about all three axes": [0.3, 0.2, -0.25],
    "about the first axis": [0.3, 0.0, 0.0],
    "about the second axis": [0.0, 0.3, 0.0],
    "about the third axis": [0.0, 0.0, 0.3],
    "not at all": [0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("angles", MOVES.values(), ids=MOVES)
def test_volumes_are_what_grid_sample_makes_of_them_whichever_way_is_taken(angles, padding_mode):
    image = torch.rand(2, 2, 7, 9, 8)
    turn = geometry.rotation(torch.tensor([angles, angles]), 3)
    scale = geometry.scaling(torch.tensor([[1.2, 1.0, 0.9], [0.8, 1.1, 1.0]]))
    matrices = turn @ scale @ geometry.translation(torch.tensor([[0.7, -1.2, 0.4]] * 2))
    half = torch.tensor(image.shape[2:], dtype=torch.float64) / 2
    theta = torch.cat([matrices[:, :3, :3] * half / half[:, None], matrices[:, :3, 3:] / half[:, None]], 2)
    theta = torch.cat([theta[:, :, :3].flip(1, 2), theta[:, :, 3:].flip(1)], 2).float()
    grid = affine_grid(theta, list(image.shape), align_corners=False)
    for mode in ("bilinear", "nearest"):
        got = geometry.resample(image, matrices, mode=mode, padding_mode=padding_mode)
        expected = grid_sample(image, grid, mode, padding_mode, align_corners=False)
        off = (got - expected).abs()
        assert off.max() < 1e-4 or (mode == "nearest" and (off > 1e-4).float().mean() < 0.01)  # ties


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), dims=st.integers(2, 3))
def test_a_movement_and_its_inverse_agree(seed, dims):
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 31)] * 2, indexing="ij")
    image = torch.exp(-4 * ((x - 0.1) ** 2 + (y + 0.2) ** 2))[None, None].expand(2, 1, -1, -1)
    if dims == 3:
        image = image[..., None] * torch.exp(-4 * torch.linspace(-1, 1, 31) ** 2)
    turn = geometry.rotation(0.4 * torch.randn(2, 1 if dims == 2 else 3, generator=generator), dims)
    shear = geometry.shearing(0.1 * torch.randn(2, dims * (dims - 1), generator=generator), dims)
    matrices = turn @ shear @ geometry.translation(torch.randn(2, dims, generator=generator))
    back = geometry.resample(geometry.resample(image, matrices), torch.linalg.inv(matrices))
    inside = (slice(None), slice(None), *[slice(9, -9)] * dims)
    torch.testing.assert_close(back[inside], image[inside], atol=0.06, rtol=0)


def test_what_only_copies_is_copied_exactly():
    image = torch.rand(3, 2, 6, 6, 5)
    flip = geometry.scaling(torch.tensor([[-1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, -1.0, -1.0]]))
    got = geometry.resample(image, flip)
    assert torch.equal(got, torch.stack([image[0].flip(1), image[1], image[2].flip(2, 3)]))
    whole = geometry.translation(torch.tensor([[1.0, 0.0, 0.5]] * 3))
    assert torch.equal(geometry.resample(image, whole, (4, 6, 4)), image[:, :, 2:, :, 1:])


def test_a_matrix_is_applied_along_each_axis():
    image, operators = torch.rand(2, 3, 4, 5, 6), [torch.rand(2, 7, 4), None, torch.rand(1, 2, 6)]
    expected = torch.einsum("nad,ncdhw,bw->ncahb", operators[0], image, operators[2][0])
    torch.testing.assert_close(geometry.per_axis(image, operators), expected)
