"""Every bundle trains an epoch with every strategy that is for its task, by the stock command."""

import csv

import pytest
from conftest import ROOT

from medtl_monai.data import make_brain_cohort, make_cardiac_cohort, make_chest_cohort, make_dbt_cohort
from medtl_monai.strategies import STRATEGIES

SMALL = {"size": 48, "progress": False}
COHORTS = {
    "brain_mri_classification": lambda folder: make_brain_cohort(folder, patients=18, slices=(1, 2), **SMALL),
    "chest_xray_classification": lambda folder: make_chest_cohort(folder, patients=18, images=(1, 2), **SMALL),
    "cardiac_unet_segmentation": lambda folder: make_cardiac_cohort(folder, patients=8, slices=2, **SMALL),
    "breast_dbt_classification": lambda folder: make_dbt_cohort(
        folder, patients=12, frames=4, size=(48, 40), progress=False
    ),
}
ARGUMENTS = {"tradaboost": "domain=A", "source_selection": "keep=0.9"}
SETTINGS = {"simcvd": ("--variant::dropout", 0.1)}
COLUMNS = {"sample_weights", "tradaboost"}  # they need columns that the layout of BCS-DBT does not have
MATRIX = [
    (bundle, name)
    for bundle in COHORTS
    for name, cls in STRATEGIES.items()
    if ("segmentation" if "segmentation" in bundle else "classification") in cls.tasks
    and not (bundle.startswith("breast") and name in COLUMNS)
]
SAMPLE = [("cardiac_unet_segmentation", "simcvd")]  # the others are slow; see also each bundle's own tests


def test_no_bundle_is_left_out():
    assert sorted(COHORTS) == sorted(path.name for path in (ROOT / "bundles").iterdir())


@pytest.fixture(scope="module")
def clis(make_cli, tmp_path_factory):
    """The command line of each bundle on a small cohort, made when it is asked for."""
    made = {}

    def cli(bundle):
        if bundle not in made:
            dataset = COHORTS[bundle](tmp_path_factory.mktemp("data") / bundle)
            index = dataset / "index.csv"
            if index.exists() and "segmentation" not in bundle:
                with index.open(newline="") as file:
                    rows = list(csv.DictReader(file))
                with index.open("w", newline="") as file:
                    box = {"x": 10, "y": 20, "width": 12, "height": 8}
                    writer = csv.DictWriter(file, [*rows[0], "weight", *box])
                    writer.writeheader()
                    writer.writerows({**row, "weight": 1 + i % 2, **box} for i, row in enumerate(rows))
            made[bundle] = make_cli(bundle, dataset)
        return made[bundle]

    return cli


@pytest.mark.parametrize(
    ("bundle", "name"), [pytest.param(*x, marks=() if x in SAMPLE else pytest.mark.slow) for x in MATRIX]
)
def test_a_bundle_trains_with_a_strategy(clis, cohort, bundle, name, tmp_path):
    cli = clis(bundle)
    pictures = cli.dataset if "segmentation" in bundle else cohort
    target = pictures if STRATEGIES[name].needs or name in ("vat", "simcvd") else None
    more = () if target is None else ("--target_dir", target)
    strategy = f"{name}({ARGUMENTS.get(name, '')})"
    cli.train(tmp_path / "out", "--strategy", strategy, *more, *SETTINGS.get(name, ()))
