"""A run says what it was: in its folder, in its log, and in one sentence where it cannot be."""

import csv
import json
import re
import shutil
from hashlib import sha256

import numpy as np
import pytest
import torch
from conftest import states
from monai.bundle import verify_net_in_out

from medtl_monai.data import make_brain_cohort, make_cardiac_cohort
from medtl_monai.predictions import read_predictions

LISTENING = """
import runpy, sys
from medtl_monai.data.read import any as door
read = door._READERS["nifti"]
def heard(name, *args):
    sys.stderr.write(f"read {name}\\n")
    return read(name, *args)
door._READERS["nifti"] = heard
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A phantom cohort of twelve patients, one slice each."""
    folder = tmp_path_factory.mktemp("data") / "brain"
    return make_brain_cohort(folder, patients=12, slices=(1, 1), size=48, progress=False)


@pytest.fixture(scope="module")
def brain(make_cli, images):
    return make_cli("brain_mri_classification", images)


@pytest.fixture(scope="module")
def run(brain, tmp_path_factory):
    """One finished training of two epochs with a strategy that adds to the loss."""
    output = tmp_path_factory.mktemp("run") / "first"
    return output, brain.train(output, "--epochs", 2, "--strategy", "l2_sp(alpha=0.5) + ema", "--calibrate", "true")


def content(path):
    return json.loads(path.read_text())


def one_error(done, message):
    """Assert that a command ended in one sentence that matches ``message``."""
    assert done.returncode == 1, done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert re.search(message, errors[0]), errors[0]
    assert "Traceback" not in done.stdout + done.stderr


# ---- the record


def test_run_json_says_what_ran(run, images):
    output, _ = run
    record = content(output / "run.json")
    assert record["state"] == "finished"
    assert record["command"].startswith("python -m monai.bundle run --config_file ")
    assert "--strategy 'l2_sp(alpha=0.5) + ema'" in record["command"]
    assert record["strategy"] == "l2_sp(alpha=0.5) + ema"
    assert record["weights"]["source"] == "efficientnet_lite0_imagenet"
    assert re.fullmatch("[0-9a-f]{64}", record["weights"]["sha256"])
    assert 0.9 < record["weights"]["coverage"] <= 1
    assert record["model"] == states(output / "checkpoints" / "best.pt")["about"]
    assert record["model"]["image_size"] == 32
    data = record["data"]
    assert (data["folder"], data["task"]) == (str(images), "classification")
    assert (data["layout"], data["why"]) == ("table", "index.csv lies in the folder")
    assert isinstance(data["not_used"], dict)
    assert data["doubts"] == []
    with (output / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for part in ("train", "val"):
        inside = [row for row in rows if row["part"] == part]
        assert data["parts"][part] == {"cases": len(inside), "patients": len({row["patient"] for row in inside})}
    assert re.fullmatch("[0-9a-f]{64}", data["split_sha256"])
    assert "no patients" in data["leakage"]
    assert set(record["machine"]["versions"]) >= {"medtl_monai", "monai", "torch", "python"}
    assert record["machine"]["wall_seconds"] > 0
    assert record["machine"]["device"]
    assert record["started"] <= record["finished"]
    assert re.fullmatch("[0-9a-f]{40}", record["commit"])
    kept = record["kept"]
    assert (kept["of"], kept["name"]) == (2, "val_auc")
    assert kept["epoch"] == states(output / "checkpoints" / "best.pt")["epoch"]
    rows = content(output / "metrics.json")["training"]["epochs"]
    assert kept["value"] == rows[kept["epoch"] - 1]["val_auc"]


@pytest.mark.slow
def test_the_split_is_the_same_in_two_runs_and_its_hash_another_with_another_seed(brain, run, tmp_path):
    seeds = {"same": 0, "other": 1}
    hashes = {}
    for name, seed in seeds.items():
        brain.train(tmp_path / name, "--seed", seed)
        hashes[name] = content(tmp_path / name / "run.json")["data"]["split_sha256"]
    assert content(run[0] / "run.json")["data"]["split_sha256"] == hashes["same"] != hashes["other"]


def test_run_log_holds_the_lines_that_were_printed(run):
    output, done = run
    written, printed = (output / "run.log").read_text().splitlines(), done.stdout.splitlines()
    assert [line for line in written if line not in printed] == []
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in written if not line.startswith("  "))
    dated = [line for line in printed if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line)]  # MONAI's have a comma
    assert set(dated) <= set(written)
    for text in ("leakage: ", "epoch 2/2: ", "kept: epoch "):
        assert any(text in line for line in written), text


def test_the_log_is_a_log(run):
    _, done = run
    both = done.stdout + done.stderr
    assert "\r" not in both  # of bars, which are for terminals
    assert "█" not in both
    assert "it/s" not in both
    first = done.stdout.index("leakage: ")
    assert "input summary" not in done.stdout[first:]
    assert "input summary" not in done.stderr
    assert "Warning" not in both


def test_config_json_holds_values_and_gives_the_same_numbers_again(brain, run, tmp_path):
    config = content(run[0] / "config.json")
    assert config["strategy"] == "l2_sp(alpha=0.5) + ema"
    objects = {"network_def", "network", "initialize", "run"}
    assert [key for key, value in config.items() if str(value).startswith("$") and key not in objects] == []
    for key in ("dataset_dir", "device", "amp", "amp_dtype"):
        assert not isinstance(config[key], dict), key
    words = ("run", "--config_file", run[0] / "config.json", "--output_dir", tmp_path / "again")
    done = brain.warm("monai.bundle", list(map(str, words)), tmp_path, brain.env)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("predictions.csv", "split.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (run[0] / name).read_bytes()
    one, two = (content(folder / "metrics.json") for folder in (run[0], tmp_path / "again"))
    assert one["val"] == two["val"]


def test_a_default_strategy_is_written_as_text_that_runs_again(brain, tmp_path):
    done = brain.train(tmp_path / "first")
    text = content(tmp_path / "first" / "config.json")["strategy"]
    assert text == content(tmp_path / "first" / "run.json")["strategy"] == "partial_freeze + ema"
    assert f"strategy {text}: what this training has a use for" in done.stdout


def test_the_kept_epoch_and_what_validation_was_used_for_are_said(run):
    output, done = run
    kept = content(output / "run.json")["kept"]
    said = next(line for line in done.stdout.splitlines() if "kept: epoch" in line)
    assert f"kept: epoch {kept['epoch']} of 2, with the highest val_auc, {kept['value']:.3f}" in said
    assert "the validation part chose it, and calibrated the model, so its scores are optimistic" in said
    assert "scored with 3 views an image (sizes 1, 1.15, 1.3; 1 orientation)" in said
    metrics = content(output / "metrics.json")
    assert metrics["val"]["used_for"] == ["chose the epoch", "calibrated"]
    assert "used_for" not in metrics["train"]
    table = done.stdout[done.stdout.index("\nmetric ") :]
    assert re.search(r"chose the epoch.*calibrated", table)
    assert f"\nepoch {kept['epoch']} of 2, 3 views an image" in table


def test_a_first_or_a_last_epoch_that_was_kept_is_a_warning(run):
    output, done = run
    kept = content(output / "run.json")["kept"]["epoch"]
    texts = {1: "the first epoch was kept: training on made it worse", 2: "the last epoch was kept: it may not"}
    assert [epoch for epoch, text in texts.items() if text in done.stdout] == [kept]


def test_the_parts_of_the_loss_add_up_to_it(run):
    output, done = run
    for row in content(output / "metrics.json")["training"]["epochs"]:
        parts = {name: value for name, value in row.items() if name.startswith("train_loss_")}
        assert set(parts) == {"train_loss_task", "train_loss_smoothing", "train_loss_l2_sp"}
        assert sum(parts.values()) == pytest.approx(row["train_loss"], abs=1e-5)
        assert f"train_loss {row['train_loss']:.3f} (task {row['train_loss_task']:.3f} + smoothing " in done.stdout


def test_rows_name_images_in_the_data_and_say_what_was_predicted(brain, run, images, tmp_path):
    best = run[0] / "checkpoints" / "best.pt"
    done = brain("inference", "--checkpoint", best, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in (run[0], tmp_path / "out"):
        found = read_predictions(folder / "predictions.csv")
        assert all((images / image).is_file() and not image.startswith("/") for image in found.images)
        assert found.predicted == [found.classes[k] for k in found.probabilities.argmax(1)]
    record = content(tmp_path / "out" / "run.json")
    assert record["state"] == "finished"
    assert record["checkpoints"][0] == {"file": str(best), "sha256": sha256(best.read_bytes()).hexdigest()}
    assert (tmp_path / "out" / "run.log").is_file()


# ---- data that lacks something


@pytest.fixture(scope="module", params=[1, 2])
def lacking(request, images, tmp_path_factory):
    """How many classes the validation part has, by the table, and the images."""
    folder = shutil.copytree(images, tmp_path_factory.mktemp("lacking") / "brain")
    with (images / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    there = ("glioma", "meningioma")[: request.param]
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "split"])
        writer.writeheader()
        for i, row in enumerate(rows):
            writer.writerow({**row, "split": "val" if i < 6 and row["label"] in there else "train"})
    return request.param, folder


@pytest.mark.parametrize("calibrate", ["false", "true"])
def test_a_validation_part_without_a_class_ends_in_metrics_with_reasons(brain, lacking, tmp_path, calibrate):
    count, folder = lacking
    done = brain.train(tmp_path / "out", "--dataset_dir", folder, "--calibrate", calibrate, "--epochs", 2)
    assert "Traceback" not in done.stdout + done.stderr
    val = content(tmp_path / "out" / "metrics.json")["val"]
    assert val["metrics"]["auc"]["value"] is None
    assert "pituitary" in val["metrics"]["auc"]["reason"]
    assert val["metrics"]["accuracy"]["value"] is not None
    record = content(tmp_path / "out" / "run.json")
    assert (record["model"]["calibration"] is not None) == (calibrate == "true")
    undefined = count == 1  # of two classes the training tells the AUC of these
    assert ("val_auc -, " in done.stdout) == undefined
    assert ("kept: epoch 2 of 2, the last: val_auc is not defined" in done.stdout) == undefined
    assert (record["kept"]["value"] is None) == undefined
    assert ("chose the epoch" in val.get("used_for", [])) != undefined


# ---- mistakes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--augmentation::rotat", 3), "augmentation has no 'rotat': did you mean rotate"),
        (("--inferer::scale", "[1.0]"), "inferer has no 'scale': did you mean scales"),
        (("--lr_scheduler::pct_starts", 0.3), "lr_scheduler has no 'pct_starts': did you mean pct_start"),
        (("--variant::spatial_dims", 3), "variant has no 'spatial_dims'"),
        (("--variant::nrom", "batch"), "nrom"),
        (("--strategy", "l2sp(alpha=1)"), "l2sp.*did you mean 'l2_sp'"),
        (("--strategy", "l2_sp(alpah=1)"), "alpah.*alpha"),
        (("--strategy", "freeze", "finetune"), "'finetune' belongs to no key: put a value that has spaces in quotes"),
        (("--strategy", "freeze finetune"), r"join strategies by \+"),
        (("--loss::label_smothing", 0.2), "loss has no 'label_smothing': did you mean label_smoothing"),
        (("--train::trainer::max_epoch", 3), "trainer has no 'max_epoch': did you mean max_epochs"),
        (("--weights", "resnet50_imagenet", "--backbone", "resnet18"), "weights resnet50_imagenet are of resnet50"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_mistake_ends_in_one_sentence_and_leaves_nothing(brain, tmp_path, args, message):
    brain.refuses(tmp_path / "out", message, *args)


def test_weights_and_backbone_follow_from_each_other(brain, tmp_path):
    done = brain.train(tmp_path / "out", "--backbone", "resnet18_v2")
    assert "weights none: the catalogue has none for resnet18_v2" in done.stdout
    assert content(tmp_path / "out" / "run.json")["weights"]["source"] == "none"


@pytest.mark.parametrize(
    "name",
    ["2023", "true", *(pytest.param(name, marks=pytest.mark.slow) for name in ("2024_01_31", "1e3", "0x10", "3.0"))],
)
def test_names_of_folders_stay_text(brain, images, tmp_path, name):
    (tmp_path / "in").mkdir()
    shutil.copytree(images, tmp_path / "in" / name)
    brain.train(f"out_{name}" if name == "true" else f"../out/{name}", "--dataset_dir", name, cwd=tmp_path / "in")
    made = tmp_path / "in" / f"out_{name}" if name == "true" else tmp_path / "out" / name
    assert content(made / "config.json")["dataset_dir"] == str(tmp_path / "in" / name)


def test_a_numeric_output_dir_stays_text(brain, tmp_path):
    brain.train("2024_01_31", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["2024_01_31"]


@pytest.mark.parametrize(
    "name", ["true", *(pytest.param(name, marks=pytest.mark.slow) for name in ("2023", "null.csv"))]
)
def test_names_of_tables_stay_text(brain, images, tmp_path, name):
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "data" / "index.csv").rename(tmp_path / "data" / name)
    done = brain("train", "--dataset_dir", tmp_path / "data", "--table", name, "--output_dir", tmp_path / "out",
                 "--epochs", 1, "--image_size", 32, "--batch_size", 8)  # fmt: skip
    if name.endswith(".csv"):
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert "Traceback" not in done.stdout + done.stderr
    if done.returncode == 0:
        assert content(tmp_path / "out" / "config.json")["table"] == name


# ---- networks and checkpoints

DENSE = {"_target_": "DenseNet121", "init_features": 8, "growth_rate": 4, "block_config": [1, 1, 1, 1]}


def test_a_network_given_as_an_object_is_in_the_checkpoint_and_rebuilt(brain, tmp_path):
    given = {**DENSE, "spatial_dims": 2, "in_channels": 1, "out_channels": 3}
    brain.train(tmp_path / "out", "--network_def", str(given))
    best = tmp_path / "out" / "checkpoints" / "best.pt"
    assert states(best)["about"]["backbone"]["_target_"] == "DenseNet121"
    done = brain("inference", "--checkpoint", best, "--output_dir", tmp_path / "new")
    assert done.returncode == 0, done.stdout + done.stderr
    same_answers(tmp_path / "out", tmp_path / "new")


def same_answers(one, two):
    old, new = (read_predictions(folder / "predictions.csv") for folder in (one, two))
    want = dict(zip(new.images, new.probabilities, strict=True))
    for image, probabilities in zip(old.images, old.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, want[image], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": {"_target_": "os.system", "command": "touch owned"}}, "os.system"),
        ({"std": [0.0]}, "std must be a number above 0"),
        ({"mean": [float("nan")]}, "mean must be a number"),
        ({"image_size": 10**9}, "image_size must be a whole number"),
        ({"colours": [0, 80]}, "has no colours"),
        ({"variant": {"pretrained": True}}, "pretrained"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_a_checkpoint_that_no_training_wrote_is_refused(brain, run, tmp_path, change, message, name):
    made = states(run[0] / "checkpoints" / "best.pt")
    made["about"] |= change
    torch.save(made, tmp_path / "odd.pt")
    done = brain(name, "--checkpoint", tmp_path / "odd.pt", "--output_dir", tmp_path / "out", cwd=tmp_path)
    one_error(done, message)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.pt"]


@pytest.fixture(scope="module")
def before(brain, tmp_path_factory):
    """A run whose images are prepared in its own way."""
    output = tmp_path_factory.mktemp("before") / "run"
    given = ("--image_size", 40, "--percentiles", "[2.0, 97.0]", "--mean", 0.3, "--std", 0.4)
    done = brain("train", "--output_dir", output, "--epochs", 1, "--batch_size", 8, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    return output / "checkpoints" / "best.pt"


@pytest.mark.parametrize("given", [(), ("--image_size", 32, "--mean", 0.5)], ids=["not given", "given"])
def test_the_preparation_of_another_runs_weights_is_taken_unless_given(brain, before, tmp_path, given):
    quick = ("--epochs", 1, "--batch_size", 8, "--output_dir", tmp_path / "out", "--weights", before)
    done = brain("train", *quick, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    about = states(tmp_path / "out" / "checkpoints" / "best.pt")["about"]
    assert (about["percentiles"], about["std"]) == ([2.0, 97.0], [0.4])
    assert (about["image_size"], about["mean"]) == ((32, [0.5]) if given else (40, [0.3]))
    assert "percentiles [2.0, 97.0], as in the run that the weights are of; by default [0.0, 99.9]" in done.stdout
    size = "image_size 32 as given; the run that the weights are of had 40"
    assert (size if given else "image_size 40, as in the run that the weights are of") in done.stdout
    assert about["origin"]["weights_sha256"] == sha256(before.read_bytes()).hexdigest()


@pytest.mark.filterwarnings("ignore:No hash value")
def test_a_model_saved_into_the_bundle_makes_its_metadata_true(make_cli, images, tmp_path, monkeypatch):
    bundle = make_cli("brain_mri_classification", images)
    columns = ("--label_column", "domain")
    bundle.train(tmp_path / "out", *columns, "--channels", 3, "--image_size", 40, "--save_to_models", "true")
    metadata = content(bundle.bundle / "configs" / "metadata.json")["network_data_format"]
    image, pred = metadata["inputs"]["image"], metadata["outputs"]["pred"]
    assert (image["num_channels"], image["spatial_shape"]) == (3, [40, 40])
    assert (pred["num_channels"], pred["channel_def"]) == (2, {"0": "A", "1": "B"})
    weights = states(bundle.bundle / "models" / "model.pt")
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    assert content(bundle.bundle / "models" / "model.json") == states(tmp_path / "out/checkpoints/best.pt")["about"]
    configs = bundle.bundle / "configs"
    monkeypatch.chdir(bundle.bundle)  # where MONAI's tools are called
    verify_net_in_out(
        net_id="network_def", meta_file=str(configs / "metadata.json"), config_file=str(configs / "inference.json"),
        device="cpu",
    )  # fmt: skip
    for name, more in (("evaluate", columns), ("inference", ())):
        done = bundle(name, "--output_dir", tmp_path / name, *more)
        assert done.returncode == 0, done.stdout + done.stderr
        same_answers(tmp_path / "out", tmp_path / name)


# ---- several processes, and stacks


def test_two_processes_calibrate_too_and_one_of_them_talks(brain, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29531", "-m")
    short = ("--epochs", 1, "--image_size", 32, "--batch_size", 4, "--calibrate", "true", "--output_dir")
    done = brain("train+multi_gpu_train", *short, tmp_path / "out", launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    record = content(tmp_path / "out" / "run.json")
    assert record["model"]["calibration"]["scale"]
    assert states(tmp_path / "out" / "checkpoints" / "best.pt")["about"] == record["model"]
    assert content(tmp_path / "out" / "metrics.json")["val"]["used_for"] == ["calibrated"]
    for text in ("leakage: ", "epoch 1/1: ", "calibrated on the validation patients", "everything of this run"):
        assert done.stdout.count(text) == 1, text
    alone = brain("evaluate", "--checkpoint", tmp_path / "out/checkpoints/best.pt", "--output_dir", tmp_path / "one")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    same_answers(tmp_path / "out", tmp_path / "one")


def test_a_stack_is_read_a_few_times_and_not_for_each_picture(make_cli, tmp_path):
    hearts = make_cardiac_cohort(tmp_path / "hearts", patients=8, slices=4, size=48, progress=False)
    cardiac = make_cli("cardiac_unet_segmentation", hearts)
    done = cardiac.train(tmp_path / "out", launcher=("-c", LISTENING))
    opened = [line for line in done.stderr.splitlines() if line.startswith("read ")]
    with (tmp_path / "out" / "split.csv").open(newline="") as file:
        validation = {row["image"] for row in csv.DictReader(file) if row["part"] == "val"}
    counts = [sum(line.endswith(name) for line in opened) for name in validation]
    # looked at, trained with, scored, and shown in two figures
    assert 3 <= min(counts) <= max(counts) <= 5
