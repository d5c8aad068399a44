"""U-Nets: what their encoders see, their blocks, and weights that fill the encoder or the whole."""

import copy

import pytest
import torch
from conftest import context
from torch import nn

from medtl_monai.backbones import UNETS, TransferUNet, anatomy, build
from medtl_monai.strategies import STRATEGIES
from medtl_monai.strategies import build as build_strategy
from medtl_monai.utils import UserError, is_under
from medtl_monai.variants import apply
from medtl_monai.weights import load_weights

SMALL = ["unet_efficientnet_lite0", "unet_mobilenet_v2", "unet_resnet18", "unet_densenet121", "unet", "basicunet",
         "flexibleunet"]  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_logits_have_the_images_size_and_blocks_hold_every_entry_once(name):
    net = build(name, in_channels=1, num_classes=4).eval()
    x = torch.randn(2, 1, 96, 70) if name in SMALL[:4] else torch.randn(2, 1, 96, 64)
    with torch.no_grad():
        y = net(x)
        assert torch.equal(copy.deepcopy(net)(x), y)
    assert y.shape == (2, 4, *x.shape[2:])
    parts = anatomy(net)
    for key in net.state_dict():
        assert sum(is_under(key, block.prefixes) for block in parts.blocks) == 1, key
    assert net.get_submodule(parts.head)
    assert parts.features > 0


def test_every_backbone_has_its_unet():
    assert {"unet_resnet50", "unet_efficientnet_b0", "unet_efficientnet_lite4", "unet", "basicunet"} <= set(UNETS)
    assert build("unet_mobilenet_v2", spatial_dims=3, in_channels=1)(torch.randn(2, 1, 32, 40, 33)).ndim == 5


def test_without_a_decoder_each_place_is_classified_by_itself():
    net = build("fcn_resnet18", in_channels=1, num_classes=3).eval()
    classifier = build("resnet18", in_channels=1, num_classes=3).eval()
    encoder = {f"encoder.{key}": value for key, value in classifier.state_dict().items() if not key.startswith("fc.")}
    head = {"head.0.weight": classifier.fc.weight[..., None, None], "head.0.bias": classifier.fc.bias}
    net.load_state_dict({**encoder, **head})
    image = torch.randn(2, 1, 96, 64)
    logits = net(image)
    assert logits.shape == (2, 3, 96, 64)
    places = torch.nn.functional.interpolate(classifier_map(classifier, image), (96, 64), mode="bilinear")
    torch.testing.assert_close(logits, places, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fcn_vgg11", "fcn_mobilenet_v3_small", "fcn_efficientnet_lite0"])
def test_dense_layers_behind_the_last_map_are_taken_out(name):
    net = build(name, in_channels=1)
    last = anatomy(net).blocks[-2]
    assert last.prefixes[-1] == f"encoder.{net._taps[-1]}"
    assert not any(isinstance(module, torch.nn.Linear) for module in net.encoder.modules())
    net(torch.randn(2, 1, 64, 64)).sum().backward()
    unused = [key for key, p in net.named_parameters() if p.grad is None]
    assert not unused


def classifier_map(classifier, image):
    """The linear classifier at every place of the last map."""
    found = []
    handle = classifier.layer4.register_forward_hook(lambda _, __, output: found.append(output))
    classifier(image)
    handle.remove()
    return classifier.fc(found[0].movedim(1, -1)).movedim(-1, 1)


def test_the_encoder_computes_what_the_classifier_does():
    classifier = build("resnet18", in_channels=3, num_classes=7).eval()
    net = build("unet_resnet18", in_channels=3, num_classes=2).eval()
    report = load_weights(net, classifier.state_dict(), head="head", encoder="encoder")
    assert report.coverage == 1.0
    assert set(report.names("unused")) == {"encoder.fc.weight", "encoder.fc.bias"}
    news = {entry.name.split(".")[0] for entry in report.entries if entry.status == "missing"}
    assert news == {"decoder", "head"}
    assert {e.how for e in report.entries if e.name.startswith("decoder")} == {"new, outside the encoder"}
    seen = {}
    for module in (classifier.layer3, net.encoder.layer3):
        module.register_forward_hook(lambda m, args, output: seen.__setitem__(id(m), output))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        classifier(x), net(x)
    one, two = seen.values()
    assert torch.equal(one, two)


def test_a_classifier_fills_the_encoder_of_monais_flexible_unet():
    classifier = build("resnet50", in_channels=3, num_classes=7).eval()
    net = build("flexibleunet", in_channels=3, backbone="resnet50").eval()
    parts = anatomy(net)
    assert [block.name for block in parts.blocks[:6]] == [
        "encoder.stem", *(f"encoder.layer{i}" for i in (1, 2, 3, 4)), "decoder.blocks.0"
    ]  # fmt: skip
    report = load_weights(net, classifier.state_dict(), head=parts.head, encoder=parts.encoder)
    assert set(report.names("unused")) == {"encoder.fc.weight", "encoder.fc.bias"}
    seen = []
    classifier.layer4.register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        classifier(x)
        torch.testing.assert_close(net.encoder(x)[-1], seen[0])


def test_another_unet_fills_decoder_and_encoder_but_not_a_head_of_other_classes():
    source = build("unet_mobilenet_v2", in_channels=1, num_classes=2)
    net = build("unet_mobilenet_v2", in_channels=1, num_classes=4)
    report = load_weights(net, source.state_dict(), head="head", encoder="encoder")
    assert report.coverage == 1.0
    assert set(report.names("missing")) == {"head.0.weight", "head.0.bias"}


def test_too_little_of_the_encoder_is_refused():
    with pytest.raises(UserError, match="fills only"):
        load_weights(build("unet_resnet18"), {"conv1.weight": torch.zeros(64, 3, 7, 7)}, head="head", encoder="encoder")


def test_a_network_whose_maps_do_not_halve_is_no_encoder():
    def flat(**kwargs):
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    with pytest.raises(UserError, match="cannot be an encoder"):
        TransferUNet(flat)
    with pytest.raises(UserError, match="InceptionV3 cannot be an encoder: it does not take an image of 64 pixels"):
        build("fcn_inception_v3")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_prepares_and_groups_a_unet(name):
    net = apply(build("unet_mobilenet_v2", in_channels=1), {"dropout": 0.1}, blocks=["encoder.features.1"])
    strategy = build_strategy(name)
    task = "segmentation" if "segmentation" in strategy.tasks else "classification"
    strategy.bind(context(anatomy(net).features, task=task, size=(64, 64)))
    net = strategy.prepare(net)
    groups = strategy.param_groups(net, lr=1e-3)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert {id(p) for p in net.parameters()} <= set(held)
    strategy.on_epoch(net, 1)
    net.train()(torch.randn(2, 1, 64, 64)).square().mean().backward()
    strategy.close()
