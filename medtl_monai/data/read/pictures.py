"""Pictures (PNG, JPEG, TIFF, ...) as a viewer shows them, with all their bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...utils import UserError
from .limits import check_size

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draft", "read_picture"]

Array = NDArray[Any]

_ORIENTATION, _BITS, _PHOTOMETRIC, _SUBFILE, _SAMPLE_FORMAT = 274, 258, 262, 254, 339  # tags of TIFF and EXIF
_PREVIEW = 1  # in the tag NewSubfileType: the page is another one, smaller
_WHITE_IS_ZERO = 0
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000")
_TURNED: dict[int, Callable[[Array], Array]] = {  # EXIF 2.3, 4.6.4 A: what a viewer does, of rows and columns
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
_CHANNELS = 4  # red, green, blue and transparency
_INKS = ("CMYK", "LAB", "HSV")


def read_picture(path: str | Path, values: bool = False) -> tuple[Array, dict[str, Any]]:
    """A picture as every viewer shows it: turned as its EXIF data say, the palette applied, white where it says white.

    Args:
        path: the file.
        values: of a mask: the palette's indices and not its colours, and one channel of colour.

    Returns:
        ``(x, y)``, ``(x, y, page)`` or ``(x, y, colour)``, x to the right and y down, in the stored type; and MONAI's
        metadata, with ``lossy``: whether compression has changed the values.

    Raises:
        UserError: inks instead of light, more than four channels, pages of several sizes or in colour, more values than
            memory holds.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            check_size(path, *picture.size)
            lossy = picture.format in _LOSSY
            if _deep_channels(picture) and picture.format == "TIFF":
                pages = _deep_pages(str(path))
            else:
                pages = [_page(picture, str(path), values) for _ in _each_page(picture)]
            sums = picture.format == "PNG"
        if sums:  # pixels are taken before their checksum is looked at
            with Image.open(path) as picture:
                picture.verify()
    except UnidentifiedImageError:
        with open(path, "rb") as file:
            if file.read(2) not in (b"II", b"MM"):
                raise
        pages, lossy = _deep_pages(str(path)), False
    array = _as_one(pages, str(path)).swapaxes(0, 1)
    colour = pages[0].ndim == 3
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # x to the patient's left, y to the back
    return array, {
        "affine": affine,
        "original_affine": affine.copy(),
        "space": "RAS",
        "spatial_shape": np.array(array.shape[:2] if colour else array.shape),
        "original_channel_dim": -1 if colour else float("nan"),
        "lossy": lossy,
    }


def draft(path: str) -> NDArray[np.float32] | None:
    """A JPEG in grey, upright ``(H, W)``, decoded as small as JPEG allows: ``None`` where it is none, or in inks."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.format not in ("JPEG", "MPO") or picture.mode in _INKS:
            return None
        picture.draft("L", (64, 64))
        return np.asarray(_turned(np.asarray(picture.convert("L")), picture.getexif().get(_ORIENTATION)), np.float32)


def _as_one(pages: list[Array], path: str) -> Array:
    if len(pages) == 1:
        return pages[0]
    sizes = sorted({" x ".join(map(str, page.shape[1::-1])) for page in pages})
    if len(sizes) > 1 or pages[0].ndim == 3:
        kind = f"of several sizes ({', '.join(sizes)})" if len(sizes) > 1 else "in colour"
        raise UserError(f"{path} has {len(pages)} pages {kind}: expected one picture, or a stack of grey ones.")
    return np.stack(pages, -1)


def _each_page(picture: Image) -> Iterator[int]:
    """Go to each page in turn; previews, and the second image of a camera's file, are left out."""
    count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    for number in range(count):
        if count > 1:
            picture.seek(number)
        if count == 1 or not getattr(picture, "tag_v2", {}).get(_SUBFILE, 0) & _PREVIEW:
            yield number


def _deep_channels(picture: Image) -> int:
    """How many colours of more than the 8 bits that Pillow reads a picture has; 0 for none."""
    if picture.mode[0] in "IF":
        return 0
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(_BITS, (1,))  # type: ignore[attr-defined]
        return len(bits) if max(bits) > 8 else 0
    tile: Any = getattr(picture, "tile", ())
    kind, _, depth = str(tile[0][3] if tile else "").partition(";")
    return len(kind) if depth.startswith("16") else 0


def _page(picture: Image, path: str, values: bool) -> Array:
    """``(H, W)`` or ``(H, W, colour)`` of the page that a picture stands at."""
    if picture.mode in _INKS:
        raise UserError(f"{path} stores its colours as {picture.mode} (inks): expected grey or RGB; convert it.")
    if deep := _deep_channels(picture):
        return _turned(_deep_png(path, deep), picture.getexif().get(_ORIENTATION))
    tags = getattr(picture, "tag_v2", {}) if picture.mode[0] in "IF" else {}  # Pillow turns 8 bits round itself
    array = np.asarray(_in_grey_or_colour(picture, values))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        array = _inverted(array, tags[_BITS][0], tags.get(_SAMPLE_FORMAT, (1,))[0])
    return _turned(array, picture.getexif().get(_ORIENTATION))  # of TIFF Pillow has done it, and taken the tag out


def _in_grey_or_colour(picture: Image, values: bool) -> Image:
    if picture.mode[0] in "IF" or picture.mode in ("L", "RGB"):
        return picture.convert("L") if values and picture.mode == "RGB" else picture
    if picture.mode in ("P", "PA"):
        return (picture if picture.mode == "P" else picture.convert("P")) if values else picture.convert("RGB")
    grey = values or picture.mode in ("1", "LA", "La")
    return picture.convert("L" if grey else "RGB")  # without transparency


def _turned(array: Array, orientation: int | None) -> Array:
    turn = _TURNED.get(orientation or 1)
    return array if turn is None else turn(array)


def _inverted(array: Array, bits: int, sample_format: int) -> Array:
    """Values of which 0 is white, turned round within what their bits allow, whatever values are there."""
    return -array if sample_format == 3 else (-1 if sample_format == 2 else 2**bits - 1) - array


def _deep_png(path: str, channels: int) -> Array:
    """16 bits a colour, of which Pillow reads 8; without transparency."""
    import itk

    array = itk.array_from_image(itk.imread(path, itk.Vector[itk.F, channels])).astype(np.uint16)
    return array[..., 0] if channels == 2 else array[..., :3]


def _deep_pages(path: str) -> list[Array]:
    """Pages of a TIFF of 16 bits a colour, or of samples that Pillow does not know."""
    import tifffile

    pages = []
    with tifffile.TiffFile(path) as file:
        page: Any
        for page in file.pages:
            if page.subfiletype & _PREVIEW and len(file.pages) > 1:
                continue
            check_size(path, *page.shape)
            if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
                raise UserError(f"{path} stores its colours as CMYK (inks): expected grey or RGB; convert it.")
            if page.samplesperpixel > _CHANNELS:
                raise UserError(
                    f"{path} has {page.samplesperpixel} channels: expected grey or RGB; write the right ones."
                )
            array = page.asarray()
            array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array
            array = array[..., :3] if page.axes in ("SYX", "YXS") else array
            if page.photometric == _WHITE_IS_ZERO:
                array = _inverted(array, page.bitspersample, page.sampleformat)
            tag = page.tags.get(_ORIENTATION)
            pages.append(_turned(array, tag.value if tag else None))
    return pages
