"""Volumes by look-ups: against torch's ``grid_sample``."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import grid_sample

from medtl_monai.transforms import volumes
from medtl_monai.transforms.volumes import look_up


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@settings(deadline=None, max_examples=25)
@given(
    sides=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    size=st.lists(st.integers(1, 8), min_size=3, max_size=3),
    channels=st.integers(1, 3),
    bent=st.booleans(),
    seed=st.integers(0, 99),
)
def test_look_ups_give_what_grid_sample_gives(mode, padding_mode, sides, size, channels, bent, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(channels, *sides, generator=generator)
    lines = [12 * torch.rand(3, length, generator=generator) - 4 for length in size]
    offsets = torch.randn(3, *size, generator=generator) if bent else None
    got = look_up(image, lines, mode=mode, padding_mode=padding_mode, offsets=offsets)
    places = lines[0][:, :, None, None] + lines[1][:, None, :, None] + lines[2][:, None, None, :]
    places = places if offsets is None else places + offsets
    units = torch.tensor(sides)[:, None, None, None]
    grid = ((2 * places.double() + 1) / units - 1).flip(0).movedim(0, -1)[None]
    expected = grid_sample(image[None].double(), grid, mode, padding_mode, align_corners=False)[0].float()
    tied = ((places % 1 - 0.5).abs() < 1e-4).any(0) & (mode == "nearest")
    torch.testing.assert_close(got * ~tied, expected * ~tied, rtol=0, atol=1e-4)


def test_volumes_of_several_slabs_are_whole(monkeypatch):
    image, lines = torch.rand(2, 7, 6, 5), [torch.rand(3, n) * n for n in (9, 4, 5)]
    whole = look_up(image, lines, mode="bilinear", padding_mode="zeros")
    monkeypatch.setattr(volumes, "SLAB", 45)
    assert torch.equal(look_up(image, lines, mode="bilinear", padding_mode="zeros"), whole)
