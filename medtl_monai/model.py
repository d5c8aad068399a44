"""What a trained model is: all that lies between an image file and an answer, as plain data beside the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer, SliceInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CopyItemsd,
    Invertd,
    KeepLargestConnectedComponentd,
    LoadImaged,
    MapTransform,
    NormalizeIntensityd,
    RepeatChanneld,
    Resized,
    ScaleIntensityRanged,
    ToTensord,
)
from numpy.typing import NDArray
from torch import nn

from .backbones import BACKBONES, anatomy, build, build_target, compare_sides
from .data import (
    AlwaysPresentd,
    AnyReader,
    CentreSquared,
    FaceBreastd,
    JoinSidesd,
    LoadStackd,
    MapLesiond,
    MarkLesiond,
    RandCropLesiond,
    ScalePercentilesd,
    SelectStructuresd,
    ToSliced,
)
from .inference import MultiViewInferer, SuspiciousPlaceInferer
from .predictions import CASE_COLUMNS
from .transforms import PrepareBatch, StandardizeImaged
from .utils import UserError
from .variants import VARIANTS, apply
from .weights import check_sums

__all__ = ["IMAGES", "PREPARATION", "Model", "read_checkpoint"]

IMAGES = ("slices", "breasts", "stacks")
"""What a case is: one 2D image; one of a breast, perhaps with the other side; a stack of slices with its mask."""

PREPARATION = ("channels", "image_size", "percentiles", "window", "crop", "mean", "std", "standardize")
"""The fields that say how an image becomes what the network sees: who trains on takes them from the model before."""

_TASKS = ("classification", "multilabel", "segmentation")
_SLICES_AT_ONCE = 16
_PRESENT = 0.5  # probability above which a finding is; calibration makes it the right one


@dataclass(frozen=True, kw_only=True)
class Model:
    """Everything that a trained network needs besides its weights, so that a checkpoint alone can be used.

    It is plain data: text, numbers, lists and dictionaries of these. Checkpoints hold it under ``about``;
    ``models/model.pt``, which is a plain state dict, has it in ``model.json`` beside it.

    Attributes:
        task: ``classification``, ``multilabel`` or ``segmentation``.
        classes: names in the order of the outputs; of a segmentation the first is the background.
        backbone: name of a network of this package, or a network of ``monai.networks.nets`` as a dictionary with
            ``_target_`` and its arguments.
        variant: changes of the network (:data:`medtl_monai.variants.VARIANTS`) and options of the backbone.
        images: what a case is, one of :data:`IMAGES`.
        dimensions: spatial dimensions of what the network sees.
        channels: of an image.
        image_size: side of the square that an image becomes, in pixels.
        percentiles: of an image's values that become 0 and 1.
        window: values that become 0 and 1 instead, such as -1000 and 200 HU, whatever the image; ``None``: percentiles.
        crop: side of the middle square of a stack's slices that is used, as a share of the shorter side.
        mean: subtracted from each channel of an image in [0, 1].
        std: then divides it.
        standardize: before that, each image gets mean 0 and standard deviation 1 of its own, channel by channel.
        structures: of a segmentation, each one's value in the masks that it writes.
        slice_axis: of a stack's file, along which its slices run; ``None``: the thickest.
        spacing: mm along x, y and z of stacks whose files do not tell it; ``None``: not known.
        compare_sides: a breast is judged by how it differs from the other one.
        crop_size: side in pixels of the windows by which a breast is judged; ``None``: as a whole.
        lesion_map: the network labels every place of a breast, and the most suspicious ones count.
        scales: sizes of the views whose logits are averaged, as factors.
        mirrors: axes along which the views are mirrored, a list for each.
        slice_share: share of a view's slices, the most suspicious ones, whose mean is the view's score.
        largest_component: keep the largest connected part of each structure.
        always_present: every slice shows every structure.
        calibration: scale and offset that were folded into the head; ``None``: not calibrated.
        origin: where the model came from: weights, strategy, data, versions.

    Raises:
        UserError: a field holds something else.
    """

    task: str
    classes: Sequence[str]
    backbone: str | Mapping[str, Any]
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]
    variant: Mapping[str, Any] = field(default_factory=dict)
    images: str = "slices"
    dimensions: int = 2
    channels: int = 1
    percentiles: Sequence[float] = (0.0, 99.9)
    window: Sequence[float] | None = None
    standardize: bool = False
    crop: float = 1.0
    structures: Mapping[str, int] = field(default_factory=dict)
    slice_axis: int | None = None
    spacing: Sequence[float] | None = None
    compare_sides: bool = False
    crop_size: int | None = None
    lesion_map: bool = False
    scales: Sequence[float] = (1.0,)
    mirrors: Sequence[Sequence[int]] = ((),)
    slice_share: float = 0.1
    largest_component: bool = False
    always_present: bool = False
    calibration: Mapping[str, Any] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    # ---- as data

    def to_dict(self) -> dict[str, Any]:
        """Plain data: lists instead of tuples."""
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, content: Any) -> Model:
        """The model of :meth:`to_dict`.

        Raises:
            UserError: no such data.
        """
        names = [f.name for f in fields(cls)]
        needed = ("task", "classes", "backbone", "image_size", "mean", "std")
        if not isinstance(content, Mapping) or not all(name in content for name in needed):
            raise UserError(f"a model is a dictionary with {', '.join(needed)} and more, got {_short(content)}.")
        unknown = [str(name) for name in content if name not in names]
        if unknown:
            raise UserError(f"a model has no {', '.join(unknown)}: it is of a newer version, or no model of ours.")
        return cls(**content)

    @classmethod
    def read(cls, checkpoint: str | Path) -> Model:
        """What the file of a trained model says: ``best.pt`` of a run, or ``model.pt`` with ``model.json`` beside it.

        Raises:
            UserError: no such file, or it says nothing.
        """
        content, beside = read_checkpoint(checkpoint), Path(checkpoint).with_suffix(".json")
        if "about" in content:
            return _told_by(checkpoint, lambda: cls.from_dict(content["about"]))
        if beside.is_file():
            return _told_by(beside, lambda: cls.from_dict(json.loads(beside.read_text(encoding="utf-8"))))
        raise UserError(
            f"{checkpoint} holds weights alone, and says neither what they are of nor how its images are prepared: "
            f"give best.pt of a run of this package, or put {beside.name} beside it."
        )

    def changed(self, **values: Any) -> Model:
        """The model with other values for some fields; ``None`` keeps what is there."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    # ---- the network

    @property
    def takes_pairs(self) -> bool:
        """Whether the network sees both sides at once; trained on crops or maps it sees one, and both are compared."""
        return self.compare_sides and self.crop_size is None and not self.lesion_map

    @property
    def learns(self) -> str:
        """The task of the network itself: of a map of lesions it is segmentation."""
        return "segmentation" if self.lesion_map else self.task

    @property
    def divides_pairs(self) -> bool:
        """Whether images are pairs of sides, of which the network sees one at a time."""
        return self.compare_sides and not self.takes_pairs

    @property
    def judges_whole(self) -> bool:
        """Whether the head gives the logits of an image as a whole, and not of its places or of one side of two."""
        divided = self.compare_sides or self.lesion_map or self.crop_size is not None
        return self.task != "segmentation" and not divided

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the network is trained on, ``(channels, *spatial)``; images that are scored may be larger."""
        side = [self.crop_size or self.image_size] * self.dimensions
        return (self.channels * (1 + self.takes_pairs), *side)

    def network(self) -> nn.Module:
        """The network, with random weights."""
        variant = dict(self.variant)
        changes = {key: variant.pop(key) for key in VARIANTS if key in variant}
        network = self._backbone(variant)
        network = apply(network, changes, blocks=[block.prefixes[-1] for block in anatomy(network).blocks[:-1]])
        return compare_sides(network) if self.takes_pairs else network

    def _backbone(self, options: Mapping[str, Any]) -> nn.Module:
        shape: dict[str, Any] = {
            "in_channels": self.channels,
            "num_classes": len(self.classes),
            "spatial_dims": self.dimensions,
        }
        _check_options(options, shape, named=isinstance(self.backbone, str))
        if not isinstance(self.backbone, str):
            return build_target(self.backbone, **shape)
        labels_places = self.lesion_map and self.backbone in BACKBONES
        try:
            return build(f"fcn_{self.backbone}" if labels_places else self.backbone, **shape, **options)
        except UserError as error:
            near = [name for key in options for name in get_close_matches(key, VARIANTS, n=1, cutoff=0.7)]
            raise UserError(f"{error} Or did you mean {near[0]!r}?" if near else str(error)) from error

    # ---- from a file to what the network sees

    def preparation(
        self, part: str = "predict", *, lesions: bool = False, values: Sequence[int] | None = None
    ) -> Compose:
        """MONAI's transforms from a datalist item to what the network sees.

        Args:
            part: ``train``; ``validate``, as the training's own validation; ``score``, labels in their own space;
                ``target``, images alone; ``predict``, images alone and normalized (elsewhere :meth:`prepare_batch`
                normalizes).
            lesions: in training, also draw a map of where lesions are.
            values: of the structures in the masks that are read; default: those of ``structures``.
        """
        if self.images == "stacks":
            return Compose(self._stacks(part, list(self.structures.values()) if values is None else values))
        return Compose(self._breasts(part, lesions) if self.images == "breasts" else self._slices(part, lesions))

    def _slices(self, part: str, lesions: bool) -> list[Any]:
        side = [self.image_size] * self.dimensions
        steps: list[Any] = [
            LoadImaged("image", image_only=True, reader=AnyReader),
            ToSliced("image", channels=self.channels),
        ]
        if part == "train":
            both: dict[str, Any] = {
                "keys": ["image", "lesion"],
                "allow_missing_keys": True,
                "mode": ["area", "nearest"],
            }
            steps += [MarkLesiond("image", draw=lesions), self._scale("image"), Resized(spatial_size=side, **both)]
        else:
            steps += [self._scale("image"), Resized("image", spatial_size=side)]
        if part == "predict":
            return [*steps, *self._normalize("image")]
        return [*steps, ToTensord("label", track_meta=False, allow_missing_keys=True)]

    def _breasts(self, part: str, lesions: bool) -> list[Any]:
        sides: dict[str, Any] = {"keys": ["image", "other"], "allow_missing_keys": True}
        steps: list[Any] = [
            LoadImaged(**sides, image_only=True, reader=AnyReader),
            ToSliced(**sides, channels=self.channels),
            FaceBreastd(**sides),
            Resized(**sides, spatial_size=[self.image_size] * self.dimensions),
            self._scale(**sides),
        ]
        if part == "predict":
            steps += self._normalize(**sides)
        if part != "train":
            return [*steps, JoinSidesd("image", compare=self.compare_sides)]
        steps.append(JoinSidesd("image", compare=self.takes_pairs))
        if self.crop_size is not None:
            steps.append(RandCropLesiond("image", size=self.crop_size, image_size=self.image_size))
        if self.lesion_map:
            steps.append(MapLesiond("image"))
        return [*steps, MarkLesiond("image", draw=lesions)]

    def _stacks(self, part: str, values: Sequence[int]) -> list[Any]:
        labelled = part in ("train", "validate", "score")
        both = part in ("train", "validate")  # else the label stays in its own space
        keys = ["image", "label"] if labelled else ["image"]
        square = ["image", "label"] if both else ["image"]
        size = [*[self.image_size] * self.dimensions, -1]
        mode: Any = ["trilinear", "nearest-exact"] if both else "trilinear"
        # elsewhere prepare_batch makes several channels of one, as each has a mean of its own
        repeated = [RepeatChanneld("image", repeats=self.channels)] if self.channels > 1 else []
        return [
            LoadStackd(keys, slice_axis=self.slice_axis, spacing=self.spacing),
            *([SelectStructuresd("label", values=values)] if labelled else []),
            self._scale("image"),
            CentreSquared(square, share=self.crop),
            Resized(square, spatial_size=size, mode=mode),
            *([*repeated, *self._normalize("image")] if part == "predict" else []),
        ]

    def _scale(self, keys: Any, **more: Any) -> MapTransform:
        if self.window is not None:
            low, high = self.window
            return ScaleIntensityRanged(keys, a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True, **more)
        lower, upper = self.percentiles
        return ScalePercentilesd(keys, lower=lower, upper=upper, **more)

    def _normalize(self, keys: Any, **more: Any) -> list[Any]:
        own = [StandardizeImaged(keys, dimensions=self.dimensions, **more)] if self.standardize else []
        mean: Any = list(self.mean)
        std: Any = list(self.std)
        return [*own, NormalizeIntensityd(keys, subtrahend=mean, divisor=std, channel_wise=True, **more)]

    def prepare_batch(self, augment: nn.Module | None = None, mix: nn.Module | None = None) -> PrepareBatch:
        """MONAI's ``prepare_batch``: it augments and normalizes on the device what ``preparation`` gave.

        Raises:
            UserError: maps of lesions cannot be mixed.
        """
        if self.lesion_map and mix is not None:
            raise UserError("lesion_map and mix exclude each other, maps cannot be mixed: leave one of them out.")
        own: dict[str, Any] = {"standardize": self.standardize, "dimensions": self.dimensions}
        return PrepareBatch(list(self.mean), list(self.std), augment=augment, mix=mix, **own)

    # ---- how the network is run, and its output read

    def inferer(self, views: bool = True) -> Inferer:
        """What runs the network on prepared cases; without ``views`` as the training's own validation does."""
        inner: Inferer | None = None
        if self.images == "breasts":
            inner = SuspiciousPlaceInferer(self.crop_size, self.lesion_map, compare_sides=self.compare_sides)
        elif self.images == "stacks" and views:
            side = [self.image_size] * self.dimensions
            inner = SliceInferer(roi_size=side, spatial_dim=2, sw_batch_size=_SLICES_AT_ONCE)
        if views:
            return MultiViewInferer(list(self.scales), list(self.mirrors), inner)
        return inner or SimpleInferer()

    def postprocessing(self, preparation: Compose | None = None) -> Compose:
        """From logits ``pred`` to probabilities, or to a label map as large as the image.

        Args:
            preparation: of a segmentation: what the image went through, which is undone. Then ``probability`` holds
                the probabilities.

        Raises:
            UserError: a segmentation without its preparation.
        """
        if self.task != "segmentation":
            return Compose([self.activation("pred")])
        if preparation is None:
            raise UserError("postprocessing: masks go back to the image's own space: give what prepared the image.")
        back = Invertd("pred", transform=preparation, orig_keys="image", nearest_interp=False)
        return Compose([self.activation("pred"), back, CopyItemsd("pred", names="probability"), *self.decision()])

    def activation(self, keys: Any) -> Activationsd:
        """Logits into probabilities: of classes by softmax, of findings that may stand together by a sigmoid each."""
        return Activationsd(keys, softmax=self.task != "multilabel", sigmoid=self.task == "multilabel")

    def decision(self) -> list[Any]:
        """The steps from a segmentation's probabilities to its label map."""
        return [
            *([AlwaysPresentd("pred")] if self.always_present else []),
            AsDiscreted("pred", argmax=True),
            *([KeepLargestConnectedComponentd("pred", is_onehot=False)] if self.largest_component else []),
        ]

    def validation(self) -> Compose:
        """The postprocessing of the training's own validation: what its metrics compare, one-hot where classes are."""
        count = len(self.classes)
        if self.task == "segmentation":
            return Compose([AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=count)])
        onehot = [AsDiscreted("label", to_onehot=count)] if self.task != "multilabel" else []
        return Compose([self.activation("pred"), *onehot])

    def predicted(self, probabilities: NDArray[Any]) -> list[str]:
        """What probabilities ``(N, C)`` say: the likeliest class; or the findings above one half."""
        if self.task == "multilabel":
            found = np.asarray(probabilities) > _PRESENT
            return ["|".join(n for n, f in zip(self.classes, row, strict=True) if f) or "No Finding" for row in found]
        return [self.classes[k] for k in np.asarray(probabilities).argmax(1)]

    def views(self) -> str:
        """How many views of an image are averaged, in words."""
        sizes = ", ".join(f"{scale:g}" for scale in self.scales)
        count = len(self.scales) * len(self.mirrors)
        if count == 1:
            return "one view an image" if tuple(self.scales) == (1.0,) else f"one view an image, of size {sizes}"
        return f"{count} views an image (sizes {sizes}; {len(self.mirrors)} orientation{'s' * (len(self.mirrors) > 1)})"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors, numbers, text and lists of these, on the CPU.

    Raises:
        UserError: there is none, it cannot be read, is damaged, or holds code.
    """
    if not Path(path).is_file():
        raise UserError(
            f"there are no trained weights at {path}: give --checkpoint a best.pt of a training, or train with "
            "--save_to_models true."
        )
    check_sums(Path(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: no checkpoint at all, a pickle of code, a truncated file
        raise UserError(f"{path} is no checkpoint that can be read safely: {_first_line(error)}") from error
    return content if isinstance(content, dict) else {}


def _first_line(error: Exception) -> str:
    # torch itself advises to read unsafe files without weights_only
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        "it holds more than tensors and plain data." if "weights_only" in line or "WeightsUnpickler" in line else line
    )


def _told_by(path: str | Path, make: Any) -> Model:
    try:
        return make()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}).") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Any, above: float = -math.inf) -> bool:
    return isinstance(values, (list, tuple)) and bool(values) and all(_is_number(v) and v > above for v in values)


def _are_percentiles(values: Any) -> bool:
    return _are_numbers(values) and len(values) == 2 and 0 <= values[0] < values[1] <= 100


def _are_names(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and bool(values) and all(isinstance(name, str) for name in values)


def _are_mirrors(values: Any) -> bool:
    lists = isinstance(values, (list, tuple)) and bool(values) and all(isinstance(v, (list, tuple)) for v in values)
    return lists and all(axis in (0, 1, 2) and axis is not True for axes in values for axis in axes)


def _whole(least: int, most: int) -> tuple[Callable[[Any], bool], str]:
    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return fits, f"a whole number from {least} to {most}"


def _one_of(options: Sequence[Any]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: any(value is option or value == option for option in options)), f"one of {', '.join(options)}"


_SWITCH = (lambda value: isinstance(value, bool)), "true or false"
_MAPPING = (lambda value: isinstance(value, Mapping)), "a dictionary"
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "task": _one_of(_TASKS),
    "classes": (_are_names, "a list of names"),
    "backbone": (lambda v: isinstance(v, (str, Mapping)), "a name, or a dictionary with _target_"),
    "image_size": _whole(8, 4096),
    "mean": (_are_numbers, "a number for each channel"),
    "std": (lambda v: _are_numbers(v, above=0), "a number above 0 for each channel"),
    "variant": _MAPPING,
    "images": _one_of(IMAGES),
    "dimensions": _whole(1, 3),
    "channels": _whole(1, 1024),
    "percentiles": (_are_percentiles, "two numbers, 0 <= lower < upper <= 100"),
    "window": (
        lambda v: v is None or (_are_numbers(v) and len(v) == 2 and v[0] < v[1]),
        "two values of images, the lower first, such as [-1000, 200]",
    ),
    "standardize": _SWITCH,
    "crop": (lambda v: _is_number(v) and 0 < v <= 1, "a number above 0 and at most 1"),
    "structures": (
        lambda v: isinstance(v, Mapping) and all(_whole(1, 2**16)[0](value) for value in v.values()),
        "names with whole numbers above 0",
    ),
    "slice_axis": (lambda v: v is None or _whole(0, 2)[0](v), "0, 1 or 2"),
    "spacing": (lambda v: v is None or (_are_numbers(v, above=0) and len(v) == 3), "three numbers above 0, in mm"),
    "compare_sides": _SWITCH,
    "crop_size": (lambda v: v is None or _whole(2, 4096)[0](v), "a whole number from 2 to 4096"),
    "lesion_map": _SWITCH,
    "scales": (lambda v: _are_numbers(v, above=0) and max(v) <= 8, "numbers above 0 and at most 8"),
    "mirrors": (_are_mirrors, "lists of axes (0, 1, 2), such as [[], [1]]"),
    "slice_share": (lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
    "largest_component": _SWITCH,
    "always_present": _SWITCH,
    "calibration": (lambda v: v is None or isinstance(v, Mapping), "scale and offset, or nothing"),
    "origin": _MAPPING,
}
"""Of every field what it may hold, in code and in words: a file that says something else was not written by a
training, and could exhaust the memory or give numbers that are none."""


def _check_options(options: Mapping[str, Any], shape: Mapping[str, Any], named: bool) -> None:
    """Refuse options of a backbone that follow from the data, or that a network by ``_target_`` has beside it."""
    for name in options:
        if name in shape:
            raise UserError(f"variant has no {name!r}: channels, classes and dimensions follow from the data.")
    if options and not named:
        raise UserError(f"variant: {', '.join(options)} would be the backbone's own: give it beside _target_.")


def _check(model: Model) -> None:
    for name, (fits, expected) in _RULES.items():
        if not fits(value := getattr(model, name)):
            raise UserError(f"{name} must be {expected}, got {_short(value)}.")
    for name in ("mean", "std"):
        if len(value := getattr(model, name)) != model.channels:
            raise UserError(f"{name} must be {_RULES[name][1]}, of {model.channels}, got {_short(value)}.")
    if len(set(model.classes)) < len(model.classes) or "" in model.classes:
        raise UserError(f"classes must be different names, got {_short(list(model.classes))}.")
    _check_answer(model)
    _check_breasts(model)


def _check_breasts(model: Model) -> None:
    if model.lesion_map and model.crop_size is not None:
        raise UserError("crop_size and lesion_map exclude each other: leave one of them out.")
    if model.standardize and model.crop_size is not None:
        raise UserError(
            "standardize and crop_size exclude each other, a window's values are not its image's: leave one."
        )
    if model.images != "breasts" and (model.compare_sides or model.lesion_map or model.crop_size is not None):
        raise UserError("compare_sides, crop_size and lesion_map are for images of breasts.")


def _check_answer(model: Model) -> None:
    """Whether task, kind of images, classes and structures belong together."""
    segments = model.task == "segmentation"
    if segments != (model.images == "stacks"):
        raise UserError(f"task {model.task} does not go with images {model.images}.")
    values = list(model.structures.values())
    if segments and (list(model.classes) != ["background", *model.structures] or len(set(values)) < len(values)):
        raise UserError(
            f"structures must have different values, in the order of the classes, got {_short(dict(model.structures))} "
            f"for {_short(list(model.classes))}."
        )
    if not segments and (clash := sorted(set(model.classes) & set(CASE_COLUMNS))):
        raise UserError(f"a class cannot be called {clash[0]!r}, as a column of predictions.csv is: rename it.")
