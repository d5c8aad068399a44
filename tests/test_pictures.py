"""Pictures as a viewer shows them, with all their bits."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose, LoadImaged
from PIL import Image, ImageOps

from medtl_monai.data import AnyReader, ToSliced, read_grey, read_stack
from medtl_monai.data.read.any import read_image
from medtl_monai.utils import UserError

LOAD = Compose([LoadImaged("image", AnyReader, image_only=True), ToSliced("image")])
PICTURE = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)


def seen(path):
    """What the network gets, ``(H, W)``."""
    return LOAD({"image": str(path)})["image"][0].numpy()


def write_png(path, samples, kind):
    """``samples`` ``(H, W, channels)`` of 16 bits, of the PNG colour type ``kind``, filtered by nothing."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = samples.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples.astype(">u2"))
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = np.kron(PICTURE, np.full((8, 8), 4, np.uint8))
    Image.fromarray(values).save(tmp_path / f"x.{ending}", exif=exif, quality=95)
    with Image.open(tmp_path / f"x.{ending}") as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture).convert("L"))
    np.testing.assert_allclose(seen(tmp_path / f"x.{ending}"), shown, atol=3)
    np.testing.assert_allclose(read_grey(tmp_path / f"x.{ending}").shape, shown.shape)
    np.testing.assert_allclose(read_stack(tmp_path / f"x.{ending}")[0, ..., 0].T, shown, atol=3)


@pytest.mark.parametrize(
    ("dtype", "turned"),
    [
        (np.uint8, lambda v: 255 - v.astype(int)),
        (np.uint16, lambda v: 65535 - v.astype(int)),
        (np.int16, lambda v: -1 - v.astype(int)),
        (np.uint32, lambda v: 2**32 - 1 - v.astype(int)),
        (np.float32, lambda v: -v),
        (np.float64, lambda v: -v),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_is_turned_round_by_its_bits(tmp_path, dtype, turned, order):
    values = (PICTURE.astype(float) * 3).astype(dtype)
    for photometric, want in (("miniswhite", turned(values)), ("minisblack", values)):
        tifffile.imwrite(tmp_path / "x.tif", values, photometric=photometric, byteorder=order)
        np.testing.assert_allclose(seen(tmp_path / "x.tif"), want.astype(np.float32))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_all_its_bits(tmp_path, kind, channels):
    values = np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)
    samples = np.repeat(values[..., None], channels, 2)
    if channels in (2, 4):
        samples[..., -1] = 65535  # opaque
    write_png(tmp_path / "x.png", samples, kind)
    np.testing.assert_array_equal(seen(tmp_path / "x.png"), values)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colour_tiff_keeps_all_its_bits(tmp_path, planar):
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    colour = np.stack([values] * 3, -1 if planar == "contig" else 0)
    tifffile.imwrite(tmp_path / "x.tif", colour, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(seen(tmp_path / "x.tif"), values)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_palette_is_shown_in_colour_and_a_mask_is_its_indices(tmp_path_factory, seed, transparent):
    rng = np.random.default_rng(seed)
    colours, indices = rng.integers(0, 256, (7, 3), dtype=np.uint8), rng.integers(0, 7, (5, 9), dtype=np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette(colours.ravel().tolist())
    path = tmp_path_factory.mktemp("p") / "x.png"
    picture.save(path, **({"transparency": 0} if transparent else {}))
    red, green, blue = np.moveaxis(colours[indices].astype(float), -1, 0)
    np.testing.assert_allclose(seen(path), 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-3)
    np.testing.assert_array_equal(read_image(path, values=True)[0].T, indices)


def test_pages_are_a_stack_and_never_the_first_alone(tmp_path):
    pages = np.random.default_rng(0).integers(0, 999, (3, 6, 8), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", pages, photometric="minisblack")
    np.testing.assert_array_equal(read_stack(tmp_path / "x.tif")[0].numpy(), pages.transpose(2, 1, 0))
    with pytest.raises(UserError, match=r"x.tif has the shape \(8, 6, 3\): expected a single slice"):
        read_grey(tmp_path / "x.tif")
    with tifffile.TiffWriter(tmp_path / "y.tif") as file:
        file.write(pages[0], photometric="minisblack")
        file.write(pages[1, :3], photometric="minisblack")
    with pytest.raises(UserError, match=r"y.tif has 2 pages of several sizes \(8 x 3, 8 x 6\)"):
        read_grey(tmp_path / "y.tif")
    with tifffile.TiffWriter(tmp_path / "z.tif") as file:
        file.write(pages[0], photometric="minisblack")
        file.write(pages[0, ::2, ::2], photometric="minisblack", subfiletype=1)  # a preview
    np.testing.assert_array_equal(seen(tmp_path / "z.tif"), pages[0])
    frames = [Image.fromarray(np.full((6, 8), k, np.uint8)) for k in (9, 99)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="has 2 pages in colour|expected a single slice"):
        read_grey(tmp_path / "x.gif")


def test_damage_names_the_file_and_no_other_reader_is_tried(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:-999])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("x.png", "empty.png", "nowhere.png"):
        with pytest.raises(UserError, match=rf"{name}"):
            read_image(tmp_path / name)


def test_more_channels_than_a_picture_has_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(UserError, match="has 5 channels: expected grey or RGB"):
        read_image(str(path))
