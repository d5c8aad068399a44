"""What labels are for."""

import pytest
from PIL import Image

from medtl_monai.data import load_cases


def pictures(root, count):
    for i in range(count):
        Image.new("L", (8, 8), i).save(root / f"{i}.png")
    return root


@pytest.mark.parametrize("none", ["No Finding", "no finding", "NO FINDING"])
def test_no_finding_is_no_finding_in_any_case(none, tmp_path):
    root = pictures(tmp_path, 4)
    labels = ["Edema|Nodule", "Edema", "Nodule", none]
    rows = [f"{i}.png,{label},p{i}" for i, label in enumerate(labels)]
    (root / "index.csv").write_text("\n".join(["image,label,patient", *rows]))
    cases = load_cases(root)
    assert (cases.task, cases.classes) == ("multilabel", ["Edema", "Nodule"])
    assert [item["label"] for item in cases.items] == [[1, 1], [1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("mark", [";", "+", " & ", "/"])
def test_findings_joined_by_another_mark_are_said(mark, tmp_path):
    root = pictures(tmp_path, 4)
    rows = [f'{i}.png,"{label}",p{i}' for i, label in enumerate([f"Edema{mark}Nodule", "Edema", "Nodule", "none"])]
    (root / "index.csv").write_text("\n".join(["image,label,patient", *rows]))
    assert any("not for 'Edema' with 'Nodule': join findings of one image by |" in d for d in load_cases(root).doubts)
