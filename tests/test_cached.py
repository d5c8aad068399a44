"""Prepared images in a folder: found again, whole, or made anew."""

import logging

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, ToTensord
from PIL import Image

from medtl_monai.data import cached_dataset
from medtl_monai.model import Model
from medtl_monai.utils import UserError

MODEL = Model(task="classification", classes=["a", "b"], backbone="resnet18", image_size=32, mean=[0.5], std=[0.5])


@pytest.fixture
def items(tmp_path):
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return [{"image": str(tmp_path / f"{i}.png"), "label": i % 2, "patient": f"p{i}"} for i in range(3)]


def same(one, two):
    assert list(one) == list(two)
    assert torch.equal(one["image"], two["image"])
    assert torch.equal(one["label"], two["label"])
    assert type(one["image"]) is type(two["image"]) is torch.Tensor


def test_a_folder_that_cannot_be_is_refused(items, tmp_path):
    with pytest.raises(UserError, match=r"cache_dir .*0.png cannot be written to \(File exists\)"):
        cached_dataset(items, MODEL.preparation("train"), tmp_path / "0.png")


def test_a_second_run_reads_no_image(items, tmp_path, monkeypatch, caplog):
    prepared = MODEL.preparation("train")
    first = list(cached_dataset(items, prepared, tmp_path / "cache"))
    monkeypatch.setattr(LoadImaged, "__call__", lambda *_: pytest.fail("an image was read"))
    second = list(cached_dataset(items, prepared, tmp_path / "cache"))
    for one, two in zip(first, second, strict=True):
        same(one, two)
    assert "damaged" not in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:],
    ],
)
def test_a_damaged_file_is_made_anew(items, tmp_path, caplog, damage):
    prepared = Compose([MODEL.preparation("train"), ToTensord("label")])
    first = list(cached_dataset(items, prepared, tmp_path / "cache"))
    path = sorted((tmp_path / "cache").rglob("*.pt"))[0]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        second = list(cached_dataset(items, prepared, tmp_path / "cache"))
    assert f"{path} is damaged: the image is prepared anew" in caplog.text
    for one, two in zip(first, second, strict=True):
        same(one, two)
    assert path.stat().st_size == len(whole)
    assert len(list((tmp_path / "cache").rglob("*"))) == 4  # a folder and three files, none of them unfinished
