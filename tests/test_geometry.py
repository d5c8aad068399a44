"""Masks on their images: axes, directions, shifts and resampling by what both files say of their place in space."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff

from medtl_monai.data import read_stack, stack_of
from medtl_monai.data.geometry import brought, thickest_axis
from medtl_monai.data.read.place import Place
from medtl_monai.data.stacks import in_file_axes
from medtl_monai.utils import UserError

TURNS = [np.array(list(zip(axes, flips, strict=True))) for axes in itertools.permutations(range(3))
         for flips in itertools.product((1, -1), repeat=3)]  # fmt: skip
AFFINE = np.array([[-1.5, 0.2, 0, 30], [0.1, -1.4, 0.3, 40], [0, 0.2, 6, -50], [0, 0, 0, 1.0]])
SHAPE = (9, 8, 5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(TURNS), st.tuples(*[st.integers(-2, 2)] * 3))
def test_a_mask_in_other_axes_is_brought_exactly(seed, turn, shift):
    mask = np.random.default_rng(seed).integers(0, 4, SHAPE, dtype=np.uint8)
    wider = np.pad(mask, [(max(0, s) + 2, max(0, -s) + 2) for s in shift])
    begins = [max(0, s) + 2 for s in shift]
    moved = AFFINE @ np.block([[np.eye(3), -np.array(begins)[:, None]], [np.zeros((1, 3)), 1]])
    turned = apply_orientation(wider, turn)  # nibabel is the independent reference
    affine = moved @ inv_ornt_aff(turn, wider.shape)
    np.testing.assert_array_equal(brought(turned, affine, Place(SHAPE, AFFINE, None), ("m", "i")), mask)


def test_what_lies_outside_the_mask_is_background():
    mask = np.ones((4, 4, 4), np.uint8)
    found = brought(mask, np.diag([1, 1, 1, 1.0]), Place((6, 4, 4), np.array(
        [[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), None), ("m", "i"))  # fmt: skip
    assert found[:, 0, 0].tolist() == [0, 1, 1, 1, 1, 0]


def test_a_finer_mask_is_resampled_by_the_nearest_voxel():
    mask = np.zeros((12, 12, 4), np.uint8)
    mask[4:8, 4:8] = 2
    affine = np.diag([0.5, 0.5, 8, 1])
    affine[:2, 3] = -0.25
    found = brought(mask, affine, Place((6, 6, 4), np.diag([1, 1, 8, 1.0]), None), ("m", "i"))
    want = np.zeros((6, 6, 4), np.uint8)
    want[2:4, 2:4] = 2
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(4), r"the mask m \(6 x 6 x 4 voxels of 1 x 1 x 1 mm .* has voxels of another size than its image i "
                    r"\(6 x 6 x 4 voxels of 1.5 x 1.5 x 8 mm .*: give it the image's affine"),
        (np.array([[1.5, 0, 0, 90], [0, 1.5, 0, 0], [0, 0, 8, 0], [0, 0, 0, 1]]), "another place in space than"),
    ],
)  # fmt: skip
def test_a_mask_of_another_place_or_scale_is_refused_with_both(affine, message):
    mask = np.zeros((6, 6, 4), np.uint8)
    mask[2:4, 2:4] = 1
    with pytest.raises(UserError, match=message):
        brought(mask, affine, Place((6, 6, 4), np.diag([1.5, 1.5, 8, 1.0]), None), ("m", "i"))


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((5, 40, 44), (8, 1.5, 1.5), 0), ((40, 5, 44), (1.5, 8, 1.4), 1), ((40, 44, 5), (1.5, 1.5, 8), 2),
        ((60, 61, 62), (1, 1, 1), 2), ((60, 61, 62), (1.1, 1, 1), 2), ((64, 64, 99), (1.5, 1.5, 1), 2),
        ((40, 1, 44), (1, 1, 1), 1), ((40, 44, 1), (8, 1, 1), 2), ((5, 40, 44), None, 2),
    ],
)  # fmt: skip
def test_slices_run_along_the_thickest_axis(shape, spacing, axis):
    assert thickest_axis(shape, spacing) == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_stack_and_its_mask_are_cut_alike_and_go_back_to_their_file(tmp_path, axis):
    spacing = [1.5, 1.4, 1.3]
    spacing[axis] = 7.0
    shape = [12, 10, 11]
    shape[axis] = 4
    voxels = np.random.default_rng(axis).integers(0, 3, shape).astype(np.uint8)
    affine = np.diag([*spacing, 1])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "i.nii.gz")
    turn = np.array([[1, -1], [2, 1], [0, -1]])
    nib.save(nib.Nifti1Image(voxels, affine).as_reoriented(turn), tmp_path / "m.nii.gz")
    item = {"image": str(tmp_path / "i.nii.gz"), "label": str(tmp_path / "m.nii.gz")}
    image, mask = stack_of(item, "image"), stack_of(item, "label")
    np.testing.assert_array_equal(image, mask)
    np.testing.assert_array_equal(image[0], np.moveaxis(voxels, axis, -1))
    assert image.meta["spacing"][2] == 7.0
    back, there = in_file_axes(image[0].numpy(), image.affine.numpy(), image.meta["slice_axis"])
    np.testing.assert_array_equal(back, voxels)
    np.testing.assert_allclose(there, affine)
    assert read_stack(item["image"], slice_axis=2).shape == (1, *shape)


def test_a_mask_that_tells_no_place_lies_as_it_is(tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (6, 5, 4)).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, np.diag([-1.5, -1.5, 8, 1])), tmp_path / "i.nii.gz")
    bare = nib.Nifti1Image(values, np.diag([1.5, 1.5, 8, 1]))
    bare.set_sform(None, 0)
    bare.set_qform(None, 0)
    nib.save(bare, tmp_path / "m.nii.gz")
    item = {"image": str(tmp_path / "i.nii.gz"), "label": str(tmp_path / "m.nii.gz")}
    np.testing.assert_array_equal(stack_of(item, "label")[0], values)


def test_spacing_that_is_missing_is_not_one_but_said_or_unknown(tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "x.png")
    assert "spacing" not in read_stack(tmp_path / "x.png").meta
    said = read_stack(tmp_path / "x.png", spacing=[1.4, 1.3, 8])
    assert said.meta["spacing"] == [1.4, 1.3, 8]
    np.testing.assert_allclose(np.abs(np.diag(said.affine))[:3], [1.4, 1.3, 8])
