"""The breast bundle, through its public door: slices out of volumes, scores of views and patients, mammograms."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from conftest import same_weights, states

from medtl_monai.data import make_dbt_cohort, split_frame
from medtl_monai.data.phantoms.dbt import LABELS, PATHS
from medtl_monai.predictions import read_predictions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dbt_cohort(
        tmp_path_factory.mktemp("data") / "dbt", patients=12, frames=4, size=(48, 40), progress=False
    )


@pytest.fixture(scope="module")
def cli(make_cli, dataset):
    return make_cli("breast_dbt_classification", dataset)


@pytest.fixture(scope="module")
def run(cli, tmp_path_factory):
    """One finished training of three epochs on one slice a patient, whose model was saved into the bundle."""
    output = tmp_path_factory.mktemp("run") / "first"
    cli.train(output, "--epochs", 3, "--save_to_models", "true", launcher=("-m",))
    return output


def test_a_run_scores_slices_views_and_patients(run):
    metrics = json.loads((run / "metrics.json").read_text())
    slices = read_predictions(run / "predictions.csv")
    patients = read_predictions(run / "patients.csv")
    assert slices.classes == ["normal", "tumour"]
    assert len(slices.images) == len(patients.images) == 11  # one slice a patient, without the actionable one
    assert all(split_frame(image)[1] is not None for image in slices.images)
    assert set(metrics["levels"]) == {"train", "val"}
    assert metrics["levels"]["val"]["patients"]["metrics"]["auc"] == metrics["val"]["metrics"]["auc"]


def test_strategy_1_repeats_no_patient_across_parts_and_scores_what_it_says(cli, tmp_path):
    cli.train(tmp_path / "out", "--data_strategy", 1, "--normal_share", 0.5)
    slices = read_predictions(tmp_path / "out" / "predictions.csv")
    views, patients = (read_predictions(tmp_path / "out" / f"{name}.csv") for name in ("views", "patients"))
    assert len(slices.images) == 5 * 2 * 4 + 6 * 4 * 2
    assert (len(views.images), len(patients.images)) == (5 * 2 + 6 * 4, 11)
    for view, patient, score in zip(views.images, views.patients, views.probabilities, strict=True):
        rows = [i for i, image in enumerate(slices.images) if split_frame(image)[0] == view]
        assert score[1] == pytest.approx(slices.probabilities[rows, 1].max())  # a tenth of 4 or 2 slices is one
        assert score[1] <= patients.probabilities[patients.images.index(patient), 1]


def test_evaluate_scores_every_slice_and_agrees_with_training_and_inference(cli, run, tmp_path):
    for name in ("evaluate", "inference"):
        done = cli(name, "--output_dir", tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
    evaluated, inferred = (read_predictions(tmp_path / n / "predictions.csv") for n in ("evaluate", "inference"))
    assert (len(evaluated.images), len(inferred.images)) == (11 * 4 * 4, 12 * 4 * 4)
    want = dict(zip(inferred.images, inferred.probabilities, strict=True))
    for image, probabilities in zip(evaluated.images, evaluated.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, want[image], atol=1e-5)
    one, two = (read_predictions(tmp_path / n / "patients.csv") for n in ("evaluate", "inference"))
    assert set(one.images) < set(two.images) == {f"DBT-P{i:05d}" for i in range(1, 13)}  # from the DICOM headers
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert metrics["levels"]["test"]["patients"]["images"] == 11
    assert metrics["levels"]["test"]["views"]["images"] == 44


def test_a_run_goes_on_from_its_checkpoint(cli, run, tmp_path):
    last = cli.kill(tmp_path / "cut", 1, "--epochs", 3)
    assert states(last)["trainer"]["epoch"] < 3
    cli.train(tmp_path / "cut", "--epochs", 3, "--resume", last)
    same_weights(last, run / "checkpoints" / "last.pt")


def test_two_processes_train_and_a_single_one_finds_the_same_scores(cli, tmp_path):
    alone = cli.train_in_two_processes(tmp_path / "out", 29523, "--val_fraction", 0.3)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["val"]["images"] % 2  # one process validates more images than the other
    (epoch,) = metrics["training"]["epochs"]
    for key in ("auc", "accuracy"):
        assert epoch[f"val_{key}"] == pytest.approx(metrics["val"]["metrics"][key]["value"])
    two, one = (read_predictions(folder / "predictions.csv") for folder in (tmp_path / "out", alone))
    want = dict(zip(one.images, one.probabilities, strict=True))
    for image, probabilities in zip(two.images, two.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, want[image], atol=1e-5)


def test_both_breasts_are_compared_and_inference_finds_the_pairs_in_the_headers(cli, dataset, tmp_path):
    output = tmp_path / "out"
    cli.train(output, "--compare_sides", "true")
    trained = read_predictions(output / "predictions.csv")
    checkpoint = ("--checkpoint", output / "checkpoints" / "best.pt")
    done = cli("inference", "--output_dir", tmp_path / "all", "--runtime", "openvino", *checkpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    inferred = read_predictions(tmp_path / "all" / "predictions.csv")
    want = dict(zip(inferred.images, inferred.probabilities, strict=True))
    for image, probabilities in zip(trained.images, trained.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, want[image], atol=1e-5)
    one = next(dataset.rglob("*.dcm"))
    done = cli("inference", "--dataset_dir", one, "--output_dir", tmp_path / "one", *checkpoint)
    assert done.returncode == 1  # compared with themselves, all would be undecided
    assert "the model compares both breasts, and no image has another side" in done.stderr
    assert not (tmp_path / "one").exists()


CACHED = ("--strategy", "freeze", "--augmentation", "$None", "--cache_features", "memory")


@pytest.mark.parametrize(
    "way", [pytest.param(("--crop_size", 16), marks=pytest.mark.slow), ("--lesion_map", "true", *CACHED)]
)
def test_boxes_train_and_the_most_suspicious_places_are_scored(cli, tmp_path, way):
    output = tmp_path / "out"
    cli.train(output, *way, "--compare_sides", "true", "--epochs", 2)
    trained = read_predictions(output / "predictions.csv")
    saved = states(output / "checkpoints" / "best.pt")
    assert ("head.0.weight" in saved["model"]) == saved["about"]["lesion_map"] == ("--lesion_map" in way)
    checkpoint = ("--checkpoint", output / "checkpoints" / "best.pt")
    done = cli("inference", "--output_dir", tmp_path / "all", *checkpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    inferred = read_predictions(tmp_path / "all" / "predictions.csv")
    want = dict(zip(inferred.images, inferred.probabilities, strict=True))
    for image, probabilities in zip(trained.images, trained.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, want[image], atol=1e-5)


def test_the_dukes_recipe_is_a_configuration(cli, tmp_path):
    # a light network stands in for VGG16
    done = cli("train+duke_baseline", "--output_dir", tmp_path / "out", "--image_size", 32, "--epochs", 9,
               "--patience", 1, "--backbone", "mobilenet_v2", "--weights", "none", "--strategy", "scratch")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"epoch \d/9: train_loss", done.stdout + done.stderr)) < 9  # stopped early
    recipe, second = (
        json.loads((cli.bundle / "configs" / f"{name}.json").read_text())
        for name in ("duke_baseline", "duke_baseline_500")
    )
    assert (recipe["backbone"], recipe["batch_size"], recipe["lr"], recipe["patience"]) == ("vgg16", 64, 0.001, 20)
    assert (recipe["optimizer"]["_target_"], recipe["optimizer"]["momentum"]) == ("torch.optim.SGD", 0.9)
    assert (recipe["image_size"], recipe["variant"]) == (224, {"head": [100]})
    assert (second["image_size"], second["variant"]) == (500, {"head": [8192, 2048, 512, 128]})


@pytest.mark.slow
def test_mammograms_are_classified_too(cli, shared_data, tmp_path):
    cli.train(tmp_path / "out", "--dataset_dir", shared_data / "breast_mini_mias")
    patients = read_predictions(tmp_path / "out" / "patients.csv")
    assert len(patients.images) == 57


BAD = [
    (("--data_strategy", 3), "data_strategy must be 1"),
    (("--normal_share", 2), "normal_share must be a number from 0 to 1"),
    (("--data_strategy", 1, "--normal_share", 0), "normal_share must be above 0"),
    (("--crop_size", 300), "crop_size must lie between 2 and image_size"),
    (("--crop_size", 16, "--lesion_map", "true"), "crop_size and lesion_map exclude each other"),
    (
        ("--lesion_map", "true", "--mix", "{'_target_': 'medtl_monai.transforms.MixBatch', 'classes': 2}"),
        "lesion_map and mix exclude each other",
    ),
    (("--groups", "{'normal':['healthy'],'tumour':['lump']}"), "no label of normal|training part has no image"),
    (("--epoch", 1), r"no key 'epoch': did you mean --epochs\?"),
    (("--dataset_dir", "no boxes"), "has the marks|expected a single 1"),
    (("--dataset_dir", "no files"), "none of its .* images is there"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_ends_in_one_sentence_and_leaves_nothing(cli, dataset, tmp_path, args, message):
    if args[0] == "--dataset_dir":
        folder = tmp_path / "data"
        folder.mkdir()
        for path in dataset.glob("*.csv"):
            shutil.copy(path, folder)
        if args[1] == "no boxes":
            with (folder / LABELS).open() as file:
                rows = list(csv.reader(file))
            rows[1][3:] = "0000"
            (folder / LABELS).write_text("\n".join(",".join(row) for row in rows))
        else:
            assert (folder / PATHS).is_file()
        args = ("--dataset_dir", folder)
    cli.refuses(tmp_path / "out", message, *args)


@pytest.mark.filterwarnings("ignore")  # what MONAI's transforms and datasets warn of is not this test's matter
@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_monais_standard_properties_are_all_there(cli, run, name):
    assert cli.missing_properties(name) == []
