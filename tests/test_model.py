"""A model as plain data: round trips, what is refused, and what its fields mean."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medtl_monai.bundle import install_model, load_network, read_model
from medtl_monai.inference import MultiViewInferer
from medtl_monai.model import Model
from medtl_monai.utils import UserError

SMALL = {"_target_": "DenseNet121", "init_features": 4, "growth_rate": 2, "block_config": [1, 1]}


def model(**changes):
    about = {
        "task": "classification",
        "classes": ["a", "b", "c"],
        "backbone": "lenet5",
        "image_size": 32,
        "mean": [0.4],
        "std": [0.2],
    }
    return Model(**{**about, **changes})


sizes = st.floats(0.1, 4, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(
    scales=st.lists(sizes, min_size=1, max_size=3),
    mirrors=st.lists(st.lists(st.integers(0, 1), max_size=2, unique=True), min_size=1, max_size=3),
    lower=st.floats(0, 40),
    upper=st.floats(60, 100),
    classes=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True),
)
def test_what_is_saved_is_read_back(tmp_path_factory, scales, mirrors, lower, upper, classes):
    one = model(scales=scales, mirrors=mirrors, percentiles=(lower, upper), classes=classes, backbone=SMALL)
    assert Model.from_dict(json.loads(json.dumps(one.to_dict()))).to_dict() == one.to_dict()
    path = tmp_path_factory.getbasetemp() / "round.pt"
    torch.save({"model": {}, "about": one.to_dict()}, path)
    assert Model.read(path).to_dict() == one.to_dict()


STACKS = {"task": "segmentation", "images": "stacks"}
REFUSED = [
    ({"task": "regression"}, "task must be one of classification, multilabel, segmentation, got 'regression'"),
    ({"classes": []}, "classes must be a list of names"),
    ({"std": [0.0]}, "std must be a number above 0 for each channel"),
    ({"mean": [float("nan")]}, "mean must be a number for each channel"),
    ({"mean": [0.5, 0.5]}, "mean must be a number for each channel"),
    ({"channels": 1_000_000_000}, "channels must be a whole number from 1 to 1024"),
    ({"image_size": 2**40}, "image_size must be a whole number from 8 to 4096"),
    ({"percentiles": [99, 1]}, "0 <= lower < upper <= 100"),
    ({"percentiles": [0, float("inf")]}, "0 <= lower < upper <= 100"),
    ({"scales": [0.0]}, "scales must be numbers above 0"),
    ({"mirrors": [[3]]}, "mirrors must be lists of axes"),
    ({"crop": 1.5}, "crop must be a number above 0 and at most 1"),
    ({"structures": {"heart": 0}}, "structures must be names with whole numbers above 0"),
    ({"largest_component": "yes"}, "largest_component must be true or false"),
    ({"images": "breasts", "crop_size": 16, "lesion_map": True}, "exclude each other"),
    ({"crop_size": 16}, "are for images of breasts"),
    ({"classes": ["a", "a", "b"]}, "classes must be different names"),
    ({"classes": ["a", "predicted"]}, "a class cannot be called 'predicted'"),
    ({"images": "stacks"}, "task classification does not go with images stacks"),
    (
        {**STACKS, "classes": ["background", "b", "a"], "structures": {"a": 1, "b": 2}},
        "structures must have different values, in the order of the classes",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[", ".join(changes) for changes, _ in REFUSED])
def test_what_no_training_writes_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        model(**changes)


def test_a_file_that_says_nothing_or_something_else_is_refused(tmp_path):
    path = tmp_path / "best.pt"
    with pytest.raises(UserError, match=r"there are no trained weights at .*best\.pt"):
        Model.read(path)
    torch.save({"model": {"w": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="holds weights alone, and says neither what they are of"):
        Model.read(path)
    torch.save({"about": {"task": "classification"}}, path)
    with pytest.raises(UserError, match=r"best\.pt: a model is a dictionary with task, classes, backbone"):
        Model.read(path)
    torch.save({"about": {**model().to_dict(), "colour": "red"}}, path)
    with pytest.raises(UserError, match="a model has no colour"):
        Model.read(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint that can be read safely") as caught:
        Model.read(path)
    assert "weights_only" not in str(caught.value)  # no advice to read it unsafely


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.hub.load", "monai.networks.nets.os"])
def test_a_file_does_not_choose_what_code_is_imported(target):
    with pytest.raises(UserError, match="no network of monai"):
        model(backbone={"_target_": target}).network()


def test_a_variant_downloads_nothing_and_names_what_it_does_not_have():
    for name in ("in_channels", "num_classes", "spatial_dims"):
        with pytest.raises(UserError, match=f"variant has no '{name}'"):
            model(variant={name: 3}).network()
    with pytest.raises(UserError, match="does not take nrom .* did you mean 'norm'"):
        model(variant={"nrom": "batch"}).network()
    with pytest.raises(UserError, match="give it beside _target_"):
        model(backbone=SMALL, variant={"width": 2}).network()


def test_a_network_of_monai_is_built_again_with_its_weights(tmp_path):
    torch.manual_seed(0)
    about = model(backbone=SMALL, channels=2, mean=[0.1, 0.2], std=[1, 2], variant={"dropout": 0.5})
    network = about.network().eval()
    torch.save({"model": network.state_dict(), "about": about.to_dict(), "epoch": 1}, tmp_path / "best.pt")
    x = torch.randn(2, 2, 32, 32)
    again = load_network(Model.read(tmp_path / "best.pt"), str(tmp_path / "best.pt"), device="cpu")
    torch.testing.assert_close(again(x), network(x))
    broken = {key: value * float("nan") for key, value in network.state_dict().items() if value.is_floating_point()}
    torch.save({"model": {**network.state_dict(), **broken}, "about": about.to_dict()}, tmp_path / "nan.pt")
    with pytest.raises(UserError, match="holds weights that are no finite numbers"):
        load_network(about, str(tmp_path / "nan.pt"), device="cpu")
    with pytest.raises(UserError, match="does not fit the network"):
        load_network(model(), str(tmp_path / "best.pt"), device="cpu")


def test_an_installed_model_is_a_plain_state_dict_with_its_data_beside_it(tmp_path):
    about, folder = model(), tmp_path / "bundle" / "models"
    network = about.network().eval()
    torch.save({"model": network.state_dict(), "about": about.to_dict(), "epoch": 1}, tmp_path / "best.pt")
    install_model(tmp_path / "best.pt", folder)
    network.load_state_dict(torch.load(folder / "model.pt", weights_only=True))  # as MONAI's tools do
    assert Model.read(folder / "model.pt").to_dict() == about.to_dict()
    assert not [path for path in folder.iterdir() if path.name not in ("model.pt", "model.json")]


def test_the_model_of_another_kind_of_images_is_refused(tmp_path):
    torch.save({"model": {}, "about": model().to_dict()}, tmp_path / "best.pt")
    usual = model(images="breasts").to_dict()
    with pytest.raises(UserError, match="is of a model of slices, and this bundle is for breasts"):
        read_model(str(tmp_path / "best.pt"), usual)
    assert read_model(str(tmp_path / "best.pt"), model(classes=["x"]).to_dict(), scales=[2.0]).scales == [2.0]
    assert read_model(str(tmp_path / "none.pt"), usual).images == "breasts"


def test_pairs_crops_and_maps_of_breasts():
    breast = {"images": "breasts", "backbone": "efficientnet_lite0", "classes": ["normal", "tumour"]}
    pairs = model(**breast, compare_sides=True)
    assert (pairs.takes_pairs, pairs.divides_pairs, pairs.judges_whole, pairs.input_shape) == (
        True,
        False,
        False,
        (2, 32, 32),
    )
    crops = model(**breast, compare_sides=True, crop_size=16)
    assert (crops.takes_pairs, crops.divides_pairs, crops.input_shape) == (False, True, (1, 16, 16))
    maps = model(**breast, lesion_map=True)
    assert (maps.learns, maps.task, maps.network().eval()(torch.zeros(1, 1, 32, 32)).ndim) == (
        "segmentation",
        "classification",
        4,
    )
    with pytest.raises(UserError, match="lesion_map and mix exclude each other"):
        maps.prepare_batch(mix=torch.nn.Identity())


def test_masks_go_back_through_what_prepared_the_image():
    heart = {"classes": ["background", "heart"], "structures": {"heart": 1}}
    stacks = model(task="segmentation", images="stacks", backbone="unet_resnet18", **heart)
    assert len(stacks.postprocessing(stacks.preparation("test")).transforms) > 1
    with pytest.raises(UserError, match="give what prepared the image"):
        stacks.postprocessing()


def test_predictions_in_words():
    p = np.array([[0.2, 0.5, 0.3], [0.6, 0.7, 0.1]])
    assert model().predicted(p) == ["b", "b"]
    assert model(task="multilabel").predicted(p) == ["No Finding", "a|b"]


def test_views_are_averaged_as_the_model_says():
    inferer = model(scales=[1.0, 1.5], mirrors=[[], [1]]).inferer()
    assert isinstance(inferer, MultiViewInferer)
    assert (inferer.scales, inferer.mirrors) == ((1.0, 1.5), ((), (1,)))
    assert model(scales=[1.0, 1.5], mirrors=[[], [1]]).views() == "4 views an image (sizes 1, 1.5; 2 orientations)"
    assert model().views() == "one view an image"
    assert model().changed(scales=[2.0], mirrors=None).scales == [2.0]
