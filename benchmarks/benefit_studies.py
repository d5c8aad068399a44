"""Studies of ``benefits.py`` on small images: what is trained on what, and how it is scored."""

import tempfile
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
from monai.metrics import compute_roc_auc
from monai.utils import set_determinism
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from medtl_monai.backbones import build as build_network
from medtl_monai.backbones import extract
from medtl_monai.bundle import EpochSeed, SourceImages, TargetImages, image_statistics, predict, transfer
from medtl_monai.data import load_cases, make_brain_cohort
from medtl_monai.model import Model
from medtl_monai.strategies import Strategy, build
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
        ways: name to the strategy as text.
        run: ``(way, seed) -> scores``.
        seeds: how many, unless the command line says which.
    """

    about: str
    setting: str
    metrics: dict[str, str]
    baseline: str
    ways: dict[str, str]
    run: Callable[[str, int], dict[str, float]] = field(repr=False)
    seeds: int = 5


def ways(*names: str, **more: str) -> dict[str, str]:
    """Strategies by their own names with their default settings, and others."""
    return {**{name: name for name in names}, **more}


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
    way: str,
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
    strategy = build(way)
    target = None
    if unlabelled is not None:
        bare = [{"image": item["image"]} for item in unlabelled]
        loader = DataLoader(Dataset(bare), batch_size=min(batch, len(bare)), shuffle=True, drop_last=True)
        target = TargetImages(loader, {"plain": plain, "augmented": augmented}, "cpu")
    network = build_network("efficientnet_lite0", in_channels=1, num_classes=classes)
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
    classes = sorted(set(map(str, labels(items))))
    about = {"backbone": "efficientnet_lite0", "image_size": items[0]["image"].shape[-1]}
    model = Model(task="classification", classes=classes, **about, **image_statistics(IMAGENET, 1))
    return rates(predict(network, loader, model, device="cpu"), labels(items))


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


NAMES = ("scarcity", "scanners", "hospitals", "forgetting")


def studies(folder: Path, scale: Scale) -> dict[str, Study]:
    """These studies by name."""
    made = [scarcity(folder, scale), scanners(scale), hospitals(folder, scale), forgetting(folder, scale)]
    return dict(zip(NAMES, made, strict=True))


def scarcity(folder: Path, scale: Scale) -> Study:
    """Few labels."""
    how = ways(
        "finetune", "scratch", "freeze", "l2_sp", "delta", "bss", "co_tuning", "rkd", "mean_teacher", "pseudo_label",
        "fixmatch",
        vat="vat(epsilon=1.0)",
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


def forgetting(folder: Path, scale: Scale) -> Study:
    """A second task after a first."""
    how = ways(
        "finetune", "freeze", "freeze_bn", "l2_sp", "delta", "lwf",
        lwf_freeze_bn="lwf + freeze_bn",
        alpha_beta_lwf="alpha_beta(alpha=3.0, keep=lwf) + freeze_bn",
        alpha_beta_l2_sp="alpha_beta(alpha=1.0, keep=l2_sp) + freeze_bn",
    )  # fmt: skip

    def parts(seed: int) -> list[Items]:
        return shares(kermany(folder, scale.size, scale.images), (0.3, 0.3, 0.2, 0.2), seed)

    @cache
    def first_task(seed: int) -> str:
        network, _ = train(parts(seed)[0], "finetune", seed, classes=3, epochs=scale.epochs)
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
