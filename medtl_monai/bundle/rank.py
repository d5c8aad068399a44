"""Pretrained weights compared on the user's images, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from numpy.typing import NDArray

from ..backbones import anatomy
from ..data import Cases, check_readable, fold_patients
from ..features import extract_features
from ..model import Model
from ..transferability import assess
from ..utils import UserError
from ..weights import SOURCES, Source, load_weights, local, lookup, source_head
from .keys import check_values
from .origin import image_statistics

__all__ = ["rank_weights", "render_rank"]

_BATCH = 16
_CONTROLS = {
    "linear_probe_auc": "probe AUC",
    "linear_probe_balanced_accuracy": "probe balanced accuracy",
    "knn_accuracy": "kNN accuracy",
}
_SCORES = {"logme": "LogME", "leep": "LEEP", "nleep": "NLEEP", "h_score": "H-score", "gbc": "GBC"}


def rank_weights(
    cases: Cases,
    weights: Sequence[str] | None = None,
    *,
    image_size: int | None = None,
    channels: int = 1,
    place: str = "memory",
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """What :func:`medtl_monai.transferability.assess` says of each network of the catalogue, ready for JSON.

    Images that the data keeps for testing are left out: they must not choose the network.

    Args:
        cases: 2D images, each of one class.
        weights: names of the catalogue; default: those for 2D images that are on this machine.
        image_size: side in pixels; default: each network's own.
        channels: 1, or 3 for colour.
        place: where features are kept: ``memory``, or a folder in which later calls find them.
        device: where the networks run.
        seed: of the folds and of all draws.
        progress: show bars.

    Returns:
        ``classes``, ``images``, ``patients``, ``test_images_left_out``, ``folds``, ``seed`` and ``networks``, the best
        linear probe first: ``weights``, ``backbone``, ``image_size``, ``features``, ``controls`` and ``scores``.

    Raises:
        UserError: another task, unknown weights or none, unreadable images, or a class with too few patients.
    """
    if cases.task != "classification":
        raise UserError(
            f"the labels are for {cases.task}, and networks are ranked by one class an image: give --label_column."
        )
    check_values({"image_size": image_size})
    sources = _sources(weights)
    items = [item for item in cases.items if item.get("split") != "test"]
    labels, patients = [item["label"] for item in items], [str(item["patient"]) for item in items]
    folds, networks = fold_patients(items, seed=seed, classes=cases.classes), []
    for source in sources:
        size = image_size or source.input_size
        features, probabilities = _outputs(source, items, size, channels, place, device, progress)
        found = assess(features, labels, patients, folds, cases.classes, source_probabilities=probabilities, seed=seed)
        about = {"weights": source.name, "backbone": source.architecture, "image_size": size}
        networks.append({**about, "features": features.shape[1], **found})
    return {
        "classes": cases.classes,
        "images": len(items),
        "patients": len(set(patients)),
        "test_images_left_out": len(cases.items) - len(items),
        "folds": max(folds) + 1,
        "seed": seed,
        "networks": sorted(networks, key=_probe, reverse=True),
    }


def _sources(weights: Sequence[str] | None) -> list[Source]:
    """The catalogue's entries of these names, each once; of none those for 2D images that are on this machine."""
    here = [source.name for source in SOURCES.values() if source.spatial_dims == 2 and local(source)]
    sources = [lookup(name) for name in dict.fromkeys(weights or here)]
    if not sources:
        raise UserError("there are no pretrained weights on this machine: name some of the catalogue with --weights.")
    return sources


def _probe(network: Mapping[str, Any]) -> float:
    return network["controls"]["linear_probe_auc"]["value"] or 0.0


def _outputs(
    source: Source,
    items: Sequence[Mapping[str, Any]],
    image_size: int,
    channels: int,
    place: str,
    device: torch.device | str,
    progress: bool,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Features ``(N, F)`` of all items, and probabilities of the source's classes where it tells them apart."""
    statistics: dict[str, Any] = dict(image_statistics(source.name, channels))
    model = Model(
        task="classification",
        classes=["one", "other"],  # of a head that is not used
        backbone=source.architecture,
        variant=dict(source.options),
        channels=channels,
        image_size=image_size,
        window=source.window,
        standardize=source.standardizes,
        **statistics,
    )
    network = model.network()
    where = anatomy(network)
    load_weights(network, source.name, head=where.head)
    loader = DataLoader(Dataset(items, model.preparation("target")), batch_size=_BATCH)
    prepare = model.prepare_batch()
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        features, _ = extract_features(network, loader, prepare, device=device, place=place, progress=progress)
    except RuntimeError:
        check_readable(items, progress=progress)  # names the images, if it is them
        raise
    # of findings that may stand together the source gives no distribution
    head = None if source.classes else source_head(network, source.name, head=where.head)
    if head is None:
        return features.numpy(), None
    with torch.no_grad():
        return features.numpy(), head(features).softmax(1).numpy()


def render_rank(result: Mapping[str, Any]) -> str:
    """The networks as two tables: the controls, then the scores."""
    networks = result["networks"]
    controls = [["", *_CONTROLS.values()]]
    controls += [[n["weights"], *(_cell(n["controls"][name]) for name in _CONTROLS)] for n in networks]
    scores = [["", *_SCORES.values()]]
    for network in networks:
        entries = [network["scores"][name] for name in _SCORES]
        scores.append([network["weights"], *map(_cell, entries)])
        scores.append(["  labels shuffled", *(_cell({"value": entry["shuffled"]}) for entry in entries)])
    reasons = [
        f"{network['weights']}: {name}: {entry['reason']}"
        for network in networks
        for name, entry in (*network["controls"].items(), *network["scores"].items())
        if "reason" in entry
    ]
    return "\n".join(
        [
            f"{result['images']} images of {result['patients']} patients, {len(result['classes'])} classes; "
            f"{result['test_images_left_out']} test images left out",
            f"\nControls, tested in {result['folds']} folds on patients not seen",
            *_aligned(controls),
            "\nScores, higher promises more; what counts is the distance from shuffled labels",
            *_aligned(scores),
            "",
            *reasons,
            "In brackets: 95% intervals over patients; where they overlap, the order is open.",
            "No score reliably tells which network will be best after fine-tuning (Chaves et al. 2023): the controls",
            "count more, and a short training of the first few counts most.",
        ]
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    ends = ", ".join(f"{end:.3f}" for end in entry.get("interval") or ())
    return f"{entry['value']:.3f}" + (f" [{ends}]" if ends else "")
