"""Slices of breast views: the two strategies, healthy patients and others, bad settings; breasts made alike."""

import csv
import math
import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from PIL import Image

from medtl_monai.backbones import build, compare_sides
from medtl_monai.bundle import suspicion
from medtl_monai.data import (
    FaceBreastd,
    JoinSidesd,
    MapLesiond,
    RandCropLesiond,
    breast_slices,
    face_breast,
    load_breasts,
    load_cases,
    make_dbt_cohort,
    pair_sides,
    repeat_minority,
    select_slices,
    split_frame,
)  # fmt: skip
from medtl_monai.data.phantoms.dbt import BOXES
from medtl_monai.utils import UserError


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Ten patients: five normal, two benign, two cancer, one actionable."""
    return make_dbt_cohort(tmp_path_factory.mktemp("dbt") / "c", patients=10, frames=20, size=(32, 32), progress=False)


def counts(items):
    found = defaultdict(Counter)
    for item in items:
        found[item["patient"]][item["view"], item["label"]] += 1
    return found


def test_strategy_1_takes_all_slices_of_tumours_and_a_share_of_the_others(cohort):
    found = counts(load_breasts(cohort, data_strategy=1).items)
    assert len(found) == 9  # without the actionable patient
    for views in found.values():
        labels = {label for _, label in views}
        assert len(labels) == 1
        assert (len(views), set(views.values())) == ((4, {3}) if labels == {0} else (2, {20}))  # 15% of 20


def test_strategy_2_takes_one_slice_a_patient_and_that_of_the_box(cohort):
    items = load_breasts(cohort, data_strategy=2).items
    assert [sum(views.values()) for views in counts(items).values()] == [1] * 9
    with (cohort / BOXES).open() as file:
        boxes = {(row["PatientID"], row["View"]): int(row["Slice"]) for row in csv.DictReader(file)}
    depths = {(view, number) for (_, view), number in boxes.items()}
    for item in items:
        number = split_frame(item["image"])[1]
        if item["label"]:
            assert number == boxes[item["patient"], item["view"]]
        assert (item["view"], number) in depths  # healthy patients' views and depths are those of boxes
        assert item["laterality"].lower() == item["view"][0]


def test_all_takes_every_slice_of_every_view_by_one_rule(cohort):
    found = counts(load_breasts(cohort, data_strategy="all").items)
    assert len(found) == 9
    assert all(set(views.values()) == {20} and len(views) == 4 for views in found.values())
    assert Counter(label for views in found.values() for _, label in views) == {0: 28, 1: 8}


def test_groups_decide_what_is_told_apart(cohort):
    groups = {"no cancer": ["normal", "benign"], "recall": ["actionable"], "cancer": ["cancer"]}
    cases = load_breasts(cohort, groups=groups)
    assert cases.classes == list(groups)
    assert Counter(item["label"] for item in cases.items) == {0: 7, 1: 1, 2: 2}


def test_draws_depend_on_the_seed_and_on_no_other_patient(cohort):
    views = [{**view, "label": (0, None, 1, 1)[view["label"]]} for view in load_cases(cohort).items]
    first = [item["image"] for item in select_slices(views, data_strategy=1)]
    fewer = [item["image"] for item in select_slices(views[4:], data_strategy=1)]
    assert first[-len(fewer):] == fewer  # fmt: skip
    assert first != [item["image"] for item in select_slices(views, data_strategy=1, seed=1)]


def test_mammograms_in_a_table_are_grouped_too(shared_data):
    cases = load_breasts(shared_data / "breast_mini_mias")
    assert (len(cases.items), cases.classes) == (114, ["normal", "tumour"])
    assert len({item["patient"] for item in cases.items}) == 57


def test_inference_takes_volumes_slice_by_slice(cohort):
    items = breast_slices(cohort)
    assert len(items) == 10 * 4 * 20
    assert breast_slices(items[3]["image"]) == items[3:4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_strategy": 3}, "data_strategy must be 1"),
        ({"data_strategy": 1, "normal_share": 0}, "normal_share must be above 0"),
        ({"groups": {"a": ["b"], "c": ["d"]}}, "no label of normal, actionable, benign, cancer is in groups"),
        ({"classes": ["no", "yes"]}, "the model tells no, yes apart, and groups names normal, tumour"),
    ],
)
def test_settings_out_of_range_say_so(cohort, options, message):
    with pytest.raises(UserError, match=message):
        load_breasts(cohort, **options)


def test_a_file_without_a_header_is_left_to_the_pass_that_names_what_cannot_be_read(cohort, tmp_path):
    data = shutil.copytree(cohort, tmp_path / "data")
    bad = sorted(data.rglob("*.dcm"))[0]
    bad.write_bytes(b"no")
    (whole,) = (item["image"] for item in breast_slices(data) if item["image"].startswith(str(bad)))
    assert whole == str(bad)
    scored = [item["image"] for item in load_breasts(data, data_strategy="all").items]
    assert [image for image in scored if image.startswith(str(bad))] in ([], [f"{bad}#0"])


def test_repeating_balances_classes_and_keeps_every_item():
    items = [{"label": 0, "n": n} for n in range(7)] + [{"label": 1, "n": n} for n in range(3)]
    found = repeat_minority(items)
    assert found[:10] == items
    assert Counter(item["label"] for item in found) == {0: 7, 1: 7}
    assert Counter(item["n"] for item in found if item["label"]) == {0: 3, 1: 2, 2: 2}


def breast(mirror):
    """A bright quarter disc at the left edge, a label apart from it, and dark surroundings."""
    y, x = np.mgrid[:128, :96]
    image = 100.0 * (np.hypot(y - 64, x) < 50) * (1 - x / 100) + 2
    image[2:6, 80:92] = 255
    return torch.tensor(image[:, ::-1].copy() if mirror else image, dtype=torch.float32)[None]


def test_breasts_are_cropped_and_face_one_way_whatever_their_side():
    left, right = face_breast(breast(False)), face_breast(breast(True))
    assert torch.equal(left, right)
    assert left.shape[1] == pytest.approx(100, abs=4)
    assert left.shape[2] == pytest.approx(50, abs=4)
    assert left[0, :, 0].sum() > left[0, :, -1].sum()
    assert torch.equal(face_breast(torch.zeros(1, 8, 8)), torch.zeros(1, 8, 8))


def test_breasts_are_cropped_alike_however_they_lie_in_memory():
    image = breast(True)
    turned = image.mT.contiguous().mT
    assert not turned.is_contiguous()
    assert torch.equal(face_breast(turned), face_breast(image))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("side", [None, "L", "R"])
def test_a_box_stays_around_its_lesion(mirror, side):
    image = breast(mirror)
    x, y, width, height = 20 if not mirror else 96 - 20 - 6, 40, 6, 8
    image[:, y : y + height, x : x + width] = 500.0
    turned = side is not None and mirror != (side == "R")  # drawn on the image turned by 180 degrees
    box = [96 - x - width, 128 - y - height, width, height] if turned else [x, y, width, height]
    item = FaceBreastd("image")({"image": image, "box": box, **({"box_side": side} if side else {})})
    assert set(item) == {"image", "box"}
    rows, columns = (item["image"][0] == 500).nonzero(as_tuple=True)
    size = torch.tensor([item["image"].shape[2], item["image"].shape[1]])
    want = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / size.repeat(2)
    (found,) = item["box"]
    torch.testing.assert_close(torch.cat([found[:2], found[:2] + found[2:]]), want)
    both = [[math.nan] * 4, box]
    several = FaceBreastd("image")({"image": image, "box": both, **({"box_side": side} if side else {})})["box"]
    assert several[0].isnan().all()
    assert torch.equal(several[1], found)
    with pytest.raises(UserError, match=r"the box .* lies outside its image, which is 96 x 128"):
        FaceBreastd("image")({"image": image, "box": [97, 2, 5, 5]})


def test_crops_surround_places_of_the_lesion_or_of_the_breast():
    place = torch.arange(64.0).expand(64, 64)
    image = torch.stack([place.T, place]) / 64 * (place < 40) + 0.2 * (place < 40)  # the breast: 40 columns
    crop = RandCropLesiond("image", 16, 64)
    lesion = torch.tensor([0.5, 0.25, 0.0625, 0.125])  # x 32 to 36, y 16 to 24
    corners = torch.stack([_corner(crop({"image": image, "box": lesion})["image"]) for _ in range(50)])
    assert corners.min(0).values.tolist() == [8, 24]  # y, x: half a crop before the centre
    assert corners.max(0).values.tolist() == [15, 27]
    found = crop({"image": image, "box": lesion})
    left, top = 32 - _corner(found["image"])[1], 16 - _corner(found["image"])[0]
    whole = [max(0, left), max(0, top), min(16, left + 4), min(16, top + 8)]  # what the crop shows of the lesion
    expected = [whole[0], whole[1], whole[2] - whole[0], whole[3] - whole[1]]
    assert (16 * found["box"]).tolist() == [expected]
    unmarked = torch.full((4,), torch.nan)
    corners = torch.stack([_corner(crop({"image": image, "box": unmarked})["image"]) for _ in range(300)])
    assert corners[:, 1].max() == 39 - 8  # centres lie in the breast
    assert corners.min() == 0
    assert corners[:, 0].max() == 48  # and crops in the image
    torch.manual_seed(3)
    first = crop({"image": image})["image"]
    torch.manual_seed(3)
    assert torch.equal(crop({"image": image})["image"], first)
    assert crop({"image": torch.zeros(1, 64, 64)})["image"].shape == (1, 16, 16)
    with pytest.raises(UserError, match="crop_size must lie between 2 and image_size, 64; got 65"):
        RandCropLesiond("image", 65, 64)


def _corner(crop):
    assert crop.shape == (2, 16, 16)
    return ((crop[:, 0, 0] - 0.2) * 64).round()


@pytest.mark.parametrize(
    ("box", "label", "want"),
    [
        ([0.5, 0.25, 0.125, 0.5], 1, {0: 4 * 8 - 2, 1: 2}),
        ([0.55, 0.25, 0.125, 0.5], 2, {0: 4 * 8 - 4, 2: 4}),  # what a box touches belongs to it
        ([[0.5, 0.25, 0.125, 0.5], [0, 0, 0.25, 0.25], [torch.nan] * 4], 1, {0: 32 - 4, 1: 4}),
        ([[0.5, 0.25, 0.125, 0.5], [1.0, 0.2, 0.0, 0.1]], 1, {255: 32}),  # one lies outside the crop
        ([torch.nan] * 4, 0, {0: 32}),
        ([torch.nan] * 4, 1, {255: 32}),  # somewhere
    ],
)
def test_a_lesion_becomes_a_map(box, label, want):
    item = MapLesiond("image")({"image": torch.rand(3, 4, 8), "label": label, "box": torch.tensor(box), "other": 1})
    assert set(item) == {"image", "label", "other"}
    assert item["label"].shape == (1, 4, 8)
    assert Counter(item["label"].flatten().tolist()) == want
    if label and len(box) == 4 and not np.isnan(box).any():
        assert item["label"][0, 1:3, 4].eq(label).all()
    assert MapLesiond("image")({"image": 1}) == {"image": 1}


def test_boxes_come_from_the_layout_or_the_table(cohort, tmp_path):
    items = load_breasts(cohort, boxes=True).items
    with (cohort / BOXES).open() as file:
        rows = {
            (row["PatientID"], row["View"]): [int(row[name]) for name in ("X", "Y", "Width", "Height")]
            for row in csv.DictReader(file)
        }
    for item in items:
        if item["label"]:
            assert item["box"][0] == rows[item["patient"], item["view"]]
        else:
            assert np.isnan(item["box"]).all()
        assert item["box_side"] == item["laterality"]
    for number in range(4):
        Image.new("L", (8, 8)).save(tmp_path / f"{number}.png")
    table = tmp_path / "index.csv"
    rows = [f"{n}.png,{('normal', 'cancer')[n % 2]},P{n},{(',,,', '1,2,3.5,4')[n % 2]}" for n in range(4)]
    table.write_text("\n".join(["image,label,patient,x,y,width,height", *rows]))
    boxes = [item["box"] for item in load_breasts(tmp_path, boxes=True).items]
    assert boxes[1] == boxes[3] == [[1, 2, 3.5, 4]]
    assert np.isnan(boxes[0] + boxes[2]).all()
    assert "box" not in load_breasts(tmp_path).items[1]
    table.write_text(table.read_text().replace("1,2,3.5,4", "1,2,3.5,"))
    with pytest.raises(UserError, match=r"the box of .*1\.png is none \(.*height ''\)"):
        load_breasts(tmp_path, boxes=True)
    table.write_text(table.read_text().replace("1,2,3.5,", "1,2,-3,4"))
    with pytest.raises(UserError, match="the box of .* is none .*: give four numbers in pixels"):
        load_breasts(tmp_path, boxes=True)
    table.write_text(table.read_text().replace("1,2,-3,4", ",,,"))
    with pytest.raises(UserError, match="crop_size, lesion_map and localization need to know where lesions are"):
        load_breasts(tmp_path, boxes=True)


def test_all_lesions_of_an_image_have_their_boxes_the_largest_first(tmp_path):
    lines = ["mdb001 G CIRC B 30 40 3", "mdb001 G CIRC M 20 20 5", "mdb002 G NORM", "mdb003 D NORM", "mdb004 D NORM"]
    (tmp_path / "Info.txt").write_text("\n".join(lines))
    for number in range(1, 5):
        Image.new("L", (64, 64)).save(tmp_path / f"mdb00{number}.pgm")
    boxes = [item["box"] for item in load_breasts(tmp_path, layout="mini_mias", boxes=True).items]
    assert [box[2:] for box in boxes[0]] == [[10, 10], [6, 6]]
    assert np.shape(boxes) == (4, 2, 4)
    assert np.isnan(boxes[1:]).all()


def test_the_other_side_is_the_same_view_at_the_same_depth(cohort):
    items = load_breasts(cohort, compare_sides=True).items
    views = {view["image"]: view for view in load_cases(cohort).items}
    for item in items:
        (file, number), (other, same) = (split_frame(item[key]) for key in ("image", "other"))
        here, there = views[file], views[other]
        assert (there["patient"], there["view"][1:], same) == (here["patient"], here["view"][1:], number)
        assert {here["laterality"], there["laterality"]} == {"L", "R"}
    views = [{"image": "a", "patient": "1", "laterality": "L"}, {"image": "b", "patient": "2", "laterality": "R"}]
    assert pair_sides(views, views) == views


def test_sides_are_compared_by_their_logits():
    network = build("lenet5", in_channels=1, num_classes=2).eval()
    here, other = torch.rand(2, 3, 1, 32, 32)
    want = network(here) - network(other)
    keys = list(network.state_dict())
    pair = torch.cat([here, other], 1)
    torch.testing.assert_close(compare_sides(network)(pair), want)
    assert list(network.state_dict()) == keys
    joined = JoinSidesd("image")({"image": here[0], "other": other[0]})
    assert list(joined) == ["image"]
    assert torch.equal(joined["image"], pair[0])
    alone = JoinSidesd("image")({"image": here[0]})["image"]
    assert not network(alone[None]).any()


def test_nothing_to_compare_says_so(tmp_path):
    for number in range(4):
        Image.new("L", (8, 8)).save(tmp_path / f"{number}.png")
    rows = [f"{n}.png,{('normal', 'cancer')[n % 2]},P{n}" for n in range(4)]
    (tmp_path / "index.csv").write_text("\n".join(["image,label,patient", *rows]))
    with pytest.raises(UserError, match="compare_sides needs images of both breasts"):
        load_breasts(tmp_path, compare_sides=True)


def test_a_whole_is_as_suspicious_as_its_most_suspicious_share():
    slices = np.array([[1 - p, p] for p in np.linspace(0, 0.95, 20)])
    np.testing.assert_allclose(suspicion(slices, 0.1)[1], (0.95 + 0.9) / 2)
    np.testing.assert_allclose(suspicion(slices, 0.0)[1], 0.95)
    np.testing.assert_allclose(suspicion(np.repeat(slices, 3, 0), 0.1)[1], (0.95 + 0.9) / 2)
