"""What a header may claim, and where the pixels of a file may lie."""

import gzip
import struct

import h5py
import nibabel as nib
import numpy as np
import pytest

from medtl_monai.data import read_stack
from medtl_monai.data.geometry import place_of
from medtl_monai.data.read.any import read_image
from medtl_monai.utils import UserError


def claims(shape):
    """A NIfTI file of eight voxels that claims others."""
    raw = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<8h", raw, 40, 3, *shape, 1, 1, 1, 1)
    return bytes(raw)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_header_that_claims_more_than_memory_holds_is_refused(tmp_path, name):
    content = claims((30000, 30000, 30000))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(UserError, match=rf"{name}.*30000 x 30000 x 30000|{name} cannot be read"):
        read_stack(tmp_path / name)


def test_a_stream_far_longer_than_its_header_says_is_not_inflated(tmp_path):
    pytest.importorskip("isal")
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(claims((2, 2, 2)) + bytes(1 << 25)))
    with pytest.raises(UserError, match="x.nii.gz holds more than its header says"):
        read_stack(tmp_path / "x.nii.gz")


def test_a_data_set_of_nothing_that_claims_gigabytes_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("image", (4000, 4000, 400), dtype=np.uint8, chunks=(100, 100, 100), compression="gzip")
    with pytest.raises(UserError, match=r"x.h5.* says that it is 4000 x 4000 x 400"):
        read_stack(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("x.nhdr", "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 4 4\nencoding: raw\ndata file: {}\n"),
        ("x.nrrd", "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 4 4\nencoding: raw\ndatafile: {}\n"),
        ("x.mhd", "ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"),
        ("x.mha", "ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"),
    ],
)
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # importing itk
def test_headers_take_no_pixels_from_outside_their_folder(tmp_path, name, header):
    (tmp_path / "secret").write_bytes(bytes(range(16)))
    (tmp_path / "in").mkdir()
    for elsewhere in ("../secret", str(tmp_path / "secret")):
        (tmp_path / "in" / name).write_text(header.format(elsewhere))
        with pytest.raises(UserError, match=rf"{name} takes its pixels from .*secret, outside its folder"):
            read_image(tmp_path / "in" / name)
    (tmp_path / "in" / "own.raw").write_bytes(bytes(range(16)))
    (tmp_path / "in" / name).write_text(header.format("own.raw"))
    assert read_image(tmp_path / "in" / name)[0].flatten(order="F").tolist() == list(range(16))
    assert place_of(str(tmp_path / "in" / name)).spacing is None  # ITK would say 1


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "npz", "h5"])
def test_values_that_are_not_finite_are_counted_and_the_file_is_named(tmp_path, kind):
    values = np.zeros((5, 4, 3), np.float32)
    values[0, :2], values[1, 0, 0] = np.nan, np.inf
    name = tmp_path / f"x.{kind}"
    if kind == "npz":
        np.savez(name, a=values)
        name = f"{name}#a"
    elif kind == "h5":
        with h5py.File(name, "w") as file:
            file["image"] = values
    else:
        nib.save(nib.Nifti1Image(values, np.eye(4)), name)
    with pytest.raises(UserError, match=rf"x.{kind}.* \(7 of its 60 values are not finite, NaN or infinite\): repair"):
        read_image(name)
