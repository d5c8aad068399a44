"""All that decides what the network sees, and how its answer is read, is in the checkpoint.

Each case trains a bundle with values that are not its default; ``evaluate.json`` and ``inference.json`` then get the
checkpoint alone and must answer as the training itself did. So that a case cannot pass in vain, the fields of the model
that it is about are set back to the bundle's default, one by one: the answers must change.
"""

import csv
import json
import logging
import re
import shutil
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism

from medtl_monai import figures
from medtl_monai.bundle import Report, SaveMasks, SegmentationReport, segment
from medtl_monai.bundle import segmented as segmented_cases
from medtl_monai.data import make_brain_cohort, make_cardiac_cohort, make_chest_cohort, make_dbt_cohort
from medtl_monai.model import Model
from medtl_monai.predictions import read_predictions
from medtl_monai.utils import UserError

BRAIN, CHEST = "brain_mri_classification", "chest_xray_classification"
BREAST, CARDIAC = "breast_dbt_classification", "cardiac_unet_segmentation"
BUNDLES = (BRAIN, CHEST, BREAST, CARDIAC)
CLOSE = 2e-6  # what the order of a batch changes in the last bits of 32

# ---- what the keys are

DATA = (  # which images there are, and which part each is in
    *("dataset_dir", "layout", "layout_options", "table", "image_column", "label_column", "patient_column"),
    *("target_dir", "box_columns", "box_mode", "val_fraction", "fold", "allow_shared_patients"),
    *("data_strategy", "normal_share", "groups", "spacing"),
)
TRAINING = (  # how the network learns
    *("weights", "strategy", "epochs", "batch_size", "lr", "weight_decay", "transforms", "augmentation", "mix", "seed"),
    *("resume", "val_interval", "patience", "repeat_minority", "loss_name", "loss_weights", "loss_options"),
    *("source_classes", "axes", "key_map", "allow_missing"),
)
MACHINE = (  # where and how fast
    *("device", "amp", "amp_dtype", "compile", "num_workers"),
    *("cache_dir", "cache_features", "cache_views", "cache_dtype", "output_dir", "save_to_models"),
)
MACHINERY = (  # objects that are made of the other keys
    *("bundle_root", "cases", "parts", "values", "model", "strategy_def", "network_def", "target", "source"),
    *("transfer", "network", "optimizer", "lr_scheduler", "loss", "train", "validate", "history", "checkpoints"),
    *("test", "calibration", "report", "initialize", "run"),
)
MODEL = (  # what the network sees, what it is, and how its answer is read: these travel, and each has a case
    *("backbone", "variant", "image_size", "channels", "percentiles", "mean", "std", "inferer", "calibrate"),
    *("window", "standardize"),
    *("compare_sides", "crop_size", "lesion_map", "slice_share"),
    *("crop", "structures", "slice_axis", "largest_component", "always_present"),
)
KINDS = {"data": DATA, "training": TRAINING, "machine": MACHINE, "machinery": MACHINERY, "model": MODEL}

NO_CASE = {
    "dimensions": "the bundles are of images of two dimensions, and no key changes that",
    "calibration": "it is in the weights of the head, too; here it only says so",
    "spacing": "it is of files that do not tell it, and changes volumes and distances, no answer",
    "origin": "it says where a model is from, and changes no answer",
}
"""Fields of the model that no mutation can show, and why."""


@dataclass(frozen=True)
class Case:
    """A training with ``keys``, and the fields of the model that they set.

    ``data`` names the images; ``told`` is what evaluation gets beside the checkpoint; ``tables`` are compared with the
    training's own; ``inferred``: inference has all that it needs, too.
    """

    bundle: str
    keys: dict
    sets: tuple
    data: str = "plain"
    told: dict = field(default_factory=dict)
    tables: tuple = ("predictions",)
    inferred: bool = True
    close: float = CLOSE


VIEWS = {"inferer::scales": [1.25], "inferer::mirrors": [[], [0, 1]]}
LOOKS = {"image_size": 40, "percentiles": [2.0, 97.0], "mean": 0.3, "std": 0.4, **VIEWS}
LOOKS_SET = ("image_size", "percentiles", "mean", "std", "scales", "mirrors")
COLOUR = {"channels": 3, "mean": [0.3, 0.4, 0.5], "std": [0.3, 0.25, 0.2]}
FRESH = {"weights": "none", "lr": 0.02}
DENSE = json.dumps({"_target_": "DenseNet121", "init_features": 8, "growth_rate": 4, "block_config": [1, 1, 1, 1]})
UNET = json.dumps({"_target_": "BasicUNet", "features": [4, 4, 8, 8, 8, 4]})
LEARNT = {
    "calibrate": True,
    "strategy": "finetune",
    "augmentation": None,
    "epochs": 8,
    "lr": 0.005,
    "batch_size": 9,
    **VIEWS,
}
CLASSIFIERS = {
    "preparation and views": (LOOKS, LOOKS_SET),
    "activation": ({"variant": {"act": "elu", "dropout": 0.5}}, ("variant",)),
    "network, norm and head": (
        {**FRESH, "backbone": "resnet18", "variant": {"norm": "group", "pooling": "average", "head": [8]}},
        ("backbone", "variant"),
    ),
    "network of MONAI": ({**FRESH, "backbone": DENSE}, ("backbone",)),
    "colour": (COLOUR, ("channels", "mean", "std")),
}
BREASTS = {
    "sides": ({"compare_sides": True}, ("compare_sides",)),
    "windows": ({"crop_size": 24}, ("crop_size",)),
    "windows of both sides": ({"crop_size": 24, "compare_sides": True}, ("crop_size", "compare_sides")),
    "maps": ({"lesion_map": True}, ("lesion_map",)),
}
HEARTS = {
    "preparation and views": ({**LOOKS, "crop": 0.5}, (*LOOKS_SET, "crop")),
    "activation": ({"variant": {"act": "elu", "dropout": 0.5}}, ("variant",)),
    "network and norm": ({**FRESH, "backbone": "unet_resnet18", "variant": {"norm": "group"}}, ("backbone", "variant")),
    "network of MONAI": ({**FRESH, "backbone": UNET}, ("backbone",)),
    "colour": (COLOUR, ("channels", "mean", "std")),
    "slices along another axis": ({"slice_axis": 0}, ("slice_axis",)),
    "every slice, one part": (
        {"always_present": True, "largest_component": True},
        ("always_present", "largest_component"),
    ),
    "structures in another order": (
        {"structures": {"left ventricle": 3, "right ventricle": 1}, "always_present": True},
        ("structures", "classes"),
    ),
    "structures of other names": (
        {"structures": {"cavity": 3, "wall": 2}, "always_present": True},
        ("structures", "classes"),
    ),
}
SHARES = {"data_strategy": "all", "slice_share": 1.0}
ONE = {"data_strategy": 2}  # a slice of each patient, as in training
GROUPS = {"groups": {"well": ["normal"], "ill": ["benign", "cancer"]}}
SCALED = 1e-5  # where calibration makes the logits larger, and what differs in their last bits
CASES = {
    **{f"brain: {name}": Case(BRAIN, *about) for name, about in CLASSIFIERS.items()},
    **{f"chest: {name}": Case(CHEST, *about) for name, about in CLASSIFIERS.items()},
    **{f"breast: {name}": Case(BREAST, *about, told=ONE) for name, about in (CLASSIFIERS | BREASTS).items()},
    **{f"cardiac: {name}": Case(CARDIAC, *about) for name, about in HEARTS.items()},
    "brain: window": Case(BRAIN, {"window": [20.0, 140.0]}, ("window",)),
    "chest: window": Case(CHEST, {"window": [20.0, 140.0]}, ("window",)),
    "breast: window": Case(BREAST, {"window": [0.0, 1000.0]}, ("window",), told=ONE),
    "cardiac: window": Case(CARDIAC, {"window": [20.0, 300.0]}, ("window",)),
    **{
        f"{name}: standardized": Case(bundle, {"standardize": True}, ("standardize",), told=told)
        for name, bundle, told in (
            ("brain", BRAIN, {}),
            ("chest", CHEST, {}),
            ("breast", BREAST, ONE),
            ("cardiac", CARDIAC, {}),
        )
    },
    "brain: calibrated": Case(BRAIN, LEARNT, ("scales", "mirrors"), data="twice", close=SCALED),
    "chest: calibrated": Case(CHEST, LEARNT, ("scales", "mirrors"), data="twice", close=SCALED),
    "breast: calibrated": Case(BREAST, {"calibrate": True}, (), told=ONE, close=SCALED),
    "brain: classes": Case(BRAIN, {"label_column": "domain"}, ("classes",), told={"label_column": "domain"}),
    # the domain of an image is told by a table, which inference does not read
    "brain: domains": Case(BRAIN, {"variant": {"norm": "domain"}}, ("variant",), inferred=False),
    "chest: findings": Case(CHEST, {"calibrate": True}, ("task", "classes"), data="findings", close=SCALED),
    "breast: groups": Case(BREAST, GROUPS, ("classes",), told=GROUPS | ONE),
    "breast: shares of slices": Case(
        BREAST, SHARES, ("slice_share", "images"), tables=("predictions", "views", "patients")
    ),
}
SLOW = (
    *("chest: network, norm and head", "chest: colour", "chest: activation"),
    *("breast: windows of both sides", "breast: network, norm and head", "breast: colour", "breast: activation"),
    *("cardiac: network and norm", "cardiac: colour", "cardiac: activation"),
)
"""Left out of the quick tests: what they show of one bundle is quickly shown of another."""

INSTEAD = {"images": "slices", "image_size": 48}
"""Other values than the default, where every model of a bundle has that, or where it is large and thus slow."""


# ---- runs in this process


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Copies of the bundles, without trained models."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in BUNDLES:
        shutil.copytree(ROOT / "bundles" / name, folder / name, ignore=shutil.ignore_patterns("runs", "*.pt"))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The folder of a bundle's images: a few patients, one or two images each."""
    made, folder = {}, tmp_path_factory.mktemp("images")
    few = {"size": 48, "progress": False}
    make = {
        (BRAIN, "plain"): lambda path: make_brain_cohort(path, patients=9, slices=(1, 1), **few),
        (CHEST, "plain"): lambda path: make_chest_cohort(path, patients=9, images=(1, 1), **few),
        (CHEST, "findings"): lambda path: make_chest_cohort(path, patients=12, layout="chestxray14", **few),
        (BREAST, "plain"): lambda path: make_dbt_cohort(path, patients=6, frames=2, size=(48, 40), progress=False),
        (CARDIAC, "plain"): lambda path: make_cardiac_cohort(path, patients=3, slices=2, **few),
    }

    def twice(bundle):
        """Each image also stands among those of validation, so that a model that learns it has something to scale."""
        path = shutil.copytree(of(bundle), folder / f"{bundle}_twice")
        with (path / "index.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with (path / "index.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "split"])
            writer.writeheader()
            for row in rows:
                copy = row["image"].replace(".png", "_copy.png")
                shutil.copy(path / row["image"], path / copy)
                writer.writerow({**row, "split": "train"})
                writer.writerow({**row, "image": copy, "patient": f"{row['patient']}-copy", "split": "val"})
        return path

    make |= {(bundle, "twice"): lambda _, bundle=bundle: twice(bundle) for bundle in (BRAIN, CHEST)}

    def of(bundle, data="plain"):
        if (bundle, data) not in made:
            made[bundle, data] = make[bundle, data](folder / f"{bundle}_{data}")
        return made[bundle, data]

    return of


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """Runs in this process leave nothing behind in it, draw no figures and see no arguments of pytest's."""
    for thing, name in ((Report, "_draw"), (SegmentationReport, "_figures"), (figures, "learning_curves")):
        monkeypatch.setattr(thing, name, lambda *_, **__: None)
    monkeypatch.setattr(segmented_cases, "_RESAMPLES", 10)
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = {logger: list(logger.handlers) for logger in (logging.getLogger(), logging.getLogger("medtl_monai"))}
    yield
    for logger, handlers in before.items():
        for handler in set(logger.handlers) - set(handlers):
            logger.removeHandler(handler)
            handler.close()
    set_determinism(None)


@pytest.fixture
def run(bundles, images, tmp_path, monkeypatch):
    """Runs a bundle's configuration; its answers: by table, each case's name with its numbers."""
    maps = {}

    def segmented(network, item, *args, **kwargs):
        case = segment(network, item, *args, **kwargs)
        _keep(item["image"].meta["filename_or_obj"], case)
        return case

    def saved(self, engine, save=SaveMasks._save):
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            _keep(item["image"].meta["filename_or_obj"], output)
        save(self, engine)

    def _keep(file, case):
        for name in ("pred", "probability"):
            maps[f"{Path(file).parent.name}/{Path(file).name} {name}"] = case[name].as_tensor().float().numpy().copy()

    monkeypatch.setattr(segmented_cases, "segment", segmented)
    monkeypatch.setattr(SaveMasks, "_save", saved)

    def go(case, name, output, **keys):
        maps.clear()
        file = str(bundles / case.bundle / "configs" / f"{name}.json")
        keys = {"dataset_dir": str(images(case.bundle, case.data)), "output_dir": str(tmp_path / output), **keys}
        workflow = ConfigWorkflow(
            file, workflow_type="train" if name == "train" else "infer", logging_file=False, num_workers=0, **keys
        )
        workflow.initialize()
        workflow.run()
        if case.bundle == CARDIAC:
            return {"predictions": dict(maps), "masks": _masks(tmp_path / output)}
        return {name: _probabilities(tmp_path / output / f"{name}.csv") for name in case.tables}

    return go


def _probabilities(path):
    table = read_predictions(path)
    rows = zip(table.images, table.probabilities, strict=True)
    return {f"{image} {name}": p for image, row in rows for name, p in zip(table.classes, row, strict=True)}


def _masks(folder):
    return {path.name: np.asarray(nib.load(path).dataobj).astype(float) for path in folder.glob("masks/*.nii.gz")}


def distance(one, two):
    """The largest difference between answers to the same questions; infinite where the questions are others."""
    if (
        not one
        or not set(one) <= set(two)
        or any(np.shape(value) != np.shape(two[name]) for name, value in one.items())
    ):
        return np.inf
    return max(float(np.abs(value - two[name]).max()) for name, value in one.items())


def default_of(bundle):
    """The model that the bundle trains by default."""
    return Model.from_dict(configuration(bundle, "inference")["model"]["default"]).to_dict()


def root_cause(error):
    """The first ``UserError`` along the chain of causes."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


# ---- the tests


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_a_checkpoint_alone_answers_as_the_training_did(name, run, tmp_path, monkeypatch):
    case = CASES[name]
    short = {"epochs": 1, "image_size": 32, "batch_size": 4, "val_fraction": 0.3}
    trained = run(case, "train", "train", **{**short, "calibrate": False, **case.keys})
    best = str(tmp_path / "train" / "checkpoints" / "best.pt")
    told = {"evaluate": {"checkpoint": best, **case.told}, "inference": {"checkpoint": best}}
    names = ["evaluate", "inference"] if case.inferred else ["evaluate"]
    scored = {config: run(case, config, config, **told[config]) for config in names}
    for config, answers in scored.items():
        for table in case.tables:
            assert distance(trained[table], answers[table]) < case.close, f"{table} of {config}"
    model = Model.read(best)
    assert (model.calibration is not None) == case.keys.get("calibrate", False)
    assert case.data != "twice" or min(model.calibration["scale"]) > 0.1  # else all answers were the same

    default = default_of(case.bundle)
    again = "inference" if case.inferred and case.bundle != BREAST else "evaluate"
    last = scored[again]
    for field_ in case.sets:
        assert field_ in INSTEAD or model.to_dict()[field_] != default[field_], f"{field_}: the case sets the default"
        changed = {**model.to_dict(), field_: INSTEAD.get(field_, default[field_])}
        with monkeypatch.context() as patch:
            patch.setattr(Model, "read", classmethod(lambda cls, _, changed=changed: cls.from_dict(changed)))
            try:
                other = run(case, again, f"without_{field_}", **told[again])
            except Exception as error:
                if root_cause(error) is None:
                    raise
                continue  # refused, as the weights do not fit
        furthest = max(distance(last[table], other[table]) for table in last)
        assert furthest > 100 * CLOSE, f"{field_}: the answers do not change without it"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_key_is_known_for_what_it_changes(bundle):
    known = {key: kind for kind, keys in KINDS.items() for key in keys}
    assert len(known) == sum(map(len, KINDS.values()))
    train = configuration(bundle, "train")
    assert [key for key in train if key not in known] == []
    cases = [case for case in CASES.values() if case.bundle == bundle]
    have = {re.split("::", key)[0] for case in cases for key in case.keys}
    refused = {"calibrate"} if bundle == CARDIAC else set()  # in a sentence
    assert [key for key in train if known[key] == "model" and key not in have | refused] == []


def test_the_table_of_keys_names_none_that_is_gone():
    there = {key for bundle in BUNDLES for key in configuration(bundle, "train")}
    assert [key for keys in KINDS.values() for key in keys if key not in there] == []


def test_every_field_of_a_model_has_a_case():
    have = {name for case in CASES.values() for name in case.sets}
    assert sorted(have | set(NO_CASE)) == sorted(field_.name for field_ in fields(Model))
    assert not have & set(NO_CASE)


def test_fields_of_one_idea_have_a_case_in_every_bundle():
    everywhere = {"backbone", "variant", "channels", "image_size", "percentiles", "mean", "std", "scales", "mirrors"}
    for bundle in BUNDLES:
        have = {name for case in CASES.values() if case.bundle == bundle for name in case.sets}
        assert everywhere <= have, bundle


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_images_are_prepared_and_answers_read_through_the_model_alone(bundle, name):
    config = configuration(bundle, name)
    known = {key: kind for kind, keys in KINDS.items() for key in keys}
    places = {
        "train": ("train::preprocessing", "validate", "test", "report"),
        "evaluate": ("preprocessing", "prepare_batch", "postprocessing", "report"),
        "inference": ("preprocessing", "postprocessing", "evaluator"),
    }[name]
    ends = ("model", "network", "history", "strategy_def", "train", "transfer", "cases", "parts", "values")
    reached = reach(config, places, ends)
    assert "model" in reached
    assert [key for key in reached - {"model", "inferer"} if known.get(key) == "model"] == []
    if name != "train":
        # changes of how a model is read
        own = {"inferer", "slice_share", "slice_axis", "largest_component", "always_present"}
        assert {key for key in config if known.get(key) == "model"} - {"model"} <= own | {"structures"}


def test_a_key_that_passes_the_model_by_is_found():
    config = configuration(BRAIN, "train")
    config["window"] = [0, 80]
    config["validate"]["preprocessing"] = "$@model.preparation('validate', window=@window)"
    assert "window" in reach(config, ("validate",), ("model", "network"))


def configuration(bundle, name):
    """A bundle's own."""
    return json.loads((ROOT / "bundles" / bundle / "configs" / f"{name}.json").read_text())


def reach(config, places, ends):
    """The top-level keys that ``places`` refer to, directly or through other keys; not through ``ends``."""
    found, todo = set(), []
    for place in places:
        inside = config
        for part in place.split("::"):
            inside = inside[part]
        todo.append(inside)
    while todo:
        for key in re.findall(r"@([A-Za-z_]\w*)", json.dumps(todo.pop())):
            if key in config and key not in found:
                found.add(key)
                todo += [config[key]] if key not in ends else []
    return found
