"""Voxels and headers of NIfTI that are not what a scanner's are."""

import struct

import nibabel as nib
import numpy as np
import pytest

from medtl_monai.data import suspicious_spacing
from medtl_monai.data.read.nifti import nifti_place, read_nifti
from medtl_monai.data.stacks import stack_of
from medtl_monai.utils import UserError

SHAPE = (6, 5, 4)


def test_complex_numbers_and_colours_are_refused(tmp_path):
    phase = np.full(SHAPE, 3 + 4j, np.complex64)
    colour = np.zeros((*SHAPE, 3), np.uint8).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    for array, message in ((phase, "holds complex numbers: .* magnitude"), (colour, r"holds colours \(RGB\): .* grey")):
        path = str(tmp_path / "a.nii.gz")
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
        with pytest.raises(UserError, match=message):
            read_nifti(path)


@pytest.mark.parametrize("step", [np.inf, np.nan, 0.0])
def test_a_size_that_is_no_number_is_not_told(step, tmp_path):
    content = bytearray(nib.Nifti1Image(np.zeros(SHAPE, np.float32), np.eye(4)).to_bytes())
    content[80:84] = struct.pack("<f", step)  # pixdim[1]
    content[252:256] = struct.pack("<2h", 0, 0)  # qform_code, sform_code
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    assert nifti_place(str(path)).spacing is None


@pytest.mark.parametrize(("unit", "said"), [("meter", "metres"), ("micron", "micrometres"), ("mm", None)])
def test_a_header_that_is_not_in_mm_is_doubted(unit, said, tmp_path):
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), np.diag([0.5, 0.5, 2, 1]))
    image.header.set_xyzt_units(unit)
    path = str(tmp_path / "a.nii.gz")
    nib.save(image, path)
    doubt = suspicious_spacing(stack_of({"image": path}, "image"))
    assert doubt == (said and f"its NIfTI header says {said}, and its spacing is read as mm: write the header in mm")
