"""The search of settings: on a hill whose top is known, and on a real bundle."""

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_cli import run

from medtl_monai.search import SPACE, neighbour, render_search, search, suggest
from medtl_monai.strategies import build, check
from medtl_monai.strategies.text import parse
from medtl_monai.utils import UserError

HILL = {
    "strategy": ["finetune", "l2_sp + ema", "discriminative + freeze_bn", "l2_sp(alpha=1.0)"],
    "lr": {"low": 1e-5, "high": 1e-1, "log": True},
    "epochs": {"low": 1, "high": 20},
    "strategy::l2_sp::alpha": {"low": 0.0, "high": 1.0},
}


def hill(number, settings):
    """Best with l2_sp, a rate of 0.001, 10 epochs and an alpha of 0.5: there it is 1."""
    assert set(settings) == {"strategy", "lr", "epochs"}
    parts = dict(parse(settings["strategy"]))
    if "discriminative" in parts:
        raise RuntimeError("it does not converge")
    alpha = parts["l2_sp"]["alpha"] if "l2_sp" in parts else None
    assert alpha == 1.0 or list(parts) in (["finetune"], ["l2_sp", "ema"])
    far = abs(math.log10(settings["lr"]) + 3) / 4 + abs(settings["epochs"] - 10) / 20
    return 1 - far - (0.3 if alpha is None else abs(alpha - 0.5))


@pytest.mark.parametrize("sampler", ["memetic", "tpe"])
def test_the_search_climbs_goes_on_and_tells_failures(sampler, tmp_path):
    settings = {"sampler": sampler, "population": 6, "local": 2}
    first = search(hill, HILL, tmp_path / "a", trials=12, **settings)
    asked = []
    last = search(lambda n, s: (asked.append(n), hill(n, s))[1], HILL, tmp_path / "a", trials=60, **settings)
    assert last["trials"][:12] == first["trials"]
    assert asked == list(range(12, 60))
    assert last["best"]["value"] > 0.8
    best = last["best"]["settings"]
    assert hill(0, best) == last["best"]["value"]
    assert re.fullmatch(r"l2_sp\(alpha=[\d.e-]+\) \+ ema", best["strategy"])
    assert json.loads((tmp_path / "a" / "search.json").read_text()) == last
    failed = [row for row in last["trials"] if row["value"] is None]
    assert failed
    assert all(row["error"] == "it does not converge" for row in failed)
    table = render_search(last).splitlines()
    assert len(table) == 61
    assert f"{last['best']['value']:.4f}" in table[1]
    local = [row["trial"] for row in last["trials"] if row["local"]]
    assert local == ([i for k in range(6, 60, 6) for i in (k, k + 1)] if sampler == "memetic" else [])


def test_a_neighbour_differs_in_one_setting_and_stays_inside():
    rng = np.random.default_rng(0)
    start = {"strategy": '"l2_sp + ema"', "lr": 1e-3, "epochs": 10, "strategy::l2_sp::alpha": 0.5}
    moves = {"lr": [], "epochs": []}
    for _ in range(400):
        other = neighbour(start, HILL, rng)
        changed = [key for key in start if other[key] != start[key]]
        assert len(changed) <= 1  # a whole number may round back
        assert other["strategy"] in [json.dumps(one) for one in HILL["strategy"]]
        assert 1e-5 <= other["lr"] <= 1e-1
        assert isinstance(other["epochs"], int)
        for key in set(changed) & set(moves):
            moves[key].append(other[key])
    assert np.std(np.log10(moves["lr"])) == pytest.approx(0.4, rel=0.3)  # a tenth of four decades
    assert neighbour({"lr": 1e-1}, HILL, rng)["lr"] <= 1e-1


class Drawn:
    """A trial that takes the last choice and the middle of each range."""

    def suggest_categorical(self, key, choices):
        return choices[-1]

    def suggest_float(self, key, low, high, log):
        return (low + high) / 2


def test_arguments_join_the_text_of_the_strategies_that_leave_them_open():
    arguments = {"strategy::l2_sp::alpha": {"low": 0.0, "high": 1.0}, "strategy::alpha_beta::keep": ["lwf", "delta"]}

    def chosen(strategy, more=arguments):
        return suggest(Drawn(), {**more, "strategy": [strategy]})  # their order in the space is free

    assert chosen("finetune") == {"strategy": "finetune"}
    assert chosen("l2_sp + ema") == {"strategy": "l2_sp(alpha=0.5) + ema"}
    assert chosen("l2_sp(alpha=2, beta=0)") == {"strategy": "l2_sp(alpha=2, beta=0)"}
    assert chosen("l2_sp(beta=0) + alpha_beta") == {"strategy": "l2_sp(beta=0, alpha=0.5) + alpha_beta(keep=delta)"}
    assert suggest(Drawn(), {"variant::dropout": [0.1]}) == {"variant::dropout": 0.1}


def test_the_default_space_is_of_strategies_that_can_be_made():
    names = set()
    for strategy in SPACE["strategy"]:
        check(strategy)
        names |= set(dict(parse(strategy)))
    for key in SPACE:
        of = key.split("::")
        assert of[0] != "strategy" or len(of) == 1 or (of[1] in names and build(f"{of[1]}({of[2]}=0.5)"))


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        ({"lr": {"low": 1}}, {}, "the space of 'lr'"),
        ({"lr": {"low": 2, "high": 1}}, {}, "the space of 'lr'"),
        ({"lr": []}, {}, "a list of choices"),
        ({"lr": [1]}, {"sampler": "random"}, "memetic or tpe"),
        ({"lr": [1]}, {"population": 1}, "2 or more"),
        ({**HILL, "strategy": ["discriminative + l2_sp"]}, {"trials": 2}, "none of 2 trials succeeded"),
        ({"strategy": [["l2_sp", "ema"]]}, {}, "must be a list of texts"),
        ({"strategy": {"low": 0, "high": 1}}, {}, "must be a list of texts"),
        ({"strategy": ["l2_sp("]}, {}, "bracket of l2_sp is not closed"),
        ({"strategy::l2_sp::alpha": [1]}, {}, "must be strategy::NAME::ARGUMENT.*: none"),
        ({"strategy": ["l2_sp"], "strategy::l2::weight": [1]}, {}, "one of the space's strategies: l2_sp"),
        ({"strategy": ["l2_sp"], "strategy::l2_sp": [1]}, {}, "must be strategy::NAME::ARGUMENT"),
    ],
)
def test_bad_input_says_what_to_do(space, settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        search(hill, space, tmp_path, **settings)


def test_help_needs_no_torch():
    done = run("search", "--help", flags=["-X", "importtime"])
    assert done.returncode == 0
    assert "--population" in done.stdout
    assert " torch" not in done.stderr
    assert " optuna" not in done.stderr


@pytest.mark.slow
def test_a_bundle_is_searched(cohort, tmp_path):
    (tmp_path / "space.json").write_text(json.dumps({"strategy": ["freeze", "nonsense"], "lr": SPACE["lr"]}))
    command = [
        sys.executable, "-m", "medtl_monai", "search", ROOT / "bundles" / "brain_mri_classification",
        "--dataset_dir", cohort, "--output", tmp_path / "out", "--space", tmp_path / "space.json", "--trials", 3,
        "--set", "epochs", 1, "--set", "image_size", 32, "--set", "batch_size", 8,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "search.json").read_text())
    best = result["best"]
    metrics = json.loads((tmp_path / "out" / f"trial{best['trial']}" / "metrics.json").read_text())
    assert set(metrics) & {"train", "val", "test"} == {"val"}
    assert metrics["val"]["metrics"]["auc"]["value"] == best["value"]
    for row in result["trials"]:
        assert (row["value"] is None) == (row["settings"]["strategy"] == "nonsense")
        assert row["value"] is not None or "no strategy 'nonsense'" in row["error"]
