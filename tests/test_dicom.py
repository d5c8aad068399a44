"""DICOM: every encoding, units, geometry, series and what cannot be read; volumes whose spacing is made up."""

import io
import logging
import re
import tracemalloc
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import zstandard
from conftest import make_dicom as make
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import JPEGLSLossless

from medtl_monai.data import (
    AnyReader,
    CheckSpacingd,
    DicomReader,
    ScalePercentilesd,
    header,
    read_frame,
    read_series,
    split_frame,
)
from medtl_monai.data.phantoms.dbt import write_tomosynthesis
from medtl_monai.data.read.any import read_image
from medtl_monai.utils import UserError

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"  # installed with pydicom; nothing is fetched
LOSSLESS = ("J2KR", "JLSL", "JPLL", "RLE")
IMAGES = ("CT1", "CT2", "MR1", "MR3", "MR4", "NM1")


def item(**tags):
    result = Dataset()
    for keyword, value in tags.items():
        setattr(result, keyword, value)
    return result


def reference(folder, name):
    """Stored values of the uncompressed original, or of the run-length coded one where there is none."""
    original = folder / "REF" / f"{name}_UNC.zst"
    if not original.exists():
        return pydicom.dcmread(folder / "RLE" / f"{name}_RLE").pixel_array
    content = zstandard.ZstdDecompressor().stream_reader(original.read_bytes()).read()
    return pydicom.dcmread(io.BytesIO(content)).pixel_array


class TestEncodings:
    """The trial files of DICOM's working group 4 and pydicom's own."""

    @pytest.mark.parametrize("name", IMAGES)
    def test_lossless_files_equal_their_uncompressed_originals(self, shared_data, name):
        folder = shared_data / "dicom_wg04" / "WG04"
        want = reference(folder, name)
        for kind in LOSSLESS:
            np.testing.assert_array_equal(read_frame(folder / kind / f"{name}_{kind}", rescale=False), want)

    @pytest.mark.parametrize("name", IMAGES)
    def test_near_lossless_files_keep_the_bound_that_they_state(self, shared_data, name):
        folder = shared_data / "dicom_wg04" / "WG04"
        path = folder / "JLSN" / f"{name}_JLSN"
        stream = path.read_bytes()
        near = stream[stream.index(b"\xff\xda") + 7]  # ITU-T T.87: in the start of the scan
        error = np.abs(read_frame(path, rescale=False).astype(int) - reference(folder, name))
        assert 0 < error.max() <= near

    @pytest.mark.parametrize("name", IMAGES)
    def test_lossy_wavelets_are_near_their_originals(self, shared_data, name):
        # these files state no bound; 30 dB is what a viewer would call alike
        folder = shared_data / "dicom_wg04" / "WG04"
        want = reference(folder, name).astype(float)
        error = read_frame(folder / "J2KI" / f"{name}_J2KI", rescale=False) - want
        assert 20 * np.log10(np.ptp(want) / error.std()) > 30

    @pytest.mark.parametrize("name", ["MR1", "MR3", "MR4", "NM1", "RG3", "XA1"])
    def test_what_nothing_decodes_is_refused_in_one_sentence(self, shared_data, name):
        path = shared_data / "dicom_wg04" / "WG04" / "JPLY" / f"{name}_JPLY"
        with pytest.raises(UserError, match=rf"{name}_JPLY: unable to decode its pixels .JPEG Extended .*: convert"):
            read_frame(path)

    @pytest.mark.filterwarnings("ignore")  # pydicom's, of what these files were made for
    @pytest.mark.parametrize("path", sorted(PYDICOM.glob("*.dcm")), ids=lambda path: path.name)
    def test_each_of_pydicoms_files_is_read_as_pydicom_reads_it_or_refused(self, path):
        try:
            want = self.plain(path)
        except Exception:  # of many kinds
            with pytest.raises(UserError, match=re.escape(str(path))):
                read_frame(path, 0)
            return
        for i, frame in enumerate(want):
            np.testing.assert_array_equal(read_frame(path, i, rescale=False), frame)

    @staticmethod
    def plain(path):
        tags = pydicom.dcmread(path)
        if tags.PhotometricInterpretation == "PALETTE COLOR":
            whole = pydicom.pixels.apply_color_lut(tags.pixel_array, tags)
        else:
            whole = pixel_array(tags)
        return list(whole) if int(tags.get("NumberOfFrames") or 1) > 1 else [whole]

    @pytest.mark.filterwarnings("ignore:The pixel data length")
    @pytest.mark.parametrize(
        ("name", "original", "bound"),
        [(f"MR_small_{kind}", "MR_small", 0) for kind in ("RLE", "bigendian", "expb", "implicit", "jp2klossless",
                                                          "jpeg_ls_lossless", "padded")]
        + [("SC_rgb_gdcm_KY", "SC_rgb_rle", 0), ("SC_rgb_jpeg_gdcm", "SC_rgb_rle", 0),
           ("SC_rgb_small_odd_big_endian", "SC_rgb_small_odd", 0), ("liver_expb_1frame", "liver_1frame", 0),
           ("SC_rgb_jls_lossy_line", "SC_rgb_rle", 20), ("SC_rgb_jpeg_dcmtk", "SC_ybr_full_422_uncompressed", 0)],
    )  # fmt: skip
    def test_the_same_picture_in_another_encoding(self, name, original, bound):
        one, two = (read_frame(PYDICOM / f"{n}.dcm").astype(int) for n in (name, original))
        assert np.abs(one - two).max() <= bound


class TestUnits:
    """Hand-worked values."""

    def test_rescale_to_hounsfield_units(self, tmp_path):
        path = make(
            tmp_path / "a", np.array([[0, 1000], [1024, 3000]], np.int16), RescaleSlope=2, RescaleIntercept=-1024
        )
        np.testing.assert_array_equal(read_frame(path), [[-1024, 976], [1024, 4976]])
        assert read_frame(path).dtype == np.float32
        assert read_frame(path, rescale=False)[0, 1] == 1000

    def test_without_arithmetic_the_stored_type_is_kept(self, tmp_path):
        got = read_frame(make(tmp_path / "a", np.full((2, 2), -7, np.int16)))
        assert (got.dtype, got[0, 0]) == (np.int16, -7)

    @pytest.mark.parametrize(
        ("pixels", "tags", "want"),
        [
            (np.uint16([[0, 100]]), {"BitsStored": 12, "HighBit": 11}, [[4095, 3995]]),
            (np.int16([[-2048, 100]]), {"BitsStored": 12, "HighBit": 11}, [[2047, -101]]),
            (np.uint8([[0, 100]]), {"RescaleSlope": 2, "RescaleIntercept": 10}, [[520, 320]]),  # 10 to 520
        ],
    )
    def test_monochrome1_is_turned_round_by_its_bits_whatever_the_pixels(self, tmp_path, pixels, tags, want):
        path = make(tmp_path / "a", pixels, PhotometricInterpretation="MONOCHROME1", **tags)
        np.testing.assert_array_equal(read_frame(path), want)

    def test_window_on_request(self, tmp_path):
        # PS3.3 C.11.2.1.2.1: centre 100, width 101 runs from 49.5 to 149.5
        path = make(tmp_path / "a", np.uint8([[10, 99, 200]]), WindowCenter=100, WindowWidth=101)
        np.testing.assert_allclose(read_frame(path, window=True), [[0, 255 * (0.5 - 0.5 / 100), 255]], rtol=1e-6)
        np.testing.assert_array_equal(read_frame(path), [[10, 99, 200]])

    def test_float_pixels(self, tmp_path):
        np.testing.assert_array_equal(read_frame(make(tmp_path / "a", np.float32([[0.5, -2]]))), [[0.5, -2]])

    def test_each_frame_has_its_own_slope_and_the_shared_spacing(self, tmp_path):
        def frame(slope):
            return item(PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=1)])

        path = make(
            tmp_path / "a", np.uint8([[[1, 2]], [[1, 2]]]), PerFrameFunctionalGroupsSequence=[frame(1), frame(10)],
            SharedFunctionalGroupsSequence=[item(PixelMeasuresSequence=[item(PixelSpacing=[0.3, 0.2])])],
        )  # fmt: skip
        np.testing.assert_array_equal(read_frame(path, 0), [[2, 3]])
        np.testing.assert_array_equal(read_frame(f"{path}#1"), [[11, 21]])
        assert (header(path).spacing, header(path).spacing_from) == ((0.3, 0.2), "PixelSpacing")

    def test_planes_of_colour(self, tmp_path):
        rgb = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)  # colour first
        path = make(tmp_path / "a", rgb[0], SamplesPerPixel=3, PlanarConfiguration=1, PhotometricInterpretation="RGB",
                    PixelData=rgb.tobytes())  # fmt: skip
        np.testing.assert_array_equal(read_frame(path), rgb.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("tags", "spacing", "source"),
    [
        ({"PixelSpacing": [0.5, 0.4]}, (0.5, 0.4), "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "ImagerPixelSpacing"),
        ({"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 2}, (0.1, 0.05),
         "ImagerPixelSpacing"),
        ({"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.18, 0.18]}, (0.18, 0.18), "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2],
          "EstimatedRadiographicMagnificationFactor": 2}, (0.1, 0.1), "ImagerPixelSpacing"),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), "NominalScannedPixelSpacing"),
        ({}, None, ""),
    ],
)  # fmt: skip
def test_spacing_is_taken_from_the_right_tag(tmp_path, tags, spacing, source):
    found = header(make(tmp_path / "a", np.zeros((2, 3), np.uint8), **tags))
    assert (found.spacing, found.spacing_from) == (spacing, source)


def series(folder, heights, names=None, **tags):
    """Slices with their height as their value; file names and numbers that mislead."""
    folder.mkdir(exist_ok=True)
    for i, height in enumerate(heights):
        tags = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2, 3], "RescaleIntercept": 0, **tags}
        make(folder / f"{(7 * i) % 10}.dcm", np.full((4, 5), height, np.int16), ImagePositionPatient=[-10, -20, height],
             InstanceNumber=(3 * i) % 11, **tags)  # fmt: skip
    return folder


class TestSeries:
    """Order, gaps and mixtures."""

    def test_slices_are_sorted_by_position(self, tmp_path):
        volume, about = read_series(series(tmp_path / "s", [15, 0, 10, 5]))
        np.testing.assert_array_equal(volume[:, 0, 0], [0, 5, 10, 15])
        assert (about.frames, about.slice_spacing, about.spacing) == (4, 5.0, (2.0, 3.0))
        # index (column, row, slice) = (1, 2, 3): LPS is (-10 + 3, -20 + 2 * 2, 15)
        np.testing.assert_allclose(about.affine @ [1, 2, 3, 1], [7, 16, 15, 1])

    @pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # importing itk
    def test_the_affine_is_that_of_itk(self, tmp_path):
        tilt = [0.8, 0, 0.6, 0, 1, 0]
        path = make(tmp_path / "a.dcm", np.arange(20, dtype=np.int16).reshape(4, 5), ImageOrientationPatient=tilt,
                    ImagePositionPatient=[1, 2, 3], PixelSpacing=[2, 3], SliceThickness=1)  # fmt: skip
        itk = LoadImage("ITKReader", image_only=True)(path)
        ours = LoadImage(DicomReader(), image_only=True)(path)
        np.testing.assert_array_equal(ours, itk.squeeze())
        np.testing.assert_allclose(ours.affine[:, [0, 1, 3]], itk.affine[:, [0, 1, 3]], atol=1e-6)

    def test_missing_and_repeated_slices_are_told(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, "medtl_monai"):
            volume, about = read_series(series(tmp_path / "s", [0, 5, 10, 10, 25, 30]))
        assert (len(volume), about.slice_spacing) == (5, 5.0)
        assert "1 slices lie where another lies" in caplog.text
        assert "about 2 slices are missing (1 gaps up to 15 mm, usual 5 mm)" in caplog.text

    def test_several_series_ask_for_a_choice(self, tmp_path):
        folder = series(tmp_path / "s", [0, 5])
        series(tmp_path / "s" / "t", [0, 1, 2], SeriesInstanceUID="1.2.4", SeriesDescription="thin")
        with pytest.raises(UserError, match=r"expected one series, found 2: .*1\.2\.4 \(thin, 3 files\)"):
            read_series(folder)
        assert len(read_series(folder, series="1.2.4")[0]) == 3

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "differ in orientation"),
            ({"Rows": 5, "Columns": 4}, "differ in size"),
            ({"ImageOrientationPatient": None}, "have no position in space"),
        ],
    )
    def test_slices_that_make_no_volume_are_refused(self, tmp_path, tags, message):
        folder = series(tmp_path / "s", [0, 5])
        series(tmp_path / "s" / "t", [10], **tags)
        with pytest.raises(UserError, match=message):
            read_series(folder)

    def test_frames_are_sorted_too_and_monai_gets_x_first(self, tmp_path):
        volume = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
        write_tomosynthesis(tmp_path / "a.dcm", volume, view="rmlo", compress=True)
        got = LoadImage(DicomReader(), image_only=True)(tmp_path / "a.dcm")
        np.testing.assert_array_equal(got, volume.transpose(2, 1, 0))
        assert got.meta["original_channel_dim"] != -1
        one = LoadImage(DicomReader(), image_only=True)(f"{tmp_path / 'a.dcm'}#2")
        np.testing.assert_array_equal(one, volume[2].T)
        (tmp_path / "s").mkdir()
        np.testing.assert_array_equal(
            LoadImage(DicomReader(), image_only=True)(series(tmp_path / "s", [5, 0]))[0, 0], [0, 5]
        )


def test_one_frame_is_decoded_and_no_other(tmp_path, monkeypatch):
    write_tomosynthesis(tmp_path / "a.dcm", np.zeros((6, 8, 8), np.uint16), compress=True)
    calls = []
    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    for name, decode in dict(decoder._available).items():
        monkeypatch.setitem(decoder._available, name, lambda *args, f=decode: calls.append(1) or f(*args))
    read_frame(tmp_path / "a.dcm", 4)
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_frames_are_read_in_pieces(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("medtl_monai.data.read.dicom_pixels._PIECE", 7)
    pixels = np.random.default_rng(0).integers(0, 2000, (3, 4, 5)).astype(dtype)
    pixels[1, 3, 4] = 5000  # in the last piece, with bits that are not stored
    path = make(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11)
    for i in range(3):
        np.testing.assert_array_equal(read_frame(path, i), pixel_array(path, index=i))
    assert read_frame(path, 1)[3, 4] == 5000 - 4096
    np.testing.assert_array_equal(read_series(path, rescale=False)[0], pixel_array(path))
    path.write_bytes(path.read_bytes()[:-4])
    np.testing.assert_array_equal(read_frame(path, 0), pixels[0])
    with pytest.raises(UserError, match=r"a\.dcm"):
        read_frame(path, 2)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_bits_that_are_not_stored_do_not_count(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(-30000, 30000, (3, 4, 5)).astype(dtype)
    path = make(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11)
    for i in range(3):
        np.testing.assert_array_equal(read_frame(path, i), pixel_array(path, index=i))
    assert np.abs(read_frame(path, 0).astype(int)).max() < 4096


@pytest.mark.parametrize("open_ended", [False, True])
def test_each_frame_has_its_own_rescale(tmp_path, open_ended):
    frames = [item(PixelValueTransformationSequence=[item(RescaleSlope=k, RescaleIntercept=-k)]) for k in (2, 3, 4)]
    path = make(tmp_path / "a.dcm", np.ones((3, 2, 2), np.int16) * 5, PerFrameFunctionalGroupsSequence=frames)
    if open_ended:  # sequences and items may leave out their lengths
        tags = pydicom.dcmread(path)
        tags["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
        for groups in tags.PerFrameFunctionalGroupsSequence:
            groups.is_undefined_length_sequence_item = True
        tags.save_as(path)
    assert [read_frame(path, k)[0, 0] for k in range(3)] == [5 * 2 - 2, 5 * 3 - 3, 5 * 4 - 4]


def test_a_plain_frame_needs_no_decoder_and_no_other_frames_groups(tmp_path, monkeypatch):
    groups = [item(PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=k)]) for k in range(3)]
    pixels = np.arange(24, dtype=np.uint16).reshape(3, 2, 4)
    path = make(tmp_path / "a.dcm", pixels, PerFrameFunctionalGroupsSequence=groups)
    monkeypatch.setattr(pydicom.pixels, "pixel_array", lambda *_, **__: pytest.fail("all of it is decoded"))
    parsed, parse = [], pydicom.values.converters["SQ"]
    monkeypatch.setitem(pydicom.values.converters, "SQ", lambda *args: parsed.append(1) or parse(*args))
    np.testing.assert_array_equal(read_frame(path, 2), pixels[2] + 2)
    assert len(parsed) == 1  # the frame's own transformation


@pytest.mark.parametrize("tags", [{"BitsStored": None}, {"Rows": 0}, {"PhotometricInterpretation": None}])
@pytest.mark.filterwarnings("ignore")  # pydicom's, of such files
def test_a_broken_header_says_so(tmp_path, tags):
    path = make(tmp_path / "a.dcm", np.ones((3, 2, 4), np.uint16), **tags)
    with pytest.raises(UserError, match=r"a\.dcm"):
        read_frame(path, 1)


def test_a_jpeg_ls_frame_takes_little_memory(tmp_path):
    volume = np.random.default_rng(0).integers(0, 1000, (2, 256, 256), dtype=np.uint16)
    write_tomosynthesis(tmp_path / "a.dcm", volume, compress=True)
    read_frame(tmp_path / "a.dcm", 0)  # the decoder is imported
    tracemalloc.start()
    got = read_frame(tmp_path / "a.dcm", 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(got, volume[1])
    assert peak < 5 * got.nbytes  # with GDCM nearly 7


@pytest.mark.parametrize(
    ("index", "message"), [(None, "has 3 frames, and none is named"), (3, "and there is no frame 3: give one from 0")]
)
def test_a_frame_must_be_named_and_exist(tmp_path, index, message):
    with pytest.raises(UserError, match=message):
        read_frame(make(tmp_path / "a", np.zeros((3, 2, 2), np.uint8)), index)


def test_files_that_are_no_images_say_so(tmp_path):
    (tmp_path / "a.dcm").write_text("no DICOM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's
        with pytest.raises(UserError, match=r"a.dcm .*: (repair|expected a DICOM image)"):
            header(tmp_path / "a.dcm")
    with pytest.raises(UserError, match="there is no file"):
        header(tmp_path / "b.dcm")
    with pytest.raises(UserError, match="is no DICOM file"):
        DicomReader().read(tmp_path / "b.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no DICOM file"):
        read_series(tmp_path / "empty")


def test_a_name_with_a_number_sign_is_a_file_if_it_exists(tmp_path):
    make(tmp_path / "a#1", np.zeros((2, 2), np.uint8))
    assert split_frame(tmp_path / "a#1") == (str(tmp_path / "a#1"), None)


@pytest.mark.parametrize(
    ("shape", "spacing", "known", "message"),
    [
        ((32, 32, 8), 1.0, True, "spacing is 1.0 mm along all axes, which hardly fits 32 x 32 x 8 voxels"),
        ((32, 32, 8), 0.9, False, "no position in space .sform and qform code 0"),
        ((32, 32, 30), 1.0, True, None),
        ((32, 32, 8), 0.9, True, None),
    ],
)
def test_spacing_that_looks_made_up_is_told(tmp_path, caplog, shape, spacing, known, message):
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([spacing] * 3 + [1]))
    if not known:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    loaded = LoadImaged("image", "NibabelReader", image_only=True)({"image": tmp_path / "a.nii"})
    assert isinstance(loaded["image"], MetaTensor)
    with caplog.at_level(logging.WARNING, "medtl_monai"):
        CheckSpacingd("image")(loaded)
    assert sum(record.name == "medtl_monai" for record in caplog.records) == (message is not None)
    assert message is None or re.search(rf"a.nii: its .*{message}", caplog.text)


class TestPadding:
    """Pixel Padding Value: at the dark end, and in no statistics."""

    PIXELS = np.int16([[-2000, -2000, 10, 20], [-2000, 30, 40, 50]])

    @pytest.mark.parametrize("implicit", [False, True])
    def test_padding_has_the_least_of_the_other_values(self, tmp_path, implicit):
        path = make(tmp_path / "a", self.PIXELS, PixelPaddingValue=-2000, RescaleSlope=2, RescaleIntercept=-5)
        if implicit:
            tags = pydicom.dcmread(path)
            tags.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            tags.save_as(path, implicit_vr=True, little_endian=True)
        np.testing.assert_array_equal(read_frame(path), [[15, 15, 15, 35], [15, 55, 75, 95]])
        np.testing.assert_array_equal(read_frame(path, rescale=False), self.PIXELS)

    def test_a_range_of_padding_and_the_inverted_edge(self, tmp_path):
        tags = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 5, "PhotometricInterpretation": "MONOCHROME1"}
        path = make(tmp_path / "a", np.uint8([[0, 3, 5, 6, 200]]), **tags)
        np.testing.assert_array_equal(read_frame(path), [[55, 55, 55, 249, 55]])

    def test_unsigned_padding_of_signed_pixels(self, tmp_path):
        path = make(tmp_path / "a", self.PIXELS, PixelPaddingValue=0)
        tags = pydicom.dcmread(path)
        tags.add_new("PixelPaddingValue", "US", 65536 - 2000)
        tags.save_as(path)
        assert read_frame(path).min() == 10

    @pytest.mark.parametrize("series", [False, True])
    def test_percentiles_are_those_of_the_other_pixels(self, tmp_path, series):
        rng = np.random.default_rng(0)
        values = rng.integers(0, 1000, (40, 50)).astype(np.int16)
        outside = rng.random(values.shape) < 0.6
        pixels = np.where(outside, np.int16(-2000), values)
        place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "PixelPaddingValue": -2000}
        (tmp_path / "s").mkdir()
        for z in range(1 + series):
            make(tmp_path / "s" / f"{z}.dcm", pixels, ImagePositionPatient=[0, 0, z], **place)
        name = str(tmp_path / "s" if series else tmp_path / "s" / "0.dcm")
        item = LoadImaged("image", AnyReader, image_only=True)({"image": name})
        got = ScalePercentilesd("image", lower=5, upper=90)(item)["image"].numpy()
        got = got[..., 0] if series else got
        low, high = np.percentile(values[~outside], [5, 90])
        want = np.clip((values - low) / (high - low), 0, 1)
        np.testing.assert_allclose(got.T[~outside], want[~outside], atol=1e-5)
        assert (got.T[outside] == 0).all()


@pytest.mark.parametrize("frames", [2_000_000_000, 4000])
def test_more_frames_than_a_file_can_hold_are_refused_at_once(tmp_path, frames):
    path = make(tmp_path / "a.dcm", np.zeros((2, 8, 8), np.uint8), NumberOfFrames=frames)
    with pytest.raises(UserError, match=rf"a.dcm says that it has {frames} frames, more than its size allows"):
        read_series(path)


@pytest.mark.parametrize("length", [0, 7])
def test_jpeg_2000_with_a_box_without_length_is_refused_and_not_read_for_ever(tmp_path, length):
    path = make(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16))
    file = pydicom.dcmread(path)
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + length.to_bytes(4, "big") + b"ftyp" + bytes(8)
    file.PixelData = pydicom.encaps.encapsulate([boxes])
    file["PixelData"].is_undefined_length = True
    file.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    file.save_as(path)
    with pytest.raises(
        UserError, match=rf"a\.dcm cannot be read \(a box of its JPEG 2000 pixels is {length} bytes long\)"
    ):
        read_image(path)
