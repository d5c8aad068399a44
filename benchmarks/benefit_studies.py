"""The studies of ``benefits.py``: what is trained on what, and how it is scored."""

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.inferers import SimpleInferer
from monai.metrics import compute_roc_auc
from monai.utils import set_determinism
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from medtl_monai.bundle import EpochSeed, SourceImages, TargetImages, build_network, image_statistics, predict, transfer
from medtl_monai.data import load_cases, make_brain_cohort
from medtl_monai.strategies import Context, Strategy, build, extract
from medtl_monai.strategies.instance import principal_components
from medtl_monai.transforms import AugmentBatch, PrepareBatch
from medtl_monai.weights import save_weights, source_head

IMAGENET = "efficientnet_lite0_imagenet"
Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Study:
    """A question.

    Attributes:
        about: the question, as a heading.
        setting: the data, in a sentence.
        metrics: names of the scores, higher is better, with what they mean.
        baseline: the way that the others are compared with.
        ways: name to the strategy and its settings.
        run: ``(way, seed) -> scores``.
        seeds: how many, unless the command line says which.
    """

    about: str
    setting: str
    metrics: dict[str, str]
    baseline: str
    ways: dict[str, tuple[Any, dict[str, Any]]]
    run: Callable[[str, int], dict[str, float]] = field(repr=False)
    seeds: int = 5


def ways(*names: str, **more: tuple[Any, dict[str, Any]]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Strategies by their own names with their default settings, and others."""
    return {**{name: (name, {}) for name in names}, **more}


# ---------------------------------------------------------------- images


@cache
def kermany(folder: Path, size: int, most: int | None) -> Items:
    """Kermany's radiographs ``(1, size, size)`` in [0, 1], their subtype and patient."""
    cases = load_cases(folder, label_column="subtype")
    step = 1 if most is None else max(1, len(cases.items) // most)
    return [{**item, "image": picture(item["image"], size)} for item in cases.items[::step]]  # bacteria, normal, virus


@cache
def phantoms(patients: int, size: int) -> Items:
    """Synthetic slices of brains with three kinds of tumour."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = make_brain_cohort(Path(folder) / "brain", patients=patients, slices=(2, 2), size=size, progress=False)
        return [{**item, "image": picture(item["image"], size)} for item in load_cases(cohort).items]


def picture(path: str, size: int) -> Tensor:
    """A grey picture as a tensor."""
    grey = Image.open(path).convert("L").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(grey, dtype=np.float32) / 255)[None]


def other_device(items: Items, seed: int) -> Items:
    """The same images from a device with another tone curve, less contrast, a softer picture and more noise."""
    generator = torch.Generator().manual_seed(seed)
    changed = []
    for item in items:
        image = avg_pool2d(0.2 + 0.55 * item["image"] ** 0.5, 3, 1, 1, count_include_pad=False)
        noise = 0.04 * torch.randn(image.shape, generator=generator)
        changed.append({**item, "image": (image + noise).clamp(0, 1)})
    return changed


def shares(items: Items, parts: Sequence[float], seed: int) -> list[Items]:
    """Parts of the items, about so large in every class; no patient stands in two."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(parts)
    place: dict[str, int] = {}
    for label in sorted({item["label"] for item in items}):
        patients = sorted({item["patient"] for item in items if item["label"] == label} - set(place))
        order = rng.permutation(len(patients))
        for rank, i in enumerate(order):
            place[patients[i]] = int(np.searchsorted(edges, (rank + 0.5) / len(patients)))
    return [indexed([item for item in items if place[item["patient"]] == k]) for k in range(len(parts))]


def indexed(items: Items) -> Items:
    """With each item's place, as the bundles give it."""
    return [{**item, "index": i} for i, item in enumerate(items)]


# ---------------------------------------------------------------- training


def prepare_batches() -> tuple[PrepareBatch, PrepareBatch]:
    """Without and with augmentation, normalized as the source network's images were."""
    statistics = image_statistics(IMAGENET, 1)
    return PrepareBatch(**statistics), PrepareBatch(**statistics, augment=AugmentBatch(rotate=10.0))


def train(
    items: Items,
    way: tuple[Any, dict[str, Any]],
    seed: int,
    *,
    classes: int,
    epochs: int,
    unlabelled: Items | None = None,
    weights: str = IMAGENET,
    lr: float = 1e-3,
    batch: int = 16,
) -> tuple[nn.Module, Strategy]:
    """Fine-tune EfficientNet-Lite0 by MONAI's trainer; the network of the last epoch, and the strategy."""
    plain, augmented = prepare_batches()
    set_determinism(seed)
    strategy = build(way[0], way[1])
    target = None
    if unlabelled is not None:
        bare = [{"image": item["image"]} for item in unlabelled]
        loader = DataLoader(Dataset(bare), batch_size=min(batch, len(bare)), shuffle=True, drop_last=True)
        target = TargetImages(loader, {"plain": plain, "augmented": augmented}, "cpu")
    network = build_network(
        {"backbone": "efficientnet_lite0", "channels": 1, "classes": list(range(classes)), "variant": {}}
    )
    source = SourceImages(items, transform=None, prepare=plain, batch_size=32, device="cpu")
    made = transfer(
        network, strategy, weights, device="cpu", items=items, classes=classes, source=source, target=target
    )
    return fit(made.network, strategy, items, augmented, seed, epochs=epochs, lr=lr, batch=batch), strategy


def fit(
    network: nn.Module,
    strategy: Strategy,
    items: Items,
    prepare: PrepareBatch | None,
    seed: int,
    *,
    epochs: int,
    lr: float,
    batch: int,
) -> nn.Module:
    """The training itself, with a one-cycle rate."""
    loader = DataLoader(Dataset(items), batch_size=batch, shuffle=True, drop_last=len(items) > batch)
    optimizer = torch.optim.AdamW(strategy.param_groups(network, lr=lr), lr=lr, weight_decay=0.01)
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=epochs * len(loader), pct_start=0.2)
    handlers = [EpochSeed(seed), strategy, LrScheduleHandler(schedule, print_lr=False, epoch_level=False)]
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=nn.CrossEntropyLoss(),
        train_handlers=handlers,
        decollate=False,
        **({} if prepare is None else {"prepare_batch": prepare}),
    ).run()
    return network.eval()


def scores(network: nn.Module, items: Items) -> dict[str, float]:
    """AUC (mean over the classes) and balanced accuracy."""
    loader = DataLoader(Dataset(items), batch_size=64)
    return rates(predict(network, loader, prepare_batches()[0], SimpleInferer(), device="cpu"), labels(items))


def rates(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The same of probabilities ``(N, C)``."""
    hits = [float((probabilities[truth == k].argmax(1) == k).mean()) for k in np.unique(truth)]
    one_hot = torch.from_numpy(np.eye(probabilities.shape[1])[truth])
    auc = compute_roc_auc(torch.from_numpy(probabilities), one_hot, average="macro")
    return {"auc": float(auc), "balanced_accuracy": float(np.mean(hits))}


def labels(items: Items) -> np.ndarray:
    """Their labels ``(N,)``."""
    return np.array([item["label"] for item in items])


# ---------------------------------------------------------------- the studies


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        size: side of the images.
        epochs: of a training.
        images: at most so many of the real ones.
        phantoms: synthetic patients.
    """

    size: int = 64
    epochs: int = 8
    images: int | None = None
    phantoms: int = 240


TINY = Scale(size=32, epochs=1, images=150, phantoms=18)


def studies(folder: Path, scale: Scale) -> dict[str, Study]:
    """All studies by name."""
    made = [scarcity(folder, scale), scanners(scale), hospitals(folder, scale), *features(folder, scale)]
    return dict(zip(NAMES, [*made, forgetting(folder, scale)], strict=True))


NAMES = ("scarcity", "scanners", "hospitals", "covariate", "mixed", "unlabelled", "related", "forgetting")


def scarcity(folder: Path, scale: Scale) -> Study:
    """Few labels."""
    how = ways(
        "finetune", "scratch", "freeze", "l2_sp", "delta", "bss", "co_tuning", "rkd", "mean_teacher", "pseudo_label",
        "fixmatch",
        vat=("vat", {"vat": {"epsilon": 1.0}}),
    )  # fmt: skip

    def run(way: str, seed: int) -> dict[str, float]:
        labelled, unlabelled, test = shares(kermany(folder, scale.size, scale.images), (0.05, 0.45, 0.5), seed)
        rest = unlabelled if way in ("mean_teacher", "pseudo_label", "fixmatch", "vat") else None
        network, _ = train(labelled, how[way], seed, classes=3, epochs=2 * scale.epochs, unlabelled=rest)
        return scores(network, test)

    about = "bacterial, viral or none, from 5% of the labels"
    data = "Kermany's radiographs; 5% labelled, 45% without labels for the last four, scored on 50%, by patient"
    return Study(about, data, {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}, "finetune", how, run)


_SHIFTED = ("finetune", "mixstyle", "adabn", "coral", "mmd", "jan", "dann", "cdan", "mcc")


def scanners(scale: Scale) -> Study:
    """Domain shift of phantoms: most of them are labelled, since fewer do not teach the classes."""
    return shifted(
        "another scanner, phantoms",
        "Synthetic brain MRI, three kinds of tumour",
        lambda: phantoms(scale.phantoms, scale.size),
        (0.6, 0.2, 0.2),
        scale.epochs,
    )


def hospitals(folder: Path, scale: Scale) -> Study:
    """Domain shift of real images."""
    return shifted(
        "another hospital, real images", "Kermany's radiographs, bacterial, viral or none",
        lambda: kermany(folder, scale.size, scale.images), (0.2, 0.2, 0.4, 0.2), scale.epochs // 2 or 1,
    )  # fmt: skip


def shifted(about: str, data: str, items: Callable[[], Items], parts: tuple[float, ...], epochs: int) -> Study:
    """Labels of one device, images without labels of another; scored on the other; ``parts``: their shares."""
    how = ways(*_SHIFTED)

    def run(way: str, seed: int) -> dict[str, float]:
        source, target, test = shares(items(), parts, seed)[:3]
        target, test = other_device(target, seed), other_device(test, seed + 1)
        network, _ = train(source, how[way], seed, classes=3, epochs=epochs, unlabelled=target)
        return scores(network, test)

    labelled, unlabelled, scored = (f"{share:.0%}" for share in parts[:3])
    data += f"; {labelled} labelled; of another device (tone curve, contrast, sharpness, noise) {unlabelled} without "
    data += f"labels, and {scored} to score on"
    return Study(about, data, {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}, "finetune", how, run)


@cache
def frozen_features(folder: Path, scale: Scale, count: int) -> tuple[np.ndarray, np.ndarray, Items]:
    """Principal components of ImageNet features of the images, of the same from another device, and the items."""
    items = kermany(folder, scale.size, scale.images)
    set_determinism(0)
    network = build_network({"backbone": "efficientnet_lite0", "channels": 1, "classes": [0, 1], "variant": {}})
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
    way: tuple[Any, dict[str, Any]],
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
    strategy = build(way[0], way[1])
    context = {name: [item[key] for item in items if key in item] for name, key in _COLUMNS.items()}
    strategy.bind(Context(classes=classes, source=Whole(items), target=target, source_head=source_head, **context))
    strategy.prepare(network)
    return fit(network, strategy, items, None, seed, epochs=epochs, lr=lr, batch=batch)


def headed(body: nn.Module, width: int, classes: int) -> nn.Sequential:
    """``body`` with a new linear head on its ``width`` features."""
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(width, classes)))


_COLUMNS = {"labels": "label", "weights": "weight", "domains": "domain"}


def linear_scores(network: nn.Module, items: Items) -> dict[str, float]:
    """Of a classifier of features."""
    with torch.no_grad():
        logits = network(torch.stack([item["image"] for item in items]))
    found, truth = logits.double().softmax(1).numpy(), labels(items)
    return rates(found, truth)


def features(folder: Path, scale: Scale) -> tuple[Study, ...]:
    """Covariate shift, contradicting domains, images without labels and a related first task, on cached features."""

    def vectors_of(count: int) -> Items:
        axes, _, items = frozen_features(folder, scale, count)
        return [{**item, "image": torch.from_numpy(axis).float()} for item, axis in zip(items, axes, strict=True)]

    weighted = ways(
        "finetune",
        kmm=("importance", {"importance": {"method": "kmm"}}),
        kliep=("importance", {"importance": {"method": "kliep"}}),
        discriminator=("importance", {"importance": {"method": "discriminator"}}),
        source_selection=("source_selection", {"source_selection": {"keep": 0.7}}),
        true_weights=("sample_weights", {}),
    )

    def biased(way: str, seed: int) -> dict[str, float]:
        own, other, items = frozen_features(folder, scale, 4)
        rng = np.random.default_rng(seed)
        vectors = [{**item, "both": pair} for item, *pair in zip(items, own, other, strict=True)]
        made = []
        for part, rare in zip(shares(vectors, (0.4, 0.3, 0.3), seed), (0.1, 0.9, 0.9), strict=True):
            devices = (rng.random(len(part)) < rare).astype(int)
            made.append([
                {"image": torch.from_numpy(x["both"][d]).float(), "label": x["label"], "weight": (1 / 9, 9.0)[d],
                 "index": x["index"]}
                for x, d in zip(part, devices, strict=True)
            ])  # fmt: skip
        source, target, test = made
        return linear_scores(on_features(source, weighted[way], seed, target=Whole(target)), test)

    boosted = ways("finetune", "tradaboost", own_images_alone=("finetune", {}))

    def contradicting(way: str, seed: int) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        others, own, test = shares(vectors_of(8), (0.46, 0.04, 0.5), seed)
        for item in others:
            if rng.random() < 1 / 3:
                item["label"] = {0: 2, 1: 1, 2: 0}[item["label"]]
        both = [{**x, "domain": "other"} for x in others] + [{**x, "domain": "target"} for x in own]
        chosen = [x for x in both if x["domain"] == "target"] if way == "own_images_alone" else both
        chosen = [{key: x[key] for key in ("image", "label", "domain")} for x in chosen]
        return linear_scores(on_features(indexed(chosen), boosted[way], seed, target=Whole(test)), test)

    unlabelled = ways(
        "finetune", "pseudo_label", "fixmatch", "mean_teacher",
        vat=("vat", {"vat": {"epsilon": 0.5}}), vat_own_images_alone=("vat", {"vat": {"epsilon": 0.5}}),
    )  # fmt: skip

    def clustered(way: str, seed: int) -> dict[str, float]:
        labelled, rest, test = shares(vectors_of(32), (0.05, 0.45, 0.5), seed)
        target = None
        if way not in ("finetune", "vat_own_images_alone"):
            bare = Dataset([{"image": item["image"]} for item in rest])
            loader = DataLoader(bare, batch_size=min(64, len(bare)), shuffle=True, drop_last=True)
            target = TargetImages(loader, {"plain": lambda x, _: (x["image"],), "augmented": noisy}, "cpu")
        network = on_features(labelled, unlabelled[way], seed, target=target, epochs=20, batch=16)
        return linear_scores(network, test)

    related = ways("finetune", "freeze", "l2_sp", "co_tuning", "rkd", "similarity_preserving")

    def refined(way: str, seed: int) -> dict[str, float]:
        first, labelled, test = shares(vectors_of(64), (0.45, 0.05, 0.5), seed)
        first = [{**item, "label": int(item["label"] != 1)} for item in first]
        set_determinism(seed)
        body = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        source = on_features(first, ("finetune", {}), seed, network=headed(body, 64, 2), lr=0.01)
        network = on_features(
            labelled, related[way], seed, network=headed(body, 64, 3), source_head=source.head, epochs=20, lr=0.01,
            batch=16,
        )  # fmt: skip
        return linear_scores(network, test)

    return (
        Study(
            "covariate shift, a linear classifier",
            "bacterial, viral or none, on four components of frozen features of Kermany's radiographs; one training "
            "image of ten is from another device, and nine of ten of the target's; one linear rule does not serve both",
            {"balanced_accuracy": "balanced accuracy", "auc": "AUC"}, "finetune", weighted, biased, seeds=20,
        ),
        Study(
            "own labels few, another hospital's many and partly wrong",
            "bacterial, viral or none, on eight components of the same features; 4% own labels and 46% of a hospital "
            "that mixes up viral and bacterial in one record of three",
            {"balanced_accuracy": "balanced accuracy", "auc": "AUC"}, "finetune", boosted, contradicting, seeds=20,
        ),
        Study(
            "images without labels, a linear classifier",
            "bacterial, viral or none, on 32 components of the same features; 5% labelled, 45% without labels, scored "
            "on 50%; augmented is a little noise",
            {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}, "finetune", unlabelled, clustered, seeds=20,
        ),
        Study(
            "few labels of a task that refines the first",
            "a network of one hidden layer on 64 components of the same features, trained to tell pneumonia from none "
            "on 45%; then bacterial, viral or none from 5%, of other patients",
            {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}, "finetune", related, refined, seeds=20,
        ),
    )  # fmt: skip


def noisy(batch: dict[str, Tensor], _: Any) -> tuple[Tensor]:
    """Features as an augmented image would have them."""
    return (batch["image"] + 0.3 * torch.randn_like(batch["image"]),)


def forgetting(folder: Path, scale: Scale) -> Study:
    """A second task after a first."""
    how = ways(
        "finetune", "freeze", "freeze_bn", "l2_sp", "delta", "lwf", "rkd", "similarity_preserving",
        "attention_transfer",
        lwf_freeze_bn=(["lwf", "freeze_bn"], {}),
        alpha_beta_lwf=(["alpha_beta", "freeze_bn"], {"alpha_beta": {"alpha": 3.0, "keep": "lwf"}}),
        alpha_beta_l2_sp=(["alpha_beta", "freeze_bn"], {"alpha_beta": {"alpha": 1.0, "keep": "l2_sp"}}),
    )  # fmt: skip

    def parts(seed: int) -> list[Items]:
        return shares(kermany(folder, scale.size, scale.images), (0.3, 0.3, 0.2, 0.2), seed)

    @cache
    def first_task(seed: int) -> str:
        network, _ = train(parts(seed)[0], ("finetune", {}), seed, classes=3, epochs=scale.epochs)
        path = str(Path(tempfile.mkdtemp()) / "first.pt")
        save_weights(network.state_dict(), path)
        return path

    def run(way: str, seed: int) -> dict[str, float]:
        path, (_, new, old, test) = first_task(seed), parts(seed)
        new, test = ([{**item, "label": int(item["image"].mean() >= 0.48)} for item in items] for items in (new, test))
        network, strategy = train(new, how[way], seed, classes=2, epochs=scale.epochs // 2 or 1, weights=path)
        result = scores(network, test)
        keeper = next((part for part in strategy.modules() if hasattr(part, "source_head")), None)
        head = source_head(network, path, head="_fc") if keeper is None else keeper.source_head
        plain = prepare_batches()[0]
        seen = extract(network, SourceImages(old, transform=None, prepare=plain, batch_size=64, device="cpu"))
        with torch.no_grad():
            before = rates(head(seen).double().softmax(1).numpy(), labels(old))
        return {"old_balanced_accuracy": before["balanced_accuracy"], "new_auc": result["auc"]}

    about = "a first task after learning a second"
    data = (
        "Kermany's radiographs: first bacterial, viral or none; then, of other patients, whether the picture is light "
    )
    data += "or dark, which needs nothing of what the first task has taught; alpha is 3 with lwf, 1 with l2_sp"
    metrics = {"old_balanced_accuracy": "balanced accuracy on the first task", "new_auc": "AUC on the second"}
    return Study(about, data, metrics, "finetune", how, run)
