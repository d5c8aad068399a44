"""Folders into datalists, slices of every format the right way up, and what a user can get wrong."""

import csv
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, ScaleIntensityRangePercentilesd
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from medtl_monai.data import (
    AnyReader,
    ScalePercentilesd,
    ToSliced,
    check_cases,
    check_readable,
    load_cases,
    pair_sides,
    perceptual_hash,
    read_grey,
    unlabelled,
)
from medtl_monai.data.scale import _percentile
from medtl_monai.utils import UserError

# an arrow that no turn or mirror leaves as it is
PICTURE = np.zeros((24, 32), dtype=np.uint8)
PICTURE[4:8, 5:25] = 200
PICTURE[8:20, 5:9] = 90


def picture(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(path)


def table(root, rows, header=("image", "label", "patient"), delimiter=",", name="index.csv"):
    with (root / name).open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


@pytest.fixture
def root(tmp_path):
    """Two classes, two patients each, one image a patient, and their table."""
    rows = []
    for label in ("benign", "cancer"):
        for i in range(2):
            picture(tmp_path / label / f"{i}.png", 40 * i)
            rows.append((f"{label}/{i}.png", label, f"{label[0]}{i}"))
    table(tmp_path, rows)
    return tmp_path


def read_table(root):
    with (root / "index.csv").open(newline="") as file:
        return list(csv.reader(file))


def rewrite(root, change):
    rows = read_table(root)
    change(rows)
    with (root / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


class TestLayouts:
    """Every layout that a user may have."""

    def test_table(self, root):
        cases = load_cases(root)
        assert (cases.classes, cases.layout) == (["benign", "cancer"], "table")
        assert cases.items[2] == {"image": str(root / "cancer" / "0.png"), "label": 1, "patient": "c0"}

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_other_delimiters_and_column_names(self, root, delimiter):
        rows = [(p, lab, image, "Test", "A") for image, lab, p in read_table(root)[1:]]
        table(root, rows, ("who", "finding", "file", "split", "site"), delimiter, "labels.csv")
        cases = load_cases(
            root, table="labels.csv", image_column="file", label_column="finding", patient_column="who",
            domain_column="site",
        )  # fmt: skip
        assert cases.items[0]["patient"] == "b0"
        assert cases.items[0]["split"] == "test"
        assert cases.items[0]["domain"] == "A"

    def test_each_image_its_own_patient_on_request(self, root):
        cases = load_cases(root, patient_column=None)
        assert len({item["patient"] for item in cases.items}) == 4

    def test_datalist(self, root):
        (root / "index.csv").unlink()
        entries = [{"image": "benign/0.png", "label": "benign", "patient_id": 1}]
        more = [{"image": "cancer/0.png", "label": "cancer", "patient_id": 2}]
        (root / "dataset.json").write_text(json.dumps({"training": entries, "validation": more}))
        cases = load_cases(root)
        assert [(i["patient"], i["split"]) for i in cases.items] == [("1", "train"), ("2", "val")]

    def test_class_folders_with_patients_and_parts(self, tmp_path):
        for part, label, patient in (("train", "a", "p1"), ("valid", "b", "p2"), ("test", "a", "p3")):
            picture(tmp_path / part / label / patient / "x.PNG")
        cases = load_cases(tmp_path)
        assert [(i["label"], i["patient"], i["split"]) for i in cases.items] == [
            (0, "p3", "test"), (0, "p1", "train"), (1, "p2", "val"),
        ]  # fmt: skip

    def test_numbers_as_labels_are_in_their_own_order(self, tmp_path):
        for label in ("10", "9"):
            picture(tmp_path / label / "p" / "x.png")
        assert load_cases(tmp_path).classes == ["9", "10"]

    def test_given_classes_are_known_as_numbers(self, root):
        rewrite(root, lambda rows: [row.__setitem__(1, f"{i % 2}.0") for i, row in enumerate(rows[1:])])
        assert [item["label"] for item in load_cases(root, classes=["1", "0"]).items] == [1, 0, 1, 0]

    def test_rows_that_repeat_an_image_count_once(self, root):
        rewrite(root, lambda rows: rows.append(rows[1]))
        assert len(load_cases(root).items) == 4

    def test_given_classes_fix_the_order(self, root):
        assert load_cases(root, classes=["cancer", "benign"]).items[0]["label"] == 1

    def test_unlabelled_finds_files_and_dicom_without_extension(self, root):
        (root / "notes.txt").write_text("no image")
        for name in ("IM0", "1.2.840.113"):
            (root / name).write_bytes(b"\0" * 128 + b"DICM")
        assert len(unlabelled(root)) == 6
        assert unlabelled(root / "benign" / "0.png") == [{"image": str(root / "benign" / "0.png")}]


def broken(root, kind):
    """Spoil a good folder; the arguments that ``load_cases`` is to be called with."""
    if kind == "no folder":
        return {"dataset_dir": root / "nowhere"}
    if kind == "no patient column":
        rewrite(root, lambda rows: [row.pop() for row in rows])
    elif kind == "wrong column":
        return {"label_column": "lable"}
    elif kind == "missing image":
        rewrite(root, lambda rows: rows.append(["benign/7.png", "benign", "b7"]))
    elif kind == "no extension":
        rewrite(root, lambda rows: rows[1].__setitem__(0, "0"))
    elif kind == "empty split":
        rewrite(root, lambda rows: [row.append(("split", "train", "", "val", "test")[i]) for i, row in enumerate(rows)])
    elif kind == "no text":
        (root / "index.csv").write_bytes("image,label,patient\nä.png,a,b\n".encode("latin-1"))
    elif kind == "list of lists":
        (root / "index.csv").unlink()
        (root / "dataset.json").write_text("[[]]")
    elif kind == "empty label":
        rewrite(root, lambda rows: rows[2].__setitem__(1, ""))
    elif kind == "one class":
        rewrite(root, lambda rows: rows.__delitem__(slice(3, None)))
    elif kind == "two labels":
        rewrite(root, lambda rows: rows.append(["benign/0.png", "cancer", "b0"]))
    elif kind == "bad split":
        rewrite(root, lambda rows: [row.append("split" if i == 0 else "middle") for i, row in enumerate(rows)])
    elif kind == "no rows":
        rewrite(root, lambda rows: rows.__delitem__(slice(1, None)))
    elif kind == "unknown class":
        return {"classes": ["benign"]}
    elif kind == "wrong table":
        return {"table": "labels.csv"}
    elif kind == "no images":
        (root / "empty").mkdir()
        return {"dataset_dir": root / "empty"}
    elif kind == "no patient folder":
        (root / "index.csv").unlink()
    elif kind == "bad datalist":
        (root / "index.csv").unlink()
        (root / "dataset.json").write_text("{")
    return {}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no folder", "there is no folder"),
        ("no patient column", r"no patient column \(columns: image, label\).*patient_column, or give null"),
        ("wrong column", "no column 'lable' .did you mean 'label'..: it has image, label, patient"),
        ("missing image", "1 of 5 images .* do not exist .*benign/7.png"),
        ("no extension", r"1 of 4 images .*did you mean benign/0\.png\?"),
        ("empty split", "line 3 of the table index.csv has no split"),
        ("no text", "index.csv is no UTF-8 text .*save it as CSV UTF-8"),
        ("list of lists", "no entries under training, validation or testing"),
        ("empty label", "line 3 of the table index.csv has no label"),
        ("one class", "at least two classes are needed, found benign"),
        ("two labels", "benign/0.png stands twice in the labels, with label 'benign' or 'cancer'"),
        ("bad split", "the split 'middle': expected train, val or test"),
        ("no rows", "has no rows"),
        ("unknown class", "images of cancer, which are not among benign"),
        ("wrong table", "there is no table labels.csv in .*: found index.csv"),
        ("no images", "there is no image below"),
        ("no patient folder", "--patient_column null if each image"),
        ("bad datalist", "is no JSON"),
    ],
)
def test_bad_data_says_what_to_do(root, kind, message):
    kwargs = {"dataset_dir": root, **broken(root, kind)}
    with pytest.raises(UserError, match=message):
        load_cases(**kwargs)


def test_nothing_to_predict_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no image at"):
        unlabelled(tmp_path)


def write_dicom(path, array, interpretation="MONOCHROME2"):
    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    file.Rows, file.Columns, file.SamplesPerPixel = *array.shape, 1
    file.PhotometricInterpretation, file.PixelRepresentation = interpretation, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PixelData = array.astype(np.uint16).tobytes()
    file.save_as(path, enforce_file_format=True)


def write(kind, path):
    """The picture, such that a viewer shows it upright."""
    if kind in ("png", "jpg"):
        Image.fromarray(PICTURE).save(path, quality=100)
    elif kind == "rgb.png":
        Image.fromarray(np.stack([PICTURE] * 3, -1)).save(path)
    elif kind == "rgba.png":
        Image.fromarray(np.dstack([PICTURE] * 3 + [np.full_like(PICTURE, 255)])).save(path)
    elif kind == "dcm":
        write_dicom(path, PICTURE)
    elif kind == "inverted.dcm":
        write_dicom(path, 4095 - PICTURE.astype(int), "MONOCHROME1")  # 12 bits are stored
    elif kind.endswith("nii.gz"):
        # voxel axes to the patient's right, front and top: rows of the picture run from front to back, and its columns
        # from the patient's right, on the left, to the left
        voxels = PICTURE[::-1, ::-1].T[..., None]
        affine = np.eye(4)
        if kind == "lps.nii.gz":  # the same slice with two axes the other way round
            voxels, affine = voxels[::-1, ::-1], np.diag([-1.0, -1.0, 1.0, 1.0])
        if kind == "coronal.nii.gz":
            voxels = PICTURE[::-1, ::-1].T[:, None, :]
        nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels), affine), path)


LOAD = Compose([LoadImaged("image", AnyReader, image_only=True), ToSliced("image")])
KINDS = ["png", "jpg", "rgb.png", "rgba.png", "dcm", "inverted.dcm", "ras.nii.gz", "lps.nii.gz", "coronal.nii.gz"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_upright_slice(kind, tmp_path):
    path = tmp_path / f"slice.{kind}"
    write(kind, path)
    got = LOAD({"image": str(path)})["image"]
    assert got.shape == (1, *PICTURE.shape)
    assert got.meta["filename_or_obj"] == str(path)
    np.testing.assert_allclose(got[0], PICTURE, atol=6 if kind == "jpg" else 1e-3)
    np.testing.assert_allclose(read_grey(path), PICTURE, atol=6 if kind == "jpg" else 1e-3)


@pytest.mark.parametrize(("kind", "name"), [("png", "x.tif"), ("dcm", "x"), ("dcm", "x.png")])
def test_what_a_file_holds_counts_where_its_name_does_not_tell(kind, name, tmp_path):
    write(kind, tmp_path / name)
    np.testing.assert_array_equal(LOAD({"image": str(tmp_path / name)})["image"][0], PICTURE)


def test_a_file_that_no_reader_takes_is_refused_by_the_one_its_name_asks_for(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"x.png cannot be read \(cannot identify image file\): repair"):
        AnyReader().get_data(AnyReader().read(str(path)))


def test_three_channels_on_request(tmp_path):
    write("png", tmp_path / "x.png")
    got = Compose([LoadImaged("image", AnyReader, image_only=True), ToSliced("image", 3)])(
        {"image": str(tmp_path / "x.png")}
    )
    assert got["image"].shape == (3, *PICTURE.shape)


@pytest.mark.parametrize("shape", [(32, 24), (32, 24, 1), (1, 32, 24), (32, 24, 3), (32, 24, 4)])
def test_plain_arrays_of_every_layout_become_upright(shape):
    x_first = PICTURE.T.astype(np.float32)
    colour = len(shape) == 3 and shape[-1] > 1 and shape[0] > 1
    array = np.stack([x_first] * shape[-1], -1) if colour else x_first.reshape(shape)
    np.testing.assert_array_equal(ToSliced("image")({"image": array})["image"][0], PICTURE)


def test_a_grey_image_becomes_upright_without_a_copy():
    loaded = torch.rand(32, 24)
    upright = ToSliced("image")({"image": loaded})["image"]
    assert upright.shape == (1, 24, 32)
    assert upright.data_ptr() == loaded.data_ptr()


def test_colour_becomes_luminance(tmp_path):
    Image.fromarray(np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)).save(tmp_path / "x.png")
    got = LOAD({"image": str(tmp_path / "x.png")})["image"]
    assert float(got[0, 0, 0]) == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_inks_are_refused_by_training_and_check_in_the_same_words(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(PICTURE).convert("RGB").convert("CMYK").save(path)
    said = "stores its colours as CMYK (inks): expected grey or RGB; convert it"
    with pytest.raises(UserError, match=re.escape(f"x.tif {said}.")):
        check_readable([{"image": str(path)}], progress=False)
    (tmp_path / "index.csv").write_text("image,label,patient\nx.tif,a,1\ny.png,b,2\n")
    Image.fromarray(PICTURE).save(tmp_path / "y.png")
    report = check_cases(load_cases(tmp_path), progress=False)
    doubts = {doubt["what"]: doubt["examples"] for doubt in report["suspicious"]}
    assert doubts["cannot be read"] == [f"x.tif ({said})"]


@pytest.mark.parametrize("slices", [3, 4])
def test_a_volume_of_three_or_four_slices_is_not_taken_for_colour(slices, tmp_path):
    path = tmp_path / "thin.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, slices), dtype=np.uint8), np.eye(4)), path)
    with pytest.raises(UserError, match=r"thin.nii.gz has the shape .*: expected a single slice"):
        read_grey(path)


def test_a_volume_is_refused_by_name(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 5), dtype=np.uint8), np.eye(4)), tmp_path / "volume.nii.gz")
    with pytest.raises(UserError, match=r"volume.nii.gz has the shape \(8, 8, 5\): expected a single slice"):
        check_readable([{"image": str(tmp_path / "volume.nii.gz")}], progress=False)


def test_unreadable_images_are_counted_and_named(root):
    (root / "benign" / "0.png").write_bytes(b"not a picture")
    shutil.copy(root / "benign" / "0.png", root / "cancer" / "1.png")
    with pytest.raises(UserError, match=r"2 of 4 images cannot be read: .*benign/0.png.*cancer/1.png"):
        check_readable(load_cases(root).items, progress=False)


def test_a_real_radiograph_tagged_monochrome1_is_turned_round(shared_data):
    # the same pixels with the other tag
    folder = shared_data / "chest_txv_testfiles" / "tests"
    one, two = (
        LOAD({"image": str(folder / name)})["image"][0]
        for name in ("Fake_MONOHR1.dcm", "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm")
    )
    np.testing.assert_array_equal(one, 255 - two)  # 8 bits are stored


def test_real_slices_are_read_and_hashed_alike_by_both_ways(shared_data):
    cases = load_cases(shared_data / "brain_tumor_figshare3064", patient_column="block")
    assert (len(cases.items), cases.classes) == (960, ["glioma", "meningioma", "pituitary"])
    path = cases.items[0]["image"]
    whole = LOAD({"image": path})["image"][0].numpy()
    assert bin(perceptual_hash(whole) ^ perceptual_hash(read_grey(path))).count("1") <= 2


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # importing itk; as an error it kills Python
def test_inversion_is_not_done_twice_by_a_reader_that_does_it_too(shared_data):
    path = str(shared_data / "chest_txv_testfiles" / "tests" / "Fake_MONOHR1.dcm")
    itk = Compose([LoadImaged("image", "ITKReader", image_only=True), ToSliced("image")])({"image": path})["image"][0]
    ours = LOAD({"image": path})["image"][0]
    np.testing.assert_array_equal(itk - itk.min(), ours - ours.min())


def test_a_real_file_that_nothing_decodes_is_named(shared_data):
    path = shared_data / "dicom_wg04" / "WG04" / "JPLY" / "MR1_JPLY"
    with pytest.raises(UserError, match="MR1_JPLY: unable to decode its pixels .JPEG Extended .*convert it"):
        check_readable([{"image": str(path)}], progress=False)


def findings_table(folder, header, rows):
    for row in rows:
        picture(folder / row.split(",")[0])
    (folder / "index.csv").write_text("\n".join([header, *rows]))


def test_columns_of_findings_may_be_unknown(tmp_path):
    findings_table(tmp_path, "image,patient,mass,effusion", ["a.png,1,1,0", "b.png,2,0.0,", "c.png,3,-1,1.0"])
    cases = load_cases(tmp_path, label_column=["mass", "effusion"])
    assert (cases.task, cases.classes) == ("multilabel", ["mass", "effusion"])
    np.testing.assert_array_equal([item["label"] for item in cases.items], [[1, 0], [0, np.nan], [np.nan, 1]])
    wider = load_cases(tmp_path, label_column=["mass"], classes=["effusion", "mass"])
    np.testing.assert_array_equal(wider.items[0]["label"], [np.nan, 1])
    with pytest.raises(UserError, match="no column 'efusion' .did you mean 'effusion'.*label_column"):
        load_cases(tmp_path, label_column=["mass", "efusion"])
    findings_table(tmp_path, "image,patient,mass", ["a.png,1,2"])
    with pytest.raises(UserError, match="'mass' of a.png is '2': expected 1, 0"):
        load_cases(tmp_path, label_column=["mass"])


def test_joined_findings_are_taken_apart(tmp_path):
    findings_table(tmp_path, "image,patient,label", ["a.png,1,mass|effusion", "b.png,2,No Finding", "c.png,3,mass"])
    cases = load_cases(tmp_path)
    assert (cases.task, cases.classes) == ("multilabel", ["effusion", "mass"])
    assert [item["label"] for item in cases.items] == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.filterwarnings("ignore:Divide by zero")  # an image of one value
@pytest.mark.parametrize(
    "values", [torch.rand(2, 9, 8, 7), torch.randint(256, (1, 40, 40)).float(), torch.ones(1, 4, 4)]
)
def test_scaling_between_percentiles_is_monais(values):
    image = MetaTensor(values, affine=2 * torch.eye(4))
    monais = ScaleIntensityRangePercentilesd("image", 5, 90, 0, 1, clip=True)({"image": image})["image"]
    found = ScalePercentilesd(["image", "other"], 5, 90, allow_missing_keys=True)({"image": image, "label": 1})
    assert found["label"] == 1
    torch.testing.assert_close(found["image"].as_tensor(), monais.as_tensor())
    assert torch.equal(found["image"].affine, image.affine)


@given(
    arrays(np.float32, st.integers(1, 400), elements=st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.0, 1.0, 2.0])),
    st.floats(0, 100) | st.sampled_from([0.0, 0.1, 1.0, 50.0, 99.0, 99.9, 100.0]),
)
def test_percentiles_are_numpys_to_the_last_bit(values, percentile):
    assert _percentile(values, percentile) == np.percentile(values, [percentile]).tolist()[0]


def test_percentiles_in_the_wrong_order_are_refused():
    with pytest.raises(UserError, match="0 <= lower < upper <= 100, got 99 and 1"):
        ScalePercentilesd("image", 99, 1)


def test_a_table_tells_sides_views_and_phases(tmp_path):
    for name in ("a", "b"):
        Image.new("L", (40, 40)).save(tmp_path / f"{name}.png")
    (tmp_path / "index.csv").write_text(
        "image,label,patient,laterality,view,phase,other\na.png,x,1,L,MLO,ED,0\nb.png,y,1,R,MLO,ES,0\n"
    )
    items = load_cases(tmp_path).items
    assert [(i["laterality"], i["view"], i["phase"]) for i in items] == [("L", "MLO", "ED"), ("R", "MLO", "ES")]
    paired = pair_sides(items, items)
    assert [item["other"] for item in paired] == [str(tmp_path / "b.png"), str(tmp_path / "a.png")]
