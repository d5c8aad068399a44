"""CONTRIBUTING.md: the new bundle is built from its text and keeps every bundle's contract; what it names is there."""

import ast
import importlib.util
import json
import logging
import os
import re
import sys
from pydoc import locate

import pytest
from conftest import ROOT
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from test_docs import load_render

from medtl_monai.data import make_chest_cohort

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAME = "knee_xray_classification"
BY_HAND = 8  # files at most, for a bundle


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## [AE])", TEXT, re.MULTILINE | re.DOTALL)[1]


def listed(title):
    """The files of a section's table."""
    cells = re.findall(r"^\| (?:or )?(`[^|]+) \|", section(title), re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell) if "." in name]


def load(path):
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written():
    """The files of the new bundle that the text shows, by path."""
    found = re.findall(r"^`([^`\n]+)`:\n\n(`{3,})\w+\n(.*?)^\2$", section("Add a bundle"), re.MULTILINE | re.DOTALL)
    return {path: content for path, _, content in found}


@pytest.fixture(scope="module")
def bundle(written, tmp_path_factory):
    """The bundle, made of what is written by hand and of what `make bundles` and `make docs` render."""
    folder, render = tmp_path_factory.mktemp("bundles") / NAME, load_render()
    difference = json.loads(written[f"recipes/{NAME}.json"])
    for path, content in load(ROOT / "recipes" / "render.py").bundle_files(difference, folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for path, content in written.items():
        if path.startswith(f"bundles/{NAME}/"):
            file = folder / path.removeprefix(f"bundles/{NAME}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    readme = folder / "docs" / "README.md"
    readme.write_text(render.between(readme, "keys", render.keys(folder)), encoding="utf-8")
    return folder


@pytest.fixture
def undisturbed(monkeypatch):
    """A workflow in this process leaves nothing behind in it and sees no arguments of pytest's."""
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


def test_a_new_bundle_is_a_few_files_by_hand_and_the_text_shows_them(written):
    files = [name.replace("NAME", NAME) for name in listed("Add a bundle")]
    assert len(set(files)) == len(files) <= BY_HAND
    new = [name for name in files if not (ROOT / name).exists()]
    assert sorted(new) == sorted(written)
    test = written[f"tests/bundles/test_{NAME}.py"]
    assert [node.name for node in ast.parse(test).body if isinstance(node, ast.FunctionDef)]


@pytest.mark.filterwarnings("ignore:No hash value")
def test_the_bundle_of_the_text_keeps_the_contract_of_every_bundle(bundle, tmp_path):
    contract = load(ROOT / "tests" / "bundles" / "test_every_bundle.py")
    contract.test_its_files_are_there(bundle)
    contract.test_augmentation_is_batched_by_default_and_monais_by_one_key(bundle)
    for name in contract.KEYS:
        contract.test_the_keys_of_the_contract_are_there_and_in_the_readme(bundle, name)
    contract.test_the_epochs_of_snapshots_are_whole_cycles(bundle)
    contract.test_the_default_strategy_can_be_made_and_is_for_the_task(bundle)
    contract.test_metadata_passes_monais_verification(bundle, tmp_path)
    contract.test_the_network_takes_and_gives_what_the_metadata_says(bundle)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert set(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()) == {"mild", "none", "severe"}


def test_the_bundle_of_the_text_has_the_files_of_the_chests(bundle):
    chest = ROOT / "bundles" / "chest_xray_classification"
    theirs = {path.relative_to(chest) for part in ("configs", "docs") for path in (chest / part).iterdir()}
    ours = {path.relative_to(bundle) for part in ("configs", "docs") for path in (bundle / part).iterdir()}
    assert ours == theirs


def test_the_links_of_its_readme_lead_somewhere(written):
    path = f"bundles/{NAME}/docs/README.md"
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", written[path]):
        assert os.path.exists(os.path.normpath(ROOT / os.path.dirname(path) / link)), link


@pytest.mark.usefixtures("undisturbed")
def test_its_training_is_ready_to_run(bundle, tmp_path):
    cohort = make_chest_cohort(tmp_path / "cohort", patients=9, images=(1, 1), size=32, progress=False)
    keys = {"dataset_dir": str(cohort), "output_dir": str(tmp_path / "out"), "image_size": 32, "device": "cpu"}
    config = str(bundle / "configs" / "train.json")
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, **keys)
    workflow.initialize()
    assert workflow.check_properties() == []
    own = json.loads((bundle / "configs" / "train.json").read_text())
    assert workflow.parser.get_parsed_content("train::trainer").state.max_epochs == own["epochs"]
    assert callable(locate(own["dataset_dir"]["_target_"]))  # the cohort, were there no folder
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["model"]["classes"] == ["diffuse", "focal", "normal"]  # the data's


@pytest.mark.parametrize("title", re.findall(r"^## (Add .*)$", TEXT, re.MULTILINE))
def test_what_a_section_names_is_there(title):
    placeholders = ("NAME", "FAMILY", "KEY")
    files = listed(title)
    assert files
    gone = [name for name in files if not any(word in name for word in placeholders) and not _there(name)]
    gone += [name for name in re.findall(r"\b(test_\w+)\b(?!\.py)", section(title)) if not _is_a_test(name)]
    assert gone == []


def _there(name):
    return (ROOT / name).exists() or any(ROOT.glob(f"tests/**/{name}"))


def _is_a_test(name):
    """A function of the tests, or a file of it whose end is a placeholder, or what the text shows itself."""
    if name.startswith(("test_strategy_", "test_NAME", "test_knee")) or f"def {name}" in TEXT:
        return True
    return any(f"def {name}(" in path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py"))
