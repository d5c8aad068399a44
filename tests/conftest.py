"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _shared(name: str) -> Path:
    data = Path(os.environ.get("MEDTL_DATA", ROOT.parent / "shared" / "data"))
    path = data if name == "data" else data.parent / name
    if not path.is_dir():
        pytest.skip(f"real {name} not at hand: {path} is missing (MEDTL_DATA names the data folder)")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Folder of real weight files."""
    return _shared("weights")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Folder of reference outputs."""
    return _shared("reference")
