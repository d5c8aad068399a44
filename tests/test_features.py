"""Frozen features are computed once, and nothing but the speed changes."""

import json
import re

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.networks.nets import UNet
from monai.transforms import Compose, RandFlipd
from monai.utils import set_determinism
from torch import nn

from medtl_monai.backbones import anatomy, build, compare_sides
from medtl_monai.bundle import CacheFeatures
from medtl_monai.features import FeatureCache, extract_features, frozen_modules
from medtl_monai.model import Model
from medtl_monai.strategies import build as build_strategy
from medtl_monai.transforms import AugmentBatch, PrepareBatch
from medtl_monai.utils import UserError

COUNT, SIZE = 10, 32
SMALL = {"widen_factor": 0.125}  # of ResNets
MODEL = Model(task="classification", classes=["a", "b"], backbone="resnet18", image_size=SIZE, mean=[0.5], std=[0.5])


def items(masks=False):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(COUNT, 1, SIZE, SIZE, generator=generator)
    labels = [image.gt(0.7).long() if masks else i % 2 for i, image in enumerate(images)]
    return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]


def train(
    place,
    strategy,
    *,
    backbone="resnet18",
    epochs=3,
    masks=False,
    augment=None,
    validate=True,
    options=None,
    **cache,
):
    """A training with or without a cache: the weights at its end, and how many images the stem has seen."""
    set_determinism(0)
    network = build(backbone, in_channels=1, num_classes=2, **(SMALL if backbone == "resnet18" else options or {}))
    strategy = build_strategy(strategy)
    network = strategy.prepare(network.to(memory_format=torch.channels_last))
    seen, parts = [0], anatomy(network)
    stem = network.get_submodule(parts.blocks[0].prefixes[0])
    run, stem.forward = stem.forward, lambda x: (seen.__setitem__(0, seen[0] + len(x)), run(x))[1]
    loss = (lambda pred, label: nn.functional.cross_entropy(pred, label[:, 0])) if masks else nn.CrossEntropyLoss()
    plain = PrepareBatch([0.5], [0.5])
    data = items(masks)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset(data[:4]), batch_size=4),
        network=network,
        prepare_batch=plain,
        decollate=False,
    )
    losses = []
    evaluator.add_event_handler(Events.COMPLETED, lambda e: losses.append(e.state.output["pred"].detach().clone()))
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(Dataset(data), batch_size=4, shuffle=True),
        network=network,
        optimizer=torch.optim.AdamW(strategy.param_groups(network, lr=1e-2), lr=1e-2),
        loss_function=loss,
        prepare_batch=PrepareBatch([0.5], [0.5], augment),
        decollate=False,
        train_handlers=[
            strategy,
            *([ValidationHandler(1, evaluator)] if validate else []),
            CacheFeatures(place, model=MODEL, network=network, strategy=strategy, validator=evaluator, **cache),
        ],
    )
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: torch.manual_seed(e.state.epoch))
    trainer.run()
    return {**network.state_dict(), **{f"validation {i}": x for i, x in enumerate(losses)}}, seen[0]


def same(one, two, tolerance=0.0):
    assert list(one) == list(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("strategy", "backbone", "masks", "places"),
    [
        ("freeze", "resnet18", False, 1),
        ("partial_freeze(blocks=4) + l2_sp", "resnet18", False, 1),
        ("partial_freeze(blocks=4) + ema", "resnet18", False, 1),
        ("partial_freeze(blocks=1)", "resnet18", False, 1),  # what follows is in place
        ("lp_ft(probe_epochs=2)", "efficientnet_lite0", False, None),
        ("gradual_unfreeze(every=2)", "resnet18", False, None),
        ("partial_freeze(blocks=8)", "unet_efficientnet_lite0", True, None),  # several skips
    ],
)
def test_the_training_is_the_uncached_one_bit_by_bit(strategy, backbone, masks, places):
    options = {"backbone": backbone, "masks": masks}
    plain, many = train(None, strategy, **options)
    cached, few = train("memory", strategy, **options)
    same(plain, cached)
    assert few < many
    if places:  # every image once, and two for each of the two rehearsals, of which the cached pass is not counted
        assert few <= COUNT + 4 + 4


def test_head_dropout_draws_what_it_draws_without_a_cache():
    options = {"backbone": "mobilenet_v2", "options": {"dropout": 0.5}}
    same(train(None, "freeze", **options)[0], train("memory", "freeze", **options)[0])


def test_half_precision_stays_close():
    plain, half = train(None, "freeze", epochs=3)[0], train("memory", "freeze", epochs=3, dtype="float16")[0]
    same(plain, half, tolerance=5e-3)
    assert any(not torch.equal(plain[name], half[name]) for name in plain)


def test_as_many_views_as_epochs_are_fresh_augmentation_and_fewer_are_used_in_turn():
    options = {"augment": AugmentBatch(), "epochs": 3, "validate": False}
    plain, _ = train(None, "freeze", **options)
    same(plain, train("memory", "freeze", views=3, **options)[0])
    fewer, few = train("memory", "freeze", views=2, **options)
    assert few == 2 * COUNT + 2
    assert not torch.equal(fewer["fc.weight"], plain["fc.weight"])


def test_masks_are_kept_with_their_views():
    options = {"backbone": "unet_resnet18", "masks": True, "augment": AugmentBatch(), "epochs": 2, "validate": False}
    same(train(None, "freeze", **options)[0], train("memory", "freeze", views=2, **options)[0])
    train("memory", "freeze", views=1, **options)


def test_workers_may_load():
    network = build("resnet18", **SMALL, in_channels=1).eval()
    loader = DataLoader(Dataset(items()), batch_size=4, num_workers=2, persistent_workers=True)
    cache = FeatureCache(network, loader, PrepareBatch([0.5], [0.5]), frozen=("conv1", "bn1", "layer1"))
    cache.refresh()
    first, second = (
        torch.cat([network(cache.prepare_batch(batch, "cpu")[0]) for batch in cache.loader]) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert all("image" not in batch for batch in cache.loader)


def folder_run(tmp_path, network, data, prepare=None, **options):
    """One pass over ``data`` with a cache in a folder: the output, and how many images were read."""
    loader = DataLoader(Dataset(data), batch_size=5)
    prepare = prepare or PrepareBatch([0.5], [0.5])
    cache = FeatureCache(network.eval(), loader, prepare, place=str(tmp_path), frozen=("conv1", "bn1"), **options)
    cache.refresh()
    outputs, read = [], 0
    with torch.no_grad():
        for batch in cache.loader:
            read += len(batch.get("image", []))
            outputs.append(network(cache.prepare_batch(batch, "cpu")[0]))
    cache.close()
    return torch.cat(outputs), read, len(list(tmp_path.iterdir()))


def test_a_folder_serves_later_runs_until_anything_changes(tmp_path):
    torch.manual_seed(0)
    network, data = build("resnet18", **SMALL, in_channels=1), items()
    first, read, folders = folder_run(tmp_path, network, data)
    assert (read, folders) == (10, 1)
    again, read, folders = folder_run(tmp_path, network, data)
    assert torch.equal(first, again)
    assert (read, folders) == (5, 1)  # the first batch is computed and compared
    assert folder_run(tmp_path, network, data, dtype="float16")[1:] == (10, 2)
    assert folder_run(tmp_path, network, data, PrepareBatch([0.4], [0.5]))[1:] == (10, 3)
    assert folder_run(tmp_path, network, [{**data[0], "label": 5}, *data[1:]])[1:] == (10, 4)
    network.bn1.running_mean += 0.1
    changed, *counts = folder_run(tmp_path, network, data)
    assert counts == [10, 5]
    network.get_submodule("layer1.0").conv1.weight.data += 1  # not frozen: it belongs to no key
    assert folder_run(tmp_path, network, data)[1:] == (5, 5)
    assert not torch.equal(first, changed)


def test_damaged_rows_are_computed_anew(tmp_path, caplog):
    network, data = build("resnet18", **SMALL, in_channels=1), items()
    first = folder_run(tmp_path, network, data)
    (path,) = tmp_path.glob("*/bn1.bin")
    whole = path.read_bytes()
    for damaged in (whole[:1000] + bytes(400) + whole[1400:], whole[: len(whole) // 2], b""):
        path.write_bytes(damaged)
        caplog.clear()
        again = folder_run(tmp_path, network, data)
        assert re.search(r"\d+ of \d+ rows in .* are damaged: they are computed anew", caplog.text)
        assert path.read_bytes() == whole
        assert torch.equal(first[0], again[0])


@pytest.mark.parametrize("change", ["in place", "by .data", "loaded"])
def test_weights_that_change_between_epochs_are_noticed(change):
    network = build("resnet18", **SMALL, in_channels=1).eval()
    loader = DataLoader(Dataset(items()), batch_size=5)
    cache = FeatureCache(network, loader, PrepareBatch([0.5], [0.5]), frozen=("conv1", "bn1"))

    def epoch():
        cache.refresh()
        with torch.no_grad():
            return torch.cat([network(cache.prepare_batch(batch, "cpu")[0]) for batch in cache.loader])

    before = epoch()
    with torch.no_grad():
        if change == "in place":
            network.conv1.weight.mul_(2)
        elif change == "by .data":
            network.conv1.weight.data[0] += 1
        else:
            network.load_state_dict({k: v + (k == "bn1.running_var") for k, v in network.state_dict().items()})
    after, replayed = epoch(), epoch()
    cache.close()
    images = torch.stack([item["image"] for item in items()])
    with torch.no_grad():
        fresh = torch.cat([network((part - 0.5) / 0.5) for part in images.split(5)])
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, fresh, rtol=1e-4, atol=1e-4)
    assert torch.equal(after, replayed)


def test_other_images_pass_through_the_network_meanwhile():
    network = build("resnet18", **SMALL, in_channels=1).eval()
    loader = DataLoader(Dataset(items()), batch_size=10)
    cache = FeatureCache(network, loader, PrepareBatch([0.5], [0.5]), frozen=("conv1", "bn1"))
    other = torch.rand(2, 1, SIZE, SIZE)
    with torch.no_grad():
        want = network(other)
        for _ in range(2):
            cache.refresh()
            (batch,) = cache.loader
            image, _ = cache.prepare_batch(batch, "cpu")
            assert torch.equal(network(other), want)
            network(image)
            assert torch.equal(network(other), want)
    assert image.is_meta
    assert not any("forward" in vars(module) for module in network.modules())


def test_extracted_features_are_what_the_head_receives(tmp_path):
    network = build("resnet18", **SMALL, in_channels=1, num_classes=2)
    loader = DataLoader(Dataset(items()), batch_size=4, shuffle=True)
    for _ in range(2):
        features, labels = extract_features(network, loader, PrepareBatch([0.0], [1.0]), place=str(tmp_path))
        assert network.training
        with torch.no_grad():
            images = torch.stack([item["image"] for item in items()])
            logits = network.eval()(images)
            network.train()
        torch.testing.assert_close(features @ network.fc.weight.T + network.fc.bias, logits, rtol=1e-4, atol=1e-4)
        assert labels.tolist() == [i % 2 for i in range(COUNT)]


def test_frozen_modules_are_the_leading_blocks():
    network = build("resnet18")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(("layer2", "fc")))
    assert frozen_modules(network) == ("conv1", "bn1", "layer1")
    network.requires_grad_(False)
    assert frozen_modules(network)[-1] == "layer4"  # never the head
    network.requires_grad_(True)
    assert frozen_modules(network) == ()


class Bypass(nn.Module):
    """Its head sees the image."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(SIZE * SIZE, 2)

    def forward(self, x):
        return self.head((self.body(x) + x).flatten(1))


class Twice(Bypass):
    """Its body runs twice."""

    def forward(self, x):
        return self.head(self.body(self.body(x)).flatten(1))


@pytest.mark.parametrize(("network", "message"), [(Bypass(), "sees the image itself"), (Twice(), "more than once")])
def test_networks_that_cannot_be_replayed_are_refused(network, message):
    loader = DataLoader(Dataset(items()), batch_size=4)
    cache = FeatureCache(network.eval(), loader, PrepareBatch([0.5], [0.5]), frozen=("body",))
    cache.refresh()
    with pytest.raises(UserError, match=message):
        network(cache.prepare_batch(next(iter(cache.loader)), "cpu")[0])
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_network_that_is_given_parts_of_the_images_is_refused():
    network = compare_sides(build("resnet18", **SMALL, in_channels=1)).eval()
    pairs = [{**item, "image": item["image"].repeat(2, 1, 1)} for item in items()]
    cache = FeatureCache(
        network, DataLoader(Dataset(pairs), batch_size=5), PrepareBatch([0.5], [0.5]), frozen=("conv1",)
    )
    cache.refresh()
    one, two = cache.loader
    network(cache.prepare_batch(one, "cpu")[0])
    with pytest.raises(UserError, match="as with compare_sides"):
        cache.prepare_batch(two, "cpu")


def test_monais_nested_unet_can_be_replayed():
    network = UNet(2, 1, 2, channels=(4, 8, 16), strides=(2, 2)).eval()
    first = anatomy(network).blocks[0].prefixes
    loader = DataLoader(Dataset(items(masks=True)), batch_size=5)
    cache = FeatureCache(network, loader, PrepareBatch([0.5], [0.5]), frozen=first)
    cache.refresh()
    with torch.no_grad():
        one, two = ([network(cache.prepare_batch(b, "cpu")[0]) for b in cache.loader] for _ in range(2))
    assert torch.equal(torch.cat(one), torch.cat(two))


def test_moving_batch_norm_is_refused():
    network = build("resnet18", **SMALL, in_channels=1).train()
    network.conv1.requires_grad_(False), network.bn1.requires_grad_(False)
    cache = FeatureCache(network, DataLoader(Dataset(items()), batch_size=4), PrepareBatch([0.5], [0.5]))
    cache.refresh()
    with pytest.raises(UserError, match="not its batch norm and dropout .*in training mode"):
        network(cache.prepare_batch(next(iter(cache.loader)), "cpu")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": AugmentBatch()}, "under random augmentation .AugmentBatch.*cache_views"),
        ({"views": -1}, "cache_views must be"),
        ({"dtype": "int8"}, "cache_dtype must be float16"),
        ({"strategy": "finetune"}, "needs a strategy that freezes the first blocks .* got FineTune"),
        ({"strategy": ["freeze", "mcc"]}, "got MCC"),
        ({"views": 1, "resume": "last.pt"}, "leave cache_views out"),
        ({"compiled": True}, "exclude each other"),
        ({"place": None, "views": 2}, "no effect without cache_features"),
    ],
)
def test_what_cannot_be_cached_is_refused_before_training(options, message):
    options = {"place": "memory", "strategy": "freeze", **options}
    with pytest.raises(UserError, match=message):
        train(options.pop("place"), options.pop("strategy"), **options)


def test_random_transforms_of_single_images_count_as_augmentation():
    data = CacheDataset(items(), Compose([RandFlipd("image", prob=0.5)]), progress=False)
    with pytest.raises(UserError, match="RandFlipd"):
        FeatureCache(build("resnet18"), DataLoader(data, batch_size=2), PrepareBatch([0.5], [0.5]))


def test_too_much_for_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(UserError, match="GB of memory are free: give cache_features a folder"):
        train("memory", "freeze")


def test_the_key_says_what_the_features_depend_on(tmp_path):
    folder_run(tmp_path, build("resnet18", **SMALL, in_channels=1), items())
    (key,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/key.json"))
    assert {"weights", "batch_norm", "transforms", "data", "dtype", "frozen"} <= set(key)
    assert key["frozen"] == ["conv1", "bn1"]
    assert key["kept"] == ["bn1"]
