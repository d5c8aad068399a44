"""Rows of tables: columns that are asked for or written in another case, and cells that hold no answer."""

import pytest
from PIL import Image

from medtl_monai.data import load_cases
from medtl_monai.utils import UserError


def pictures(root, count):
    for i in range(count):
        Image.new("L", (8, 8), i).save(root / f"{i}.png")
    return root


def table(root, header, *more):
    """A table of six images; ``more`` are further cells, one for each."""
    pictures(root, 6)
    rows = [f"{i}.png,{'ab'[i % 2]},p{i}," + ",".join(cells[i] for cells in more) for i in range(6)]
    (root / "index.csv").write_text("\n".join([f"image,label,patient,{header}", *rows]))
    return root


PARTS = ["train", "train", "val", "Validate", "Testing", "TEST"]


@pytest.mark.parametrize(("header", "key"), [("Split", "split"), ("SPLIT", "split"), ("Domain", "domain")])
def test_a_split_and_a_domain_are_found_in_any_case(header, key, tmp_path):
    found = [item[key] for item in load_cases(table(tmp_path, header, PARTS)).items]
    assert found == (["train", "train", "val", "val", "test", "test"] if key == "split" else PARTS)


def test_of_two_the_one_that_is_written_as_usual_counts(tmp_path):
    found = load_cases(table(tmp_path, "Split,split", ["train"] * 6, ["test"] * 6)).items
    assert {item["split"] for item in found} == {"test"}


@pytest.mark.parametrize("key", ["split_column", "domain_column"])
def test_a_column_that_is_asked_for_must_be_there(key, tmp_path):
    root = table(tmp_path, "Fold", PARTS)
    with pytest.raises(UserError, match=rf"no column 'fold' \(did you mean 'Fold'\?\).* --{key} Fold"):
        load_cases(root, **{key: "fold"})
    item = load_cases(root, **{key: "Fold"}).items[0]
    assert item[key.removesuffix("_column")] == "train"


@pytest.mark.parametrize("failed", ["#REF!", "#VALUE!", "#DIV/0!", "#Name?"])
def test_a_formula_that_failed_is_no_class(failed, tmp_path):
    root = pictures(tmp_path, 3)
    (root / "index.csv").write_text(f"image,label,patient,note\n1.png,a,p1,{failed}\n2.png,{failed},p2,\n")
    with pytest.raises(UserError, match=f"line 3 of the table index.csv holds {failed.replace('?', '.')}, a formula"):
        load_cases(root)
