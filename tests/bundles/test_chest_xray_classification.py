"""The chest X-ray bundle, through its public door: classes, and findings that may stand together and be unknown."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import same_weights, states

from medtl_monai.data import make_chest_cohort
from medtl_monai.predictions import read_predictions

FINDINGS = ["Cardiomegaly", "Effusion", "Infiltration", "Nodule"]
SMALL = {"patients": 24, "images": (1, 2), "size": 48, "progress": False}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """The phantom in both layouts."""
    folder = tmp_path_factory.mktemp("data")
    return {layout: make_chest_cohort(folder / layout, layout=layout, **SMALL) for layout in ("table", "chestxray14")}


@pytest.fixture(scope="module")
def cli(make_cli, cohorts):
    return make_cli("chest_xray_classification", cohorts["table"])


@pytest.fixture(scope="module")
def runs(cli, cohorts, tmp_path_factory):
    """One finished training of classes and one of findings."""
    folder = tmp_path_factory.mktemp("runs")
    for layout, dataset in cohorts.items():
        cli.train(folder / layout, "--dataset_dir", dataset, launcher=("-m",))
    return folder


def test_classes_and_findings_are_scored_each_in_their_way(runs):
    classes, findings = (json.loads((runs / n / "metrics.json").read_text()) for n in ("table", "chestxray14"))
    assert set(classes["val"]["per_class"]) == {"diffuse", "focal", "normal"}
    assert set(findings["val"]["per_class"]) > set(FINDINGS)  # all 14 of the set; the others are never there
    assert findings["val"]["per_class"]["Hernia"]["auc"]["reason"] == "no image of class 'Hernia'"
    assert "Hernia" in findings["val"]["metrics"]["auc"]["left_out"]
    for metrics in (classes, findings):
        auc = metrics["val"]["metrics"]["auc"]
        assert 0 <= auc["interval"][0] <= auc["value"] <= auc["interval"][1] <= 1
    table, nih = (read_predictions(runs / n / "predictions.csv") for n in ("table", "chestxray14"))
    np.testing.assert_allclose(table.probabilities.sum(1), 1, atol=1e-6)
    assert np.abs(nih.probabilities.sum(1) - 1).max() > 0.1
    assert nih.labels.shape == nih.probabilities.shape
    assert (runs / "chestxray14" / "figures" / "val_roc.png").is_file()


def test_images_in_an_npz_are_trained_on_by_the_sets_own_split(cli, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{part}_images": rng.integers(0, 255, (8, 28, 28), np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.arange(8)[:, None] % 2 for part in ("train", "val", "test")}
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "pneumoniamnist.npz", **arrays, **labels)
    nested = ("--train::dataloader::drop_last", "false")
    done = cli.train(tmp_path / "out", "--dataset_dir", tmp_path / "data", "--calibrate", "false", *nested)
    assert "calibrated on" not in done.stdout  # as it is by default
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["calibrate"] is False
    assert config["train"]["dataloader"]["drop_last"] is False
    found = read_predictions(tmp_path / "out" / "predictions.csv")
    assert found.classes == ["normal", "pneumonia"]
    assert sum(image.endswith("pneumoniamnist.npz#test_images/7") for image in found.images) == 1
    assert len(found.images) == 24


def test_the_official_test_list_is_the_test_part(runs, cohorts):
    metrics = json.loads((runs / "chestxray14" / "metrics.json").read_text())
    listed = (cohorts["chestxray14"] / "test_list.txt").read_text().split()
    assert metrics["test"]["images"] == len(listed)


@pytest.mark.parametrize("layout", ["table", pytest.param("chestxray14", marks=pytest.mark.slow)])
def test_evaluate_and_inference_give_the_trainings_probabilities(cli, runs, cohorts, layout, tmp_path):
    trained = read_predictions(runs / layout / "predictions.csv")
    want = dict(zip(trained.images, trained.probabilities, strict=True))
    for name in ("evaluate", "inference"):
        done = cli(name, "--output_dir", tmp_path / name, "--dataset_dir", cohorts[layout],
                   "--checkpoint", runs / layout / "checkpoints" / "best.pt")  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        got = read_predictions(tmp_path / name / "predictions.csv")
        assert set(got.images) == set(want)
        for image, probabilities in zip(got.images, got.probabilities, strict=True):
            np.testing.assert_allclose(probabilities, want[image], atol=1e-5)


def test_unknown_findings_are_left_out(cli, cohorts, tmp_path):
    dataset = shutil.copytree(cohorts["table"], tmp_path / "data")
    header, *rows = (dataset / "index.csv").read_text().splitlines()
    marks = {"focal": "1,0", "diffuse": "0,1", "normal": "0,"}
    table = [f"{row},{marks[row.split(',')[1]]}" for row in rows]
    (dataset / "index.csv").write_text("\n".join([f"{header},Nodule,Infiltration", *table]))
    done = cli.train(tmp_path / "out", "--dataset_dir", dataset, "--label_column", "['Nodule','Infiltration']")
    assert re.search(r"^auc +\d\.\d{3} \[", done.stdout, re.MULTILINE)
    predictions = read_predictions(tmp_path / "out" / "predictions.csv")
    assert predictions.classes == ["Nodule", "Infiltration"]
    normal = ["normal/" in image for image in predictions.images]
    assert np.isnan(predictions.labels[normal, 1]).all()
    assert not np.isnan(predictions.labels[:, 0]).any()


@pytest.mark.slow
def test_images_are_weighted_by_the_table_and_towards_a_target(cli, cohorts, tmp_path):
    dataset = shutil.copytree(cohorts["table"], tmp_path / "data")
    header, *rows = (dataset / "index.csv").read_text().splitlines()
    columns = header.split(",")
    assert "domain" in columns
    table = [f"{row},{1 + i % 2}" for i, row in enumerate(rows)]
    (dataset / "index.csv").write_text("\n".join([f"{header},weight", *table]))
    domain = rows[0].split(",")[columns.index("domain")]
    done = cli.train(
        tmp_path / "out", "--dataset_dir", dataset, "--target_dir", dataset / "normal",
        "--strategy", f"sample_weights + importance + tradaboost(domain={domain})",
    )  # fmt: skip
    assert re.search(r"Importance: weights up to \d+\.\d, as if \d+ of \d+ images", done.stdout)
    last = states(tmp_path / "out" / "checkpoints" / "last.pt")["strategy"]
    assert set(last["parts.0.table"].tolist()) == {1, 2}
    assert last["parts.1.table"].std() > 0.1
    assert 0 < last["parts.2.target"].sum() < len(last["parts.2.target"])
    done = cli.train(
        tmp_path / "cached", "--dataset_dir", dataset, "--target_dir", dataset / "normal", "--augmentation", "$None",
        "--strategy", "freeze + importance", "--cache_features", tmp_path / "features",
    )  # fmt: skip
    assert "Importance: weights up to" in done.stdout
    assert "features of frozen blocks are kept" in done.stdout
    keys = [json.loads(path.read_text()) for path in (tmp_path / "features").glob("*/key.json")]
    assert len({key["data"] for key in keys}) == 3  # of training, validation and target images


def test_two_processes_score_the_same_model_alike(cli, runs, tmp_path):
    # from a finished model, head and all, with a step that changes nothing
    args = ("--epochs", 1, "--image_size", 32, "--batch_size", 4, "--strategy", "partial_freeze(blocks=-1)",
            "--weights", runs / "table" / "checkpoints" / "best.pt")  # fmt: skip
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29518", "-m")
    done = cli("train+multi_gpu_train", *args, "--lr", 1e-12, "--output_dir", tmp_path / "two", launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    done = cli("train", *args, "--lr", 1e-12, "--output_dir", tmp_path / "one")
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("one", "two"))
    for metric, entry in one["val"]["metrics"].items():
        assert two["val"]["metrics"][metric]["value"] == pytest.approx(entry["value"], abs=1e-4), metric
    for key in ("val_auc", "val_accuracy", "val_loss"):
        values = [metrics["training"]["epochs"][0][key] for metrics in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=1e-4), key


def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(cli, tmp_path):
    args = ("--epochs", 4, "--strategy", "l2_sp")
    cli.train(tmp_path / "whole", *args)
    last = cli.kill(tmp_path / "cut", 2, *args)
    cli.train(tmp_path / "cut", *args, "--resume", last)
    same_weights(last, tmp_path / "whole" / "checkpoints" / "last.pt")


BAD = [
    (("--label_column", "['Nodule','lable']"), "no column 'Nodule'"),
    (("--strategy", "sample_weights"), "needs a weight for each training image"),
    (("--weights", "imagenet"), "neither a file nor a catalogue entry 'imagenet': did you mean '"),
    (("--epoch", 1), r"no key 'epoch': did you mean --epochs\?"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_ends_in_one_sentence_and_leaves_nothing(cli, tmp_path, args, message):
    cli.refuses(tmp_path / "out", message, *args)


@pytest.mark.filterwarnings("ignore")  # what MONAI's transforms and datasets warn of is not this test's matter
@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_monais_standard_properties_are_all_there(cli, runs, name):
    shutil.copy(runs / "table" / "checkpoints" / "best.pt", cli.bundle / "models" / "model.pt")
    assert cli.missing_properties(name) == []
