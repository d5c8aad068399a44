"""Breast images made alike: the breast alone, with the chest wall on the left, and beside it the other breast."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.traits import RandomizableTrait
from scipy.ndimage import label
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..utils import UNKNOWN, UserError
from .boxes import check_inside, draw_boxes, marked
from .read.dicom_header import header, split_frame

__all__ = ["FaceBreastd", "JoinSidesd", "MapLesiond", "RandCropLesiond", "face_breast", "pair_sides"]

_GRID = 64  # cells a side in which the breast is looked for
_DARK = 0.1  # of the brightness of bright tissue; less is background


def face_breast(image: Tensor) -> Tensor:
    """A mammogram or tomosynthesis slice ``(C, H, W)`` cropped to the breast, which points to the right.

    The breast is the largest connected region above the background, so that labels, tape and the other side of a film
    fall away. Right breasts are mirrored: the side of the region that holds more tissue is the chest wall.
    """
    return _faced(image, *_find_breast(image))


class FaceBreastd(MapTransform):
    """:func:`face_breast` for items; follows :class:`medtl_monai.data.ToSliced`.

    An item's ``box``, one or several around the lesions of the first key's image (each x, y, width and height in
    pixels; not numbers if there is none), becomes a tensor ``(n, 4)`` of fractions of the cropped image. ``box_side``,
    if it is there, says that they were drawn on the image turned by 180 degrees if need be, so that the chest wall is
    on the left (L) or the right (R).

    Raises:
        UserError: a box lies outside its image.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, with cropped images that all face one way."""
        result = dict(data)
        side = result.pop("box_side", None)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            meta = result[key].meta if isinstance(result[key], MetaTensor) else {}
            window, mirrored = _find_breast(image)
            result[key] = MetaTensor(_faced(image, window, mirrored).contiguous(), meta=meta)
            if key == self.keys[0] and "box" in result:
                box = torch.as_tensor(result["box"], dtype=torch.float32).reshape(-1, 4)
                check_inside(box, image)
                if side and mirrored != (side == "R"):  # drawn on the image turned by 180 degrees
                    size = torch.tensor([image.shape[-1], image.shape[-2]])
                    box = torch.cat([size - box[:, :2] - box[:, 2:], box[:, 2:]], 1)
                result["box"] = _within(box, window, mirrored)
        return result


class JoinSidesd(MapTransform):
    """The image and, as further channels, the item's ``other`` side, itself where there is none; if ``compare``.

    For the networks of :func:`medtl_monai.backbones.compare_sides`.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, compare: bool = True) -> None:
        super().__init__(keys)
        self.compare = compare

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, without ``other``."""
        result = dict(data)
        other = result.pop("other", None)
        for key in self.key_iterator(result) if self.compare else ():
            result[key] = torch.cat([result[key], result[key] if other is None else other])
        return result


class MapLesiond(MapTransform):
    """A map of where the lesion lies, ``(1, H, W)``, in place of the item's label.

    Its class within the boxes, which are taken out of the item, and 0, the healthy class, elsewhere. Where a lesion is
    known of, but not its place, or it lies outside the crop, all is unknown: 255. Follows :class:`FaceBreastd` and
    ``Resized``.

    Args:
        keys: of the image ``(C, H, W)``.
        label_key: of its class.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, label_key: Hashable = "label") -> None:
        super().__init__(keys)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, without ``box``; those without a label stay as they are."""
        result = dict(data)
        if self.label_key not in result:
            return result
        box, label = marked(result.pop("box")), int(result[self.label_key])
        n = torch.tensor(result[self.keys[0]].shape[:-3:-1])  # columns and rows
        if label and (not len(box) or bool((box[:, 2:] <= 0).any())):
            where = torch.full((1, *n.flip(0)), UNKNOWN, dtype=torch.uint8)
        else:
            where = draw_boxes(box * n.repeat(2), n.flip(0).tolist(), label)
        return {**result, self.label_key: where}


class RandCropLesiond(MapTransform, RandomizableTrait):
    """A square around a random place of an image's lesion, or of the breast where no lesion is marked.

    Follows :class:`FaceBreastd`, whose ``box`` becomes fractions of the square, and
    :class:`medtl_monai.data.ScalePercentilesd`. Its draws come from torch's default generator.

    Args:
        keys: of the images ``(C, H, W)`` in ``[0, 1]``, which are cropped alike.
        size: of the square in pixels.
        image_size: side of the images.

    Raises:
        UserError: the square is larger than the image.

    References:
        Shen, Margolies, Rothstein et al. Deep learning to improve breast cancer detection on screening mammography.
        Scientific Reports 9:12495, 2019.
    """

    def __init__(self, keys: Sequence[Hashable] | Hashable, size: int, image_size: int) -> None:
        super().__init__(keys)
        if not 1 < size <= image_size:
            raise UserError(f"crop_size must lie between 2 and image_size, {image_size}; got {size}.")
        self.size = size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same items, cropped."""
        result = dict(data)
        box, image = result.get("box"), result[self.keys[0]]
        rows, columns = (
            _low(n, self.size, centre * n)
            for n, centre in zip(image.shape[-2:], _place(torch.as_tensor(image[0]), box), strict=True)
        )
        for key in self.key_iterator(result):
            result[key] = result[key][..., rows : rows + self.size, columns : columns + self.size]
        if box is not None:
            pixels = torch.as_tensor(box).reshape(-1, 4) * torch.tensor([image.shape[-1], image.shape[-2]] * 2)
            window = slice(rows, rows + self.size), slice(columns, columns + self.size)
            result["box"] = _within(pixels, window, False)
        return result


def pair_sides(items: Sequence[Mapping[str, Any]], views: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items with ``other``, the image of the patient's other breast in the same view, where there is one.

    Slices of tomosynthesis get the slice at the same relative depth.

    Args:
        items: with ``image``, ``patient`` and ``laterality`` (L or R), and ``study`` and ``view`` where they are known.
        views: all images of these patients, of which the others are taken; as ``items``, files without a slice.
    """
    files = {_view(view): view["image"] for view in views}
    paired = []
    for item in items:
        patient, study, view, side = _view(item)
        other = files.get((patient, study, view, {"L": "R", "R": "L"}.get(side, "unknown")))
        if other is not None:
            file, number = split_frame(item["image"])
            if number is not None:
                depth = number / max(1, header(file).frames - 1)
                other = f"{other}#{round(depth * (header(other).frames - 1))}"
        paired.append({**item, "other": other} if other is not None else dict(item))
    return paired


def _view(item: Mapping[str, Any]) -> tuple[Any, ...]:
    side = item.get("laterality")
    view = str(item.get("view", "")).lower()
    return item.get("patient"), item.get("study"), view.removeprefix(str(side).lower()), side


def _find_breast(image: Tensor) -> tuple[tuple[slice, slice], bool]:
    """Rows and columns that hold the breast, and whether its chest wall is on the right."""
    cells = _cells(image[None].float()).mean(1, keepdim=True)
    low, high = cells.min(), cells.flatten().quantile(0.95)
    inside = _largest(cells > low + _DARK * (high - low))[0, 0]
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    if not len(rows):
        return (slice(0, image.shape[-2]), slice(0, image.shape[-1])), False
    window = [
        slice(int(found[0]) * n // _GRID, -(-(int(found[-1]) + 1) * n // _GRID))
        for found, n in ((rows, image.shape[-2]), (columns, image.shape[-1]))
    ]
    region = inside[:, columns[0] : columns[-1] + 1]
    half = max(1, region.shape[1] // 2)
    return (window[0], window[1]), bool(region[:, -half:].sum() > region[:, :half].sum())


def _faced(image: Tensor, window: tuple[slice, slice], mirrored: bool) -> Tensor:
    crop = image[(..., *window)]
    return crop.flip(-1) if mirrored else crop


def _within(box: Tensor, window: tuple[slice, slice], mirrored: bool) -> Tensor:
    """Boxes ``(n, 4)`` in fractions of the window, which was mirrored or not; cut off at its edges."""
    rows, columns = window
    size = torch.tensor([columns.stop - columns.start, rows.stop - rows.start])
    low = (box[:, :2] - torch.tensor([columns.start, rows.start])) / size
    low, high = low.clamp(0, 1), (low + box[:, 2:] / size).clamp(0, 1)
    if mirrored:
        low[:, 0], high[:, 0] = 1 - high[:, 0], 1 - low[:, 0]
    return torch.cat([low, high - low], 1)


def _place(image: Tensor, box: Tensor | None) -> tuple[float, float]:
    """A random place, as fractions of ``image`` ``(H, W)``, y first: in the first box, else in the breast."""
    if box is not None and len(known := marked(box)):
        x, y = (known[0, :2] + torch.rand(2) * known[0, 2:]).tolist()
        return y, x
    inside = (image > _DARK).nonzero()
    if not len(inside):
        return 0.5, 0.5
    y, x = (inside[int(torch.randint(len(inside), ()))] / torch.tensor(image.shape)).tolist()
    return y, x


def _low(n: int, size: int, centre: float) -> int:
    """Where a stretch of ``size`` around ``centre`` begins that stays within ``n``."""
    return int(min(max(0, centre - size / 2), n - size))


def _cells(image: Tensor) -> Tensor:
    """Means of a grid; of columns that lie one after the other, as they do in slices just read, without a copy."""
    turned = image.mT.is_contiguous()
    cells = adaptive_avg_pool2d(image.mT if turned else image, _GRID)
    return cells.mT if turned else cells


def _largest(mask: Tensor) -> Tensor:
    """The largest connected region of ``(1, 1, H, W)``."""
    names, count = label(mask[0, 0].numpy(), np.ones((3, 3)))
    sizes = np.bincount(names.ravel())[1:]
    return torch.as_tensor(names == 1 + sizes.argmax())[None, None] if count else mask
