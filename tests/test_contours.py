"""Contours as masks, and the layout of the Sunnybrook data that has them."""

import json

import numpy as np
import pytest
from conftest import sunnybrook_original

from medtl_monai.cli import main
from medtl_monai.data import load_cases, make_cardiac_cohort, read_contour, stack_of
from medtl_monai.utils import UserError

NAME = "IM-0001-0048-{}contour-manual.txt"
SQUARE = "2.00 1.00\n6.00 1.00\n6.00 4.00\n2.00 4.00\n"
BOTH = {"contours": "both"}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """A phantom cohort of four patients."""
    folder = tmp_path_factory.mktemp("data") / "hearts"
    return make_cardiac_cohort(folder, patients=4, slices=2, size=48, progress=False)


@pytest.fixture
def original(tmp_path, hearts):
    """The same in the original layout: its folder, and the mask of each slice."""
    return tmp_path, sunnybrook_original(tmp_path, hearts)


def drawn(folder, number=1, kind="i"):
    """One contour of the first patient."""
    return next(folder.glob(f"*/SC-HF-NI-01/*/*/IM-0001-{number:04d}-{kind}contour-manual.txt"))


def test_pixels_whose_centre_lies_within_are_in_the_mask(tmp_path):
    inner, outer = (tmp_path / NAME.format(kind) for kind in "io")
    inner.write_text("2.50 1.50\n5.50 1.50\n5.50 3.50\n2.50 3.50\n\n")
    outer.write_text("1.50 0.50\n6.50 0.50\n6.50 4.50\n1.50 4.50\n")
    want = np.zeros((6, 9))
    want[2:4, 3:6] = 1
    np.testing.assert_array_equal(read_contour(inner, (6, 9)), want)
    want[1:5, 2:7] = np.where(want[1:5, 2:7], 1, 2)
    np.testing.assert_array_equal(read_contour(outer, (6, 9)), want)


@pytest.mark.parametrize("radius", [3.3, 11.7, 40.2])
def test_the_area_of_a_circle_is_right_within_its_border(tmp_path, radius):
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = radius * np.stack([np.cos(angle), np.sin(angle)], 1) + [50.3, 60.8]
    np.savetxt(tmp_path / NAME.format("i"), circle, "%.2f")
    area = read_contour(tmp_path / NAME.format("i"), (110, 100)).sum()
    assert abs(area - np.pi * radius**2) < 0.5 * 2 * np.pi * radius  # half a pixel along the border


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 1\n6;1\n6 4\n", r"line 2 of .*icontour-manual.txt is '6;1': expected a point 'x y' in pixels"),
        ("2 1\n6 1 3\n6 4\n", "line 2 .* is '6 1 3'"),
        ("2 1\n6 1\n", "has 2 points: expected a contour of three or more"),
        ("2 1\n9 1\n6 4\n", "the point 9 1 outside its image of 9 x 6 pixels"),
        ("2 1\n6 1\nnan 4\n", "the point nan 4 outside"),
    ],
)
def test_a_contour_that_is_none_is_refused(tmp_path, text, message):
    path = tmp_path / NAME.format("i")
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_contour(path, (6, 9))


def test_an_outer_contour_needs_its_inner_one(tmp_path):
    (tmp_path / NAME.format("o")).write_text(SQUARE)
    with pytest.raises(UserError, match="there is no contour .*-icontour-manual.txt"):
        read_contour(tmp_path / NAME.format("o"), (6, 9))


@pytest.mark.parametrize(("options", "slices"), [({}, 16), (BOTH, 8)])
def test_the_contours_of_the_original_layout_give_the_phantoms_masks(original, options, slices):
    folder, masks = original
    cases = load_cases(folder, layout_options=options)
    assert cases.classes == ["left ventricle", "myocardium"][: 1 + len(options)]
    assert cases.label_values == [1, 2][: 1 + len(options)]
    assert len(cases.items) == len({item["image"] for item in cases.items}) == slices
    assert {item["patient"] for item in cases.items} == {"SC-HF-NI-01", "SC-HYP-02", "SC-N-03", "SC-HF-I-04"}
    for item in cases.items:
        image, label = stack_of(item, "image"), stack_of(item, "label")
        truth = masks[item["image"]]
        np.testing.assert_array_equal(label.affine, image.affine)
        np.testing.assert_array_equal(label[0, ..., 0].T == 1, truth == 3)
        np.testing.assert_array_equal(label[0, ..., 0].T == 2, (truth == 2) & bool(options))


def test_images_in_folders_of_the_original_names_are_found_too(original):
    folder, _ = original
    want = [item["label"] for item in load_cases(folder).items]
    for number, name in enumerate(("HF-NI-1", "HYP-2", "N-3", "HF-I-4"), start=1):
        source = folder / "SCD_IMAGES_01" / f"SCD{number:05d}01"
        target = folder / "challenge_training" / f"SC-{name}"
        target.mkdir(parents=True)
        for path in source.rglob("*.dcm"):
            path.rename(target / path.name)
        for path in sorted(source.rglob("*"), reverse=True):
            path.rmdir()
        source.rmdir()
    (folder / "scd_patientdata.csv").unlink()
    cases = load_cases(folder)
    assert [item["label"] for item in cases.items] == want
    assert all("/challenge_training/SC-" in item["image"] and "/IM-0003-" in item["image"] for item in cases.items)


def test_data_check_reads_the_contours(original, tmp_path):
    folder, _ = original
    main(["data", "check", str(folder), "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["layout"], report["cases"], report["patients"]) == ("sunnybrook_contours", 16, 4)
    assert report["classes"] == {"left ventricle": {"images": 16, "patients": 4}}
    assert report["suspicious"] == []


def test_patients_without_images_are_left_out_and_counted(original, caplog):
    folder, _ = original
    (folder / "SCD_IMAGES_01" / "SCD0000201").rename(folder / "elsewhere")
    assert len(load_cases(folder).items) == 12
    assert "4 of 16 images with their masks are not there" in caplog.text


def test_a_contour_without_its_slice_is_refused(original):
    folder, _ = original
    (folder / "SCD_IMAGES_01/SCD0000101/CINESAX_300/IM-0003-0012.dcm").unlink()
    message = r"1 of 4 contours of SC-HF-NI-01 have no slice, such as IM-0001-0012-icontour.*CINESAX_300; copy it there"
    with pytest.raises(UserError, match=message):
        load_cases(folder)


def test_two_series_that_fit_alike_are_refused(original):
    folder, _ = original
    images = folder / "SCD_IMAGES_01" / "SCD0000101"
    (images / "CINESAX_302").mkdir()
    for path in (images / "CINESAX_300").iterdir():
        (images / "CINESAX_302" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="CINESAX_300.* and .*CINESAX_302.*leave the other out"):
        load_cases(folder)


def test_folders_of_new_names_need_the_table(original):
    folder, _ = original
    (folder / "scd_patientdata.csv").unlink()
    with pytest.raises(UserError, match=r"folders such as SCD0000101, but no scd_patientdata.csv"):
        load_cases(folder)


def test_an_unknown_choice_of_contours_is_refused(original):
    with pytest.raises(UserError, match="contours must be one of inner, both, got 'outer'"):
        load_cases(original[0], layout_options={"contours": "outer"})


def test_a_contour_of_another_slice_is_named_with_its_image_in_the_check(original, tmp_path):
    folder, _ = original
    drawn(folder).write_text("2 1\n60 1\n6 4\n")
    main(["data", "check", str(folder), "--json", str(tmp_path / "report.json")])
    doubt = json.loads((tmp_path / "report.json").read_text())["suspicious"][0]
    assert (doubt["what"], doubt["count"]) == ("cannot be read", 1)
    assert doubt["examples"][0].startswith("SCD_IMAGES_01/SCD0000101/CINESAX_300/IM-0003-0001.dcm (")
