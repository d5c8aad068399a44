"""Frozen features, cached: ResNet-18 (stem stride 2), 600 random images of 224 x 224 x 1, batches of 32, fp32.

The linear probe trains the head alone with MONAI's ``SupervisedTrainer``, without validation; the reference's backbone
is frozen by ``requires_grad``, ours by the strategy ``freeze`` with ``FeatureCache``, whose filling is counted. The
partial freeze trains ``layer4`` and the head; its steps are timed with the cache filled. Long trainings are measured
once, and the reference's fifty epochs, which are all alike, as five times its ten. ``MEDTL_BENCH_SCALE=0.05`` tries all
of it with fewer images.
"""

import os
import time

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from timing import compare
from torch import nn

from medtl_monai.backbones import build
from medtl_monai.features import FeatureCache
from medtl_monai.strategies import build as build_strategy
from medtl_monai.transforms import PrepareBatch

COUNT = max(64, int(600 * float(os.environ.get("MEDTL_BENCH_SCALE", "1"))))
PREPARE = PrepareBatch([0.5], [0.5])


def measure(repeats: int) -> dict:
    data = Dataset([{"image": torch.rand(1, 224, 224), "label": i % 2} for i in range(COUNT)])
    found = {}
    ten = seconds(trainer(data, 10, "frozen"))
    for epochs, bar in ((10, 10.0), (50, 45.0)):
        found[f"linear probe, {epochs} epochs"] = once(seconds(trainer(data, epochs, "cached")), ten * epochs / 10, bar)
    steps = {way: stepper(data, way) for way in ("cached3", "finetune", "frozen3")}
    for way, name, bar in (("finetune", "full fine-tuning", 5.0), ("frozen3", "the same by requires_grad", 2.2)):
        found[f"a step, frozen to layer3, against {name}"] = compare(
            steps["cached3"], steps[way], repeats=repeats, bar=bar
        )
    return found


def prepared(way: str) -> tuple[nn.Module, list[nn.Parameter]]:
    network = build("resnet18", in_channels=1, num_classes=2)
    if way.startswith("cached"):
        network = network.to(memory_format=torch.channels_last)
        strategy = build_strategy(f"partial_freeze(blocks={4 if way == 'cached3' else -1})")
        network = strategy.prepare(network)
        return network, strategy.param_groups(network, lr=1e-3)
    trained = {"frozen": ("fc",), "frozen3": ("layer4", "fc"), "finetune": ("",)}[way]
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    return network, [p for p in network.parameters() if p.requires_grad]


def trainer(data: Dataset, epochs: int, way: str) -> SupervisedTrainer:
    network, parameters = prepared(way)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    prepare = {}
    if way == "cached":
        cache = FeatureCache(network, loader, PREPARE)
        cache.refresh()
        loader, prepare = cache.loader, {"prepare_batch": cache.prepare_batch}
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(parameters, lr=1e-3),
        loss_function=nn.CrossEntropyLoss(),
        decollate=False,
        **prepare,
    )


def stepper(data: Dataset, way: str):
    """One training step on a batch that was seen before."""
    network, parameters = prepared(way)
    optimizer, loss = torch.optim.AdamW(parameters, lr=1e-3), nn.CrossEntropyLoss()
    loader, prepare = DataLoader(data, batch_size=32), PREPARE
    if way == "cached3":
        cache = FeatureCache(network, loader, PREPARE)
        cache.refresh()
        network.train()
        network(cache.prepare_batch(next(iter(cache.loader)), "cpu")[0])
        loader, prepare = cache.loader, cache.prepare_batch
    batch = next(iter(loader))

    def step() -> None:
        network.train()
        image, label = prepare(batch, "cpu")
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()

    return step


def seconds(run: SupervisedTrainer) -> float:
    began = time.perf_counter()
    run.run()
    return time.perf_counter() - began


def once(ours: float, reference: float, bar: float) -> dict:
    """A case that was measured a single time."""
    ratio = round(reference / ours, 2)
    times = {"ours_ms": round(1e3 * ours, 1), "reference_ms": round(1e3 * reference, 1)}
    return {**times, "ratio": ratio, "spread": [ratio, ratio], "bar": bar, "repeats": 1}
