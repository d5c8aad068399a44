"""Backbones against torchvision's reference outputs, and the anatomy of every network."""

import hashlib
import json

import numpy as np
import pytest
import torch
from conftest import context
from monai.losses import DeepSupervisionLoss
from monai.networks.nets import UNet
from torch import nn

from medtl_monai import strategies
from medtl_monai.backbones import BACKBONES, SpatialPyramidPool, anatomy, build
from medtl_monai.backbones.efficientnet_lite import _evened, _padding
from medtl_monai.backbones.layers import conv_norm, cut
from medtl_monai.strategies import STRATEGIES
from medtl_monai.utils import UserError, is_under

AUX = {name: {"aux_logits": True} for name in ("googlenet", "inception_v3")}


def fill(net):
    """The deterministic weights of the reference: sines in state_dict's order, batch norm at identity scale."""
    norms = {n + ".weight" for n, m in net.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    for i, (key, value) in enumerate(net.state_dict().items()):
        if not value.is_floating_point():
            continue
        if key.endswith("running_var") or key in norms:
            value.fill_(1.0)
        else:
            sines = np.arange(value.numel(), dtype=np.float64)  # in place: a dense layer of VGG has 10 ** 8 weights
            sines *= 0.1
            sines += i
            np.sin(sines, out=sines)
            sines *= 0.02
            value.copy_(torch.from_numpy(sines).reshape(value.shape))


def empty(name):
    """A network whose weights are still to be filled."""
    with torch.device("meta"):
        net = build(name, num_classes=1000, **AUX.get(name, {}))
    return net.to_empty(device="cpu")


def logits(net, side):
    """Of the deterministic weights for the deterministic image."""
    fill(net.eval())
    x = torch.from_numpy(np.sin(np.arange(3 * side * side, dtype=np.float64) * 0.001).astype(np.float32))
    with torch.no_grad():
        return net(x.reshape(1, 3, side, side))[0].double()


@pytest.mark.parametrize(
    "name", ["alexnet", "vgg16", "googlenet", "inception_v3", "mobilenet_v2", "resnet18", "densenet121"]
)
def test_reproduces_torchvision(name, shared_reference):
    # the order of the entries is the same in MONAI's networks, so the fill needs no key map
    want = json.loads((shared_reference / "torchvision" / f"{name}.json").read_text())
    net = empty(name)
    assert [list(v.shape) for v in net.state_dict().values()] == [shape for _, shape, _ in want["state_dict"]]
    if name != "densenet121":  # MONAI puts each dense layer into a Sequential: weights.KEY_MAPS renames
        assert list(net.state_dict()) == [key for key, _, _ in want["state_dict"]]
    got = logits(net, want["input_hw"][0])
    np.testing.assert_allclose(got[:16], want["logits_first16"], atol=1e-5)
    assert float(got.sum()) == pytest.approx(want["logits_sum"], abs=1e-4)


# torchvision 0.20.1 under the same weights and image: hash of names and shapes (DenseNet's are MONAI's), logits, sum
TORCHVISION = {
    "mobilenet_v3_small": ("201d5f5fea280e26", [0.0366882, -0.1167002, -0.0161071, 0.0765275], 0.078441),
    "mobilenet_v3_large": ("dd96ce54857dc547", [0.0698572, -0.1281483, 0.1021775, -0.0256904], -0.088492),
    "resnet34": ("ea3c41f6d89ab8bc", [-0.0650232, 0.106567, 0.1864722, 0.1083542], 0.312313),
    "resnet50": ("218340f9d3037dea", [-0.3386776, -0.0098966, 0.2840523, -0.529106], 0.155884),
    "densenet169": ("", [0.0874711, -0.0455647, 0.0503319, -0.0140157], -0.070694),
    "efficientnet_b0": ("cadbdd9b70cf0131", [0.0578822, 0.0709277, -0.1009253, 0.1277801], 0.011792),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_reproduces_more_of_torchvision(name):
    digest, first, total = TORCHVISION[name]
    net = empty(name)
    listed = json.dumps([[key, list(value.shape)] for key, value in net.state_dict().items()])
    assert hashlib.sha256(listed.encode()).hexdigest().startswith(digest)
    got = logits(net, 224)
    np.testing.assert_allclose(got[:4], first, atol=1e-5)
    assert float(got.sum()) == pytest.approx(total, abs=1e-4)


# parameters with 1000 classes as torchvision documents them; of the last two as their ports to PyTorch have them
PUBLISHED = {
    **{"alexnet": 61100840, "googlenet": 13004888, "inception_v3": 27161264},
    **{"vgg11": 132863336, "vgg13": 133047848, "vgg16": 138357544, "vgg19": 143667240},
    **{"vgg11_bn": 132868840, "vgg13_bn": 133053736, "vgg16_bn": 138365992, "vgg19_bn": 143678248},
    **{"mobilenet_v2": 3504872, "mobilenet_v3_small": 2542856, "mobilenet_v3_large": 5483032},
    **{"resnet18": 11689512, "resnet34": 21797672, "resnet50": 25557032, "resnet101": 44549160, "resnet152": 60192808},
    **{"densenet121": 7978856, "densenet169": 14149480, "densenet201": 20013928, "efficientnet_b0": 5288548},
    **{"efficientnet_b7": 66347960},
    **{"inception_v4": 42679816, "inception_resnet_v2": 55843464},
}


# one of each family, with its smallest image, and without the hundred million weights of dense layers
SMALL = {
    **{"lenet5": (16, {}), "alexnet": (63, {"head": []}), "vgg11_bn": (32, {"pool": "avg"})},
    **{name: (32, {}) for name in ("googlenet", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0")},
    **{name: (75, {}) for name in ("inception_v3", "inception_v4", "inception_resnet_v2")},
    **{name: (32, {}) for name in ("resnet18", "resnet18_v2", "densenet121", "efficientnet_b0", "seresnext50")},
}
DEEP = ("inception_v3", "inception_v4", "inception_resnet_v2")  # a hundred layers and more
DIMENSIONS = [
    *(pytest.param(name, dims, marks=pytest.mark.slow if name in DEEP else ()) for name in SMALL for dims in (1, 2)),
    *((name, 3) for name in ("lenet5", "googlenet", "mobilenet_v3_small", "efficientnet_lite0", "resnet18_v2")),
]


def small(name, dims, **options):
    size, own = SMALL[name]
    torch.manual_seed(0)
    return build(name, spatial_dims=dims, in_channels=2, num_classes=3, **{**own, **options}), [size] * dims


@pytest.mark.parametrize(("name", "dims"), DIMENSIONS)
def test_every_strategy_works_on_every_family(name, dims):
    net, size = small(name, dims)
    x, y = torch.randn(2, 2, *size), torch.tensor([0, 2])
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    for strategy_name in STRATEGIES if normed else STRATEGIES.keys() - {"freeze_bn", "adabn"}:
        strategy = strategies.build(strategy_name)
        if "classification" not in strategy.tasks:
            continue
        strategy.bind(context(anatomy(net).features, classes=3, channels=2, size=size))
        assert strategy.prepare(net) is net
        grouped = [id(p) for group in strategy.param_groups(net, lr=0.1) for p in group["params"]]
        own = [p for p in strategy.parameters() if p.requires_grad]
        assert sorted(grouped) == sorted(id(p) for p in [*net.parameters(), *own])
        strategy.on_epoch(net, 1)
        strategy.close()
    net.requires_grad_(True)
    strategy = strategies.build("partial_freeze(blocks=-1)")
    strategy.prepare(net)
    parts, before = anatomy(net), {key: value.clone() for key, value in net.state_dict().items()}
    nn.functional.cross_entropy(net.train()(x), y).backward()
    torch.optim.SGD(strategy.param_groups(net, lr=0.1), lr=0.1).step()
    moved = [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]
    assert moved
    assert all(is_under(key, [parts.head]) for key in moved)


@pytest.mark.parametrize(
    "name", ["lenet5", "googlenet", "resnet18", "resnet18_v2", "mobilenet_v3_small", "densenet121"]
)
@pytest.mark.parametrize("pool", [None, "avg", "max", "spp"])
def test_a_head_of_dense_layers_follows_any_pooling(name, pool):
    net, size = small(name, 2, pool=pool, head=[8, 4])
    assert net.eval()(torch.randn(2, 2, *[2 * n for n in size])).shape == (2, 3)
    parts = anatomy(net)
    dense = [m for m in net.get_submodule(parts.head) if isinstance(m, nn.Linear)]
    assert [m.out_features for m in dense] == [8, 4, 3]
    assert dense[0].in_features == parts.features
    assert not isinstance(net.get_submodule(parts.head), nn.Linear)


def test_spatial_pyramid_against_slices():
    x = torch.randn(2, 3, 8, 8)
    got = SpatialPyramidPool(2, (1, 2))(x)
    quarters = [x[..., i : i + 4, j : j + 4].amax((2, 3)) for i in (0, 4) for j in (0, 4)]
    torch.testing.assert_close(got, torch.cat([x.amax((2, 3)), torch.stack(quarters, 2).flatten(1)], 1))


def test_an_unknown_pooling_is_refused():
    with pytest.raises(UserError, match="no pooling 'pyramid': choose from avg, max, spp"):
        build("lenet5", pool="pyramid")


@pytest.mark.parametrize(
    ("name", "size", "weights"), [("googlenet", 64, [1, 0.3, 0.3]), ("inception_v3", 299, [1, 0.4])]
)
def test_auxiliary_heads_give_a_list_for_deep_supervision_in_training_alone(name, size, weights):
    net = build(name, in_channels=1, num_classes=3, aux_logits=True)
    parts, x, y = anatomy(net), torch.randn(2, 1, size, size), torch.tensor([0, 2])
    assert all(is_under(f"{head}.weight", parts.blocks[-1].prefixes) for head in net.auxiliary)
    logits = net(x)
    assert [tuple(t.shape) for t in logits] == [(2, 3)] * len(weights)
    loss = DeepSupervisionLoss(nn.CrossEntropyLoss(), weights=weights)(logits, y)
    want = sum(w * nn.functional.cross_entropy(t, y) for w, t in zip(weights, logits, strict=True))
    torch.testing.assert_close(loss, want)
    assert net.eval()(x).shape == (2, 3)


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "resnet18_v2"])
def test_can_be_scripted(name):
    net, size = small(name, 2)
    x = torch.randn(1, 2, *size)
    torch.testing.assert_close(torch.jit.script(net.eval())(x), net(x))


def test_preactivation_block_by_hand():
    block = build("resnet18_v2").layer2[0].eval()
    x, f = torch.randn(1, 64, 8, 8), nn.functional
    conv1, norm, _, conv2 = block.layers
    y = f.relu(block.first[0](x))
    want = conv2(f.relu(norm(conv1(y)))) + f.conv2d(y, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(x), want)


def test_dense_layers_keep_their_shape_in_three_dimensions():
    for name in ("lenet5", "alexnet", "vgg16"):
        with torch.device("meta"):
            flat, deep = (build(name, spatial_dims=dims) for dims in (2, 3))
        shapes = [[v.shape for k, v in net.state_dict().items() if k.startswith("classifier")] for net in (flat, deep)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", BACKBONES)
def test_every_entry_lies_in_exactly_one_block_and_there_are_as_many_as_published(name):
    with torch.device("meta"):
        net = build(name, num_classes=1000, **AUX.get(name, {}))
    if name in PUBLISHED:
        assert sum(p.numel() for p in net.parameters()) == PUBLISHED[name]
    parts = anatomy(net)
    for key in net.state_dict():
        assert sum(is_under(key, block.prefixes) for block in parts.blocks) == 1, key
    assert parts.blocks[-1].prefixes[-1] == parts.head
    assert len(parts.blocks) >= 5
    weights = [v for k, v in net.state_dict().items() if is_under(k, [parts.head]) and v.ndim == 2]
    assert [tuple(w.shape) for w in weights] == [(1000, parts.features)]


class Own(nn.Module):
    """A network that nobody knows."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.end = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))


def test_an_unknown_network_is_opened_up_to_its_last_layer():
    parts = anatomy(Own())
    assert [block.name for block in parts.blocks] == ["body", "end.1", "end.3"]
    assert (parts.head, parts.features) == ("end.3", 4)


def test_wrappers_do_not_hide_the_blocks():
    assert anatomy(nn.DataParallel(Own())) == anatomy(Own())


def test_a_unet_has_a_head_that_is_its_last_convolution():
    net = UNet(2, 1, 3, (4, 8), (2,), num_res_units=0)
    parts = anatomy(net)
    for key in net.state_dict():
        assert sum(is_under(key, block.prefixes) for block in parts.blocks) == 1, key


def test_parameters_beside_modules_are_refused():
    net = Own()
    net.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="Own holds scale beside modules: its blocks are unclear"):
        anatomy(net)


def test_buffers_beside_modules_are_refused():
    net = Own()
    net.end.register_buffer("mean", torch.ones(1))
    with pytest.raises(ValueError, match="end holds mean beside modules"):
        anatomy(net)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "resnet_18"}, "did you mean 'resnet18'"),
        ({"name": "resnet18", "spatial_dims": 4}, "must be 1, 2 or 3"),
        ({"name": "resnet18", "drop": 0.1}, "resnet18 does not take drop"),
        ({"name": "basicunet", "head": [8]}, "BasicUNet is no classification network"),
    ],
)
def test_bad_requests_say_what_to_do(kwargs, message):
    with pytest.raises(UserError, match=message):
        build(**kwargs)


def test_stochastic_depth_leaves_out_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    block = build("efficientnet_lite0", drop_connect=0.5)._blocks[-2]  # the last residual one: 14 of 16 on the ramp
    x = torch.randn(1, 192, 4, 4).expand(400, -1, -1, -1)
    with torch.no_grad():
        residual = block.eval()(x)[0] - x[0]
        block.train()
        for norm in (block._bn0, block._bn1, block._bn2):
            norm.eval()
        got = block(x) - x
    left_out = got.flatten(1).abs().amax(1) == 0
    assert left_out.float().mean() == pytest.approx(0.5 * 14 / 16, abs=0.08)
    kept = residual / (1 - 0.5 * 14 / 16)
    torch.testing.assert_close(got[~left_out], kept.expand_as(got[~left_out]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 10])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_strided_convolutions_pad_as_tensorflow_does(size, kernel_size):
    conv = nn.Conv1d(1, 1, kernel_size, 2, _padding(kernel_size))
    x = torch.arange(1.0, size + 1)[None, None]
    total = 2 * (-(-size // 2) - 1) + kernel_size - size  # half the size, rounded up, comes out; the odd zero goes last
    padded = nn.functional.pad(x, (total // 2, total - total // 2))
    expected = nn.functional.conv1d(padded, conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(cut(conv(_evened(x))), expected)
    if kernel_size == 3:  # the stem's
        assert torch.equal(_evened(x, 1), padded)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_with_given_statistics_folded_into_its_convolution_changes_nothing(dims, bias):
    torch.manual_seed(0)
    conv = getattr(nn, f"Conv{dims}d")(6, 8, 3, 2, 1, groups=2, bias=bias)
    norm = getattr(nn, f"BatchNorm{dims}d")(8, eps=1e-3)
    x = torch.randn(3, 6, *[7] * dims)
    for _ in range(3):
        norm(conv(x))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    assert torch.equal(conv_norm(conv, norm, x), norm(conv(x)))  # in training it is not folded
    norm.eval()
    found, expected = conv_norm(conv, norm, x), norm(conv(x))
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = [*conv.parameters(), *norm.parameters()]
    for a, b in zip(*(torch.autograd.grad(out.sin().sum(), weights) for out in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(conv_norm(conv, norm, x, cuts=True), cut(expected), rtol=1e-5, atol=1e-5)
    heard = []
    handle = norm.register_forward_hook(lambda *call: heard.append(call[-1]))
    assert torch.equal(conv_norm(conv, norm, x), heard[0])
    handle.remove()
