"""Files by their first bytes: what people have in place of weights, and weights under any name."""

import bz2
import gzip
import io
import lzma
import random
import zipfile

import h5py
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medtl_monai.bundle import fill
from medtl_monai.model import read_checkpoint
from medtl_monai.utils import UserError
from medtl_monai.weights import find, kind_of, load_weights, read_weights, save_weights

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 98765432\n"


def content(kind):
    buffer = io.BytesIO()
    if kind == "hdf5":
        with h5py.File(buffer, "w") as file:
            file["model_weights/conv1/kernel:0"] = np.zeros((3, 3, 1, 8))
    elif kind == "npz":
        np.savez(buffer, w=np.zeros(3))
    elif kind == "npy":
        np.save(buffer, np.zeros(3))
    elif kind in ("keras", "zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in ("config.json", "model.weights.h5") if kind == "keras" else ("resnet.pth", "readme.txt"):
                archive.writestr(name, "{}")
    return buffer.getvalue()


PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"
OTHERS = [
    (POINTER.encode(), "a pointer of git-lfs to a file of 98,765,432 bytes, not the file: run `git lfs pull`"),
    (PAGE, "a web page, not a weight file"),
    (b"\xef\xbb\xbf<html>", "a web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
    (b'{"error": "Repository not found"}', "text in JSON, such as a server's answer"),
    (content("hdf5"), "an HDF5 file, such as Keras writes, not a weight file: its weights lie in another order"),
    (content("keras"), "a network of Keras"),
    (content("npz"), "an archive of NumPy's arrays \\(npz\\)"),
    (content("npy"), "one array of NumPy"),
    (content("zip"), "a zip archive with resnet.pth, readme.txt, not a weight file: unpack it"),
    (gzip.compress(b"x"), "compressed with gzip, not a weight file: unpack it"),
    (bz2.compress(b"x"), "compressed with bzip2"),
    (lzma.compress(b"x"), "compressed with xz"),
    (b"%PDF-1.7", "a PDF document"),
    (b"\x1c\x00\x00\x00TFL3" + bytes(30), "a network of TensorFlow Lite"),
    (b" \n ", "empty"),
]


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.onnx", "w.h5"])
@pytest.mark.parametrize(("data", "message"), OTHERS, ids=[message[:24] for _, message in OTHERS])
def test_what_is_no_weight_file_is_named_whatever_its_name(data, message, name, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is {message}"):
        read_weights(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is {message}"):
        load_weights(nn.Sequential(nn.Linear(2, 2)), tmp_path / name)


@pytest.mark.parametrize("name", ["w.pth", "w.model", "w", "w.bin", "w.safetensors", "w.onnx"])
@pytest.mark.parametrize("kind", ["torch", "safetensors", "onnx"])
def test_weights_are_read_by_their_content_whatever_their_name(kind, name, tmp_path):
    state, path = nn.Linear(3, 2).state_dict(), tmp_path / name
    if kind == "onnx":
        tensors = [onnx.numpy_helper.from_array(value.numpy(), key) for key, value in state.items()]
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path, format="protobuf")
    else:
        save_weights(state, tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt"))
        next(tmp_path.glob("x.*")).rename(path)
    assert kind_of(path) == kind
    assert all(torch.equal(value, state[key]) for key, value in read_weights(path).items())


def test_a_folder_is_none(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} is a folder: give the weight file in it"):
        find(str(tmp_path))


@pytest.fixture(scope="module")
def saved():
    buffer = io.BytesIO()
    torch.save({"model": {"weight": torch.randn(40, 40), "bias": torch.randn(40)}}, buffer)
    return buffer.getvalue()


@settings(deadline=None, max_examples=25)
@given(at=st.integers(0, 6399), flip=st.integers(1, 255))
def test_a_tensor_that_was_changed_in_the_file_is_refused(saved, tmp_path_factory, at, flip):
    """The archive's checksum shows it, which torch does not look at."""
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        values = archive.read(next(name for name in archive.namelist() if name.endswith("data/0")))
    start, damaged = saved.index(values), bytearray(saved)
    damaged[start + at] ^= flip
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(damaged)
    for read in (read_weights, read_checkpoint, lambda path: fill(nn.Linear(40, 40), path, "cpu")):
        with pytest.raises(UserError, match=r"damaged.pth is damaged: the checksum of .*data/0 is another"):
            read(path)


def test_bytes_changed_anywhere_in_a_file_end_in_one_sentence(tmp_path):
    chance, path = random.Random(0), tmp_path / "w.pt"
    torch.save({"a": torch.rand(64, 64), "b": torch.rand(64)}, path)
    whole, refused = path.read_bytes(), 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):  # half of them in what is said of the entries: method, password, place
            first = chance.choice((0, len(data) - 1500))
            data[chance.randrange(first, len(data))] = chance.randrange(256)
        path.write_bytes(data)
        for read in (read_weights, read_checkpoint):
            try:
                read(path)
            except UserError:
                refused += 1
    assert refused > 600
