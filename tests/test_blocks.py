"""The anatomy of MONAI's networks: ordered blocks, the head, and the strategies that go by them."""

import copy
import inspect

import pytest
import torch
from monai.data import Dataset
from monai.networks import nets
from torch import nn
from torch.utils.data import DataLoader

from medtl_monai import strategies
from medtl_monai.backbones import anatomy, build_target, modules_of
from medtl_monai.backbones.heads import HEADS
from medtl_monai.backbones.layouts import BLOCKS, REFUSED
from medtl_monai.features import FeatureCache, extract_features
from medtl_monai.strategies.feature.localization import _last_map
from medtl_monai.utils import UserError, is_under

DYN = {"kernel_size": [3, 3, 3, 3], "strides": [1, 2, 2, 2], "upsample_kernel_size": [2, 2, 2], "filters": [4, 8, 8, 8]}
TOKENS = {"img_size": 32, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}
WIDTHS = {"features": [4, 4, 8, 8, 8, 4]}
NEXT = {"init_filters": 4, "blocks_down": [1, 1], "blocks_up": [1, 1], "blocks_bottleneck": 1, "kernel_size": 3}
SHALLOW = {"blocks_down": [1, 1, 1], "blocks_up": [1, 1]}

# each kind as small as it goes, and the side of its image
KINDS = {
    "AHNet": (64, {"layers": [1, 1, 1, 1], "psp_block_num": 1}),
    "AttentionUnet": (16, {"channels": [4, 8, 16], "strides": [2, 2]}),
    "BasicUNet": (32, WIDTHS),
    "BasicUNetPlusPlus": (32, {**WIDTHS, "deep_supervision": True}),
    "DenseNet": (32, {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]}),
    "DynUNet": (16, {**DYN, "deep_supervision": True, "deep_supr_num": 2}),
    "EfficientNetBN": (32, {"model_name": "efficientnet-b0"}),
    "FlexibleUNet": (32, {"backbone": "resnet18", "decoder_channels": [16, 8, 8, 4, 4]}),
    "HighResNet": (16, {}),
    "MedNeXt": (16, {**NEXT, "deep_supervision": True}),
    "ResNet": (32, {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 16]}),
    "SENet": (32, {"block": "se_resnet_bottleneck", "layers": [1, 1, 1, 1], "groups": 1, "reduction": 4}),
    "SegResNet": (16, {"init_filters": 8, **SHALLOW, "act": "prelu"}),  # one layer with a weight under two names
    "SegResNetDS": (16, {"init_filters": 8, **SHALLOW, "dsdepth": 2}),
    "SwinUNETR": (64, {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "use_v2": True}),
    "UNETR": (32, {**TOKENS, "feature_size": 4}),
    "UNet": (16, {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1}),
    "VNet": (32, {}),
    "ViT": (32, {**TOKENS, "patch_size": 16, "num_layers": 2, "classification": True}),
}
CASES = [(name, dims) for name in KINDS for dims in (2, 3)] + [("Classifier", 2), ("Classifier", 3), ("Quicknat", 2)]


def small(name, dims):
    """The network, and an image for it."""
    if name in ("SwinUNETR", "UNETR", "ViT"):
        pytest.importorskip("einops")
    side, options = KINDS.get(name, (32, {"num_filters": 4}))
    if name == "Classifier":
        options = {"in_shape": [1, *[32] * dims], "channels": [4, 8], "strides": [2, 2]}
    if name == "AHNet" and dims == 3:
        options = {**options, "upsample_mode": "trilinear"}
    torch.manual_seed(0)
    net = build_target({"_target_": name, **options}, spatial_dims=dims, in_channels=1, num_classes=3)
    return net, torch.randn(2, 1, *[side] * dims)


def target(logits):
    return torch.arange(2 * logits[:, 0].numel() // 2).reshape(logits[:, 0].shape) % 3


def run(net, x):
    with torch.no_grad():
        return net(x)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_blocks_are_in_order_and_every_entry_lies_in_one(name, dims):
    net, x = small(name, dims)
    parts = anatomy(net)
    for key in net.state_dict():
        assert sum(is_under(key, block.prefixes) for block in parts.blocks) == 1, key
    assert len({block.name for block in parts.blocks}) == len(parts.blocks) >= 3
    assert parts.blocks[-1].prefixes[-1] == parts.head
    ran = []
    for block in parts.blocks:
        auxiliary = block.prefixes[:-1] if block is parts.blocks[-1] else ()
        for module in modules_of(net, [prefix for prefix in block.prefixes if prefix not in auxiliary]).values():
            module.register_forward_hook(lambda *_, name=block.name: ran.append(name))
    run(net.eval(), x)
    order = list(dict.fromkeys(ran))  # of execution: an independent order
    listed = [block.name for block in parts.blocks if block.name in order]
    assert order[0] == parts.blocks[0].name
    if name == "BasicUNetPlusPlus":  # runs its grid by diagonals; the columns are what is frozen
        assert sorted(order) == sorted(listed)
    else:
        skips = [f"encoder{i}" for i in range(1, 5)]  # SwinUNETR and UNETR run them where they are needed
        assert [n for n in order if n not in skips] == [n for n in listed if n not in skips]
    assert len(listed) == len(parts.blocks)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_the_head_gives_the_logits(name, dims):
    net, x = small(name, dims)
    parts = anatomy(net)
    head, found = net.get_submodule(parts.head), {}
    layers = [m for m in head.modules() if next(m.parameters(recurse=False), None) is not None]
    for key, module in (("head", head), ("last", layers[-1])):
        module.register_forward_hook(lambda _, inputs, output, key=key: found.update({key: (inputs[0], output)}))
    logits = run(net.eval(), x)
    entered, left = found["head"][0], [found[key][1] for key in ("head", "last")]
    assert logits.shape[:2] == (2, 3)
    assert any(isinstance(out, torch.Tensor) and torch.equal(out.flatten(1), logits.flatten(1)) for out in left) or (
        name == "Quicknat" and torch.equal(left[0][0], logits)
    )
    # features enter: channels of a map, or the length of a vector or of the tokens
    assert parts.features in (entered.shape[1], entered[0].numel(), entered.shape[-1])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert not torch.allclose(run(net, x), logits)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_frozen_blocks_stand_still_and_the_head_alone_moves(name, dims):
    net, x = small(name, dims)
    parts = anatomy(net)
    strategy = strategies.build("freeze")
    assert strategy.prepare(net) is net
    before = copy.deepcopy(net.state_dict())
    logits = net.train()(x)
    nn.functional.cross_entropy(logits, target(logits)).backward()
    torch.optim.SGD(strategy.param_groups(net, lr=0.1), lr=0.1).step()
    moved = [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]
    assert moved
    assert all(is_under(key, parts.blocks[-1].prefixes) for key in moved)
    strategy.close()


@pytest.mark.parametrize("name", KINDS)
def test_strategies_by_blocks_reach_every_weight(name):
    net, x = small(name, 2)
    parts = anatomy(net)
    groups = strategies.build("discriminative").param_groups(net, lr=1.0)
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in net.parameters())
    assert [g["lr"] for g in groups] == sorted(g["lr"] for g in groups)
    gradual = strategies.build("gradual_unfreeze")
    gradual.on_epoch(net, 2)
    free = [n for n, p in net.named_parameters() if p.requires_grad]
    last = [prefix for block in parts.blocks[-2:] for prefix in block.prefixes]
    assert free == [n for n, _ in net.named_parameters() if is_under(n, last)]
    gradual.close()
    first = strategies.build("partial_freeze(blocks=2)")
    first.prepare(net)
    held = [prefix for block in parts.blocks[:2] for prefix in block.prefixes]
    before = copy.deepcopy(net.state_dict())
    logits = net.train()(x)
    nn.functional.cross_entropy(logits, target(logits)).backward()
    torch.optim.SGD(first.param_groups(net, lr=0.1), lr=0.1).step()
    moved = [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]
    assert not [key for key in moved if is_under(key, held)]
    assert [key for key in moved if not is_under(key, [parts.head])]
    first.close()


def prepare(batch, device=None, non_blocking=False, **_):
    return batch["image"], None


@pytest.mark.parametrize("blocks", [1, 2, -1])
@pytest.mark.parametrize("name", ["DynUNet", "SegResNetDS", "UNet", "ViT"])
def test_frozen_features_are_kept_and_the_weights_stay_what_they_were(name, blocks):
    net, x = small(name, 2)
    strategy = strategies.build(f"partial_freeze(blocks={blocks})")
    strategy.prepare(net.eval())
    weights = {key: (id(p), p.requires_grad) for key, p in net.named_parameters()}
    data = [{"image": torch.randn(x.shape[1:])} for _ in range(4)]
    want = [run(net, torch.stack([item["image"] for item in data[i : i + 2]])) for i in (0, 2)]
    cache = FeatureCache(net, DataLoader(Dataset(data), batch_size=2), prepare)
    for epoch in range(2):
        cache.refresh()
        for batch, expected in zip(cache.loader, want, strict=True):
            assert ("image" in batch) == (epoch == 0)
            image, _ = cache.prepare_batch(batch)
            torch.testing.assert_close(run(net, image), expected)
    assert {key: (id(p), p.requires_grad) for key, p in net.named_parameters()} == weights
    cache.close()
    strategy.close()


def test_features_before_the_head_of_a_transformer():
    net, x = small("ViT", 2)
    data = [{"image": image} for image in x]
    features, _ = extract_features(net.eval(), DataLoader(Dataset(data), batch_size=2), prepare)
    torch.testing.assert_close(net.classification_head(features), net(x))


def test_a_class_token_is_part_of_what_kept_features_depend_on():
    net, x = small("ViT", 2)
    strategies.build("freeze").prepare(net.eval())
    cache = FeatureCache(net, DataLoader(Dataset([{"image": image} for image in x]), batch_size=2), prepare)
    for _ in range(2):
        cache.refresh()
        (batch,) = cache.loader
        assert "image" in batch  # nothing is replayed, as the token is another one
        image, _ = cache.prepare_batch(batch)
        run(net, image)
        with torch.no_grad():
            net.cls_token.add_(1.0)


def test_localization_asks_for_maps_not_tokens():
    net, x = small("ViT", 2)
    with pytest.raises(UserError, match="localization needs maps, and no block of ViT gives one"):
        _last_map(net, x)


def test_every_network_of_monai_is_known_or_refused_in_one_sentence():
    kinds = {k for k in vars(nets).values() if inspect.isclass(k) and issubclass(k, nn.Module)}
    assert {*BLOCKS, *REFUSED} <= {*kinds, *(base for kind in kinds for base in kind.__mro__)}
    known = (*BLOCKS, *HEADS, nets.FlexibleUNet)
    tried = {getattr(nets, name) for name in (*KINDS, "Classifier", "Quicknat", "NetAdapter")}
    for kind in kinds:
        if issubclass(kind, tuple(REFUSED)) or not issubclass(kind, known):
            network = kind.__new__(kind)  # as if built
            nn.Module.__init__(network)
            with pytest.raises(UserError, match=rf"^{kind.__name__} cannot be used, as it [^.]*\.$"):
                anatomy(network)
        else:
            assert any(issubclass(kind, other) or issubclass(other, kind) for other in tried), kind


def test_a_unet_descends_before_it_ascends():
    net = nets.UNet(2, 1, 3, (4, 8, 16, 32), (2, 2, 2))
    below, deeper = "model.1.submodule", "model.1.submodule.1.submodule"
    names = ["stem", f"{below}.0", f"{deeper}.0", f"{deeper}.1.submodule", f"{deeper}.2", f"{below}.2", "model.2"]
    assert [block.name for block in anatomy(net).blocks] == names


def test_a_network_adapted_by_monai():
    net = nets.NetAdapter(nets.resnet18(n_input_channels=1, spatial_dims=2), num_classes=2)
    parts = anatomy(net)
    assert ([block.prefixes[-1] for block in parts.blocks][::5], parts.features) == (["features.1", "fc"], 512)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nets.resnet10(feed_forward=False), "ResNet was built without its head, fc: build it with one"),
        (lambda: nets.SegResNet(use_conv_final=False), "SegResNet was built without its head.*leave use_conv_final"),
    ],
)
def test_a_network_without_a_head_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        anatomy(make())


def test_a_vit_without_a_head_is_refused_and_its_token_belongs_to_the_stem():
    pytest.importorskip("einops")
    make = {"in_channels": 1, "patch_size": 16, "num_layers": 1, "spatial_dims": 2, **TOKENS}
    with pytest.raises(UserError, match="ViT was built without its head.*classification=True"):
        anatomy(nets.ViT(**make))
    assert anatomy(nets.ViT(**make, classification=True)).blocks[0].prefixes == ("cls_token", "patch_embedding")


def test_what_was_added_to_a_known_network_is_not_overlooked():
    net = nets.BasicUNet(2, 1, 2, **WIDTHS)
    net.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(UserError, match="BasicUNet holds scale, which its kind does not"):
        anatomy(net)
