"""Weight surgery by its invariants, loading by its report, files and downloads by what goes wrong."""

import hashlib
import http.server
import io
import json
import re
import threading
import zipfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import cbook
from monai.networks.nets.resnet import get_medicalnet_pretrained_resnet_args
from PIL import Image
from torch import nn

from medtl_monai.backbones import BACKBONES, anatomy, build
from medtl_monai.utils import UserError
from medtl_monai.variants import apply
from medtl_monai.weights import (
    KEY_MAPS,
    SOURCES,
    adapt_channels,
    download,
    find,
    flatten_axes,
    inflate,
    load_weights,
    lookup,
    map_rows,
    read_weights,
    remap,
    resize_kernel,
    save_weights,
)

LITE0 = "efficientnet_lite0_imagenet"


@settings(deadline=None, max_examples=25)
@given(inputs=st.integers(1, 5), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_adapted_channels_give_the_same_output_for_equal_channels(inputs, n, seed):
    torch.manual_seed(seed)
    w, x = torch.randn(2, inputs, 3, 3), torch.randn(1, 1, 6, 6)
    want = nn.functional.conv2d(x.expand(1, inputs, 6, 6), w)
    got = nn.functional.conv2d(x.expand(1, n, 6, 6), adapt_channels(w, n))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(k=st.sampled_from([1, 3, 5]), mode=st.sampled_from(["mean", "centre"]), seed=st.integers(0, 99))
def test_an_inflated_kernel_equals_the_2d_one_on_depth_constant_input(k, mode, seed):
    torch.manual_seed(seed)
    w, x = torch.randn(2, 3, k, k), torch.randn(1, 3, 8, 8)
    want = nn.functional.conv2d(x, w)
    got = nn.functional.conv3d(x[:, :, None].expand(-1, -1, 7, -1, -1), inflate(w, 3, mode))
    torch.testing.assert_close(got, want[:, :, None].expand_as(got), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "k", "options"),
    [(3, 3, {}), (7, 5, {"stride": 2}), (8, 3, {"dilation": 2}), (7, 1, {"stride": 2}), (6, 3, {"groups": 2})],
)
def test_acs_kernels_give_what_acs_convolutions_give(outputs, k, options):
    """Three convolutions with kernels 1 x k x k, k x 1 x k and k x k x 1, as the paper describes them."""
    torch.manual_seed(0)
    w, bias = torch.randn(outputs, 4 // options.get("groups", 1), k, k), torch.randn(outputs)
    x, pad = torch.randn(1, 4, 7, 8, 9), options.get("dilation", 1) * (k // 2)
    got = nn.functional.conv3d(x, inflate(w, 3, "acs"), bias, padding=pad, **options)
    for part, axis in zip(torch.arange(outputs).tensor_split(3), (0, 1, 2), strict=True):
        padding = [0 if i == axis else pad for i in range(3)]
        plane = nn.functional.conv3d(x, w.unsqueeze(2 + axis), bias, padding=padding, **options)
        torch.testing.assert_close(got[:, part], plane[:, part], rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(k=st.sampled_from([1, 3, 7]), depth=st.integers(1, 5), mode=st.sampled_from(["mean", "centre"]))
def test_any_depth_of_the_new_axis_keeps_the_function_and_summing_it_undoes_the_inflation(k, depth, mode):
    w, x = torch.randn(2, 3, k, k), torch.randn(1, 3, 8, 8)
    deep = inflate(w, 3, mode, length=depth)
    assert deep.shape == (2, 3, depth, k, k)
    got = nn.functional.conv3d(x[:, :, None].expand(-1, -1, 7, -1, -1), deep)
    torch.testing.assert_close(got, nn.functional.conv2d(x, w)[:, :, None].expand_as(got), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flatten_axes(deep, 2), w)


@pytest.mark.parametrize("size", [(5, 7), (3, 9)])
def test_a_larger_kernel_gives_the_same_output_with_more_padding(size):
    w, x = torch.randn(2, 3, 3, 5), torch.randn(1, 3, 9, 9)
    got = nn.functional.conv2d(x, resize_kernel(w, size), padding=[n // 2 for n in size])
    torch.testing.assert_close(got, nn.functional.conv2d(x, w, padding=(1, 2)))


@settings(deadline=None, max_examples=25)
@given(old=st.integers(1, 7), new=st.integers(1, 7))
def test_a_kernel_of_another_size_answers_a_constant_image_as_before(old, new):
    w = torch.randn(2, 3, old, 4)
    got = resize_kernel(w, (new, 2))
    assert got.shape == (2, 3, new, 2)
    torch.testing.assert_close(got.sum((2, 3)), w.sum((2, 3)), rtol=1e-4, atol=1e-5)


def test_kernels_are_resized_on_request_alone():
    net, source = nn.Sequential(nn.Conv3d(1, 4, (3, 7, 7)), nn.Linear(4, 2)), {"0.weight": torch.randn(4, 3, 5, 5)}
    assert load_weights(net, source, allow_missing=["0"]).names("missing")[0] == "0.weight"
    how = load_weights(net, source, resize_kernels=True, allow_missing=["0.bias"]).entries[0].how
    assert how == "inflated 2D to 3D (centre), kernel 5x5x5 to 3x7x7, 3 to 1 input channels"


def test_an_unknown_inflation_is_refused():
    with pytest.raises(ValueError, match="'mean', 'centre' or 'acs'"):
        inflate(torch.ones(1, 1, 3, 3), 3, "middle")


def test_class_rows_outside_are_refused():
    with pytest.raises(UserError, match="class map 0: 2 lies outside"):
        map_rows(torch.ones(2, 1), torch.ones(2, 1), {0: 2})


def test_a_key_map_that_merges_two_keys_is_refused():
    with pytest.raises(ValueError, match="two weights the name 'w'"):
        remap({"a.w": torch.ones(1), "b.w": torch.ones(1)}, [(r"^[ab]\.", "")])


def partition(report, net):
    status = Counter(entry.name for entry in report.entries if entry.status != "unused")
    assert dict(status) == dict.fromkeys(net.state_dict(), 1)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_loaded_adapted_and_missing_are_the_networks_keys_each_once(dims):
    net = build("mobilenet_v2", spatial_dims=dims, in_channels=1, num_classes=3, width=0.25)
    source = build("mobilenet_v2", num_classes=7, width=0.25).state_dict()
    report = load_weights(net, {**source, "extra": torch.ones(1)})
    partition(report, net)
    assert report.coverage == 1.0
    assert report.names("unused") == ["extra"]
    assert report.names("missing") == ["classifier.1.weight", "classifier.1.bias"]
    assert ("features.0.0.weight" in report.names("adapted")) is True


def test_below_the_coverage_nothing_is_changed_and_the_error_names_both_sides():
    net = build("resnet10", num_classes=2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    source = {f"x{key}": value for key, value in build("resnet10").state_dict().items()}
    with pytest.raises(UserError, match=r"fills only 0.0% .* not filled are conv1.weight.*not used are xconv1"):
        load_weights(net, source)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert load_weights(net, source, key_map=[(r"^x", "")]).coverage == 1.0


def test_a_partly_fitting_source_counts_elements():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    report = load_weights(net, {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4)}, allow_missing=["0.bias"])
    assert (report.coverage, report.layers, report.allowed) == (pytest.approx(6 / 9), (0, 1), ("0.bias",))
    assert {e.name: e.how for e in report.entries}["0.bias"] == "the source's shape (4,) does not fit"


def test_known_classes_keep_their_rows():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    source = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 5)).state_dict()
    new = net[1].weight[0].clone()
    load_weights(net, source, class_map={1: 4})
    assert torch.equal(net[1].weight[1], source["1.weight"][4])
    assert torch.equal(net[1].weight[0], new)


def test_classes_of_the_same_name_keep_their_rows():
    net, source = build("densenet121", in_channels=1), build("densenet121", in_channels=1, num_classes=18).state_dict()
    known = SOURCES["densenet121_xrayvision_all"].classes
    load_weights(net, source, head="class_layers.out", classes=["normal", "lung opacity"], source_classes=known)
    row = known.index("Lung Opacity")
    assert torch.equal(net.class_layers.out.weight[1], source["class_layers.out.weight"][row])
    with pytest.raises(UserError, match="does not say what its classes are"):
        load_weights(net, source, classes=["normal"])


def test_a_class_map_without_rows_to_choose_from_is_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    source = {key: value for key, value in net.state_dict().items() if key.startswith("0.")}
    assert load_weights(net, source).coverage == 1.0
    with pytest.raises(UserError, match="tensors has no rows of 1 that the class map"):
        load_weights(net, source, class_map={0: 0})


def test_a_head_that_is_not_there_is_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(UserError, match="Sequential has no head 'fc': its last layer is '1'"):
        load_weights(net, net.state_dict(), head="fc")


def test_only_the_first_convolution_takes_other_channels():
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Conv1d(4, 4, 3), nn.Linear(2, 2))
    source = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv1d(8, 4, 3), nn.Linear(2, 2)).state_dict()
    how = {entry.name: entry.how for entry in load_weights(net, source, allow_missing=["1"]).entries}
    assert how["0.weight"] == "3 to 1 input channels"
    assert how["1.weight"] == "the source's shape (4, 8, 3) does not fit"


def test_a_segmentation_head_of_the_same_classes_is_inflated():
    net = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Conv3d(4, 2, 1))
    source = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)).state_dict()
    assert load_weights(net, source).names("missing") == []
    assert torch.equal(net[1].weight.squeeze(2), source["1.weight"])


def test_batch_counters_that_older_files_leave_out_do_not_lower_the_coverage():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    source = {key: value for key, value in net.state_dict().items() if "tracked" not in key}
    report = load_weights(net, source)
    assert (report.names("missing"), report.coverage) == (["0.num_batches_tracked"], 1.0)


def test_half_precision_is_cast_and_said_so():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    report = load_weights(net, {key: value.half() for key, value in net.state_dict().items()})
    assert {entry.how for entry in report.entries} == {"cast from float16"}


def test_no_source_is_said_and_covers_nothing(tmp_path):
    report = load_weights(build("resnet10"), "none")
    assert report.coverage is None
    assert "randomly initialized" in str(report)
    report.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["source"] == "none"


@pytest.mark.parametrize("dims", [2, 3])
def test_imagenet_weights_of_the_installed_package_fill_the_network(dims):
    net = build("efficientnet_lite0", spatial_dims=dims, in_channels=1, num_classes=3)
    report = load_weights(net, LITE0, head=anatomy(net).head)
    partition(report, net)
    assert report.coverage == 1.0
    assert report.sha256 == SOURCES[LITE0].sha256
    assert report.names("missing") == ["_fc.weight", "_fc.bias"]
    assert "3 to 1 input channels" in str(report)
    source = read_weights(find(LITE0))
    torch.testing.assert_close(net._bn1.running_var, source["_bn1.running_var"], rtol=0, atol=0)
    stem = net._conv_stem.weight if dims == 2 else net._conv_stem.weight.sum(2)
    torch.testing.assert_close(stem, source["_conv_stem.weight"].sum(1, keepdim=True))


def test_grey_images_give_the_same_logits_with_one_channel_as_with_three():
    one, three = (build("efficientnet_lite0", in_channels=n, num_classes=1000).eval() for n in (1, 3))
    load_weights(one, LITE0)
    load_weights(three, LITE0)
    x = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(one(x), three(x.expand(1, 3, 64, 64)), rtol=1e-3, atol=1e-4)


def test_torchvisions_mobilenet_file_fills_the_network(shared_weights):
    net = build("mobilenet_v2", num_classes=1000).eval()
    report = load_weights(net, shared_weights / "mobilenet_v2-b0353104.pth")
    assert report.coverage == 1.0
    assert set(Counter(e.status for e in report.entries)) == {"loaded"}
    assert report.source == "mobilenet_v2_imagenet"


def photograph():
    """Matplotlib's portrait of Grace Hopper, in uniform, as torchvision prepares images: ``(1, 3, 224, 224)``."""
    image = Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB").resize((224, 224))
    source, x = SOURCES["mobilenet_v2_imagenet"], torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (source.mean, source.std))
    return ((x - mean) / std)[None]


def repeat_along_depth(net):
    """Pad the depth of all convolutions by repetition, so that every path is an interior one."""
    for m in net.modules():
        if isinstance(m, nn.Conv3d) and m.padding[0]:
            sides = (0, 0, 0, 0, m.padding[0], m.padding[0])
            m.register_forward_pre_hook(lambda _, x, sides=sides: nn.functional.pad(x[0], sides, mode="replicate"))
            m.padding = (0, *m.padding[1:])


@pytest.mark.parametrize(("inflation", "repeated"), [("centre", False), ("mean", True), ("mean", False)])
def test_real_weights_in_3d_see_in_a_repeated_photograph_what_they_see_in_2d(inflation, repeated, shared_weights):
    flat, deep = (build("mobilenet_v2", spatial_dims=dims, num_classes=1000).eval() for dims in (2, 3))
    for net in (flat, deep):
        report = load_weights(net, shared_weights / "mobilenet_v2-b0353104.pth", inflation=inflation)
        assert report.coverage == 1.0
    if repeated:
        repeat_along_depth(deep)
    x = photograph()
    with torch.no_grad():
        want = flat(x)
        got = deep(x[:, :, None].expand(-1, -1, 4, -1, -1))
    assert want.argmax() == 652  # military uniform
    if inflation == "mean" and not repeated:  # zeros beyond the ends of the depth reach every place of the last map
        assert (got - want).abs().max() > 1
    else:
        assert got.argmax() == 652
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def test_every_entry_of_the_catalogue_is_complete():
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.licence
        assert source.citation
        assert source.package or source.url.startswith("https://")
        assert source.architecture in BACKBONES
        assert source.keys is None or source.keys in KEY_MAPS
        assert len(source.mean) in (0, source.in_channels)


@pytest.mark.parametrize("older", [False, True])
def test_torchvisions_densenet_names_lead_to_monais(older, shared_reference):
    want = json.loads((shared_reference / "torchvision" / "densenet121.json").read_text())
    theirs = {key: torch.empty(shape) for key, shape, _ in want["state_dict"]}
    if older:  # the file on the server says norm.1 where torchvision's class says norm1
        theirs = {re.sub(r"(layer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in theirs.items()}
    with torch.device("meta"):
        ours = build("densenet121", num_classes=1000).state_dict()
    renamed = remap(theirs, KEY_MAPS["torchvision_densenet"])
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in ours.items()}


def test_medicalnets_names_lead_to_monais_resnet():
    net = build("resnet10", spatial_dims=3, in_channels=1)
    theirs = {f"module.{key}": value for key, value in net.state_dict().items() if not key.startswith("fc.")}
    assert load_weights(net, theirs, key_map="medicalnet").coverage == 1.0


@pytest.mark.parametrize("depth", [10, 18, 34, 50])
def test_medicalnets_shortcuts_are_those_that_monai_found(depth):
    source = SOURCES[f"resnet{depth}_medicalnet"]
    shortcut = get_medicalnet_pretrained_resnet_args(depth)[1]
    assert source.options.get("shortcut_type", "B") == shortcut
    with torch.device("meta"):
        net = build(source.architecture, spatial_dims=3, in_channels=1, **source.options)
    assert any("downsample" in key for key in net.state_dict()) is (shortcut == "B")


def test_weights_that_need_options_fill_the_network_whole_or_say_which(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path))
    source = replace(SOURCES["resnet18_medicalnet"], file="small.pth")
    net = nn.Sequential(nn.Linear(100, 100), nn.Linear(1, 1), nn.Linear(100, 2))
    (tmp_path / "weights").mkdir()
    torch.save(
        {f"module.0.{key}": value for key, value in net[0].state_dict().items()}, tmp_path / "weights" / source.file
    )
    with pytest.raises(UserError, match=r"not filled are 1.weight.*build the network with {'shortcut_type': 'A'}"):
        load_weights(net, source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_lite0", "did you mean 'efficientnet_lite0_imagenet'"),
        ("zzz", "choose from efficientnet_lite0_imagenet"),
        ("some/model.pth", "no weight file some/model.pth"),
    ],
)
def test_unknown_weights_say_what_was_meant(name, message):
    with pytest.raises(UserError, match=message):
        find(name)


def test_normalization_is_the_sources_or_its_mean():
    mean, _ = lookup("resnet18_imagenet").normalization(3)
    assert mean == [0.485, 0.456, 0.406]
    assert lookup(LITE0).normalization(2)[0] == pytest.approx([127 / 255] * 2, abs=1e-6)
    assert lookup("resnet10_medicalnet").normalization(1) == ([0.0], [1.0])


class Gadget:
    """Something that must never be unpickled."""


def bad_file(kind, path: Path):
    good = io.BytesIO()
    torch.save({"w": torch.ones(1000)}, good)
    if kind == "code":
        torch.save({"model": Gadget()}, path)
    elif kind == "truncated":
        path.write_bytes(good.getvalue()[:-600])
    elif kind == "page":
        path.write_text("\n<!DOCTYPE html><html><body>Not found</body></html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("just text, no weights at all")
    elif kind == "number":
        torch.save({"epoch": 3}, path)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("code", "holds Python objects and no tensors"),
        ("truncated", "is no weight file, or is cut short or damaged"),
        ("page", "is a web page"),
        ("empty", "is empty"),
        ("text", "is no weight file, or is cut short or damaged"),
        ("number", "holds no tensors by name: expected a state_dict, found dict with epoch"),
        ("zip", "is a zip archive with a.txt, not a weight file: unpack it"),
        ("none", "there is no weight file"),
    ],
)
def test_bad_files_are_named_for_what_they_are(kind, message, tmp_path):
    path = tmp_path / "w.pth"
    bad_file(kind, path)
    with pytest.raises(UserError, match=message):
        read_weights(path)


def saved(legacy):
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(30.0)}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@settings(deadline=None, max_examples=60)
@given(legacy=st.booleans(), share=st.floats(0, 0.99))
@example(legacy=True, share=0.05)
def test_a_file_cut_short_anywhere_is_refused_in_one_sentence(tmp_path_factory, legacy, share):
    path, whole = tmp_path_factory.getbasetemp() / "cut.pth", saved(legacy)
    path.write_bytes(whole[: int(share * len(whole))])
    # cut inside a class's name, the header of an older file names a class that is not known
    with pytest.raises(UserError, match="is empty|is no weight file, or is cut short or damaged|holds Python objects"):
        read_weights(path)


@settings(deadline=None, max_examples=60)
@given(noise=st.binary(min_size=1, max_size=80))
@example(noise=b"\x80\x02}q\x00.")
def test_noise_is_refused_in_one_sentence(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise.pth"
    path.write_bytes(noise)
    with pytest.raises(UserError, match=r"noise\.pth (is|holds)"):
        read_weights(path)


class Whole(nn.Module):
    """A network that was pickled as a whole, with a table that is no weight."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.op_threshs = torch.ones(3)


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("bomb_went_off"),)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_tensors_are_taken_from_files_with_other_objects_and_nothing_runs(whole, legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = Whole()
    net.bomb = Bomb()
    content = net if whole else {"model": net.state_dict(), "settings": Bomb()}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    got = read_weights(tmp_path / "w.pt")
    assert list(got) == list(net.state_dict())
    assert all(torch.equal(got[key], value) for key, value in net.state_dict().items())
    assert not (tmp_path / "bomb_went_off").exists()


def write(state, path):
    if path.suffix == ".ts":
        net = nn.Linear(3, 2)
        net.load_state_dict(state)
        torch.jit.save(torch.jit.script(net), path)
    elif path.suffix == ".onnx":
        tensors = [onnx.numpy_helper.from_array(value.numpy(), key) for key, value in state.items()]
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)
    else:
        save_weights(state, path)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.onnx", "w.ts"])
def test_every_format_gives_the_same_tensors(name, tmp_path):
    state = nn.Linear(3, 2).state_dict()
    write(state, tmp_path / name)
    got = read_weights(tmp_path / name)
    assert set(got) == set(state)
    assert all(torch.equal(got[key], value) for key, value in state.items())


def test_sixteen_bits_keep_eleven_digits_of_weights_and_all_of_biases(tmp_path):
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 2))
    state = net.state_dict()
    for half in (False, True):
        save_weights(state, tmp_path / f"{half}.pt", half=half)
    got = read_weights(tmp_path / "True.pt")
    assert (tmp_path / "True.pt").stat().st_size < 0.7 * (tmp_path / "False.pt").stat().st_size
    for key, value in state.items():
        exact = value.ndim < 2
        torch.testing.assert_close(got[key].to(value), value, rtol=0 if exact else 2**-11, atol=0 if exact else 3e-8)
    assert load_weights(net, got).coverage == 1.0
    with pytest.raises(UserError, match="w holds values that 16 bits cannot"):
        save_weights({"w": torch.full((1, 1), 1e6)}, tmp_path / "x.pt", half=True)
    assert not (tmp_path / "x.pt").exists()


DEEPBET = "resnet18_deepbet"


def deepbet():
    try:
        return find(DEEPBET)
    except UserError:
        pytest.skip("deepbet's network is not installed: pip install --no-deps deepbet==1.0.2")


def test_deepbets_encoder_is_reproduced_by_our_backbone():
    program = torch.jit.load(deepbet(), map_location="cpu")
    theirs, read = program.state_dict(), read_weights(deepbet())
    assert list(read) == list(theirs)
    assert all(torch.equal(read[key], value) for key, value in theirs.items())
    source = SOURCES[DEEPBET]
    net = build("resnet18", spatial_dims=3, in_channels=1, **source.options).eval()
    report = load_weights(net, DEEPBET)
    assert report.coverage == 1.0
    assert len(report.names("loaded")) == 20
    assert report.names("missing") == ["fc.weight", "fc.bias"]
    assert all(name.startswith(("up", "conv", "tp_conv")) for name in report.names("unused"))
    x, features = torch.randn(1, 1, 32, 40, 48), {}
    net.layer4.register_forward_hook(lambda m, args, y: features.update(ours=y))
    with torch.no_grad():
        net(x)
        relu = getattr(program.conv, "2")
        y = program.init.forward(relu, x)
        for name in ("down0", "down1", "down2", "down3"):
            y = getattr(program, name).forward(relu, y)
    torch.testing.assert_close(features["ours"], y, rtol=1e-4, atol=1e-4)


class LinkNet(nn.Module):
    """deepbet's segmentation network, its decoder around our encoder (Chaurasia and Culurciello, VCIP 2017)."""

    def __init__(self):
        super().__init__()
        self.encoder = build("resnet18", spatial_dims=3, in_channels=1, **SOURCES[DEEPBET].options)
        for i, (old, new) in enumerate([(128, 64), (64, 32), (32, 16), (16, 16)]):
            up = nn.Sequential()
            up.conv1 = normed(nn.Conv3d(old, old // 4, 1, bias=False))
            up.tp_conv = normed(transposed(old // 4, old // 4, 1 if i == 3 else 2, bias=False))
            up.conv2 = normed(nn.Conv3d(old // 4, new, 1, bias=False))
            self.add_module(f"up{i}", up)
        self.tp_conv1 = normed(transposed(16, 8, 2))
        self.conv = normed(nn.Conv3d(8, 8, 3, padding=1))
        self.tp_conv2 = nn.ConvTranspose3d(8, 2, 2, stride=2)

    def forward(self, x):
        net = self.encoder
        skips = [net.maxpool(net.act(net.bn1(net.conv1(x))))]
        for layer in (net.layer1, net.layer2, net.layer3):
            skips.append(layer(skips[-1]))
        y = net.layer4(skips[-1])
        for up in (self.up0, self.up1, self.up2, self.up3):
            y = up(y) + skips.pop()
        return self.tp_conv2(self.conv(self.tp_conv1(y))).softmax(1)


def normed(layer):
    return nn.Sequential(layer, nn.InstanceNorm3d(layer.out_channels), nn.ReLU())


def transposed(inputs, outputs, stride, **options):
    return nn.ConvTranspose3d(inputs, outputs, 3, stride, 1, output_padding=stride - 1, **options)


def brain_scan():
    """The T1 volume that comes with nibabel, as deepbet prepares images (here at a quarter of its size)."""
    scan = nib.as_closest_canonical(nib.load(Path(nib.__file__).parent / "tests" / "data" / "anatomical.nii"))
    x = torch.from_numpy(np.ascontiguousarray(scan.get_fdata(dtype=np.float32)))[None, None]
    x = nn.functional.interpolate(x, (64, 64, 64), mode="nearest-exact")
    low, high = x.quantile(0.005), x.quantile(0.995)
    x = ((x - low) / (high - low)).clamp(0, 1)
    return 0.226 * (x - x.mean()) / x.std() + 0.449


def test_deepbets_segmentation_of_a_real_brain_is_reproduced_before_its_transfer():
    net, state = LinkNet().eval(), read_weights(deepbet())
    assert load_weights(net.encoder, DEEPBET).coverage == 1.0
    rest = {key: value for key, value in state.items() if not key.startswith(("init", "down"))}
    assert set(rest) == {key for key in net.state_dict() if not key.startswith("encoder.")}
    net.load_state_dict(rest, strict=False)
    x, program = brain_scan(), torch.jit.load(deepbet(), map_location="cpu").eval()
    with torch.no_grad():
        got, want = net(x), program(x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    brain = got[0, 1] > 0.5
    assert torch.equal(brain, want[0, 1] > 0.5)
    assert 0.2 < brain.float().mean() < 0.8  # the volume is a part of a head, its brain and some of its skull
    unet = build("unet_resnet18", spatial_dims=3, in_channels=1, **SOURCES[DEEPBET].options)
    assert load_weights(unet, DEEPBET, encoder="encoder").coverage == 1.0
    assert torch.equal(unet.encoder.layer4[0].conv1.weight, net.encoder.layer4[0].conv1.weight)


def test_another_file_of_that_name_is_not_taken_for_the_catalogues(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "model.pt")
    assert load_weights(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.pt").source.endswith(".pt")


def test_images_are_scaled_as_torchxrayvision_does():
    source = SOURCES["densenet121_xrayvision_all"]
    grey = np.array([0.0, 100.0, 255.0])
    want = (2 * (grey / 255) - 1) * 1024  # torchxrayvision.datasets.normalize
    np.testing.assert_allclose((grey / 255 - source.mean[0]) / source.std[0], want)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_statistics_of_the_converted_networks_equal_transform_input(name):
    # torchvision: images normalized with ImageNet's statistics, then per channel x * (std / 0.5) + (mean - 0.5) / 0.5
    ours, imagenet, x = SOURCES[f"{name}_imagenet"], SOURCES["resnet18_imagenet"], np.linspace(0, 1, 5)
    for c in range(3):
        theirs = (x - imagenet.mean[c]) / imagenet.std[c] * (imagenet.std[c] / 0.5) + (imagenet.mean[c] - 0.5) / 0.5
        np.testing.assert_allclose((x - ours.mean[c]) / ours.std[c], theirs, atol=1e-12)


def test_a_cached_file_with_a_wrong_hash_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path))
    source = SOURCES["resnet18_imagenet"]
    (tmp_path / "weights").mkdir()
    torch.save({}, tmp_path / "weights" / source.file)
    with pytest.raises(UserError, match="expected a SHA-256 beginning f37072fd"):
        find("resnet18_imagenet")


def test_wrappers_and_prefixes_are_taken_off(tmp_path):
    torch.save({"state_dict": {"module._orig_mod.w": torch.ones(1)}, "epoch": 3}, tmp_path / "w.pt")
    assert list(read_weights(tmp_path / "w.pt")) == ["w"]


CONTENT = bytes(range(256)) * 40_000


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves one file; can be told to cut the first answer short, and understands ranges."""

    cut = False
    ranges: list = []

    def do_GET(self):
        if self.path != "/file.bin":
            self.send_error(404)
            return
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].rstrip("-"))
        type(self).ranges.append(start)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        if self.cut:
            type(self).cut = False
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def url():
    Server.cut, Server.ranges = False, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_that_was_cut_goes_on_where_it_stopped(url, tmp_path):
    Server.cut = True
    path, digest = tmp_path / "cache" / "file.bin", hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(UserError, match="cut after .* call again to go on"):
        download(f"{url}/file.bin", path, sha256=digest)
    assert not path.exists()
    download(f"{url}/file.bin", path, sha256=digest[:8])
    assert path.read_bytes() == CONTENT
    assert Server.ranges == [0, len(CONTENT) // 2]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "sha256", "message"), [("file.bin", "00", "is not the expected file"), ("x.bin", None, "HTTP 404")]
)
def test_a_download_that_is_not_right_leaves_nothing(name, sha256, message, url, tmp_path):
    with pytest.raises(UserError, match=message):
        download(f"{url}/{name}", tmp_path / "file.bin", sha256=sha256)
    assert not any(tmp_path.iterdir())


def test_a_part_that_was_whole_already_is_taken(url, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(f"{url}/file.bin", tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_processes_of_torchrun_do_not_write_into_the_same_part(url, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:10])  # rank 0 is on its way
    download(f"{url}/file.bin", tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:10]


def test_a_part_of_another_file_is_thrown_away(url, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    with pytest.raises(UserError, match="the part that was kept is of another file"):
        download(f"{url}/file.bin", tmp_path / "file.bin")
    assert not any(tmp_path.iterdir())


def test_no_network_says_where_to_put_the_file(tmp_path):
    with pytest.raises(UserError, match=r"put the file at .*file.bin by hand"):
        download("http://127.0.0.1:9/file.bin", tmp_path / "file.bin")


def test_equals_the_package_that_the_weights_come_from():
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(read_weights(find(LITE0)))
    ours = build("efficientnet_lite0", num_classes=1000).eval()
    load_weights(ours, LITE0)
    x = torch.from_numpy(np.sin(np.arange(3 * 224 * 224) * 0.001).astype(np.float32)).reshape(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "variant", [{"adapter": "lora"}, {"adapter": "residual"}, {"norm": "domain"}, {"norm": "group"}]
)
def test_pretrained_weights_load_into_a_network_with_variants(variant):
    source = build("resnet18", in_channels=3, num_classes=2)
    network = build("resnet18", in_channels=1, num_classes=2)
    apply(network, variant, blocks=["layer1", "layer2"])
    report = load_weights(network, source.state_dict())
    assert report.coverage == 1
    added = {e.name for e in report.entries if e.how == "added by a variant"}
    assert bool(added) == ("adapter" in variant)
    if variant != {"norm": "group"}:
        x = torch.randn(1, 1, 64, 64)
        torch.testing.assert_close(network.eval()(x), source.eval()(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)
    again = apply(build("resnet18", in_channels=1, num_classes=2), variant, blocks=["layer1", "layer2"])
    assert load_weights(again, network.state_dict()).names("missing") == []
