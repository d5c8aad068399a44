"""Values of masks: rounded where nearly whole, named, or a reason to stop, the same in check and training."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import zoom

from medtl_monai.bundle import read_stacks, structure_values
from medtl_monai.data import check_cases, load_cases, stack_of
from medtl_monai.data.masks import FractionsError, MaskValues, as_whole
from medtl_monai.utils import UserError

AFFINE = np.diag([-1.5, -1.5, 8, 1.0])


def folder(root, change, ending="nii.gz", values=(1, 2)):
    """Six images with masks of two squares, which ``change`` alters."""
    rows = ["image,label,patient"]
    for i in range(6):
        mask = np.zeros((40, 44, 3), np.uint8)
        mask[8:20, 14:30], mask[12:16, 18:24] = values
        image = np.random.default_rng(i).integers(0, 99, mask.shape).astype(np.uint8)
        if ending == "nii.gz":
            nib.save(nib.Nifti1Image(image, AFFINE), root / f"i{i}.nii.gz")
            nib.save(nib.Nifti1Image(change(mask), AFFINE), root / f"m{i}.nii.gz")
            rows.append(f"i{i}.nii.gz,m{i}.nii.gz,p{i}")
        else:
            Image.fromarray(image[..., 0]).save(root / f"i{i}.png")
            Image.fromarray(change(mask)[..., 0]).save(root / f"m{i}.{ending}")
            rows.append(f"i{i}.png,m{i}.{ending},p{i}")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    return root


def refusals(root, classes=None, structures=None):
    """What the training says, and what the check lists as reasons to stop."""
    cases = load_cases(root, classes=classes)
    doubts = {doubt["what"]: doubt["examples"] for doubt in check_cases(cases, progress=False)["suspicious"]}
    try:
        read_stacks(cases, structure_values(cases, structures), chosen=structures)
        said = ""
    except UserError as error:
        said = str(error)
    return said, doubts.get("reasons for which a training stops", [])


@given(st.lists(st.integers(0, 300), min_size=1), st.floats(-0.009, 0.009))
def test_nearly_whole_values_are_rounded(values, off):
    assert as_whole(np.array(values) + off).tolist() == values


def test_values_just_below_a_whole_number_are_not_cut_off(tmp_path):
    root = folder(tmp_path, lambda mask: (mask * np.float32(0.99999)).astype(np.float32))
    assert refusals(root, ["wall", "cavity"]) == ("", [])
    assert stack_of(load_cases(root).items[0], "label").unique().tolist() == [0, 1, 2]


def test_interpolated_masks_stop_training_and_check_in_the_same_words(tmp_path):
    root = folder(
        tmp_path, lambda mask: zoom(zoom(mask.astype(np.float32), (2, 2, 1), order=1), (0.5, 0.5, 1), order=1)
    )
    said, listed = refusals(root, ["wall", "cavity"])
    assert "values between whole numbers" in said
    assert "--structures" in said
    assert listed[0] == said
    with pytest.raises(FractionsError, match=r"0.5 \(50.0%\) of what is marked"):
        MaskValues().add(np.array([0, 0.5, 1.0]), "m")


@pytest.mark.parametrize(("ending", "values"), [("nii.gz", (1, 3)), ("png", (1, 255))])
def test_values_without_a_name_stop_training_and_check_with_the_line_to_type(tmp_path, ending, values):
    root = folder(tmp_path, lambda mask: mask, ending, values)
    said, listed = refusals(root)
    other = values[1]
    assert f"masks hold values without a name, {other} (12.5%)" in said
    line = f"--structures \"{{'foreground':1,'structure {other}':{other}}}\""
    assert line in said
    assert listed == [said]
    assert refusals(root, structures={"foreground": 1, "other": other})[0] == ""
    assert refusals(root, structures={"foreground": 1})[0] == ""  # said: all else is background


def test_one_structure_of_another_value_is_named(tmp_path):
    root = folder(tmp_path, lambda mask: 255 * (mask > 0).astype(np.uint8), "png")
    said, listed = refusals(root)
    assert "--structures \"{'foreground':255}\"" in said
    assert listed == [said]
    assert refusals(root, structures={"foreground": 255})[0] == ""


def test_masks_that_were_saved_as_jpeg_stop_both(tmp_path):
    root = folder(tmp_path, lambda mask: mask, "jpg", (100, 255))
    said, listed = refusals(root, structures={"wall": 100, "cavity": 255})
    assert "saved as JPEG" in said
    assert "as PNG" in said
    assert "saved as JPEG" in listed[0]


def test_palette_masks_are_their_indices_in_training_and_check(tmp_path):
    root = folder(tmp_path, lambda mask: mask, "png")
    for path in root.glob("m*.png"):
        picture = Image.fromarray(np.asarray(Image.open(path)), "P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.save(path)
    assert refusals(root, ["wall", "cavity"]) == ("", [])
    assert stack_of(load_cases(root).items[0], "label").unique().tolist() == [0, 1, 2]


def test_a_mask_that_cannot_be_read_is_named(tmp_path):
    root = folder(tmp_path, lambda mask: mask)
    (root / "m3.nii.gz").write_bytes((root / "m3.nii.gz").read_bytes()[:60])
    said, _ = refusals(root, ["wall", "cavity"])
    assert "m3.nii.gz" in said
