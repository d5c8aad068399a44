"""An inference of which one file is damaged: the others are answered, it is named, and the run ends with status 1."""

import re

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from PIL import Image

from medtl_monai.bundle import EveryFile, LeftOut, SaveMasks, SavePredictions
from medtl_monai.model import Model
from medtl_monai.predictions import read_predictions
from medtl_monai.utils import UserError

COMMON = {"backbone": "lenet5", "image_size": 32, "mean": [0.5], "std": [0.5]}
STACKS = {"task": "segmentation", "classes": ["background", "a"], "structures": {"a": 7}, "images": "stacks",
          "backbone": {"_target_": "UNet", "channels": [2, 4], "strides": [2]}, "slice_axis": None}  # fmt: skip


def evaluate(model, items, handler, batch_size):
    """What the inference configuration puts together."""
    preparation, left_out = model.preparation(), LeftOut()
    loader = DataLoader(EveryFile(items, preparation), batch_size=batch_size)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), loader, model.network(), inferer=model.inferer(),
        postprocessing=model.postprocessing(preparation), val_handlers=[handler, left_out],
    )  # fmt: skip
    evaluator.run()
    return left_out


@pytest.mark.parametrize("images", ["slices", "breasts"])
@pytest.mark.parametrize("bad", [0, 2, 4])
def test_the_others_are_predicted_and_it_is_named(tmp_path, images, bad):
    for i in range(5):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 48), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    items = [{"image": str(tmp_path / f"{i}.png")} for i in range(5)]
    model = Model(task="classification", classes=["a", "b"], images=images, **COMMON)
    torch.manual_seed(0)
    evaluate(model, items, SavePredictions(str(tmp_path / "all.csv"), model, str(tmp_path)), 2).tell()
    (tmp_path / f"{bad}.png").write_bytes((tmp_path / f"{bad}.png").read_bytes()[:300])
    torch.manual_seed(0)
    left_out = evaluate(model, items, SavePredictions(str(tmp_path / "some.csv"), model, str(tmp_path)), 2)
    every, some = read_predictions(tmp_path / "all.csv"), read_predictions(tmp_path / "some.csv")
    kept = [i for i in range(5) if i != bad]
    assert some.images == [f"{i}.png" for i in kept]
    np.testing.assert_allclose(some.probabilities, every.probabilities[kept], atol=1e-6)
    with pytest.raises(UserError, match=rf"1 of 5 images cannot be read and are left out: .*{bad}.png \(image file"):
        left_out.tell()


def test_masks_of_the_others_are_written_in_the_axes_of_their_files(tmp_path):
    shape, affine = (4, 40, 44), np.diag([-8, 1.5, 1.5, 1.0])
    for i in range(3):
        values = np.random.default_rng(i).random(shape).astype(np.float32)
        values[0, 0, 0] = np.nan if i == 1 else 0
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{i}.nii.gz")
    items = [{"image": str(tmp_path / f"{i}.nii.gz")} for i in range(3)]
    model = Model(**{**COMMON, **STACKS})
    left_out = evaluate(model, items, SaveMasks(model, str(tmp_path / "masks"), str(tmp_path)), 1)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["0_mask.nii.gz", "2_mask.nii.gz"]
    written = nib.load(tmp_path / "masks" / "2_mask.nii.gz")
    assert written.shape == shape
    np.testing.assert_allclose(written.affine, affine, atol=1e-9)
    with pytest.raises(UserError, match=r"1 of 3 images .*1.nii.gz \(1 of its 7040 values are not finite"):
        left_out.tell()


def test_where_nothing_can_be_read_nothing_is_written(tmp_path):
    (tmp_path / "0.png").write_text("<html>404</html>")
    model = Model(task="classification", classes=["a", "b"], **COMMON)
    handler = SavePredictions(str(tmp_path / "all.csv"), model, str(tmp_path))
    with pytest.raises(UserError, match=re.escape("1 of 1 images cannot be read and are left out: ")):
        evaluate(model, [{"image": str(tmp_path / "0.png")}], handler, 2)
    assert not (tmp_path / "all.csv").exists()
