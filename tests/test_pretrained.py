"""Source weights into a training's network: whose classes the head keeps, and what the user says of the source."""

import logging

import onnx
import pytest
import torch

from medtl_monai.backbones import build
from medtl_monai.bundle import transfer
from medtl_monai.model import Model
from medtl_monai.strategies import build as strategy
from medtl_monai.utils import UserError
from medtl_monai.weights import save_weights

CLASSES = ["normal", "focal", "diffuse"]


def network(classes=3):
    torch.manual_seed(classes)
    return build("resnet10", in_channels=1, num_classes=classes, widen_factor=0.125)


@pytest.fixture
def run(tmp_path):
    """The checkpoint of a run with these classes."""

    def make(classes):
        torch.manual_seed(9)
        model = Model(
            task="classification", classes=classes, backbone="resnet10", image_size=64, mean=[0.3], std=[0.1],
            variant={"widen_factor": 0.125},
        )  # fmt: skip
        made = model.network()
        torch.save({"model": made.state_dict(), "about": model.to_dict()}, tmp_path / "best.pt")
        return str(tmp_path / "best.pt"), made

    return make


def learned(weights, **options):
    made = network()
    new = made.fc.weight.detach().clone()
    done = transfer(made, strategy("finetune"), weights, device="cpu", classes=3, class_names=CLASSES, **options)
    return done, new


@pytest.mark.parametrize("theirs", [CLASSES, CLASSES[::-1], ["Diffuse", "other"], ["a", "b", "c"]])
def test_the_head_of_another_run_is_kept_by_the_names_of_its_classes(theirs, run):
    file, source = run(theirs)
    done, new = learned(file)
    names = [name.lower() for name in theirs]
    for i, name in enumerate(CLASSES):
        want = source.fc.weight[names.index(name)] if name in names else new[i]
        assert torch.equal(done.network.fc.weight[i], want)
    assert done.report.coverage == 1.0


def test_a_head_whose_classes_nothing_names_is_new_unless_the_user_names_them(tmp_path, caplog):
    caplog.set_level(logging.INFO, "medtl_monai")
    logging.getLogger("medtl_monai").propagate = True
    source = network(3)
    torch.save(source.state_dict(), tmp_path / "mine.pth")
    done, new = learned(str(tmp_path / "mine.pth"))
    assert torch.equal(done.network.fc.weight, new)
    assert "new head, as no class is known to be the same" in caplog.text
    done, _ = learned(str(tmp_path / "mine.pth"), source_classes=CLASSES)
    assert torch.equal(done.network.fc.weight, source.fc.weight)


def test_key_map_and_missing_layers_are_the_users_to_say(tmp_path):
    state = {f"q{key}": value for key, value in network(5).state_dict().items() if not key.startswith("layer4")}
    torch.save(state, tmp_path / "mine.pth")
    with pytest.raises(UserError, match="--key_map"):
        learned(str(tmp_path / "mine.pth"))
    with pytest.raises(UserError, match="not filled are layer4"):
        learned(str(tmp_path / "mine.pth"), key_map="^q=")
    done, _ = learned(str(tmp_path / "mine.pth"), key_map={"^q": ""}, allow_missing="layer4")
    assert done.report.allowed
    assert torch.equal(done.network.conv1.weight, network(5).conv1.weight)


def test_what_needs_a_source_is_refused_without_one():
    with pytest.raises(UserError, match="L2SP needs pretrained weights, and weights is none"):
        transfer(network(), strategy("l2_sp"), "none", device="cpu")


def written(source, path):
    if path.suffix == ".onnx":
        tensors = [onnx.numpy_helper.from_array(value.numpy(), key) for key, value in source.state_dict().items()]
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)
    elif path.suffix == ".pkl":
        torch.save(source, path)
    elif path.suffix == ".ts":
        torch.jit.save(torch.jit.trace(source.eval(), torch.zeros(1, 1, 64, 64)), path)
    else:
        save_weights(source.state_dict(), path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.onnx", "w.pkl", "w.ts", "w.pth"])
def test_whatever_can_be_read_can_be_trained_from(name, tmp_path):
    source = network(5)
    written(source, tmp_path / name)
    done, _ = learned(str(tmp_path / name))
    assert done.report.coverage == 1.0
    assert torch.equal(done.network.layer4[0].conv2.weight, source.layer4[0].conv2.weight)


@pytest.mark.parametrize("options", [{"pretrained": True}, {"weights": "imagenet"}])
def test_a_file_cannot_start_a_download(options):
    model = Model(
        task="classification", classes=["a", "b"], backbone="resnet18", image_size=64, mean=[0.3], std=[0.1],
        variant=options,
    )  # fmt: skip
    with pytest.raises(UserError):
        model.network()
