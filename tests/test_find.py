"""The one finder: hidden files, masks, endings, links, DICOM by content, names of tables."""

import os

import numpy as np
import pytest
from conftest import make_dicom
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medtl_monai.data import check_readable, find_images, load_cases, unlabelled
from medtl_monai.data.find import EXTENSIONS, below, find, glob, looks_like_mask, unused
from medtl_monai.utils import UserError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_what_systems_and_editors_leave_behind_is_hidden(tmp_path):
    touch(
        tmp_path / "a.png", *(tmp_path / name for name in ("._a.png", ".DS_Store", "Thumbs.db", "~$a.png", "DICOMDIR"))
    )
    touch(*(tmp_path / folder / "a.png" for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN")))
    found = find(tmp_path)
    assert names(found.images, tmp_path) == ["a.png"]
    assert found.hidden == 9
    assert unused(found, {str(tmp_path / "a.png")}) == {"hidden files or folders": 9}


@given(st.sampled_from(EXTENSIONS), st.data())
def test_endings_count_in_any_case(tmp_path_factory, ending, data):
    cased = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in ending)
    folder = tmp_path_factory.mktemp("cased")
    touch(folder / f"scan{cased}")
    assert [path.name for path in find(folder).images] == [f"scan{cased}"]


def test_dicom_is_known_by_its_content_whatever_its_name(tmp_path):
    for name in ("IM0001", "1.2.840.113", "a.img", "b.txt"):
        make_dicom(tmp_path / name, np.zeros((4, 4), np.uint8))
    touch(tmp_path / "notes.txt")
    found = find(tmp_path)
    assert names(found.images, tmp_path) == ["1.2.840.113", "IM0001", "a.img", "b.txt"]
    assert names(found.others, tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("sop", ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.33"])
def test_dicom_segmentations_and_reports_are_no_images(tmp_path, sop):
    meta = b"\x02\0\x02\0UI" + len(sop).to_bytes(2, "little") + sop.encode()
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM" + meta)
    found = find(tmp_path)
    assert not found.images
    assert (len(found.masks), len(found.others)) == ((1, 0) if ".66.4" in sop else (0, 1))


@pytest.mark.parametrize(
    ("path", "mask"),
    [
        ("masks/a.png", True), ("p1/a_mask.png", True), ("benign (1)_mask_1.png", True), ("a-seg.nii.gz", True),
        ("a.seg.nrrd", True), ("patient001_frame01_gt.nii.gz", True), ("labelsTr/a.nii.gz", True), ("GT/a.png", True),
        ("Ground truth/a.png", True), ("AnnotationsPNG/a.png", True), ("contours/a.png", True), ("mask001.png", True),
        ("Post_Mask.nii.gz", True), ("lung masks/a.png", True), ("label_1/a.png", False), ("unlabeled/a.png", False),
        ("with_mask/a.png", False), ("segura/a.png", False), ("masked/a.png", False), ("gtx/a.png", False),
        ("right/a.png", False), ("images/a.png", False),
    ],
)  # fmt: skip
def test_masks_are_told_by_words_in_their_names(tmp_path, path, mask):
    assert looks_like_mask(tmp_path.joinpath(path).relative_to(tmp_path)) == mask


def test_links_are_followed_and_keep_their_names(tmp_path):
    store, data = tmp_path / "store", tmp_path / "data"
    touch(store / "0a3f", store / "c" / "p9" / "x.png", data / "a" / "p1" / "x.png")
    (data / "b" / "p2").mkdir(parents=True)
    (data / "b" / "p2" / "y.nii.gz").symlink_to(store / "0a3f")
    (data / "c").symlink_to(store / "c")
    (data / "a" / "p3").symlink_to(store / "c" / "p9")
    (data / "gone.png").symlink_to(store / "nothing")
    (data / "a" / "round").symlink_to(data)
    found = find(data)
    assert names(found.images, data) == ["a/p1/x.png", "a/p3/x.png", "b/p2/y.nii.gz", "c/p9/x.png"]
    assert found.hidden == 2
    assert [item["image"] for item in unlabelled(data)] == [str(path) for path in found.images]
    link = data / "b" / "p2" / "y.nii.gz"
    assert unlabelled(link) == [{"image": str(link)}]


def test_patterns_look_as_deep_as_they_say(tmp_path):
    touch(tmp_path / "a.CSV", tmp_path / "b" / "a.csv", tmp_path / "b" / ".a.csv", tmp_path / "b" / "c" / "a.csv")
    assert names(glob(tmp_path, "*.csv"), tmp_path) == ["a.CSV"]
    assert names(glob(tmp_path, "*/*.csv"), tmp_path) == ["b/a.csv"]
    assert len(glob(tmp_path, "a.csv", deep=True)) == 3
    assert glob(tmp_path / "nowhere", "*") == []
    assert len(below(tmp_path, 2)) == 2


def test_what_is_not_used_is_counted_by_kind(tmp_path, caplog):
    caplog.set_level("INFO", "medtl_monai")
    for i in range(4):
        path = tmp_path / "ab"[i % 2] / f"p{i}" / "x.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
        touch(path.parent / "masks" / "x.png")
    touch(tmp_path / "notes.txt", tmp_path / "LICENSE", tmp_path / ".DS_Store")
    cases = load_cases(tmp_path)
    assert cases.unused == {"hidden files or folders": 1, "masks": 4, ".txt files": 1, "files without an ending": 1}
    assert "not used: 1 hidden files or folders, 4 masks, 1 files without an ending, 1 .txt files" in caplog.messages


def test_inference_on_a_data_sets_folder_leaves_its_masks_out(tmp_path):
    touch(*(tmp_path / f"{kind}{i}.nii.gz" for kind in "im" for i in range(3)), tmp_path / "j_seg.nii.gz")
    rows = "".join(f"i{i}.nii.gz,m{i}.nii.gz,{i}\n" for i in range(3))
    (tmp_path / "index.csv").write_text(f"image,label,patient\n{rows}")
    found = find_images(tmp_path)
    assert names(found.images, tmp_path) == ["i0.nii.gz", "i1.nii.gz", "i2.nii.gz"]
    assert len(found.masks) == 4
    assert find_images(tmp_path / "j_seg.nii.gz").images == [tmp_path / "j_seg.nii.gz"]  # asked for by its name


def test_a_folder_of_masks_alone_is_refused_by_name(tmp_path):
    touch(tmp_path / "masks" / "a.png")
    with pytest.raises(UserError, match="there is no image at .* masks by their names"):
        unlabelled(tmp_path)


@pytest.mark.parametrize(("kind", "ending"), [("TIFF", ".tif"), ("TIFF", ".png"), ("GIF", ".gif"), ("WEBP", ".webp")])
def test_several_pages_are_no_single_image(tmp_path, kind, ending):
    several = [Image.fromarray(np.full((8, 8), 40 * k, np.uint8)).convert("RGB") for k in range(3)]
    file, single = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    several[0].save(file, kind, save_all=True, append_images=several[1:])
    several[0].save(single, kind)
    assert len(check_readable([{"image": str(single)}])) == 1
    with pytest.raises(UserError, match=rf"a{ending} .*(3 pages|8, 8, 3)"):
        check_readable([{"image": str(file)}, {"image": str(single)}])


@pytest.mark.parametrize("written", ["x", "0/x", "0\\x.png", "0/x.jpg", "x.PNG"])
def test_names_that_say_one_image_are_understood(tmp_path, written):
    rows = ["image,label,patient", f"{written},a,p0"]
    for i in range(2):
        folder = tmp_path / str(i)
        folder.mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / ("x.png", "y.png")[i])
    (tmp_path / "index.csv").write_text("\n".join([*rows, "1/y.png,b,p1"]))
    cases = load_cases(tmp_path)
    assert cases.items[0]["image"] == str(tmp_path / "0" / "x.png")
    assert "1 of 2 images stand in the table by other names than their files have" in cases.doubts[0]


def test_a_name_that_says_two_images_is_refused(tmp_path):
    for i in range(2):
        touch(tmp_path / str(i) / "x.png")
    (tmp_path / "index.csv").write_text("image,label,patient\nx,a,p0\n1/x.png,b,p1")
    with pytest.raises(UserError, match=r"did you mean 0/x\.png\?"):
        load_cases(tmp_path)


def test_files_outside_of_the_folder_and_of_two_names_are_said(tmp_path):
    root = tmp_path / "data"
    touch(tmp_path / "a.png", root / "b.png")
    os.link(root / "b.png", root / "c.png")
    (root / "index.csv").write_text("image,label,patient\n../a.png,a,p0\nb.png,b,p1\nc.png,b,p2")
    outside, twice = load_cases(root).doubts
    assert outside == f"1 of 3 files lie outside of the folder, such as {tmp_path}/a.png"
    assert "b.png and c.png: links to one file" in twice


@pytest.mark.parametrize("before", ["{name}/", "/home/me/{name}/", "C:\\studies\\{name}\\"])
def test_paths_of_another_machine_are_taken_from_the_folders_own_name_on(tmp_path, before):
    lead, root = before.format(name="study"), tmp_path / "study"
    touch(root / "a" / "0.png", root / "b" / "0.png")
    sep = "\\" if "\\" in lead else "/"
    (root / "index.csv").write_text(f"image,label,patient\n{lead}a{sep}0.png,a,p0\n{lead}b{sep}0.png,b,p1")
    assert [item["image"] for item in load_cases(root).items] == [str(root / c / "0.png") for c in "ab"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_file_can_have_are_refused_in_a_sentence(tmp_path, name):
    touch(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(f"image,label,patient\n{'x' * 300}.png,a,0\na.png,b,1")
    with pytest.raises(UserError, match="1 of 2 images that the labels name do not exist"):
        load_cases(tmp_path)
    with pytest.raises(UserError, match="there is no table"):
        load_cases(tmp_path, table=f"{name}.csv")
    with pytest.raises(UserError, match="dataset_dir: "):
        load_cases(f"{tmp_path}/{name}")


def test_a_table_is_found_in_any_case(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "Index.CSV").write_text("image,label,patient\na.png,a,0\nb.png,b,1")
    cases = load_cases(tmp_path)
    assert (cases.layout, cases.unused) == ("table", {})
