"""The cardiac bundle, through its public door."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from conftest import same_weights, states, sunnybrook_original
from monai.bundle import verify_net_in_out
from monai.data import MetaTensor
from PIL import Image

from medtl_monai.bundle import SaveMasks, middle_share, segment, structure_values, unmasked
from medtl_monai.data import Cases, make_cardiac_cohort
from medtl_monai.model import Model
from medtl_monai.utils import UserError
from medtl_monai.variants import convert_norm

FILES = {
    "run.json", "run.log",
    "config.json", "split.csv", "leakage.json", "load_report.json", "predictions.csv", "metrics.json",
    "checkpoints/best.pt", "checkpoints/last.pt", "figures/learning_curves.png", "figures/val_dice.png",
    "figures/val_volumes.png", "figures/val_worst_cases.png", "figures/val_typical_cases.png",
}  # fmt: skip
STRUCTURES = ["right ventricle", "myocardium", "left ventricle"]
METRICS = {"dice", "iou", "hd95", "surface_distance", "volume_error_ml", "mae", "mse", "false_positives"}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """A phantom cohort of eight patients."""
    return make_cardiac_cohort(
        tmp_path_factory.mktemp("data") / "hearts", patients=8, slices=2, size=48, progress=False
    )


@pytest.fixture(scope="module")
def cli(make_cli, hearts):
    return make_cli("cardiac_unet_segmentation", hearts)


@pytest.fixture(scope="module")
def run(cli, tmp_path_factory):
    """One finished training, whose model was saved into the bundle."""
    output = tmp_path_factory.mktemp("run") / "first"
    return output, cli.train(output, "--save_to_models", "true", launcher=("-m",))


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scored_as(row, evaluated):
    """Whether a training's row is what an evaluation, whose part is the test, says of the case, too."""
    assert row["part"] in ("train", "val")
    return {**row, "part": "test"} == evaluated


def test_a_run_leaves_what_the_contract_says(run):
    output, done = run
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert found - {path for path in found if path.startswith("tensorboard/")} == FILES
    assert re.search("100.0% of the elements, .* layers .* of the encoder", done.stdout)
    assert re.search(r"^dice +\d\.\d{3} \[", done.stdout, re.MULTILINE)
    val = json.loads((output / "metrics.json").read_text())["val"]
    assert set(val["metrics"]) == set(val["per_slice"]["metrics"]) == METRICS
    assert list(val["per_structure"]) == STRUCTURES
    assert val["slices"] == 2 * val["images"]
    assert val["unit_of_distances"] == "mm"
    for values in val["ejection_fraction"]["left ventricle"]["patients"].values():
        assert 0 < values["true"] < 1


def test_predictions_hold_the_true_volumes_and_patients_are_not_divided(run, hearts):
    rows = table(run[0] / "predictions.csv")
    assert len(rows) == 16
    for row in rows[:4]:
        mask = nib.load(hearts / row["label"])
        voxel = np.prod(mask.header.get_zooms()) / 1000
        for value, name in enumerate(STRUCTURES, start=1):
            want = (np.asarray(mask.dataobj) == value).sum() * voxel
            assert float(row[f"{name} true_volume_ml"]) == pytest.approx(want, rel=1e-4)
    parts = {(row["patient"], row["part"]) for row in table(run[0] / "split.csv")}
    assert len(parts) == len({patient for patient, _ in parts}) == 8


def test_evaluate_and_inference_agree_with_the_training(cli, run, hearts, tmp_path):
    trained = {row["image"]: row for row in table(run[0] / "predictions.csv")}
    for name in ("evaluate", "inference"):
        done = cli(name, "--output_dir", tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
    for row in table(tmp_path / "evaluate" / "predictions.csv"):
        assert scored_as(trained[row["image"]], row)
    rows = table(tmp_path / "inference" / "predictions.csv")
    assert {row["image"] for row in rows} == set(trained)
    for row in rows:
        image, mask = nib.load(hearts / row["image"]), nib.load(tmp_path / "inference" / row["mask"])
        np.testing.assert_array_equal(mask.affine, image.affine)
        assert mask.shape == image.shape
        for value, name in enumerate(STRUCTURES, start=1):
            volume = (np.asarray(mask.dataobj) == value).sum() * np.prod(mask.header.get_zooms()) / 1000
            assert volume == pytest.approx(float(row[f"{name} volume_ml"]), rel=1e-4)
            assert volume == pytest.approx(float(trained[row["image"]][f"{name} volume_ml"]), rel=1e-4)
    volumes = {(row["patient"], row["phase"]): float(row["left ventricle volume_ml"]) for row in rows}
    fractions = table(tmp_path / "inference" / "ejection_fractions.csv")
    assert len(fractions) == 8
    for row in fractions:
        assert list(row) == ["patient", "right ventricle", "left ventricle"]
        ends = [volumes[row["patient"], phase] for phase in ("ED", "ES")]
        assert float(row["left ventricle"]) == pytest.approx((ends[0] - ends[1]) / ends[0], abs=1e-4)
    model = str(cli.bundle / "models" / "model.pt")
    done = cli("inference+ensemble", "--output_dir", tmp_path / "both", "--checkpoints", [model, model],
               "--runtime", "openvino")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for one, both in zip(rows, table(tmp_path / "both" / "predictions.csv"), strict=True):
        np.testing.assert_array_equal(
            *(
                np.asarray(nib.load(tmp_path / of / row["mask"]).dataobj)
                for of, row in (("inference", one), ("both", both))
            )
        )


@pytest.mark.slow
def test_one_structure_of_pictures_by_slice_from_another_runs_weights(cli, run, hearts, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = ["image,label,patient"]
    for file in sorted(hearts.rglob("*_gt.nii.gz")):
        name = file.name.split("_gt")[0]
        for kind, path in (("image", file.with_name(f"{name}.nii.gz")), ("mask", file)):
            picture = np.asarray(nib.load(path).dataobj)[..., 0].T
            picture = picture if kind == "image" else 255 * (picture == 3)
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{name}_{kind}.png")
        lines.append(f"{name}_image.png,{name}_mask.png,{name[:10]}")
    (folder / "index.csv").write_text("\n".join(lines))
    given = ("--dataset_dir", folder, "--structures", "{'left ventricle': 255}")
    cli.train(tmp_path / "out", *given, "--weights", run[0] / "checkpoints" / "best.pt",
              "--strategy", "mean_teacher", "--target_dir", hearts)  # fmt: skip
    report = json.loads((tmp_path / "out" / "load_report.json").read_text())
    assert {e["name"] for e in report["entries"] if e["status"] == "missing"} == {"head.0.weight", "head.0.bias"}
    val = json.loads((tmp_path / "out" / "metrics.json").read_text())["val"]
    assert val["metrics"]["volume_error_ml"]["reason"] == "the spacing is not known"
    assert val["unit_of_distances"] == "pixels"
    assert not (tmp_path / "out" / "figures" / "val_volumes.png").exists()
    picture = folder / "patient001_frame01_image.png"
    done = cli("inference", "--dataset_dir", picture, "--output_dir", tmp_path / "one", "--largest_component", "true",
               "--checkpoint", tmp_path / "out" / "checkpoints" / "best.pt")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    mask = np.asarray(Image.open(tmp_path / "one" / "masks" / "patient001_frame01_image_mask.png"))
    assert mask.shape == (48, 48)
    assert set(np.unique(mask)) <= {0, 255}


def test_a_table_tells_the_phases_of_images_without_masks(tmp_path):
    for name in ("a", "b", "c_gt", "d"):
        (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "index.csv").write_text("image;patient;phase\na.nii.gz;p1;ed\nb.nii.gz;p1;ES\n")
    assert unmasked(tmp_path) == [
        {"image": str(tmp_path / "a.nii.gz"), "patient": "p1", "phase": "ed"},
        {"image": str(tmp_path / "b.nii.gz"), "patient": "p1", "phase": "ES"},
        {"image": str(tmp_path / "d.nii.gz")},
    ]


def test_two_times_of_a_volume_are_two_cases(cli, hearts, tmp_path):
    lines = ["External code,VendorName,Centre,ED,ES,Pathology"]
    for folder in sorted(path.parent for path in hearts.rglob("Info.cfg")):
        name = folder.name
        frames = sorted({file.name.split("_")[1] for file in folder.glob("*_frame*_gt.nii.gz")})
        for kind in ("", "_gt"):
            files = [nib.load(folder / f"{name}_{frame}{kind}.nii.gz") for frame in frames]
            volume = np.stack([np.asarray(file.dataobj) for file in files], -1)
            target = tmp_path / "data" / "Training" / name / f"{name}_sa{kind}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(volume, files[0].affine), target)
        lines.append(f"{name},vendor,1,0,1,NOR")
    (tmp_path / "data" / "M&Ms_Dataset_information_diagnosis_opendataset.csv").write_text("\n".join(lines))
    cli.train(tmp_path / "out", "--dataset_dir", tmp_path / "data", "--structures", "['left ventricle','myocardium']")
    rows = table(tmp_path / "out" / "predictions.csv")
    assert sorted({row["phase"] for row in rows}) == ["ED", "ES"]
    assert len(rows) == 16
    for row in rows[:4]:
        mask = nib.load(tmp_path / "data" / row["label"])
        voxel = np.prod(mask.header.get_zooms()[:3]) / 1000
        want = (np.asarray(mask.dataobj)[..., int(row["phase"] == "ES")] == 1).sum() * voxel
        assert float(row["left ventricle true_volume_ml"]) == pytest.approx(want, rel=1e-4)


def test_the_middle_square_holds_the_structures_of_the_masks(tmp_path):
    mask = np.zeros((40, 80), np.uint8)
    mask[22, 30:51] = 7  # 10 pixels from the middle column, which is 40: half the shorter side
    mask[0, 0] = 9
    Image.fromarray(mask).save(tmp_path / "mask.png")
    items = [{"label": str(tmp_path / "mask.png")}]
    assert middle_share(items, {"left ventricle": 7}) == 0.65  # 1.2 times 10.5 / 20, rounded up
    assert middle_share(items, {"left ventricle": 7, "far": 9}) == 1


def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(cli, tmp_path):
    variant = "{'norm':{'name':'group','groups':8},'dropout':{'name':'dropblock','p':0.1}}"
    args = ("--epochs", 3, "--strategy", "['lp_ft','l2_sp']", "--loss_name", "tversky", "--variant", variant)
    cli.train(tmp_path / "whole", *args)
    last = cli.kill(tmp_path / "cut", 1, *args)
    done_epochs = states(last)["trainer"]["epoch"]
    assert done_epochs < 3
    done = cli.train(tmp_path / "cut", *args, "--resume", last)
    assert f"going on after epoch {done_epochs} of 3" in done.stdout
    same_weights(last, tmp_path / "whole" / "checkpoints" / "last.pt")
    one, two = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("cut", "whole"))
    assert one["val"] == two["val"]


def test_two_processes_train_and_a_single_one_finds_the_same_scores(cli, tmp_path):
    alone = cli.train_in_two_processes(tmp_path / "two", port=29531)
    want = {row["image"]: row for row in table(alone / "predictions.csv")}
    got = table(tmp_path / "two" / "predictions.csv")
    assert len(got) == len(want) == 16
    assert all(scored_as(row, want[row["image"]]) for row in got)


BAD = [
    (("--loss_name", "dise"), "there is no loss 'dise': did you mean 'dice'"),
    (("--structures", "{'left ventricle': 255}"), "no mask holds the value 255 of the left ventricle"),
    (("--backbone", "unet_resnet18"), "resnet18-.*pth cannot be downloaded .*: check the network, or put the file at"),
    (
        ("--backbone", "unet_resnet18", "--weights", "efficientnet_lite0_imagenet", "--dataset_dir", "/nowhere"),
        "weights efficientnet_lite0_imagenet are of efficientnet_lite0, and backbone is unet_resnet18: give one",
    ),
    (("--backbone", "resnet18", "--weights", "none"), "does not give one answer a pixel: take unet_resnet18"),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(map(str, args)) for args, _ in BAD])
def test_bad_input_ends_in_one_sentence_and_leaves_nothing(cli, tmp_path, args, message):
    cli.refuses(tmp_path / "out", message, *args)


@pytest.mark.parametrize(
    ("structures", "model", "want"),
    [
        (None, None, {"RV": 1, "LV": 3}),
        (["LV"], None, {"LV": 3}),
        ({"LV": 255}, None, {"LV": 255}),
        (None, ["LV", "RV"], {"LV": 3, "RV": 1}),
        (["LA"], None, "the masks' value of LA is not known: known are RV, LV"),
        ({"LV": 255}, ["LV", "RV"], "the masks' value of RV is not known: known are LV"),
        ({"LV": "x"}, None, "whole numbers above 0"),
        ({"LV": 2, "RV": 2}, None, "different values"),
    ],
)
def test_structures_get_their_values_from_the_data_or_the_user(structures, model, want):
    cases = Cases([], ["RV", "LV"], "", "acdc", "segmentation", [1, 3])
    if isinstance(want, str):
        with pytest.raises(UserError, match=want):
            structure_values(cases, structures, model=model)
    else:
        found = structure_values(cases, structures, model=model)
        assert list(found.items()) == list(want.items())


def test_a_mask_of_another_size_is_named(cli, hearts, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "index.csv").write_text("image,label,patient\na.png,b.png,p\n")
    done = cli("train", "--output_dir", tmp_path / "out", "--dataset_dir", tmp_path)
    assert done.returncode == 1
    assert "they must be equal" in done.stderr


def test_the_network_takes_and_gives_what_the_metadata_says(cli):
    config = str(cli.bundle / "configs" / "inference.json")
    meta = str(cli.bundle / "configs" / "metadata.json")
    verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, device="cpu")


@pytest.mark.filterwarnings("ignore")  # what MONAI's transforms and datasets warn of is not this test's matter
@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_monais_standard_properties_are_all_there(cli, run, name):
    assert cli.missing_properties(name) == []


def test_a_case_is_segmented_by_its_domains_normalization():
    network = convert_norm(torch.nn.Sequential(torch.nn.BatchNorm3d(1)), "domain", domains=["A", "B"]).eval()
    network[0].others[0].running_mean.fill_(3.0)
    image, found = MetaTensor(torch.randn(1, 4, 4, 2)), {}
    model = SimpleNamespace(
        prepare_batch=lambda: lambda batch, device: (batch["image"], None),
        inferer=lambda: lambda x, net: net(x),
        postprocessing=lambda preparation: lambda case: case,
    )
    for domain in ("A", "B", ""):
        item = {"image": image, "domain": domain}
        found[domain] = segment(network, item, model, None, device="cpu")["pred"].as_tensor()
    scale = (1 + network[0].eps) ** -0.5
    for domain, mean in (("A", 0), ("B", 3), ("", 1.5)):
        torch.testing.assert_close(found[domain], (image.as_tensor() - mean) * scale)


def test_masks_of_images_of_one_name_do_not_overwrite_each_other():
    model = Model(task="segmentation", classes=["background", "LV"], structures={"LV": 3}, images="stacks",
                  backbone="unet_mobilenet_v2", image_size=32, mean=[0.5], std=[0.5])  # fmt: skip
    save = SaveMasks(model, "masks", "/data")
    places = [str(save._place(Path(f"/data/{p}/frame.nii.gz"))) for p in ("a", "b", "c")]
    assert places == ["masks/frame_mask", "masks/b_frame_mask", "masks/c_frame_mask"]


@pytest.mark.slow
def test_contours_of_the_original_sunnybrook_layout_are_trained_on(cli, hearts, tmp_path):
    masks = sunnybrook_original(tmp_path / "data", hearts)
    given = ("--dataset_dir", tmp_path / "data", "--layout_options::contours", "both")
    cli.train(tmp_path / "out", *given, "--weights", "none")
    rows = table(tmp_path / "out" / "predictions.csv")
    assert len(rows) == 16  # in diastole, two slices of each patient
    for row in rows:
        pixel = pydicom.dcmread(tmp_path / "data" / row["image"], specific_tags=["PixelSpacing"]).PixelSpacing[0]
        for value, name in ((3, "left ventricle"), (2, "myocardium")):
            want = (masks[str(tmp_path / "data" / row["image"])] == value).sum() * pixel**2 * 8 / 1000
            assert float(row[f"{name} true_volume_ml"]) == pytest.approx(want, rel=1e-4)
    model = tmp_path / "out" / "checkpoints" / "best.pt"
    cli("evaluate", "--output_dir", tmp_path / "evaluate", "--checkpoint", model, *given)
    trained = {row["image"]: row for row in rows}
    assert all(scored_as(trained[row["image"]], row) for row in table(tmp_path / "evaluate" / "predictions.csv"))
    image = tmp_path / "data" / "SCD_IMAGES_01" / "SCD0000101" / "CINESAX_300" / "IM-0003-0005.dcm"
    cli("inference", "--output_dir", tmp_path / "inference", "--checkpoint", model, "--dataset_dir", image)
    row = table(tmp_path / "inference" / "predictions.csv")[0]
    assert nib.load(tmp_path / "inference" / row["mask"]).shape == (48, 48, 1)


def test_a_contour_outside_its_image_stops_the_run(cli, hearts, tmp_path):
    sunnybrook_original(tmp_path / "data", hearts)
    next((tmp_path / "data").rglob("*-icontour-manual.txt")).write_text("1 1\n60 1\n5 5\n")
    message = "the point 60 1 outside its image of 48 x 48 pixels"
    cli.refuses(tmp_path / "out", message, "--dataset_dir", tmp_path / "data")
