"""Slices and stacks with their masks: the same picture from every format, and geometry that can be undone."""

import gzip
import sys

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Invertd, LoadImage, Resized
from PIL import Image

from medtl_monai.data import (
    AlwaysPresentd,
    CentreSquared,
    LoadStackd,
    NiftiReader,
    SelectStructuresd,
    SliceDataset,
    read_stack,
    tells_spacing,
)
from medtl_monai.utils import UserError

PICTURE = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)  # 6 rows, 8 columns


def test_a_picture_and_a_data_set_become_the_same_stack(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    Image.fromarray(np.repeat(PICTURE[..., None], 3, 2)).save(tmp_path / "colour.png")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = PICTURE[None]
    one, colour, two = (read_stack(tmp_path / name) for name in ("a.png", "colour.png", "a.h5"))
    assert one.shape == (1, 8, 6, 1)
    assert float(one[0, 7, 0, 0]) == PICTURE[0, 7]
    assert torch.equal(one.as_tensor(), two.as_tensor())
    assert torch.equal(one.as_tensor(), colour.as_tensor())
    assert "spacing" not in one.meta
    assert not tells_spacing("a.PNG")
    with pytest.raises(UserError, match="no data set 'mask': it has image"):
        read_stack(tmp_path / "a.h5", "mask")


def test_a_volume_keeps_its_affine_and_tells_its_spacing(tmp_path):
    affine = np.diag([-1.5, -2.0, 8.0, 1.0])
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 3), np.int16), affine), tmp_path / "v.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 3, 4), np.int16), affine), tmp_path / "beat.nii.gz")
    stack = read_stack(tmp_path / "v.nii.gz")
    assert stack.shape == (1, 5, 6, 3)
    assert stack.meta["spacing"] == [1.5, 2.0, 8.0]
    np.testing.assert_allclose(stack.affine, affine)
    with pytest.raises(UserError, match="one time of them"):
        read_stack(tmp_path / "beat.nii.gz")


def test_values_become_classes_and_others_background():
    mask = torch.tensor([[[[0.0, 3.0, 1.0, 7.0]]]])
    assert SelectStructuresd("label", [3, 1])({"label": mask})["label"].flatten().tolist() == [0, 1, 2, 0]


def test_cropping_and_resizing_are_undone(tmp_path):
    Image.fromarray(np.kron(PICTURE, np.ones((8, 8), np.uint8))).save(tmp_path / "a.png")  # 48 x 64
    before = Compose([LoadStackd("image"), CentreSquared("image", 0.75), Resized("image", (18, 18, -1))])
    item = before({"image": str(tmp_path / "a.png")})
    assert item["image"].shape == (1, 18, 18, 1)  # of 36 x 36
    item["pred"] = item["image"].clone()
    after = Invertd("pred", before, "image", nearest_interp=True)(item)["pred"]
    original = read_stack(tmp_path / "a.png")
    assert after.shape == original.shape
    inside = after[0, 14:50, 6:42, 0]
    assert (inside == original[0, 14:50, 6:42, 0]).float().mean() > 0.9
    assert float(after[0, :14].abs().sum()) == 0
    assert torch.equal(after.affine, original.affine)
    with pytest.raises(UserError, match="crop must be above 0"):
        CentreSquared("image", 1.5)


def test_a_data_set_gives_every_slice_once_with_its_mask():
    items = [{"image": torch.full((1, 2, 2, n), float(n)), "label": torch.arange(n).expand(1, 2, 2, n)} for n in (1, 3)]
    items[1]["domain"] = "B"
    data = SliceDataset(items, lambda item: item)
    assert len(data) == 4
    assert [d["domain"] for d in data] == ["", "B", "B", "B"]
    assert [(float(d["image"][0, 0, 0]), int(d["label"][0, 0, 0])) for d in data] == [(1, 0), (3, 0), (3, 1), (3, 2)]
    assert data.data == items


def test_one_frame_of_a_volume_over_time_is_read(tmp_path):
    beat = np.arange(5 * 6 * 3 * 4).reshape(5, 6, 3, 4).astype(np.int16)
    nib.save(nib.Nifti1Image(beat, np.eye(4)), tmp_path / "sa.nii.gz")
    item = LoadStackd("image")({"image": str(tmp_path / "sa.nii.gz"), "frame": 2})
    np.testing.assert_array_equal(item["image"][0], beat[..., 2])


def test_what_is_always_present_is_marked_where_it_is_likeliest():
    p = torch.tensor([[0.1, 0.2, 0.7], [0.02, 0.04, 0.01]])  # one row a slice
    stack = torch.stack([1 - p, p]).movedim(1, -1)[:, None]  # (2, 1, 3, 2)
    found = AlwaysPresentd("pred")({"pred": stack})["pred"].argmax(0)
    assert found[0, :, 0].tolist() == [0, 0, 1]
    assert found[0, :, 1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("library", ["isal", "zlib"])
@pytest.mark.parametrize(
    ("kind", "dtype", "slope"), [("Nifti1Image", np.int16, 2.0), ("Nifti2Image", np.float32, None)]
)
def test_compressed_nifti_is_read_as_monai_reads_it(tmp_path, monkeypatch, library, kind, dtype, slope):
    if library == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)  # as if it were not installed
    array = np.random.default_rng(0).integers(0, 99, (5, 4, 3)).astype(dtype)
    affine = np.array([[0, -2, 0, 5], [1.5, 0, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1.0]])
    image = getattr(nib, kind)(array, affine)
    if slope:
        image.header.set_slope_inter(slope, 1.0)
    content = gzip.compress(image.to_bytes())
    (tmp_path / "a.nii.gz").write_bytes(content)
    want = LoadImage("NibabelReader", image_only=True)(tmp_path / "a.nii.gz")
    got = LoadImage(NiftiReader, image_only=True)(tmp_path / "a.nii.gz")
    stack = read_stack(tmp_path / "a.nii.gz")
    assert torch.equal(got.as_tensor(), want.as_tensor())
    assert torch.equal(stack.as_tensor()[0], want.as_tensor())
    assert torch.equal(got.affine, want.affine)
    assert torch.equal(stack.affine, want.affine)
    assert got.meta.keys() == want.meta.keys()


def test_whether_nifti_is_compressed_is_told_by_its_content(tmp_path):
    raw = nib.Nifti1Image(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), np.eye(4)).to_bytes()
    for name, content in {"plain.nii.gz": raw, "packed.nii": gzip.compress(raw), "plain": raw}.items():
        (tmp_path / name).write_bytes(content)
        assert read_stack(tmp_path / name).flatten().tolist() == list(range(8))


def test_a_volume_compressed_in_several_parts_is_read_whole_and_half_of_it_is_refused(tmp_path):
    volume = np.random.default_rng(0).integers(0, 4000, (16, 16, 9), dtype=np.int16)
    raw = nib.Nifti1Image(volume, np.eye(4)).to_bytes()
    parts = [gzip.compress(raw[:999]), gzip.compress(raw[999:])]
    for name, content in {"a.nii.gz": b"".join(parts), "b.nii.gz": gzip.compress(raw) + bytes(8)}.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_stack(tmp_path / name)[0].numpy(), volume)
    whole = gzip.compress(raw)
    for name, content in {"half.nii.gz": whole[: len(whole) // 2], "crc.nii.gz": whole[:-8] + bytes(8)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Exception, match=r"(?i)end-of-stream|checksum|crc|trailer|incomplete"):
            read_stack(tmp_path / name)
