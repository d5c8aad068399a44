"""The layouts of real data sets, in faithful miniature and, where they are at hand, in the original."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from medtl_monai.data import load_cases, write_datalist
from medtl_monai.utils import UserError


def picture(path, value=100, shape=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


def table(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n", encoding="utf-8")


def brief(cases, *keys):
    """The named entries of every item, paths without their folders."""
    return [
        tuple(str(item[k]).rpartition("/")[2] if k == "image" else item.get(k) for k in keys) for item in cases.items
    ]


class TestTasks:
    def masks(self, root):
        for name in ("a", "b"):
            picture(root / f"{name}.png")
            picture(root / "masks" / f"{name}.png", 1)
        table(root / "index.csv", "image,label,patient\na.png,masks/a.png,p1\nb.png,masks/b.png,p2")

    def test_paths_of_files_as_labels_are_masks(self, tmp_path):
        self.masks(tmp_path)
        cases = load_cases(tmp_path, classes=["left ventricle"], task="segmentation")
        assert (cases.task, cases.classes, cases.label_values) == ("segmentation", ["left ventricle"], [1])
        assert cases.items[1]["label"] == str(tmp_path / "masks" / "b.png")

    def test_a_missing_mask_and_a_wrong_task_are_refused(self, tmp_path):
        self.masks(tmp_path)
        with pytest.raises(UserError, match="for segmentation, not for classification"):
            load_cases(tmp_path, task="classification")
        (tmp_path / "masks" / "b.png").unlink()
        with pytest.raises(UserError, match="1 of 2 masks .* masks/b.png"):
            load_cases(tmp_path)

    @pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
    def test_a_datalist_is_read_back_as_it_was_written(self, tmp_path, task):
        self.masks(tmp_path)
        if task != "segmentation":
            labels = {"classification": ("no", "yes"), "multilabel": ("Mass|Nodule", "No Finding")}[task]
            rows = [f"a.png,{labels[0]},p,train", f"b.png,{labels[1]},p,test"]
            table(tmp_path / "index.csv", "\n".join(["image,label,patient,split", *rows]))
        cases = load_cases(tmp_path)
        if task == "multilabel":
            cases.items[0]["label"][0] = math.nan
        write_datalist(tmp_path / "list.json", cases)
        again = load_cases(tmp_path, table="list.json")
        assert repr(again.items) == repr(cases.items)  # as text, since NaN differs from itself
        assert (again.task, again.classes, again.label_values) == (task, cases.classes, cases.label_values)
        content = json.loads((tmp_path / "list.json").read_text())
        assert content["training"][0]["image"] == "a.png"

    def test_findings_are_selected_by_name(self, tmp_path):
        self.masks(tmp_path)
        table(tmp_path / "index.csv", "image,label,patient\na.png,Mass|Nodule,1\nb.png,Edema,2")
        write_datalist(tmp_path / "list.json", load_cases(tmp_path))
        cases = load_cases(tmp_path, table="list.json", classes=["Nodule", "Edema"])
        assert [item["label"] for item in cases.items] == [[1, 0], [0, 1]]
