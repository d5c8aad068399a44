"""Studies of ``benefits.py`` on frozen features of radiographs, where a training takes a second."""

import copy
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benefit_studies import (
    IMAGENET,
    Items,
    Scale,
    Study,
    fit,
    indexed,
    kermany,
    labels,
    other_device,
    prepare_batches,
    rates,
    shares,
    ways,
)
from monai.data import DataLoader, Dataset
from monai.utils import set_determinism
from torch import Tensor, nn

from medtl_monai.backbones import build as build_network
from medtl_monai.backbones import extract
from medtl_monai.bundle import SourceImages, TargetImages, transfer
from medtl_monai.ensemble import soup, wise_ft
from medtl_monai.fewshot import class_prototypes, episodes, linear_probe, nearest_neighbours, prototype_probabilities
from medtl_monai.strategies import Context, build
from medtl_monai.strategies.densities import principal_components

NAMES = ("covariate", "mixed", "unlabelled", "related", "few", "ensembles")


@cache
def frozen_features(folder: Path, scale: Scale, count: int) -> tuple[np.ndarray, np.ndarray, Items]:
    """Principal components of ImageNet features of the images, of the same from another device, and the items."""
    items = kermany(folder, scale.size, scale.images)
    set_determinism(0)
    network = build_network("efficientnet_lite0", in_channels=1)
    network = transfer(network, build("finetune"), IMAGENET, device="cpu").network
    plain = prepare_batches()[0]
    found = [
        extract(network, SourceImages(shown, transform=None, prepare=plain, batch_size=64, device="cpu")).numpy()
        for shown in (items, other_device(items, 0))
    ]
    own, other = principal_components(*found, count)
    scale_of = np.concatenate([own, other]).std(0)
    return own / scale_of, other / scale_of, items


class Whole(list):
    """A set of features as one batch."""

    def __init__(self, items: Items) -> None:
        super().__init__([torch.stack([item["image"] for item in items])])

    def restart(self) -> None:
        """Nothing to begin anew."""


def on_features(
    items: Items,
    way: str,
    seed: int,
    *,
    target: Any = None,
    network: nn.Module | None = None,
    source_head: nn.Module | None = None,
    epochs: int = 10,
    lr: float = 0.05,
    batch: int = 32,
) -> nn.Module:
    """Train a classifier of frozen features under a strategy: ``network``, or else a linear one."""
    set_determinism(seed)
    classes = len({item["label"] for item in items})
    network = network or headed(nn.Identity(), len(items[0]["image"]), classes)
    strategy = build(way)
    context = {name: [item[key] for item in items if key in item] for name, key in _COLUMNS.items()}
    strategy.bind(Context(classes=classes, source=Whole(items), target=target, source_head=source_head, **context))
    strategy.prepare(network)
    return fit(network, strategy, items, None, seed, epochs=epochs, lr=lr, batch=batch)


def headed(body: nn.Module, width: int, classes: int) -> nn.Sequential:
    """``body`` with a new linear head on its ``width`` features."""
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(width, classes)))


_COLUMNS = {"labels": "label", "weights": "weight", "domains": "domain"}


def probabilities(network: nn.Module, items: Items) -> np.ndarray:
    """Of the classes, ``(N, C)``."""
    with torch.no_grad():
        logits = network.eval()(torch.stack([item["image"] for item in items]))
    return logits.double().softmax(1).numpy()


def scores(network: nn.Module, items: Items) -> dict[str, float]:
    """AUC (mean over the classes) and balanced accuracy of a classifier of features."""
    return rates(probabilities(network, items), labels(items))


AUC = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}
BALANCED = {"balanced_accuracy": "balanced accuracy", "auc": "AUC"}


def studies(folder: Path, scale: Scale) -> dict[str, Study]:
    """These studies by name."""
    made = (covariate, mixed, unlabelled, related, few, ensembles)
    return {name: study(folder, scale) for name, study in zip(NAMES, made, strict=True)}


def vectors(folder: Path, scale: Scale, count: int, device: int = 0) -> Items:
    """``count`` components of each image's features, of its own device or (1) of the other."""
    *found, items = frozen_features(folder, scale, count)
    return [{**item, "image": torch.from_numpy(axis).float()} for item, axis in zip(items, found[device], strict=True)]


def covariate(folder: Path, scale: Scale) -> Study:
    """Importance weights."""
    how = ways(
        "finetune",
        kmm="importance(method=kmm)",
        kliep="importance(method=kliep)",
        discriminator="importance(method=discriminator)",
        source_selection="source_selection(keep=0.7)",
        true_weights="sample_weights",
    )

    def run(way: str, seed: int) -> dict[str, float]:
        own, other, items = frozen_features(folder, scale, 4)
        rng = np.random.default_rng(seed)
        both = [{**item, "both": pair} for item, *pair in zip(items, own, other, strict=True)]
        made = []
        for part, rare in zip(shares(both, (0.4, 0.3, 0.3), seed), (0.1, 0.9, 0.9), strict=True):
            devices = (rng.random(len(part)) < rare).astype(int)
            made.append([
                {"image": torch.from_numpy(x["both"][d]).float(), "label": x["label"], "weight": (1 / 9, 9.0)[d],
                 "index": x["index"]}
                for x, d in zip(part, devices, strict=True)
            ])  # fmt: skip
        source, target, test = made
        return scores(on_features(source, how[way], seed, target=Whole(target)), test)

    about = "covariate shift, a linear classifier"
    data = (
        "bacterial, viral or none, on four components of frozen features of Kermany's radiographs; one training image "
        "of ten is from another device, and nine of ten of the target's; one linear rule does not serve both"
    )
    return Study(about, data, BALANCED, "finetune", how, run, seeds=20)


def mixed(folder: Path, scale: Scale) -> Study:
    """Contradicting domains."""
    how = ways("finetune", "tradaboost", own_images_alone="finetune")

    def run(way: str, seed: int) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        others, own, test = shares(vectors(folder, scale, 8), (0.46, 0.04, 0.5), seed)
        for item in others:
            if rng.random() < 1 / 3:
                item["label"] = {0: 2, 1: 1, 2: 0}[item["label"]]
        both = [{**x, "domain": "other"} for x in others] + [{**x, "domain": "target"} for x in own]
        chosen = [x for x in both if x["domain"] == "target"] if way == "own_images_alone" else both
        chosen = [{key: x[key] for key in ("image", "label", "domain")} for x in chosen]
        return scores(on_features(indexed(chosen), how[way], seed), test)

    about = "own labels few, another hospital's many and partly wrong"
    data = (
        "bacterial, viral or none, on eight components of the same features; 4% own labels and 46% of a hospital that "
        "mixes up viral and bacterial in one record of three"
    )
    return Study(about, data, BALANCED, "finetune", how, run, seeds=20)


def unlabelled(folder: Path, scale: Scale) -> Study:
    """Semi-supervision."""
    smooth = "vat(epsilon=0.5)"
    how = ways("finetune", "pseudo_label", "fixmatch", "mean_teacher", vat=smooth, vat_own_images_alone=smooth)

    def run(way: str, seed: int) -> dict[str, float]:
        labelled, rest, test = shares(vectors(folder, scale, 32), (0.05, 0.45, 0.5), seed)
        target = None
        if way not in ("finetune", "vat_own_images_alone"):
            bare = Dataset([{"image": item["image"]} for item in rest])
            loader = DataLoader(bare, batch_size=min(64, len(bare)), shuffle=True, drop_last=True)
            target = TargetImages(loader, {"plain": lambda x, _: (x["image"],), "augmented": noisy}, "cpu")
        network = on_features(labelled, how[way], seed, target=target, epochs=20, batch=16)
        return scores(network, test)

    about = "images without labels, a linear classifier"
    data = (
        "bacterial, viral or none, on 32 components of the same features; 5% labelled, 45% without labels, scored on "
        "50%; augmented is a little noise; epsilon of vat is 0.5, chosen on other splits"
    )
    return Study(about, data, AUC, "finetune", how, run, seeds=20)


def related(folder: Path, scale: Scale) -> Study:
    """What a related task has taught, kept."""
    how = ways("finetune", "freeze", "l2_sp", "co_tuning", "rkd", "similarity_preserving")

    def run(way: str, seed: int) -> dict[str, float]:
        first, labelled, test = shares(vectors(folder, scale, 64), (0.45, 0.05, 0.5), seed)
        source = hidden([{**item, "label": int(item["label"] != 1)} for item in first], seed)
        network = headed(source.body, 64, 3)
        network = on_features(labelled, how[way], seed, network=network, source_head=source.head, **GENTLY)
        return scores(network, test)

    about = "few labels of a task that refines the first"
    data = (
        "a network of one hidden layer on 64 components of the same features, trained to tell pneumonia from none on "
        "45%; then bacterial, viral or none from 5%, of other patients"
    )
    return Study(about, data, AUC, "finetune", how, run, seeds=20)


GENTLY: dict[str, Any] = {"epochs": 20, "lr": 0.01, "batch": 16}


def few(folder: Path, scale: Scale) -> Study:
    """Classifiers that hardly train."""
    how: dict[str, Any] = dict.fromkeys(("finetune", "prototypes", "neighbours", "linear_probe"))

    def run(way: str, seed: int) -> dict[str, float]:
        items = vectors(folder, scale, 32)
        ((support, query),) = episodes(labels(items), [x["patient"] for x in items], shots=5, count=1, seed=seed)
        labelled, test = (indexed([items[i] for i in chosen]) for chosen in (support, query))
        if way == "finetune":
            return scores(on_features(labelled, "finetune", seed, epochs=100, batch=15), test)
        seen, asked = (torch.stack([x["image"] for x in part]).numpy() for part in (labelled, test))
        if way == "prototypes":
            found = prototype_probabilities(asked, class_prototypes(seen, labels(labelled), 3))
        elif way == "neighbours":
            found = nearest_neighbours(asked, seen, labels(labelled), 3)
        else:
            weight, bias = linear_probe(seen, labels(labelled), 3)
            found = torch.from_numpy(asked @ weight.T + bias).double().softmax(1).numpy()
        return rates(found, labels(test))

    about = "five images a class"
    data = (
        "bacterial, viral or none, on 32 components of the same features, five images of five patients a class; scored "
        "on all other patients; finetune trains a linear classifier for 100 steps"
    )
    return Study(about, data, AUC, "finetune", how, run, seeds=20)


def ensembles(folder: Path, scale: Scale) -> Study:
    """Several trainings, or two states of one, averaged."""
    how: dict[str, Any] = dict.fromkeys(("finetune", "vote", "soup", "wise_ft"))

    def run(way: str, seed: int) -> dict[str, float]:
        own, other = (shares(vectors(folder, scale, 64, device), (0.45, 0.05, 0.5), seed) for device in (0, 1))
        source = hidden(other[0], seed)
        tuned = [
            on_features(own[1], "finetune", 100 * seed + k, network=copy.deepcopy(source), **GENTLY)
            for k in range(5 if way in ("vote", "soup") else 1)
        ]
        states = [network.state_dict() for network in tuned]
        if way == "soup":
            source.load_state_dict(soup(states))
        elif way == "wise_ft":
            source.load_state_dict(wise_ft(source.state_dict(), states[0]))
        voters = tuned if way in ("vote", "finetune") else [source]
        new, old = (
            rates(np.mean([probabilities(voter, part[2]) for voter in voters], 0), labels(part[2]))
            for part in (own, other)
        )
        return {"auc": new["auc"], "old_auc": old["auc"]}

    about = "another device, fine-tuned several times"
    data = (
        "bacterial, viral or none, a network of one hidden layer on 64 components of the same features, trained on 45% "
        "from another device, fine-tuned on 5%, scored on 50% of both devices; vote and soup are of five trainings"
    )
    metrics = {"auc": "AUC", "old_auc": "AUC on the first device"}
    return Study(about, data, metrics, "finetune", how, run, seeds=20)


def hidden(items: Items, seed: int) -> nn.Sequential:
    """A network of one hidden layer, trained on ``items``."""
    set_determinism(seed)
    width = len(items[0]["image"])
    body = nn.Sequential(nn.Linear(width, 64), nn.ReLU())
    network = headed(body, 64, len({item["label"] for item in items}))
    on_features(items, "finetune", seed, network=network, lr=0.01)
    return network


def noisy(batch: dict[str, Tensor], _: Any) -> tuple[Tensor]:
    """Features as an augmented image would have them."""
    return (batch["image"] + 0.3 * torch.randn_like(batch["image"]),)
