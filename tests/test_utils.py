"""Whole files, tables that no spreadsheet runs, processes."""

import csv
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medtl_monai.utils import read_cell, write_json, write_table, write_torch

CELLS = st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))


@given(rows=CELLS)
def test_no_cell_is_a_formula_and_every_text_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    write_table(path, rows)
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert [[read_cell(cell) for cell in row] for row in found if row] == [row for row in rows if row]
    for cell in (cell for row in found for cell in row):
        assert not cell.startswith(("=", "@", "\t", "\r"))
        if cell.startswith(("+", "-")):
            float(cell)  # a number


def test_numbers_stay_numbers(tmp_path):
    write_table(tmp_path / "t.csv", [["=1+1", "-x", -0.5, "-1.5e-3", None]])
    assert (tmp_path / "t.csv").read_text() == "'=1+1,'-x,-0.5,-1.5e-3,\n"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "a.json").write_text("before")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert (tmp_path / "a.json").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
def test_a_full_disk_is_what_the_system_says(monkeypatch):
    monkeypatch.setattr("medtl_monai.utils.atomic_path", lambda path: nullcontext(Path("/dev/full")))
    with pytest.raises(OSError, match="No space left"):
        write_torch("x.pt", {"a": torch.zeros(3)})
