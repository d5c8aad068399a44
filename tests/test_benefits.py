"""The statistics of the benefits study, and its features part on real images at a tiny size."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_docs import load_render

sys.path.insert(0, str(ROOT / "benchmarks"))

from benefits import interval, summary


def test_differences_are_paired_and_have_students_interval():
    mine, theirs = np.array([0.9, 0.8, 0.7]), np.array([0.8, 0.75, 0.6])
    # differences 0.1, 0.05, 0.1: mean 0.08333, standard error 0.0288675 / sqrt(3) = 0.0166667, t(2) = 4.302653
    assert interval(mine, theirs) == pytest.approx([0.083333 - 0.071711, 0.083333 + 0.071711], abs=1e-5)
    assert interval(mine[:1], theirs[:1]) is None
    assert interval(mine, mine) == [0, 0]
    entry = {"baseline": "finetune", "metrics": {"auc": "AUC"}}
    entry["runs"] = {"finetune": {"0": {"auc": 0.8}, "1": {"auc": 0.6}}, "mmd": {"1": {"auc": 0.7}, "7": {"auc": 0.1}}}
    found = summary(entry)
    assert found["finetune"]["auc"] == {"mean": pytest.approx(0.7), "seeds": 2}
    assert found["mmd"]["auc"]["difference"] == pytest.approx(0.1)  # seed 7 has no baseline
    assert found["mmd"]["auc"]["interval"] is None


def test_a_verdict_needs_an_interval_without_zero():
    verdict = load_render().verdict_of
    assert verdict({"difference": 0.1, "interval": [0.01, 0.2]}) == "**helps**"
    assert verdict({"difference": -0.1, "interval": [-0.2, -0.01]}) == "**harms**"
    assert verdict({"difference": 0.1, "interval": [-0.01, 0.2]}) == "no clear difference"
    assert verdict({"difference": 0.1, "interval": None}) == "no clear difference"


@pytest.mark.slow
def test_the_study_runs_and_goes_on(shared_data, tmp_path):
    output = tmp_path / "benefits.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "benefits.py"),
        str(shared_data / "chest_kermany224"),
        "--tiny",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for seeds in (["0"], ["0", "1"]):
        done = subprocess.run(
            [*command, "--seeds", *seeds, "--output", str(output)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
    studies = json.loads(output.read_text())["studies"]
    images, features = (
        {"scarcity", "scanners", "hospitals", "forgetting"},
        {"covariate", "mixed", "unlabelled", "related"},
    )
    assert set(studies) == images | features | {"few", "ensembles"}
    for study in studies.values():
        assert all(set(runs) == {"0", "1"} for runs in study["runs"].values())
        assert all(0 <= run[metric] <= 1 for runs in study["runs"].values() for run in runs.values()
                   for metric in study["metrics"])  # fmt: skip
    assert "seed 1" in done.stdout
    assert "seed 0" not in done.stdout
