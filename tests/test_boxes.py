"""Boxes around lesions: from tables to maps, through augmentation, to the strategy that learns from them."""

import csv
import math

import numpy as np
import pytest
import torch
from conftest import context
from PIL import Image
from torch import nn

from medtl_monai.backbones import BACKBONES, compare_sides
from medtl_monai.backbones import build as build_network
from medtl_monai.cli import main
from medtl_monai.data import MarkLesiond, load_cases
from medtl_monai.strategies import Localization, Step
from medtl_monai.transforms import AugmentBatch, MixBatch, PrepareBatch
from medtl_monai.utils import UserError


@pytest.fixture
def folder(tmp_path):
    """A table of two images with the columns that are asked for."""

    def write(names, *rows):
        for i in range(len(rows)):
            Image.fromarray(np.zeros((20, 40), np.uint8)).save(tmp_path / f"{i}.png")
        with (tmp_path / "index.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "patient", *names])
            writer.writerows([f"{i}.png", "ab"[i % 2], f"p{i}", *row] for i, row in enumerate(rows))
        return tmp_path

    return write


def boxes(folder, columns="auto", mode="xywh"):
    return [item.get("box") for item in load_cases(folder, box_columns=columns, box_mode=mode).items]


class TestTable:
    def test_columns_by_their_usual_names(self, folder):
        assert boxes(folder(["x", "y", "width", "height"], (1, 2, 3, 4), ("", "", "", ""))) == [[[1, 2, 3, 4]], []]

    def test_fractions_around_a_centre(self, folder):
        found = boxes(folder(["box_xc", "box_yc", "box_w", "box_h"], (0.5, 0.5, 0.2, 0.4), (0.25, 0.5, 0.5, 1)))
        np.testing.assert_allclose(found, [[[0.4, 0.3, 0.2, 0.4]], [[0, 0, 0.5, 1]]])

    def test_columns_by_other_names(self, folder):
        made = folder(["left", "top", "right", "bottom"], (1, 2, 4, 6), (0, 0, 1, 1))
        assert boxes(made, ["left", "top", "right", "bottom"], "xyxy") == [[[1, 2, 3, 4]], [[0, 0, 1, 1]]]
        with pytest.raises(UserError, match="does not have the four columns left, up"):
            boxes(made, ["left", "up", "right", "bottom"], "xyxy")

    def test_rows_of_one_image_are_its_boxes(self, folder):
        made = folder(["x", "y", "width", "height"], (1, 2, 3, 4), ("", "", "", ""))
        with (made / "index.csv").open("a") as file:
            file.write("0.png,a,p0,5,6,7,8\n0.png,a,p0,1,2,3,4\n")
        assert boxes(made) == [[[1, 2, 3, 4], [5, 6, 7, 8]], []]
        with pytest.raises(UserError, match="stands twice in the labels, with x '1' or '5'"):
            load_cases(made, keep=["x"])
        with (made / "index.csv").open("a") as file:
            file.write("0.png,b,p0,5,6,7,8\n")
        with pytest.raises(UserError, match="stands twice in the labels, with label 'a' or 'b'"):
            boxes(made)

    def test_a_datalist_keeps_them_and_they_can_be_left_out(self, folder, tmp_path):
        made = folder(["x", "y", "width", "height"], (1, 2, 3, 4), ("", "", "", ""))
        assert main(["data", "check", str(made), "--datalist", str(made / "dataset.json")]) in (None, 0)
        (made / "index.csv").unlink()
        assert boxes(made) == [[[1, 2, 3, 4]], []]
        assert boxes(made, None) == [None, None]

    @pytest.mark.parametrize(
        ("columns", "mode"),
        [("x", "xywh"), (["x", "y"], "xywh"), (["a", "b", "c", "d"], "yolo"), ("auto", "xyxy")],
    )
    def test_what_names_no_columns_is_refused(self, folder, columns, mode):
        with pytest.raises(UserError, match="box_columns takes auto, null or a list of four columns"):
            boxes(folder(["x", "y", "width", "height"], (1, 2, 3, 4), (1, 2, 3, 4)), columns, mode)

    def test_without_columns_there_are_none(self, folder):
        assert boxes(folder(["x", "y"], (1, 2), (3, 4))) == [None, None]
        assert boxes(folder(["x", "y", "width", "height"], (1, 2, 3, 4), (1, 2, 3, 4)), None) == [None, None]

    @pytest.mark.parametrize("row", [(1, 2, 0, 4), (1, 2, "", 4), ("a", 2, 3, 4), (1, 2, "inf", 4), (1, 2, -3, 4)])
    def test_what_is_no_box_is_named(self, folder, row):
        with pytest.raises(UserError, match=r"the box of .*1\.png is none .*give four numbers"):
            boxes(folder(["x", "y", "width", "height"], (1, 2, 3, 4), row))


class TestMap:
    def mark(self, box, shape=(1, 10, 20)):
        return MarkLesiond("image")({"image": torch.zeros(shape), "box": box})

    def test_pixels_and_fractions_are_the_same_place(self):
        expected = torch.zeros(1, 10, 20)
        expected[:, 2:7, 4:10] = 1
        made = self.mark([4, 2, 6, 5])
        assert torch.equal(made["lesion"].float(), expected)
        assert "box" not in made
        assert torch.equal(self.mark([0.2, 0.2, 0.3, 0.5])["lesion"].float(), expected)

    def test_several_boxes_and_what_sticks_out(self):
        lesion = self.mark([[-3, -3, 4, 4], [18, 8, 9, 9]])["lesion"]
        assert lesion.nonzero().tolist() == [[0, 0, 0], [0, 8, 18], [0, 8, 19], [0, 9, 18], [0, 9, 19]]

    def test_no_box_is_an_empty_map_and_no_entry_none(self):
        assert not self.mark([])["lesion"].any()
        assert not self.mark([[math.nan] * 4])["lesion"].any()
        assert not self.mark([[1, 0.5, 0, 0.2]])["lesion"].any()  # what cropping leaves of a box outside
        assert list(MarkLesiond("image")({"image": torch.zeros(1, 4, 4)})) == ["image"]
        assert list(MarkLesiond("image", draw=False)({"image": torch.zeros(1, 4, 4), "box": [9, 9, 9, 9]})) == ["image"]

    def test_a_box_outside_its_image_is_refused(self):
        with pytest.raises(UserError, match="lies outside its image, which is 20 x 10"):
            self.mark([30, 2, 6, 5])


class TestBatch:
    def batch(self, n=4):
        image = torch.zeros(n, 1, 16, 16)
        for i in range(n):
            image[i, 0, i + 1 : i + 5, 2:6] = 1
        return {"image": image, "label": torch.arange(n) % 2, "lesion": image.clone().to(torch.uint8)}

    def test_augmentation_moves_the_map_with_the_image(self):
        batch = self.batch()
        before = batch["image"].clone()
        plain = {"gamma": 0.0, "contrast": 0.0, "brightness": 0.0, "noise": 0.0}
        augment = AugmentBatch(flip=0.5, rotate=30, zoom=0.3, shift=0.2, **plain)
        image, _ = PrepareBatch([0.0], [1.0], augment)(batch)
        assert not torch.equal(image, before)
        assert (image[batch["lesion"] == 1] >= 0.25).all()  # nearest within bilinear's half
        assert (image[batch["lesion"] == 0] <= 0.75).all()

    @pytest.mark.parametrize("kind", ["mixup", "cutmix"])
    def test_mixing_mixes_the_map_alike(self, kind):
        batch = self.batch()
        image, label = PrepareBatch([0.0], [1.0], mix=MixBatch(2, kind=kind, alpha=1.0))(batch)
        assert torch.equal(image, batch["lesion"])
        assert image.shape == (4, 1, 16, 16)
        assert label.shape == (4, 2)


class Seeing(nn.Module):
    """Its last map is the image itself."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 1, 1, bias=False)
        self.fc = nn.Linear(1, 2)
        nn.init.ones_(self.body.weight)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


def bound(network, **settings):
    strategy = Localization(**settings)
    strategy.bind(context(1))
    return strategy, strategy.prepare(network)


def loss(strategy, network, image, lesion):
    pred = network(image)
    strategy.on_forward()
    return strategy.loss(Step(network, image, torch.zeros(len(image)), pred, 0.0, {"lesion": lesion}))


class TestStrategy:
    def test_the_loss_is_the_cross_entropy_of_places(self):
        strategy, network = bound(Seeing(), weight=2.0)
        image, lesion = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 4, 4)
        image[0, 0, 0, 0] = 1
        lesion[0, 0, :2] = 1  # half of each of the upper places; the second image has no lesion
        assert loss(strategy, network, image, lesion).item() == pytest.approx(math.log(4))  # 2 * log 4 / 2 images
        with torch.no_grad():
            strategy.where.fill_(3.0)
        upper = 2 * [-math.log(math.exp(3) / (math.exp(3) + 3)), -math.log(1 / (math.exp(3) + 3))]
        assert loss(strategy, network, image, lesion).item() == pytest.approx(sum(upper) / 4 * 2 / 2, rel=1e-5)

    def test_no_lesion_in_sight_gives_no_gradient(self):
        strategy, network = bound(Seeing())
        value = loss(strategy, network, torch.rand(2, 1, 6, 6), torch.zeros(2, 1, 6, 6))
        value.backward()
        assert value.item() == 0
        assert not network.body.weight.grad.any()

    def test_it_learns_to_look_at_the_lesion(self):
        """Bright and dark squares: the lesion is the dark one, the class the brightness of the other."""
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
        strategy, network = bound(network)
        optimizer = torch.optim.Adam(strategy.param_groups(network, lr=0.05), lr=0.05)
        place = torch.randint(0, 4, (32, 2)) * 2
        image, lesion = torch.full((32, 1, 8, 8), 0.5), torch.zeros(32, 1, 8, 8)
        for i, (y, x) in enumerate(place.tolist()):
            image[i, 0, y : y + 2, x : x + 2], lesion[i, 0, y : y + 2, x : x + 2] = 0, 1
            image[i, 0, 7 - y, 7 - x] = 1
        for _ in range(60):
            optimizer.zero_grad()
            loss(strategy, network, image, lesion).backward()
            optimizer.step()
        network(image)
        seen = torch.einsum("bchw,c->bhw", strategy._tap.latest, strategy.where).flatten(1).argmax(1)
        truth = place[:, 0] // 2 * 4 + place[:, 1] // 2
        assert (seen == truth).float().mean() > 0.9

    @pytest.mark.parametrize("name", ["efficientnet_lite0", "vgg11", "lenet5", "densenet121"])
    def test_it_finds_the_last_map_of_any_backbone(self, name):
        assert name in BACKBONES
        network = build_network(name, in_channels=1)
        strategy = Localization()
        strategy.bind(context(1, size=(64, 64)))
        strategy.prepare(network)
        network(torch.rand(2, 1, 64, 64))
        assert strategy._tap.latest.shape[1] == len(strategy.where)
        assert strategy._tap.latest.ndim == 4

    def test_of_pairs_of_sides_it_looks_at_the_image(self):
        torch.manual_seed(0)
        strategy = Localization()
        strategy.bind(context(1, channels=2))
        network = strategy.prepare(compare_sides(Seeing()))
        with torch.no_grad():
            strategy.where.fill_(3.0)
        image, lesion = torch.rand(2, 1, 6, 6), (torch.rand(2, 1, 6, 6) > 0.5).float()
        pairs = [loss(strategy, network, torch.cat([image, other], 1), lesion) for other in (image, 1 - image)]
        assert torch.equal(*pairs)

    def test_it_needs_boxes(self):
        strategy, network = bound(Seeing())
        with pytest.raises(UserError, match="needs boxes around lesions"):
            strategy.loss(Step(network, torch.zeros(1), torch.zeros(1), None, 0.0, {}))
        with pytest.raises(UserError, match="weight must be 0 or more"):
            Localization(weight=-1)

    def test_it_needs_maps(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Linear(4, 2))
        with pytest.raises(UserError, match="no block of Sequential gives one"):
            bound(network)
