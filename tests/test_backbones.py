"""Backbones against torchvision's reference outputs, and the anatomy of every network."""

import json

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from medtl_monai.backbones import BACKBONES, anatomy, build
from medtl_monai.backbones.efficientnet_lite import _SamePadded
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
            sines = 0.02 * np.sin(np.arange(value.numel(), dtype=np.float64) * 0.1 + i)
            value.copy_(torch.from_numpy(sines.astype(np.float32)).reshape(value.shape))


@pytest.mark.parametrize(
    "name", ["alexnet", "vgg16", "googlenet", "inception_v3", "mobilenet_v2", "resnet18", "densenet121"]
)
def test_reproduces_torchvision(name, shared_reference):
    # the order of the entries is the same in MONAI's networks, so the fill needs no key map
    want = json.loads((shared_reference / "torchvision" / f"{name}.json").read_text())
    net = build(name, num_classes=1000, **AUX.get(name, {})).eval()
    assert [list(v.shape) for v in net.state_dict().values()] == [shape for _, shape, _ in want["state_dict"]]
    if name != "densenet121":  # MONAI puts each dense layer into a Sequential: weights.KEY_MAPS renames
        assert list(net.state_dict()) == [key for key, _, _ in want["state_dict"]]
    fill(net)
    h, w = want["input_hw"]
    x = torch.from_numpy(np.sin(np.arange(3 * h * w, dtype=np.float64) * 0.001).astype(np.float32))
    with torch.no_grad():
        got = net(x.reshape(1, 3, h, w))[0].double()
    np.testing.assert_allclose(got[:16], want["logits_first16"], atol=1e-5)
    assert float(got.sum()) == pytest.approx(want["logits_sum"], abs=1e-4)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
def test_own_backbones_work_in_one_two_and_three_dimensions(name, dims):
    net = build(name, spatial_dims=dims, in_channels=2, num_classes=5)
    assert net(torch.randn(2, 2, *[33] * dims)).shape == (2, 5)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_entry_lies_in_exactly_one_block(name, dims):
    with torch.device("meta"):
        net = build(name, spatial_dims=dims, in_channels=1, num_classes=4)
    parts = anatomy(net)
    for key in net.state_dict():
        assert sum(is_under(key, block.prefixes) for block in parts.blocks) == 1, key
    assert parts.blocks[-1].prefixes == (parts.head,)
    assert len(parts.blocks) >= 5
    weights = [v for k, v in net.state_dict().items() if is_under(k, [parts.head]) and v.ndim == 2]
    assert [tuple(w.shape) for w in weights] == [(4, parts.features)]


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


@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_same_padding_gives_half_the_size_rounded_up_and_puts_the_odd_pixel_last(size, kernel_size):
    padded = _SamePadded(kernel_size, 2)(torch.ones(1, 1, size))[0, 0]
    assert len(nn.Conv1d(1, 1, kernel_size, 2)(padded[None, None])[0, 0]) == -(-size // 2)
    before, after = int(padded.argmax()), int(padded.flip(0).argmax())
    assert after - before == (1 - size % 2)
