"""The model of a training, put together from its configuration and its data; and that of a trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.inferers import Inferer
from monai.transforms import Compose

from .. import __version__
from ..data import Cases
from ..model import Model
from ..strategies import Strategy, describe
from ..utils import UserError
from .choose import wants_boxes
from .domains import named_domains
from .origin import image_statistics, read_backbone, standardizes, weights_hash

__all__ = ["new_model", "read_model", "scoring_inferer", "training_preparation"]


def new_model(
    cases: Cases,
    items: Sequence[Mapping[str, Any]],
    *,
    backbone: Any,
    variant: Mapping[str, Any],
    weights: str | None,
    strategy: Strategy,
    channels: int = 1,
    mean: Any = None,
    std: Any = None,
    standardize: bool | None = None,
    structures: Mapping[str, int] | None = None,
    **settings: Any,
) -> Model:
    """The model that a training makes.

    Args:
        cases: the labelled images, which say the task and the classes.
        items: of the training part: they say the domains, where the variant tells domains apart.
        backbone: its name, or a network of MONAI as a dictionary, or as JSON, with ``_target_``.
        variant: see :class:`medtl_monai.model.Model`.
        weights: what the training starts from, which says how images are normalized.
        strategy: how it learns; kept as text.
        channels: of an image.
        mean: of each channel, instead of what the weights say; one number for all.
        std: likewise.
        standardize: each image on its own, before that; default: as the weights say, where they say mean and std.
        structures: of a segmentation, value in the masks by name.
        settings: further fields of the model.

    Raises:
        UserError: a value that does not fit.
    """
    found = image_statistics(weights, channels)
    if standardize is None:
        standardize = mean is None and std is None and standardizes(weights)
    return Model(
        task=cases.task,
        classes=list(cases.classes) if structures is None else ["background", *structures],
        structures=dict(structures or {}),
        backbone=read_backbone(backbone),
        variant=named_domains(variant, items),
        channels=channels,
        mean=found["mean"] if mean is None else _each(mean, channels),
        std=found["std"] if std is None else _each(std, channels),
        standardize=standardize,
        origin={
            "weights": weights or "none",
            "weights_sha256": weights_hash(weights),
            "strategy": describe(strategy),
            "dataset": Path(cases.root).name,
            "medtl_monai": __version__,
        },
        **settings,
    )


def _each(value: Any, channels: int) -> Any:
    return [value] * channels if isinstance(value, (int, float)) else value


def read_model(checkpoint: str, default: Mapping[str, Any], **changes: Any) -> Model:
    """The trained model in ``checkpoint``; where there is no such file yet, what the bundle trains by default.

    Args:
        checkpoint: the file.
        default: a model's data, so that MONAI's tools can look at a bundle without weights.
        changes: how the network is run and its answer read, where the user wants it otherwise; ``None``: as trained.

    Raises:
        UserError: the checkpoint is of a model of another kind of image.
    """
    usual = Model.from_dict(default)
    if not Path(checkpoint).is_file():
        return usual.changed(**changes)
    model = Model.read(checkpoint)
    if model.images != usual.images:
        raise UserError(
            f"{checkpoint} is of a model of {model.images}, and this bundle is for {usual.images}: take the one that "
            "it was trained with."
        )
    return model.changed(**changes)


def training_preparation(model: Model, strategy: Strategy) -> Compose:
    """The preparation of training images; with maps of lesions where a strategy learns from them."""
    return model.preparation("train", lesions=wants_boxes(strategy))


def scoring_inferer(model: Model, scales: Sequence[float] | None, mirrors: Sequence[Any] | None) -> Inferer:
    """What runs a trained network, on all its views.

    Args:
        model: which holds the views.
        scales: stand here in a configuration, where users of MONAI look for them, and are the model's.
        mirrors: likewise.

    Raises:
        UserError: the model has other ones.
    """
    for name, value in (("scales", scales), ("mirrors", mirrors)):
        if value is not None and [*map(_listed, value)] != [*map(_listed, getattr(model, name))]:
            raise UserError(f"inferer: {name} {value} are not those of the model, {getattr(model, name)}.")
    return model.inferer()


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
