"""What all bundles share: files, keys, metadata that MONAI accepts, a network that does what the metadata says."""

import importlib.util
import json

import pytest
import torch
from conftest import ROOT
from monai.bundle import ConfigParser, verify_metadata, verify_net_in_out
from torch.optim.lr_scheduler import OneCycleLR

from medtl_monai.bundle import check_values
from medtl_monai.strategies import Chain, build
from medtl_monai.transforms import AugmentBatch, choose
from medtl_monai.utils import UserError

BUNDLES = sorted(path.parent.parent for path in ROOT.glob("bundles/*/configs/metadata.json"))
FILES = (
    "LICENSE", "configs/ensemble.json", "configs/snapshots.json",
    "configs/evaluate.json", "configs/inference.json", "configs/logging.conf", "configs/train.json",
    "configs/multi_gpu_train.json", "docs/README.md", "docs/data_license.txt", "models/.gitkeep",
)  # fmt: skip
KEYS = {
    "train": (
        "dataset_dir", "table", "image_column", "label_column", "patient_column", "output_dir", "weights", "backbone",
        "variant", "strategy", "epochs", "batch_size", "lr", "seed", "device", "amp",
        "num_workers", "val_fraction", "fold", "resume",
    ),
    "evaluate": ("dataset_dir", "output_dir", "checkpoint", "device"),
    "inference": ("dataset_dir", "output_dir", "checkpoint", "device"),
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "required": [
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
        "description", "authors", "copyright", "network_data_format",
    ],
    "properties": {
        "supported_apps": {"type": "object"},
        "network_data_format": {
            "required": ["inputs", "outputs"],
            "additionalProperties": {
                "additionalProperties": {
                    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]
                }
            },
        },
    },
}  # fmt: skip


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request):
    return request.param


def config(bundle, name):
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("key", "value"), [("groups", {"a": 1}), ("source_classes", [1, 2]), ("key_map", 1e30), ("mix", {"a": 1})]
)
def test_values_of_a_wrong_kind_are_refused_by_name(key, value):
    with pytest.raises(UserError, match=f"{key} must be a"):
        check_values({key: value})


@pytest.mark.parametrize("steps", [*range(1, 30), 100, 1000])
def test_the_learning_rate_has_a_schedule_for_any_number_of_steps(bundle, steps):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = {**config(bundle, "train")["lr_scheduler"], "total_steps": steps, "max_lr": 1.0, "optimizer": None}
    parser = ConfigParser({"lr_scheduler": made})
    share = parser.get_parsed_content("lr_scheduler::pct_start")
    OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, pct_start=share)


def test_augmentation_is_batched_by_default_and_monais_by_one_key(bundle):
    train = config(bundle, "train")
    assert train["transforms"] == "batched"
    chosen = train["train"]["augment"]
    assert chosen == {
        "_target_": "medtl_monai.transforms.choose",
        "transforms": "@transforms",
        "augmentation": "@augmentation",
    }
    assert "@train::augment" in train["train"]["prepare_batch"]
    settings = {key: value for key, value in train["augmentation"].items() if key != "_target_"}
    by_monai = choose("monai", AugmentBatch(**settings))
    image = torch.rand(2, 1, 32, 32)
    assert by_monai(image).shape == image.shape
    assert "| `transforms` |" in (bundle / "docs" / "README.md").read_text()


def test_its_files_are_there(bundle):
    assert [name for name in FILES if not (bundle / name).is_file()] == []


@pytest.mark.parametrize("name", KEYS)
def test_the_keys_of_the_contract_are_there_and_in_the_readme(bundle, name):
    assert [key for key in KEYS[name] if key not in config(bundle, name)] == []
    readme = (bundle / "docs" / "README.md").read_text()
    assert [key for key in KEYS[name] if f"`{key}`" not in readme] == []


def test_the_epochs_of_snapshots_are_whole_cycles(bundle):
    settings = {**config(bundle, "train"), **config(bundle, "snapshots")}
    assert settings["epochs"] % settings["cycles"] == 0


def test_the_default_strategy_can_be_made_and_is_for_the_task(bundle):
    task = config(bundle, "evaluate")["model"]["default"]["task"]
    made = build(config(bundle, "train")["strategy"])
    assert all(task in part.tasks for part in (made if isinstance(made, Chain) else [made]))


def test_the_configurations_are_what_the_recipes_say():
    spec = importlib.util.spec_from_file_location("recipes_render", ROOT / "recipes" / "render.py")
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    assert [path.name for path in BUNDLES] == render.BUNDLES
    stale = [str(path.relative_to(ROOT)) for path, content in render.files() if path.read_text() != content]
    assert stale == [], "run `make bundles`"


@pytest.mark.filterwarnings("ignore:No hash value")
def test_metadata_passes_monais_verification(bundle, tmp_path):
    # MONAI fetches the published schema; here one with its requirements stands in, at a file:// address
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    metadata = config(bundle, "metadata")
    assert metadata["version"] in metadata["changelog"]
    metadata["schema"] = (tmp_path / "schema.json").as_uri()
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(tmp_path / "fetched.json"))


def test_the_network_takes_and_gives_what_the_metadata_says(bundle):
    configs = bundle / "configs"
    verify_net_in_out(
        net_id="network_def", meta_file=str(configs / "metadata.json"), config_file=str(configs / "inference.json"),
        device="cpu",
    )  # fmt: skip
