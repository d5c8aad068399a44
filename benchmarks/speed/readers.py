"""Reading files, against MONAI's ``LoadImage`` with its own readers; the file cache is warm.

All 60 frames of a tomosynthesis file of 2457 x 1996 pixels (raw), and one of its frames (raw and JPEG-LS; MONAI decodes
all frames for it), which is also compared with pydicom's own access to a frame and with the floor, reading as many
bytes; a CT series of 64 files of 512 x 512; a ``.nii.gz`` of 512 x 512 x 64, with and without the extra ``fast`` as
installed. ``MEDTL_BENCH_SCALE=0.2`` tries all of it with fewer slices.
"""

import gzip
import os
import tempfile
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from dicom_frames import breast
from monai.transforms import LoadImage
from pydicom.pixels import pixel_array
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from timing import compare

from medtl_monai.data import read_frame, read_series, read_stack
from medtl_monai.data.phantoms.dbt import write_tomosynthesis

SCALE = float(os.environ.get("MEDTL_BENCH_SCALE", "1"))


def measure(repeats: int) -> dict:
    warnings.simplefilter("ignore")
    few = min(repeats, 5)
    by_pydicom, by_nibabel = (LoadImage(name, image_only=True) for name in ("PydicomReader", "NibabelReader"))
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = max(4, int(60 * SCALE))
        volume = breast((frames, 2457, 1996))
        for kind, compress, bar in (("raw", False, 1000.0), ("JPEG-LS", True, 100.0)):
            path = folder / f"{kind}.dcm"
            write_tomosynthesis(path, volume, compress=compress)
            found[f"one of {frames} frames, {kind}"] = compare(
                lambda path=path: read_frame(path, frames // 2), lambda path=path: by_pydicom(path),
                repeats=few, bar=bar,
            )  # fmt: skip
            found[f"one of {frames} frames, {kind}, against pydicom's access"] = compare(
                lambda path=path: read_frame(path, frames // 2),
                lambda path=path: pixel_array(path, index=frames // 2),
                repeats=repeats, bar=0.5,
            )  # fmt: skip
        size = 2 * volume[0].size
        found[f"one of {frames} frames, raw, against reading its bytes"] = compare(
            lambda: read_frame(folder / "raw.dcm", frames // 2),
            lambda: np.fromfile(folder / "raw.dcm", np.uint8, size, offset=frames // 2 * size),
            repeats=repeats, bar=1.0,
        )  # fmt: skip
        found[f"all {frames} frames, raw"] = compare(
            lambda: read_series(folder / "raw.dcm"), lambda: by_pydicom(folder / "raw.dcm"), repeats=few, bar=5.0
        )
        (folder / "raw.dcm").unlink(), (folder / "JPEG-LS.dcm").unlink()
        series, slices = folder / "series", max(4, int(64 * SCALE))
        write_ct(series, slices)
        ours, theirs = read_series(series), by_pydicom(series)
        np.testing.assert_array_equal(ours[0].transpose(2, 1, 0), theirs.numpy())
        np.testing.assert_allclose(ours[1].affine, theirs.affine.numpy(), atol=1e-6)
        found[f"CT series of {slices} files"] = compare(
            lambda: read_series(series), lambda: by_pydicom(series), repeats=few, bar=2.5
        )
        path = folder / "ct.nii.gz"
        image = nib.Nifti1Image(ours[0].transpose(2, 1, 0).astype(np.int16), ours[1].affine)
        path.write_bytes(gzip.compress(image.to_bytes(), 6))
        stack, theirs = read_stack(path), by_nibabel(path)
        np.testing.assert_array_equal(stack[0].numpy(), theirs.numpy())
        np.testing.assert_array_equal(stack.affine.numpy(), theirs.affine.numpy())
        found[f".nii.gz, 512 x 512 x {slices}"] = compare(
            lambda: read_stack(path), lambda: by_nibabel(path), repeats=repeats, bar=2.5
        )
    return found


def write_ct(folder: Path, slices: int) -> None:
    """A body of noise in air, 12 bits stored."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = (x**2 / 0.7 + y**2 / 0.4) < 1
    series = generate_uid()
    for z in range(slices):
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.Modality, ds.PatientID, ds.SeriesInstanceUID, ds.StudyInstanceUID = "CT", "P", series, series
        ds.InstanceNumber, ds.SliceThickness, ds.PixelSpacing = z + 1, 2.5, [0.7, 0.7]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-180, -180, 2.5 * z], [1, 0, 0, 0, 1, 0]
        ds.Rows = ds.Columns = 512
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        pixels = np.where(body, rng.normal(1060, 15, body.shape), 24).astype(np.uint16)
        ds.PixelData = pixels.tobytes()
        ds.save_as(folder / f"{z:03}.dcm", enforce_file_format=True)
