"""Networks from plain data: what is built, and what is refused in one sentence."""

import copy
import json

import pytest
import torch
from monai.networks import nets
from torch import nn

from medtl_monai.backbones import BACKBONES, UNETS, VGG, MobileNetV3, anatomy, build, build_target
from medtl_monai.utils import UserError

GIVEN = {"spatial_dims": 2, "in_channels": 1, "num_classes": 3}
VIT = {"_target_": "ViT", "img_size": 32, "patch_size": 16, "hidden_size": 24, "mlp_dim": 32, "num_layers": 1}
VIT |= {"num_heads": 2, "classification": True}
DYN = {"_target_": "DynUNet", "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
DYN |= {"filters": [4, 8, 8], "deep_supervision": True}


def make(spec, **given):
    return build_target(spec, **{**GIVEN, **given})


@pytest.fixture
def offline(monkeypatch):
    """No file and no address is opened."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"opened {args}")

    for name in ("torch.load", "torch.hub.load_state_dict_from_url", "urllib.request.urlopen", "os.system"):
        monkeypatch.setattr(name, refuse)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("SegResNet", nets.SegResNet),
        ("monai.networks.nets.SegResNet", nets.SegResNet),
        ("monai.networks.nets.segresnet.SegResNet", nets.SegResNet),
        ("monai.networks.nets.resnet.resnet10", nets.ResNet),
        ("resnet18", nets.ResNet),
        ("SEResNet50", nets.SENet),
        ("densenet121", nets.DenseNet),
        ("MedNeXtS", nets.MedNeXt),
        ("medtl_monai.backbones.VGG", VGG),
        ("medtl_monai.backbones.plain.VGG", VGG),
    ],
)
def test_a_network_by_its_short_or_dotted_name(target, kind, offline):
    net = make({"_target_": target})
    assert type(net) is kind or isinstance(net, kind)
    assert anatomy(net).features > 0


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "builtins.eval", "subprocess.Popen", "torch.hub.load", "torch.nn.Linear", "Linear", "nn.Linear"),
        *("monai.networks.nets.os", "monai.networks.nets.densenet.torch.hub.load", "monai.networks.nets.densenet.nn"),
        *("monai.networks.nets.densenet.Conv", "monai.networks.nets.densenet.load_state_dict_from_url"),
        *("monai.networks.nets.hovernet.download_url", "monai.networks.nets.resnet.hf_hub_download"),
        *("get_pretrained_resnet_medicalnet", "monai.networks.nets.resnet._resnet", "drop_connect", "vista3d132"),
        *("medtl_monai.backbones.factory.get_close_matches", "medtl_monai.backbones.build", "build", "set_head"),
        *("medtl_monai.backbones.unet.torch.load", "medtl_monai.backbones.factory.nets.DenseNet121"),
        *("medtl_monai.backbones.target.build_target", "medtl_monai.backbones.TransferUNet", "Head"),
        *("..", ".", "", "monai.networks.nets.", "monai.networks.nets..os", "medtl_monai.backbones...utils"),
        *("monai.networks.nets.__init__", "__builtins__", "DenseNet.__init__", "monai.networks.nets.DenseNet.forward"),
        *("monai.networks.nets.densenet.__loader__", "monai.networks.nets.resnet.DenseNet121.__globals__"),
        *("monai.networks.netsos", "monai.networks.nets/densenet", "$import os", "@network", " DenseNet121"),
        *(None, 3, ["DenseNet121"], {"_target_": "DenseNet121"}, nets.DenseNet121),
    ],
)
def test_nothing_but_a_network_is_looked_up(target, offline):
    with pytest.raises(UserError, match=r"^_target_ .* is no network of monai.networks.nets or medtl_monai.backbones"):
        make({"_target_": target})


def test_a_description_without_a_target_is_refused():
    with pytest.raises(UserError, match="_target_ None is no network"):
        make({"init_filters": 8})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"_target_": "DenseNet112"}, r"did you mean 'DenseNet\d+'\?"),
        ({"_target_": "monai.networks.nets.SegResnet"}, "did you mean 'SegResNet'"),
        ({"_target_": "medtl_monai.backbones.MobilenetV3"}, "did you mean 'MobileNetV3'"),
        (
            {"_target_": "SegResNet", "init_filter": 8},
            "SegResNet does not take init_filter: did you mean 'init_filters'",
        ),
        ({"_target_": "SegResNet", "zzz": 8}, "SegResNet does not take zzz: leave it out"),
        ({"_target_": "resnet18", "conv1_t_strid": 2}, "resnet18 does not take .* did you mean 'conv1_t_stride'"),
        ({"_target_": "SEResNet50", "dropout_prb": 2}, "did you mean 'dropout_prob'"),
    ],
)
def test_a_misspelt_word_has_a_hint(spec, message):
    with pytest.raises(UserError, match=message):
        make(spec)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("$__import__('os').system('true')", "is an expression, which is not evaluated here"),
        ("@other", "is an expression"),
        (["relu", {"inplace": "$True"}], "is an expression"),
        ({"_target_": "torch.nn.ReLU"}, "'_target_' is no name of an argument: nothing inside a network's is built"),
        (["relu", [{"_target_": "torch.nn.ReLU"}]], "nothing inside a network's is built"),
        ({1: "relu"}, "1 is no name of an argument"),
        (nn.ReLU, "arguments are numbers, text, lists and dicts of these, got type"),
        (torch.ones(1), "got Tensor"),
    ],
)
def test_arguments_are_plain_data(value, message, offline):
    with pytest.raises(UserError, match=message):
        make({"_target_": "SegResNet", "act": value})


def test_a_key_of_a_parser_is_no_argument():
    with pytest.raises(UserError, match="'_mode_' is no name of an argument"):
        make({"_target_": "SegResNet", "_mode_": "debug"})


@pytest.mark.parametrize(
    "spec",
    [
        {"_target_": "DenseNet121", "pretrained": True},
        {"_target_": "resnet18", "pretrained": "/etc/passwd"},
        {"_target_": "SEResNet50", "pretrained": 1},
        {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": True},
        {"_target_": "FlexibleUNet", "backbone": "resnet18", "pretrained": True},
        {"_target_": "AHNet", "pretrained": True},
        {"_target_": "HoVerNet", "pretrained_url": "http://localhost/x"},
        {"_target_": "ResNetFeatures", "model_name": "resnet18", "pretrained": True},
    ],
)
def test_nothing_is_downloaded(spec, offline):
    with pytest.raises(UserError, match=r"^\w+: pretrained\w*=.* would load weights unasked|is no network"):
        make(spec)


def test_a_default_that_downloads_is_switched_off(offline):
    net = make({"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"})
    assert net.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    make({"_target_": "resnet10", "pretrained": False, "progress": False})


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "seresnet50", "flexibleunet", "unet_resnet18"])
def test_the_options_of_a_backbone_download_nothing_either(name, offline):
    assert name in BACKBONES | UNETS
    with pytest.raises(UserError, match=f"^{name}: pretrained=True would load weights unasked"):
        build(name, pretrained=True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"_target_": "SegResNet", "spatial_dims": 3},
            "spatial_dims is 3, but spatial_dims is 2: leave spatial_dims out",
        ),
        ({"_target_": "resnet18", "n_input_channels": 3}, "n_input_channels is 3, but in_channels is 1"),
        ({"_target_": "DenseNet121", "out_channels": 2}, "out_channels is 2, but num_classes is 3"),
        (
            {"_target_": "Classifier", "in_shape": [3, 8, 8], "channels": [4], "strides": [2]},
            r"in_shape is \[3, 8, 8\]",
        ),
        (VIT | {"classification": False}, "ViT classifies with 'classification': True alone"),
        ({k: v for k, v in VIT.items() if k != "classification"}, "ViT classifies with 'classification': True alone"),
        (VIT | {"post_activation": "Tanh"}, "with post_activation 'Tanh' the outputs are no logits"),
        ({"_target_": "SegResNet", "use_conv_final": False}, "SegResNet was built without its head"),
        ({"_target_": "resnet10", "feed_forward": False}, "ResNet was built without its head"),
        ({"_target_": "AutoEncoder"}, "AutoEncoder cannot be used, as it neither classifies nor segments"),
        ({"_target_": "SegResNetVAE", "input_image_size": [8, 8]}, "SegResNetVAE cannot be used, as it gives a loss"),
        ({"_target_": "DynUNet"}, "DynUNet cannot be built from .*missing 3 required positional arguments"),
        ({"_target_": "SegResNet", "init_filters": 6}, "SegResNet cannot be built from .*must be divisible"),
        ({"_target_": "resnet10", "block": "basic"}, "resnet10 cannot be built from .*multiple values"),
        ({"_target_": "BasicUNet", "norm": "nrm"}, "BasicUNet cannot be built"),
        ({"_target_": "medtl_monai.backbones.VGG", "depth": 12}, "VGG cannot be built from .*depth must be 11"),
        ({"_target_": "NetAdapter", "model": "resnet18"}, "NetAdapter cannot be built"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(spec, message, offline):
    if spec["_target_"] == "ViT":
        pytest.importorskip("einops")
    with pytest.raises(UserError, match=message) as caught:
        make(spec)
    assert "\n" not in str(caught.value)


def test_quicknat_is_flat():
    with pytest.raises(UserError, match="Quicknat works in two dimensions alone, but spatial_dims is 3"):
        make({"_target_": "Quicknat"}, spatial_dims=3)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("medtl_monai.backbones.target.find_spec", lambda name: None)
    with pytest.raises(UserError, match="SwinUNETR needs the package einops: pip install einops"):
        make({"_target_": "SwinUNETR"})


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        (VIT, lambda out: out[0]),
        (DYN, lambda out: out[:, 0]),
        (
            {"_target_": "SegResNetDS", "init_filters": 8, "blocks_down": [1, 1, 1], "dsdepth": 2, "norm": "instance"},
            lambda out: out[0],
        ),
        ({"_target_": "BasicUNetPlusPlus", "features": [4] * 6, "deep_supervision": True}, lambda out: out[-1]),
        ({"_target_": "BasicUNetPlusPlus", "features": [4] * 6}, lambda out: out[0]),
        ({"_target_": "MedNeXt", "init_filters": 4, "kernel_size": 3, "deep_supervision": True}, lambda out: out[0]),
    ],
    ids=lambda value: value["_target_"] if isinstance(value, dict) else "",
)
def test_the_main_output_is_the_only_one(spec, plain):
    if spec["_target_"] == "ViT":
        pytest.importorskip("einops")
    net, x = make(spec), torch.randn(2, 1, 32, 32)
    bare = copy.deepcopy(net)
    bare._forward_hooks.clear()
    assert list(bare.state_dict()) == list(net.state_dict())
    for twin in (net, copy.deepcopy(net)):
        logits = twin.train()(x)
        assert logits.shape == ((2, 3) if spec["_target_"] == "ViT" else (2, 3, 32, 32))
        torch.testing.assert_close(logits, plain(bare.train()(x)))
        other = bare.eval()(x)
        torch.testing.assert_close(twin.eval()(x), other if isinstance(other, torch.Tensor) else plain(other))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_description_survives_json_and_a_checkpoint(dims, tmp_path):
    spec = {"_target_": "UNet", "channels": [4, 8], "strides": [2], "act": ["relu", {"inplace": True}], "dropout": 0.0}
    net = make(spec, spatial_dims=dims)
    torch.save({"model": net.state_dict(), "settings": {"backbone": spec}}, tmp_path / "a.pt")
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    again = make(json.loads(json.dumps(saved["settings"]["backbone"])), spatial_dims=dims)
    again.load_state_dict(saved["model"])
    x = torch.randn(1, 1, *[8] * dims)
    assert torch.equal(net.eval()(x), again.eval()(x))
    assert spec == json.loads(json.dumps(spec))  # left as it was


def test_our_own_networks_take_arguments_likewise():
    net = make({"_target_": "MobileNetV3", "size": "small", "dropout": 0.1})
    assert isinstance(net, MobileNetV3)
    assert net.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
