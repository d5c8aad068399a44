"""The brain bundle, through its public door."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import Images, same_weights, states
from PIL import Image
from torch import nn

from medtl_monai.bundle import (
    Domains,
    Ensemble,
    Member,
    cycle_length,
    named_domains,
    transfer,
)
from medtl_monai.model import Model
from medtl_monai.predictions import read_predictions
from medtl_monai.strategies import FineTune
from medtl_monai.utils import UserError
from medtl_monai.variants import convert_norm

FILES = {
    "run.json", "run.log", "config.json", "split.csv", "leakage.json", "load_report.json", "predictions.csv",
    "metrics.json",
    "checkpoints/best.pt", "checkpoints/last.pt", "checkpoints/previous.pt",
    "figures/learning_curves.png", "figures/val_roc.png",
    "figures/val_pr.png", "figures/val_confusion.png", "figures/val_reliability.png", "figures/val_worst_cases.png",
    "figures/val_typical_cases.png",
}  # fmt: skip
METRICS = {
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "auc",
    "average_precision",
    "ece",
}


@pytest.fixture(scope="session")
def run(cli, tmp_path_factory):
    """One finished training of two epochs, whose model was saved into the bundle."""
    output = tmp_path_factory.mktemp("run") / "first"
    done = cli.train(output, "--epochs", 2, "--save_to_models", "true", launcher=("-m",))
    return output, done


def test_a_run_leaves_what_the_contract_says(run):
    output, done = run
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert found - {path for path in found if path.startswith("tensorboard/")} == FILES
    assert any(path.startswith("tensorboard/events") for path in found)
    for text in ("leakage: no patients", "3 to 1 input channels", "epoch 2/2", "figures:"):
        assert text in done.stdout
    assert re.search(r"^accuracy +\d\.\d{3} \[", done.stdout, re.MULTILINE)


def test_metrics_have_values_intervals_and_circumstances(run):
    metrics = json.loads((run[0] / "metrics.json").read_text())
    for part in ("train", "val"):
        assert set(metrics[part]["metrics"]) == METRICS
        assert set(metrics[part]["per_class"]) == {"glioma", "meningioma", "pituitary"}
        assert metrics[part]["images"] >= metrics[part]["patients"] > 1
        low, high = metrics[part]["metrics"]["accuracy"]["interval"]
        assert low <= metrics[part]["metrics"]["accuracy"]["value"] <= high
    assert {"versions", "device", "wall_seconds", "peak_memory_bytes"} <= set(metrics["run"])
    assert metrics["training"]["trainable_parameters"] > 3_000_000
    assert [row["epoch"] for row in metrics["training"]["epochs"]] == [1, 2]


def test_predictions_and_split_agree_and_divide_no_patient(run, cohort):
    predictions = read_predictions(run[0] / "predictions.csv")
    assert predictions.classes == ["glioma", "meningioma", "pituitary"]
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-6)
    with (run[0] / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (cohort / "index.csv").open(newline="") as file:
        known = {row["image"]: row["patient"] for row in csv.DictReader(file)}
    assert {row["image"]: row["patient"] for row in rows} == known  # names are relative to the data
    assert {row["label"] for row in rows} == set(predictions.classes)
    assert sorted(predictions.images) == sorted(known)
    assert dict(zip(predictions.images, predictions.patients, strict=True)) == known
    part = {row["image"]: row["part"] for row in rows}
    assert predictions.parts == [part[image] for image in predictions.images]
    assert predictions.predicted == [predictions.classes[i] for i in predictions.probabilities.argmax(1)]
    parts = {(row["patient"], row["part"]) for row in rows}
    assert len(parts) == len({patient for patient, _ in parts})


def test_monais_own_transforms_train_from_the_command_line(cli, tmp_path):
    cli.train(tmp_path / "out", "--epochs", 1, "--transforms", "monai")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["transforms"] == "monai"
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["val"]["metrics"]["accuracy"]["value"] > 0


def test_evaluate_and_inference_give_the_trainings_probabilities(cli, run, cohort, tmp_path):
    trained = read_predictions(run[0] / "predictions.csv")
    want = dict(zip(trained.images, trained.probabilities, strict=True))
    for name in ("evaluate", "inference"):
        done = cli(name, "--output_dir", tmp_path / name)  # with the model saved into the bundle
        assert done.returncode == 0, done.stdout + done.stderr
        got = read_predictions(tmp_path / name / "predictions.csv")
        assert set(got.images) == set(want)
        for image, probabilities in zip(got.images, got.probabilities, strict=True):
            np.testing.assert_allclose(probabilities, want[image], atol=1e-5)
    assert json.loads((tmp_path / "evaluate" / "metrics.json").read_text())["test"]["images"] == len(want)


def test_the_written_configuration_gives_the_same_run_again(cli, run, tmp_path):
    command = cli.command("train", "--output_dir", tmp_path / "again")
    command[command.index("--config_file") + 1] = str(run[0] / "config.json")
    data = command.index("--dataset_dir")
    done = subprocess.run(
        command[:data] + command[data + 2 :], cwd=tmp_path, env=cli.env, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (run[0], tmp_path / "again"))
    assert (one["train"], one["val"]) == (two["train"], two["val"])


def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(cli, tmp_path):
    args = ("--epochs", 4, "--strategy", "gradual_unfreeze + l2_sp")
    cli.train(tmp_path / "whole", *args)
    last = cli.kill(tmp_path / "cut", 2, *args)
    done_epochs = states(last)["trainer"]["epoch"]
    assert 2 <= done_epochs < 4
    done = cli.train(tmp_path / "cut", *args, "--resume", last)
    assert f"going on after epoch {done_epochs} of 4" in done.stdout
    same_weights(last, tmp_path / "whole" / "checkpoints" / "last.pt")
    one, two = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("cut", "whole"))
    assert one["val"] == two["val"]


@pytest.mark.parametrize(
    "spec",
    ["['lp_ft','l2']", "{'_target_':'medtl_monai.strategies.L2SP','alpha':0.5}", "scratch"],
)
def test_strategies_from_the_shell(cli, spec, tmp_path):
    cli.train(tmp_path / "out", "--strategy", spec)


def test_settings_backbone_and_folds_from_the_shell(cli, tmp_path):
    done = cli.train(
        tmp_path / "out", "--strategy", "partial_freeze(blocks=-1)",
        "--fold", 1, "--variant::dropout", 0.5, "--calibrate", "true",
    )  # fmt: skip
    assert "calibrated on the validation patients" in done.stdout
    trained = re.search(r"strategy partial_freeze\(blocks=-1\): ([\d,]+) of [\d,]+ parameters", done.stdout).group(1)
    assert trained == "3,843"  # 1280 x 3 weights and 3 biases


def test_boxes_in_the_table_are_learnt_from_and_leave_the_network_as_it_is(cli, cohort, tmp_path):
    boxed = tmp_path / "boxed"
    shutil.copytree(cohort, boxed)
    with (cohort / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (boxed / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "x", "y", "width", "height"])
        writer.writeheader()
        writer.writerows(
            {**row, "x": 10, "y": 20, "width": 12, "height": i % 2 * 8 or ""} for i, row in enumerate(rows)
        )
    cli.refuses(tmp_path / "half", r"the box of .*\.png is none \(x '10', .*, height ''\)", "--dataset_dir", boxed)

    text = (boxed / "index.csv").read_text().replace(",10,20,12,\n", ",,,,\n")  # every other image has no box
    (boxed / "index.csv").write_text(text)
    more = ("--dataset_dir", boxed, "--mix", "{'_target_':'medtl_monai.transforms.MixBatch','classes':3}")
    learnt = cli.train(tmp_path / "learnt", *more)
    assert "strategy partial_freeze + localization + ema:" in learnt.stdout
    without = cli.train(tmp_path / "without", *more, "--box_columns", "null")
    assert "strategy partial_freeze + ema:" in without.stdout
    models = [tmp_path / name / "checkpoints" / "best.pt" for name in ("learnt", "without")]
    weights = [states(model)["model"] for model in models]
    assert list(weights[0]) == list(weights[1])
    assert not torch.equal(weights[0]["_conv_head.weight"], weights[1]["_conv_head.weight"])


@pytest.mark.slow
def test_domain_specific_normalization_from_training_to_inference(cli, cohort, tmp_path):
    cli.train(tmp_path / "out", "--variant::norm", "domain", "--strategy", "finetune")
    best = tmp_path / "out" / "checkpoints" / "best.pt"
    assert states(best)["about"]["variant"] == {"norm": {"name": "domain", "domains": ["A", "B"]}}
    norms = {key: value for key, value in states(best)["model"].items() if key.startswith("_bn0.")}
    assert not torch.equal(norms["_bn0.running_mean"], norms["_bn0.others.0.running_mean"])
    assert not torch.equal(norms["_bn0.weight"], norms["_bn0.others.0.weight"])
    with (cohort / "index.csv").open(newline="") as file:
        domain = {row["image"]: row["domain"] for row in csv.DictReader(file)}
    trained = read_predictions(tmp_path / "out" / "predictions.csv")
    want = dict(zip(trained.images, trained.probabilities, strict=True))

    # the same images, those of B as if of a scanner that the training lacked
    other = shutil.copytree(cohort, tmp_path / "other")
    (other / "index.csv").write_text(re.sub(r",B$", ",C", (other / "index.csv").read_text(), flags=re.MULTILINE))
    given = ("--checkpoint", best, "--output_dir")
    done = cli("evaluate", "--dataset_dir", other, *given, tmp_path / "evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the domain C, which the training lacked: their normalization is the mean over A, B") == 1
    got = read_predictions(tmp_path / "evaluate" / "predictions.csv")
    for image, probabilities in zip(got.images, got.probabilities, strict=True):
        assert np.allclose(probabilities, want[image], atol=1e-5) == (domain[image] == "A")

    for image in [image for image in want if domain[image] == "A"]:
        (other / "index.csv").unlink(missing_ok=True)
        (other / image).unlink()
    done = cli("inference", "--dataset_dir", other, "--domain", "B", *given, tmp_path / "inference")
    assert done.returncode == 0, done.stdout + done.stderr
    got = read_predictions(tmp_path / "inference" / "predictions.csv")
    assert len(got.images) == sum(name == "B" for name in domain.values())
    for image, probabilities in zip(got.images, got.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, want[image], atol=1e-5)


def test_domains_that_cannot_be_told_apart_are_refused():
    items = [{"domain": "A"}, {"domain": "B"}, {}]
    assert named_domains({"norm": "group", "dropout": 0.1}, items) == {"norm": "group", "dropout": 0.1}
    with pytest.raises(UserError, match="1 of 3 training images have no domain: give the table a column domain"):
        named_domains({"norm": "domain"}, items)
    with pytest.raises(UserError, match="all training images are of the domain A"):
        named_domains({"norm": "domain"}, items[:1])
    with pytest.raises(UserError, match="leave domains out"):
        named_domains({"norm": {"name": "domain", "domains": 2}}, items)
    network = convert_norm(torch.nn.Sequential(torch.nn.BatchNorm2d(1)), "domain", domains=["A", "B"])
    with pytest.raises(UserError, match="the model knows A, B, got 'C'"):
        Domains(network, "C")
    numbered = convert_norm(torch.nn.Sequential(torch.nn.BatchNorm2d(1)), "domain", domains=2)
    with pytest.raises(UserError, match="the model knows 0, 1, got 'C'"):
        Domains(numbered, "C")
    with pytest.raises(UserError, match="the model has no norm domain, got 'A'"):
        Domains(torch.nn.BatchNorm2d(1), "A")
    with pytest.raises(UserError, match="images in target_dir are of no known domain"):
        transfer(network, FineTune(), None, device="cpu", target=Images())


def test_another_runs_checkpoint_is_a_source(cli, run, tmp_path):
    cli.train(tmp_path / "out", "--weights", run[0] / "checkpoints" / "best.pt")
    report = json.loads((tmp_path / "out" / "load_report.json").read_text())
    assert {entry["status"] for entry in report["entries"]} == {"loaded"}  # the classes are the same, so the head too
    one, two = (states(folder / "checkpoints" / "best.pt")["about"] for folder in (run[0], tmp_path / "out"))
    assert one["mean"] == two["mean"]


def test_runs_from_the_repository_and_into_the_bundles_own_folder(cli, tmp_path):
    quick = ("--epochs", 1, "--image_size", 32, "--weights", "none", "--backbone", "mobilenet_v2")
    done = cli("train", *quick, "--val_fraction", 0.25, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (output,) = (cli.bundle / "runs").iterdir()
    assert json.loads((output / "load_report.json").read_text())["source"] == "none"
    shutil.rmtree(cli.bundle / "runs")


@pytest.mark.slow
def test_snapshots_of_a_cyclic_training_vote(cli, cohort, tmp_path):
    done = cli("train+snapshots", "--output_dir", tmp_path / "out", "--epochs", 2, "--cycles", 2, "--image_size", 32,
               "--batch_size", 8)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    snapshots = [tmp_path / "out" / "checkpoints" / f"snapshot{i}.pt" for i in (1, 2)]
    one, two = map(states, snapshots)
    assert (one["epoch"], two["epoch"]) == (1, 2)
    assert any(not torch.equal(value, two["model"][key]) for key, value in one["model"].items())
    lr = json.loads((tmp_path / "out" / "config.json").read_text())["lr"]
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["training"]["epochs"]
    assert [row["lr"] for row in rows] == [lr, lr]  # the rate starts anew where a snapshot was taken

    other = Model.read(snapshots[0]).changed(backbone="mobilenet_v2", mean=[0.2], std=[0.3], image_size=40)
    torch.manual_seed(0)
    torch.save({"model": other.network().state_dict(), "about": other.to_dict()}, tmp_path / "other.pt")
    members, found = [snapshots[0], tmp_path / "other.pt"], []
    for i, path in enumerate(members):
        done = cli("inference", "--output_dir", tmp_path / str(i), "--checkpoint", path)
        assert done.returncode == 0, done.stderr
        found.append(read_predictions(tmp_path / str(i) / "predictions.csv").probabilities)
    done = cli("inference+ensemble", "--output_dir", tmp_path / "both", "--checkpoints", [str(x) for x in members],
               "--member_weights", "[3,1]", "--voting", "hard", "--runtime", "onnxruntime")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    both = read_predictions(tmp_path / "both" / "predictions.csv").probabilities
    votes = [np.eye(3)[p.argmax(1)] for p in found]
    np.testing.assert_allclose(both, 0.75 * votes[0] + 0.25 * votes[1], atol=1e-6)


def test_members_of_other_sizes_scales_and_preparations_see_their_own_images(tmp_path):
    first = Model(task="classification", classes=["a", "b"], backbone="mobilenet_v2", image_size=32, mean=[0.5],
                  std=[0.25])  # fmt: skip
    models = [first, first.changed(image_size=48, mean=[0.1], percentiles=[10.0, 90.0], scales=[1.0, 1.5])]
    torch.manual_seed(0)
    for i, model in enumerate(models):
        content = {"model": model.network().state_dict(), "about": model.to_dict()}
        torch.save(content, tmp_path / f"{i}.pt")
    ensemble = Ensemble([str(tmp_path / f"{i}.pt") for i in (0, 1)], device="cpu")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)).save(tmp_path / "image.png")
    item = {"image": str(tmp_path / "image.png")}
    prepared = ensemble.preparation()(item)
    batch, _ = ensemble.prepare_batch({key: image[None] for key, image in prepared.items()})
    assert [tuple(image.shape) for image in batch] == [(1, 1, 32, 32), (1, 1, 48, 48)]
    for i, (model, member) in enumerate(zip(models, ensemble.networks, strict=True)):
        alone = model.preparation()(item)["image"].as_tensor()[None]
        torch.testing.assert_close(batch[i].as_tensor(), alone)
        with torch.no_grad():
            torch.testing.assert_close(member(batch), model.inferer()(alone, member.network))
    seen = []
    network = nn.Module()
    network.forward = lambda x: (seen.append(x), x)[1]
    Member(network, first, 1)(batch)  # its own of the images that all get
    torch.testing.assert_close(seen[0], batch[1].as_tensor())


def test_what_cannot_be_an_ensemble_is_refused(run, tmp_path):
    path = str(run[0] / "checkpoints" / "best.pt")
    for wrong, message in (({"voting": "loud"}, "soft or hard"), ({"weights": [1, 2]}, "expected 1 numbers")):
        with pytest.raises(UserError, match=message):
            Ensemble([path], device="cpu", **wrong)
    content = states(path)
    content["about"] |= {"classes": ["a", "b", "c"]}
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="its classes differ"):
        Ensemble([path, str(tmp_path / "other.pt")], device="cpu")
    with pytest.raises(UserError, match="there are no trained weights at nowhere.pt"):
        Ensemble(["nowhere.pt"], device="cpu")
    with pytest.raises(UserError, match="4 epochs cannot be divided into 3 cycles"):
        cycle_length(4, 3)


def test_two_processes_train_and_a_single_one_finds_the_same_scores(cli, tmp_path):
    output = tmp_path / "out"
    alone = cli.train_in_two_processes(output, port=29517)
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert found >= FILES - {"checkpoints/previous.pt"}  # of a single epoch
    two, one = (read_predictions(folder / "predictions.csv") for folder in (output, alone))
    want = dict(zip(one.images, one.probabilities, strict=True))
    for image, probabilities in zip(two.images, two.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, want[image], atol=1e-5)


def spoil(dataset, kind):
    """Spoil a copy of the cohort in one way."""
    images = sorted(dataset.rglob("*.png"))
    index = dataset / "index.csv"
    rows = index.read_text().splitlines()
    if kind == "unreadable image":
        images[0].write_bytes(b"not a picture")
    elif kind == "missing image":
        images[0].unlink()
    elif kind == "no patients":
        index.write_text("\n".join(row.replace(",patient", ",case") for row in rows))
    elif kind == "one class":
        index.write_text("\n".join(row for row in rows if "meningioma" not in row and "pituitary" not in row))
    elif kind == "shared patients":
        lines = [f"{row},{'split' if i == 0 else ('train', 'val')[i % 2]}" for i, row in enumerate(rows)]
        index.write_text("\n".join(re.sub(r",P\d+,", ",P1,", line) for line in lines))
    elif kind == "no domains":
        index.write_text("\n".join(row.replace(",domain", ",scanner") for row in rows))
    elif kind == "few patients":
        index.write_text("\n".join(re.sub(r",glioma,P\d+,", ",glioma,P0,", row) for row in rows))


BAD = [
    (("--epoch", 1), None, r"no key 'epoch': did you mean --epochs\?"),
    (("--epochs", "ten"), None, "epochs must be a whole number"),
    (("--lr", -1), None, "lr must be a number from"),
    (("--calibrate", "maybe"), None, "calibrate must be true or false, got 'maybe'"),
    (("--strategy", "l2sp"), None, "no strategy 'l2sp': did you mean 'l2_sp'?"),
    (("--strategy", "l2_sp(alhpa=1)"), None, "did you mean 'alpha'"),
    (("--strategy", "l2_sp", "--weights", "none"), None, "L2SP needs pretrained weights"),
    (("--strategy", "['freeze','lp_ft']"), None, "only one strategy of a chain can decide what is trained"),
    (("--backbone", "efficientnet_lite"), None, "did you mean 'efficientnet_lite"),
    (("--backbone", "resnet18"), None, "resnet18-.*pth cannot be downloaded .*: check the network, or put the file at"),
    (
        ("--backbone", "resnet18", "--weights", "efficientnet_lite0_imagenet", "--dataset_dir", "/nowhere"),
        None,
        "weights efficientnet_lite0_imagenet are of efficientnet_lite0, and backbone is resnet18: give one",
    ),
    (("--weights", "nowhere.pth"), None, "no weight file nowhere.pth"),
    (("--device", "warp"), None, "device 'warp' cannot be used here"),
    (("--dataset_dir", "/nowhere"), None, "there is no folder /nowhere"),
    (("--fold", 9), None, "fold must be a whole number from 0 to 4"),
    (("--label_column", "lable"), None, "no column 'lable' .did you mean 'label'"),
    (("--augmentation::rotate", -5), None, "rotate must lie between 0 and 180"),
    (("--cache_features", "memory"), None, "under random augmentation .AugmentBatch"),
    (("--cache_features", "memory", "--strategy", "finetune"), None, "needs a strategy that freezes the first blocks"),
    (("--mix", "{'alpha':1}"), None, "mix must be a dictionary with _target_"),
    (("--source_classes", 3), None, "source_classes must be a list of names, got 3"),
    (("--allow_missing", "[1,2]"), None, "allow_missing must be a list of names, got .1, 2."),
    (("--weights", "none", "--key_map", "a=b"), None, "key_map has no effect without weights"),
    (("--amp", "maybe"), None, "amp must be true or false, got 'maybe'"),
    (("--amp_dtype", "int8"), None, "amp_dtype must be bfloat16 or float16"),
    (("--resume", "nowhere.pt"), None, "resume: there is no checkpoint nowhere.pt"),
    ((), "unreadable image", "1 of .* images cannot be read: .*glioma"),
    ((), "missing image", "do not exist in"),
    ((), "no patients", "no patient column .columns: image, label, case, domain"),
    ((), "one class", "at least two classes are needed, found glioma"),
    ((), "shared patients", "patients stand in more than one part"),
    ((), "few patients", "has images of 1 patient only"),
    (("--variant::norm", "domain"), "no domains", "training images have no domain: give the table a column domain"),
]


@pytest.mark.parametrize(("args", "kind", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_ends_in_one_sentence_and_leaves_nothing(cli, cohort, tmp_path, args, kind, message):
    if kind is not None:
        dataset = shutil.copytree(cohort, tmp_path / "data")
        spoil(dataset, kind)
        args = (*args, "--dataset_dir", dataset)
    cli.refuses(tmp_path / "out", message, *args)


@pytest.mark.parametrize("name", ["evaluate", "inference"])
def test_without_a_model_evaluate_and_inference_say_how_to_get_one(cli, name, tmp_path):
    done = cli(name, "--output_dir", tmp_path / "out", "--checkpoint", "nowhere.pt")
    assert done.returncode == 1
    assert "error: there are no trained weights at nowhere.pt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_with_results_is_not_overwritten(cli, run):
    before = (run[0] / "metrics.json").read_bytes()
    done = cli("train", "--output_dir", run[0], "--epochs", 1, "--image_size", 32)
    assert done.returncode == 1
    assert "already holds a run" in done.stderr
    assert (run[0] / "metrics.json").read_bytes() == before


@pytest.mark.filterwarnings("ignore")  # what MONAI's transforms and datasets warn of is not this test's matter
@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_monais_standard_properties_are_all_there(cli, run, name):
    assert cli.missing_properties(name) == []


def test_cached_features_workers_and_a_folder_of_prepared_images_change_nothing(cli, tmp_path):
    args = ("--epochs", 2, "--strategy", "freeze", "--augmentation", "$None")
    cli.train(tmp_path / "plain", *args)
    cached = ("--cache_features", tmp_path / "features", "--cache_dir", tmp_path / "images", "--num_workers", 1)
    for name, folders in (("first", 2), ("second", 2)):  # the second finds what the first has left
        done = cli.train(tmp_path / name, *args, *cached)
        assert "features of frozen blocks are kept" in done.stdout
        assert len(list((tmp_path / "features").iterdir())) == folders  # of the training and the validation images
        one, two = (states(tmp_path / run / "checkpoints" / "last.pt")["model"] for run in ("plain", name))
        for key, value in one.items():  # worker processes draw no other random numbers here
            np.testing.assert_allclose(two[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_bfloat16_learns_what_32_bits_learn(cli, tmp_path):
    probe = "import torch; torch.nn.Linear(1280, 3).bfloat16()(torch.rand(8, 1280).bfloat16()).sum().backward()"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode < 0:
        pytest.skip("torch dies of an illegal instruction in bfloat16 on this machine")
    rows = []
    for name, amp in (("half", "true"), ("full", "false")):
        cli.train(tmp_path / name, "--epochs", 2, "--strategy", "freeze", "--amp", amp, "--augmentation", "$None")
        rows.append(json.loads((tmp_path / name / "metrics.json").read_text())["training"]["epochs"][-1])
    # the head alone: batch norm over eight single pixels, as in a whole training on tiny images, magnifies rounding
    assert rows[0]["train_loss"] == pytest.approx(rows[1]["train_loss"], rel=0.01)
    assert rows[0]["train_loss"] != rows[1]["train_loss"]


@pytest.mark.slow
def test_a_compiled_training_learns_what_a_plain_one_learns(cli, tmp_path):
    losses = []
    for name, compiled in (("compiled", "true"), ("plain", "false")):
        cli.train(tmp_path / name, "--compile", compiled, "--augmentation", "$None")
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        losses.append(metrics["training"]["epochs"][-1]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
