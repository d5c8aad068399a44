"""Network, weights and preparation follow from each other, and the default strategy from the data."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medtl_monai.backbones import build
from medtl_monai.bundle import box_columns, choose_strategy, follow, image_statistics, read_backbone, wants_boxes
from medtl_monai.bundle.origin import class_names, standardizes
from medtl_monai.model import Model
from medtl_monai.strategies import L2SP, describe
from medtl_monai.utils import UserError
from medtl_monai.weights import SOURCES, save_weights

BOXED = [{"box": [[1, 2, 3, 4]]}, {"box": []}]
DEFAULT = "partial_freeze + localization + ema"


def config(**changes):
    start = {
        "backbone": "efficientnet_lite0",
        "weights": "efficientnet_lite0_imagenet",
        "variant": {},
        "channels": 1,
        "image_size": 160,
        "percentiles": [0.0, 99.9],
        "window": None,
        "mean": None,
        "std": None,
        "standardize": None,
    }
    return {**start, **changes}


def followed(**given):
    values = config(**given)
    follow(values, set(given))
    return values


@pytest.fixture
def run(tmp_path):
    """The checkpoint of a run with other values than the defaults."""
    model = Model(
        task="classification", classes=["a", "b"], backbone="resnet18", image_size=64, percentiles=[1.0, 99.0],
        mean=[0.3], std=[0.1], variant={"dropout": 0.2},
    )  # fmt: skip
    torch.save({"model": model.network().state_dict(), "about": model.to_dict()}, tmp_path / "best.pt")
    return str(tmp_path / "best.pt")


def test_nothing_given_changes_nothing():
    assert followed() == config()


def test_a_backbone_brings_the_catalogues_weights_or_none(caplog):
    caplog.set_level(logging.INFO, "medtl_monai")
    logging.getLogger("medtl_monai").propagate = True
    assert followed(backbone="resnet18")["weights"] == "resnet18_imagenet"
    assert followed(backbone="unet_resnet18")["weights"] == "resnet18_imagenet"
    assert followed(backbone="unet")["weights"] == "none"
    assert "the catalogue has none for unet" in caplog.text


def test_weights_bring_their_network_and_its_options():
    assert followed(weights="densenet121_imagenet")["backbone"] == "densenet121"
    medical = followed(weights="resnet18_medicalnet")
    assert (medical["backbone"], medical["variant"]) == ("resnet18", {"shortcut_type": "A"})
    values = config(backbone="unet_efficientnet_lite0", weights="resnet18_imagenet")
    follow(values, {"weights"})
    assert values["backbone"] == "unet_resnet18"
    assert followed(weights=None)["weights"] == "none"
    assert followed(weights="none")["backbone"] == "efficientnet_lite0"


def test_two_that_do_not_belong_together_are_refused(run):
    with pytest.raises(UserError, match="weights densenet121_imagenet are of densenet121, and backbone is resnet18"):
        followed(weights="densenet121_imagenet", backbone="resnet18")
    with pytest.raises(UserError, match="are of resnet18, and backbone is lenet5"):
        followed(weights=run, backbone="lenet5")
    with pytest.raises(UserError, match="did you mean 'resnet18_imagenet'"):
        followed(weights="resnet18_imagenett")
    with pytest.raises(UserError, match="there is no weight file nowhere.pt"):
        followed(weights="nowhere.pt")


def test_another_runs_preparation_is_kept_unless_the_user_says_otherwise(run):
    values = followed(weights=run)
    assert (values["backbone"], values["variant"]) == ("resnet18", {"dropout": 0.2})
    assert (values["image_size"], values["percentiles"]) == (64, [1.0, 99.0])
    assert (values["mean"], values["std"]) == ([0.3], [0.1])
    values = followed(weights=run, image_size=160, percentiles=[0.0, 99.9])
    assert (values["image_size"], values["percentiles"], values["mean"]) == (160, [0.0, 99.9], [0.3])
    three = followed(weights=run, channels=3)
    assert (three["channels"], three["mean"]) == (3, None)  # its numbers are of one channel


def test_another_runs_variant_is_kept_and_its_crop_only_where_images_are_cropped(run, caplog):
    logging.getLogger("medtl_monai").propagate = True
    assert followed(weights=run, backbone="resnet18")["variant"] == {"dropout": 0.2}
    assert followed(weights=run, variant={"norm": "group"})["variant"] == {"dropout": 0.2, "norm": "group"}
    assert followed(weights=run, variant={"dropout": 0.5})["variant"] == {"dropout": 0.5}
    assert "variant dropout 0.5 as given; the weights are of 0.2" in caplog.text
    values = config(weights=run, crop={"_target_": "medtl_monai.bundle.middle_share"})
    follow(values, {"weights"})
    assert isinstance(values["crop"], dict)  # slices are not cropped


def test_a_file_of_a_run_is_known_under_any_name(run, tmp_path):
    renamed = tmp_path / "mine.model"
    renamed.write_bytes(Path(run).read_bytes())
    (tmp_path / "mine.json").write_text("{}")  # of somebody else
    assert followed(weights=str(renamed))["image_size"] == 64


def test_statistics_of_a_file_known_by_its_content(shared_weights):
    # torchvision's own file, given by its path
    file = str(shared_weights / "mobilenet_v2-b0353104.pth")
    assert image_statistics(file, 3) == image_statistics("mobilenet_v2_imagenet", 3)
    assert followed(weights=file)["backbone"] == "mobilenet_v2"


def test_a_renamed_file_is_known_by_its_hash_and_one_without_a_hash_by_its_name(shared_weights, tmp_path):
    (tmp_path / "mine.bin").write_bytes((shared_weights / "mobilenet_v2-b0353104.pth").read_bytes())
    assert image_statistics(str(tmp_path / "mine.bin"), 3)["mean"] == [0.485, 0.456, 0.406]
    source = SOURCES["densenet121_xrayvision_rsna"]
    file = tmp_path / source.file
    torch.save(build("densenet121", in_channels=1, num_classes=18).state_dict(), file)
    assert image_statistics(str(file), 1) == {"mean": [0.5], "std": [1 / 2048]}
    assert class_names(str(file)) == list(source.classes)
    other = file.rename(tmp_path / "other.pt")
    assert (image_statistics(str(other), 1)["std"], class_names(str(other))) == ([0.5], [])


def test_weights_whose_images_were_standardized_say_so_in_any_form(tmp_path):
    assert standardizes("resnet10_medicalnet")
    assert standardizes("resnet18_deepbet")
    assert not standardizes("resnet18_imagenet")
    assert not standardizes("none")
    torch.save({}, tmp_path / SOURCES["resnet10_medicalnet"].file)
    assert standardizes(str(tmp_path / SOURCES["resnet10_medicalnet"].file))


def saved(model, path):
    torch.save({"model": model.network().state_dict(), "about": model.to_dict()}, path)
    return str(path)


def test_another_runs_window_and_standardization_are_kept_unless_the_user_says_otherwise(tmp_path):
    model = Model(
        task="classification", classes=["a", "b"], backbone="resnet18", image_size=64, mean=[0.0], std=[1.0],
        window=[-1000, 200], standardize=True,
    )  # fmt: skip
    file = saved(model, tmp_path / "best.pt")
    assert standardizes(file)
    assert class_names(file) == ["a", "b"]
    values = followed(weights=file)
    assert (values["window"], values["standardize"]) == ([-1000, 200], True)
    values = followed(weights=file, window=[0, 100], standardize=False)
    assert (values["window"], values["standardize"]) == ([0, 100], False)
    assert followed(weights=file, percentiles=[1.0, 99.0])["window"] is None


def test_a_sources_window_is_taken_unless_the_user_says_how_images_are_scaled(monkeypatch):
    source = replace(SOURCES["resnet18_imagenet"], name="ct", window=(-1000, 200))
    monkeypatch.setitem(SOURCES, "ct", source)
    assert followed(weights="ct")["window"] == [-1000, 200]
    assert followed(weights="ct", window=[0, 1])["window"] == [0, 1]
    assert followed(weights="ct", percentiles=[1.0, 99.0])["window"] is None
    assert followed(weights="resnet18_imagenet")["window"] is None


@pytest.mark.parametrize("change", [{"std": [0.0]}, {"mean": [float("nan")]}])
def test_a_run_with_statistics_that_are_none_is_refused_with_its_name(change, run):
    content = torch.load(run)
    content["about"].update(change)
    torch.save(content, run)
    with pytest.raises(UserError, match=rf"best.pt: {next(iter(change))} must be"):
        followed(weights=run)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("key_map", "densenet", "key_map must be one of"),
        ("key_map", 3, "key_map must be text"),
        ("allow_missing", 3, "allow_missing must be a list of names"),
        ("source_classes", ["a", 3], "source_classes must be a list of names"),
    ],
)
def test_mistakes_in_what_is_said_of_weights_show_at_once(key, value, message):
    with pytest.raises(UserError, match=message):
        followed(**{key: value})


def test_another_files_model_json_says_nothing_of_it(tmp_path):
    save_weights(build("resnet18").state_dict(), tmp_path / "resnet.pth")
    (tmp_path / "model.json").write_text("{}")
    assert class_names(str(tmp_path / "resnet.pth")) == []


def test_backbones_as_text_and_as_dictionaries():
    assert read_backbone("resnet18") == "resnet18"
    assert read_backbone('{"_target_": "SegResNet"}') == {"_target_": "SegResNet"}
    for wrong in (3, ["resnet18"], {"name": "SegResNet"}, "{'_target_'"):
        with pytest.raises(UserError, match="backbone"):
            read_backbone(wrong)


@pytest.mark.parametrize(
    ("weights", "items", "cached", "wanted"),
    [
        ("efficientnet_lite0_imagenet", BOXED, None, DEFAULT),
        ("efficientnet_lite0_imagenet", [{}], None, "partial_freeze + ema"),
        ("efficientnet_lite0_imagenet", BOXED, "memory", "partial_freeze + ema"),
        ("none", BOXED, None, "scratch + localization + ema"),
        (None, [{}], None, "scratch + ema"),
    ],
)
def test_of_the_default_strategy_only_what_the_training_has_a_use_for(weights, items, cached, wanted):
    made = choose_strategy(DEFAULT, weights=weights, items=items, cache_features=cached)
    assert describe(made) == wanted
    exact = choose_strategy(DEFAULT, weights=weights, items=items, cache_features=cached, exact=True)
    assert describe(exact) == DEFAULT  # what the user asks for is never left out


def test_boxes_are_read_where_something_learns_from_them():
    assert wants_boxes(DEFAULT)
    assert not wants_boxes("finetune")
    assert wants_boxes("finetune", others=[None, 32])
    assert box_columns("auto", "finetune + ema") is None
    assert box_columns("auto", DEFAULT) == "auto"
    assert box_columns(["a", "b", "c", "d"], "finetune") == ["a", "b", "c", "d"]
    made = L2SP(alpha=0.5)
    assert choose_strategy(made, weights="none", items=[]) is made
