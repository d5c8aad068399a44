"""Names of other trainers, brought to the network's: each trainer's own, and any prefix."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medtl_monai.backbones import anatomy, build
from medtl_monai.utils import UserError
from medtl_monai.weights import KEY_MAPS, load_weights, read_rules, read_weights, source_head


def small(classes=3):
    torch.manual_seed(classes)
    return build("resnet10", spatial_dims=2, in_channels=3, num_classes=classes, widen_factor=0.125)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def numbered(network, prefix):
    """The keys of ``nn.Sequential(*network.children())`` without its last child."""
    return prefixed(nn.Sequential(*list(network.children())[:-1]).state_dict(), prefix)


def assert_filled(network, source, file, head="fc"):
    """Every weight outside the head is the source's, whatever its name in the file."""
    report = load_weights(network, file, head=head)
    want, got = source.state_dict(), network.state_dict()
    assert all(torch.equal(got[key], value) for key, value in want.items() if not key.startswith(head))
    assert report.coverage == 1.0
    return report


WRAPPED = {
    "Lightning": lambda s: {"epoch": 3, "state_dict": prefixed(s, "model."), "optimizer_states": [{}]},
    "MMPretrain": lambda s: {
        "meta": {},
        "state_dict": {("head." if key.startswith("fc") else "backbone.") + key: value for key, value in s.items()},
    },
    "MoCo": lambda s: {
        "state_dict": {
            **prefixed(s, "module.encoder_q."),
            **{key: value + 1 for key, value in prefixed(s, "module.encoder_k.").items()},
            "module.queue": torch.zeros(4, 4),
        }
    },
    "DINO": lambda s: {
        "student": {key: value + 1 for key, value in prefixed(s, "module.backbone.").items()},
        "teacher": prefixed(s, "module.backbone."),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    },
    "SparK": lambda s: {"arch": "resnet10", "module": s, "is_pretrain": True},
    "timm": lambda s: {"epoch": 1, "state_dict": {k: v + 1 for k, v in s.items()}, "state_dict_ema": s},
    "timm, older": lambda s: {"epoch": 1, "model": {k: v + 1 for k, v in s.items()}, "model_ema": s},
    "nnU-Net": lambda s: {"network_weights": s, "init_args": {}, "optimizer_state": {}},
    "VISSL": lambda s: {"classy_state_dict": {"base_model": {"model": {"trunk": prefixed(s, "_feature_blocks.")}}}},
    "DataParallel and compile": lambda s: {"net": prefixed(s, "module._orig_mod.")},
    "parts": lambda s: {"encoder": s, "optimizer": {"encoder": {"w": torch.ones(2)}}, "step": torch.tensor(3)},
}


@pytest.mark.parametrize("trainer", WRAPPED)
def test_files_of_other_trainers_fill_the_network(trainer, tmp_path):
    source, network = small(5), small(3)
    torch.save(WRAPPED[trainer](source.state_dict()), tmp_path / "w.pth")
    assert_filled(network, source, tmp_path / "w.pth")


NAMES = st.from_regex(r"\A[a-z_][a-z0-9_]{0,7}\Z").filter(lambda name: name not in ("fc", "conv1", "bn1"))


@settings(deadline=None, max_examples=20)
@given(parts=st.lists(NAMES, min_size=1, max_size=4), beside=st.booleans())
def test_any_common_prefix_is_taken_off_and_said(parts, beside):
    prefix, source, network = ".".join(parts) + ".", small(3), small(3)
    state = prefixed(source.state_dict(), prefix)
    if beside:
        state = {"projector.0.weight": torch.ones(2, 2), **state, "temperature": torch.ones(1)}
    report = load_weights(network, state, head="fc")
    assert report.renamed == f"without {prefix!r}"
    assert f"its names without {prefix!r}" in str(report)
    assert report.names("missing") == []
    assert set(report.names("unused")) == ({"projector.0.weight", "temperature"} if beside else set())


def test_names_that_fit_stay_as_they_are():
    report = load_weights(small(3), {**small(3).state_dict(), **prefixed(small(3).state_dict(), "other.")}, head="fc")
    assert report.renamed == ""
    assert all(name.startswith("other.") for name in report.names("unused"))


def test_a_file_of_other_names_is_refused_by_its_own_names():
    """``conv1`` stands in every block: a prefix that leads to a few of them is none."""
    with pytest.raises(UserError, match=r"not used are qconv1.weight, qbn1.weight"):
        load_weights(small(), {f"q{key}": value for key, value in small().state_dict().items()}, head="fc")


@pytest.mark.parametrize("name", ["resnet18", "inception_v3"])
def test_radimagenets_numbers_lead_to_names(name):
    source, network = (build(name, in_channels=3, num_classes=n) for n in (4, 2))
    report = assert_filled(network, source, numbered(source, "backbone."))
    assert report.renamed == "without 'backbone.', then by the key map numbered children"


def torchvisions(state, older=False):
    """MONAI's names of a DenseNet in torchvision's words."""
    dot = "." if older else ""
    found = {re.sub(r"layers\.(norm|conv)([12])\.", rf"\1{dot}\2.", key): value for key, value in state.items()}
    return {key.replace("class_layers.out.", "classifier."): value for key, value in found.items()}


@pytest.fixture(scope="module")
def densenet():
    torch.manual_seed(0)
    return build("densenet121", in_channels=3, num_classes=14)


@pytest.mark.parametrize("form", ["torchvision", "older", "CheXNet", "RadImageNet"])
def test_densenets_of_others_fill_the_network(form, densenet):
    state = torchvisions(densenet.state_dict(), older=form in ("older", "CheXNet"))
    if form == "CheXNet":
        state = prefixed(state, "module.densenet121.")
        state = {key.replace("classifier.", "classifier.0."): value for key, value in state.items()}
    if form == "RadImageNet":
        state = {f"backbone.0.{k.removeprefix('features.')}": v for k, v in state.items() if k.startswith("features")}
    network = build("densenet121", in_channels=3, num_classes=14)
    report = assert_filled(network, densenet, state, head="class_layers")
    whole = form != "RadImageNet"
    assert (report.names("missing") == []) is whole
    head = source_head(network, state, head=anatomy(network).head)
    assert head is None or torch.equal(head.weight, densenet.class_layers.out.weight)
    assert (head is not None) is whole


@pytest.mark.parametrize("prefix", ["", "model.", "encoder.", "model.encoder."])
def test_a_classifier_fills_a_units_encoder_under_any_prefix(prefix):
    source = build("resnet18", in_channels=3, num_classes=5)
    network = build("unet_resnet18", in_channels=3, num_classes=2)
    report = load_weights(network, prefixed(source.state_dict(), prefix), head="head", encoder="encoder")
    assert report.encoder == "encoder"
    assert report.layers == (40, 40)
    assert torch.equal(network.encoder.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_a_whole_unet_under_a_prefix_fills_its_decoder_too():
    source, network = (build("unet_mobilenet_v2", num_classes=2, in_channels=1) for _ in range(2))
    report = load_weights(network, prefixed(source.state_dict(), "net."), head="head", encoder="encoder")
    assert (report.encoder, report.names("missing")) == ("", [])


def test_key_maps_are_names_files_dictionaries_and_text(tmp_path):
    source = small(3)
    state = {f"q{key}": value for key, value in source.state_dict().items()}
    (tmp_path / "map.json").write_text('{"^q": ""}')
    for key_map in ("^q=", {"^q": ""}, [("^q", "")], str(tmp_path / "map.json")):
        assert load_weights(small(3), state, head="fc", key_map=key_map).coverage == 1.0
    assert read_rules("torchvision_densenet") is KEY_MAPS["torchvision_densenet"]
    assert read_rules("a=b ^(c)=\\1") == [("a", "b"), ("^(c)", "\\1")]


@pytest.mark.parametrize(
    ("key_map", "message"),
    [
        ("densenet", "must be one of torchvision_densenet, .* a JSON file, or pattern=replacement"),
        ("", "must be one of"),
        ("(=x", "no rule for names"),
        ("^a=\\1", "no rule for names"),
        ("nowhere.json", "nowhere.json cannot be read as JSON"),
        (3, "must be text, a dictionary or a list of rules"),
        ([1], "1 is no pattern and its replacement"),
        ({"a": 3}, "is no pattern and its replacement"),
    ],
)
def test_key_maps_that_are_none_are_refused(key_map, message):
    with pytest.raises(UserError, match=message):
        read_rules(key_map)


def test_a_key_map_file_holds_a_dictionary(tmp_path):
    (tmp_path / "map.json").write_text("[1]")
    with pytest.raises(UserError, match="must hold a dictionary"):
        read_rules(str(tmp_path / "map.json"))


def test_an_optimizers_state_is_not_taken_for_weights(tmp_path):
    torch.save(
        {"encoder": {"w": torch.ones(2)}, "optimizer": {"state": {0: {"exp": torch.ones(2)}}}}, tmp_path / "w.pt"
    )
    assert list(read_weights(tmp_path / "w.pt")) == ["encoder.w"]
