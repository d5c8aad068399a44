"""Search of strategy, variant and hyper-parameters: memetic (a population, and local search around its best), or TPE.

The samplers are Optuna's (extra ``search``). Each trial is a run of a bundle's stock command, judged by its validation
part; the test part is never scored. All trials stand in a journal file, so that a killed search goes on where it was.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .strategies.text import parse, render
from .utils import UserError, write_json

if TYPE_CHECKING:
    import optuna

__all__ = ["SPACE", "neighbour", "render_search", "run_bundle", "search", "suggest"]

_BETWEEN = "::"

SPACE: dict[str, Any] = {
    "strategy": [
        "finetune",
        "partial_freeze",
        "discriminative",
        "lp_ft",
        "l2_sp",
        "discriminative + freeze_bn",
        "partial_freeze + ema",
    ],
    "lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "weight_decay": {"low": 1e-4, "high": 0.1, "log": True},
    "variant::dropout": [0.0, 0.2, 0.5],
    "strategy::l2_sp::alpha": {"low": 1e-3, "high": 1.0, "log": True},
    "strategy::discriminative::decay": {"low": 0.3, "high": 0.95},
}
"""What is searched by default: a list of choices, or the range of a number (whole if both ends are), by key.

``strategy::l2_sp::alpha`` is the argument ``alpha`` of ``l2_sp``: it is chosen where the strategy has that part and
does not set it itself, and becomes part of its text.
"""


def search(
    objective: Callable[[int, dict[str, Any]], float],
    space: Mapping[str, Any],
    folder: str | Path,
    *,
    trials: int = 30,
    sampler: str = "memetic",
    population: int = 8,
    local: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Look for the settings with the highest value; what was found, as written to ``search.json``.

    Memetic: Optuna's genetic sampler crosses and mutates the better half of a population; after each generation, the
    best settings so far are tried with one of them changed a little, and the outcome joins the population.

    Args:
        objective: of a trial's number and settings; a ``RuntimeError`` says why a trial failed.
        space: as :data:`SPACE`.
        folder: of the journal; a search in it goes on.
        trials: how many, those of before included.
        sampler: ``memetic`` or ``tpe``.
        population: trials of a generation, 2 or more.
        local: of these, steps of local search.
        seed: of all choices.

    Raises:
        UserError: Optuna is missing, a setting or the space does not fit, or no trial succeeded.

    References:
        Moscato. On evolution, search, optimization, genetic algorithms and martial arts: towards memetic algorithms.
        1989. Bergstra, Bardenet, Bengio, Kegl. Algorithms for hyper-parameter optimization. NeurIPS 2011.
    """
    _check(space, sampler, population, local)
    study = _open(Path(folder), sampler, population, seed)

    def run(trial: optuna.Trial) -> float:
        began = time.perf_counter()
        try:
            return objective(trial.number, suggest(trial, space))
        except RuntimeError as error:
            trial.set_user_attr("error", str(error))
            raise
        finally:
            trial.set_user_attr("seconds", round(time.perf_counter() - began, 1))

    rng = np.random.default_rng([seed, len(study.trials)])
    while (done := _finished(study)) < trials:
        if sampler == "memetic" and done % population == 0 and _can_look_around(study):
            for _ in range(min(local, trials - done)):
                study.enqueue_trial(neighbour(study.best_params, space, rng), user_attrs={"local": True})
        study.optimize(run, n_trials=1, catch=(RuntimeError,))
    result = _result(study, space, sampler)
    write_json(Path(folder) / "search.json", result)
    if "best" not in result:
        raise UserError(f"none of {done} trials succeeded; the last: {result['trials'][-1]['error']}")
    return result


def _finished(study: optuna.Study) -> int:
    """How many trials are over, failed ones too."""
    return sum(trial.state.is_finished() for trial in study.trials)


def _can_look_around(study: optuna.Study) -> bool:
    """Whether there is a best trial, and no neighbour that waits to be tried."""
    states = {trial.state.name for trial in study.get_trials(deepcopy=False)}
    return "COMPLETE" in states and "WAITING" not in states


def _check(space: Mapping[str, Any], sampler: str, population: int, local: int) -> None:
    if sampler not in ("memetic", "tpe"):
        raise UserError(f"sampler must be memetic or tpe, got {sampler!r}.")
    if population < 2 or not 0 <= local <= population:
        raise UserError(f"population must be 2 or more, local from 0 to it; got {population}, {local}.")
    _check_strategies(space)
    for key, choice in space.items():
        ranged = isinstance(choice, Mapping) and {"low", "high"} <= set(choice) <= {"low", "high", "log"}
        if not (ranged and choice["low"] < choice["high"]) and not (isinstance(choice, list) and choice):
            raise UserError(f"the space of {key!r} must be a list of choices, or low and high (and log), got {choice}.")


def _check_strategies(space: Mapping[str, Any]) -> None:
    """Mistakes that would show in single trials only, or in none."""
    choices = space.get("strategy", [])
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        raise UserError(f"the space of 'strategy' must be a list of texts such as 'l2_sp + freeze_bn', got {choices}.")
    names = {name for one in choices for name, _ in parse(one)}
    for key in filter(_is_argument, space):
        of = key.split(_BETWEEN)
        if len(of) != 3 or of[1] not in names:
            known = ", ".join(sorted(names)) or "none"
            raise UserError(f"{key!r} must be strategy::NAME::ARGUMENT, NAME one of the space's strategies: {known}.")


def _open(folder: Path, sampler: str, population: int, seed: int) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise UserError("the search needs Optuna: pip install 'medtl_monai[search]'.") from error
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize", load_if_exists=True)
    seed += len(study.trials)
    study.sampler = (
        optuna.samplers.TPESampler(seed=seed)
        if sampler == "tpe"
        else optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
    )
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a killed search
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def suggest(trial: optuna.Trial, space: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a trial, by the bundle's keys."""
    chosen: dict[str, Any] = {}
    for key in sorted(space, key=_is_argument):  # the strategy before its arguments
        choice = space[key]
        if _is_argument(key) and not _takes(chosen["strategy"], key):
            continue
        if isinstance(choice, list):
            chosen[key] = json.loads(trial.suggest_categorical(key, [json.dumps(one) for one in choice]))
        elif all(isinstance(choice[end], int) for end in ("low", "high")):
            chosen[key] = trial.suggest_int(key, choice["low"], choice["high"], log=choice.get("log", False))
        else:
            chosen[key] = trial.suggest_float(key, choice["low"], choice["high"], log=choice.get("log", False))
    return _composed(chosen)


def _is_argument(key: str) -> bool:
    return key.startswith(f"strategy{_BETWEEN}")


def _takes(strategy: str, key: str) -> bool:
    """Whether the text has the part that ``key`` is an argument of, and leaves that argument open."""
    _, name, argument = key.split(_BETWEEN)
    return any(name == part and argument not in given for part, given in parse(strategy))


def _composed(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, with the strategy's arguments in its text."""
    settings = {key: value for key, value in chosen.items() if not _is_argument(key)}
    arguments = {key: value for key, value in chosen.items() if _is_argument(key)}
    if arguments:
        parts = parse(settings["strategy"])
        for key, value in arguments.items():
            _, name, argument = key.split(_BETWEEN)
            parts = [(part, {**given, argument: value} if part == name else given) for part, given in parts]
        settings["strategy"] = render(parts)
    return settings


def neighbour(params: Mapping[str, Any], space: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """``params`` with one of them changed: to another choice, or by about a tenth of its range.

    Args:
        params: as the sampler holds them: choices as JSON.
        space: as :data:`SPACE`.
        rng: decides.
    """
    key = str(rng.choice(sorted(params)))
    choice, value = space[key], params[key]
    if isinstance(choice, list):
        others = [one for one in map(json.dumps, choice) if one != value]
        return {**params, key: str(rng.choice(others)) if others else value}
    low, high = choice["low"], choice["high"]
    scale, back = (math.log, math.exp) if choice.get("log") else (float, float)
    at = scale(value) + rng.normal(0, 0.1) * (scale(high) - scale(low))
    moved = min(max(back(at), low), high)
    return {**params, key: round(moved) if isinstance(low, int) and isinstance(high, int) else moved}


def run_bundle(
    bundle: str | Path, settings: Mapping[str, Any], output: str | Path, *, metric: str, arguments: Sequence[str] = ()
) -> float:
    """Train by the bundle's stock command and return a metric of the validation part; nothing else is scored.

    Args:
        bundle: its folder.
        settings: by key, as on the command line.
        output: the run's folder.
        metric: its name in ``metrics.json``.
        arguments: further ones of the command.

    Raises:
        RuntimeError: the run failed, or the metric is not defined.
    """
    config = str(Path(bundle) / "configs" / "train.json")
    chosen = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, "--output_dir", str(output)]
    only = ["--report::parts", "['val']"]
    done = subprocess.run([*command, *only, *arguments, *chosen], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise RuntimeError(said[-1] if said else lines[-1] if lines else f"exit status {done.returncode}")
    metrics = json.loads((Path(output) / "metrics.json").read_text(encoding="utf-8"))["val"]["metrics"]
    if metrics.get(metric, {}).get("value") is None:
        raise RuntimeError(f"there is no {metric} of the validation part: the metrics are {', '.join(metrics)}")
    return float(metrics[metric]["value"])


def _result(study: optuna.Study, space: Mapping[str, Any], sampler: str) -> dict[str, Any]:
    rows = [
        {
            "trial": trial.number,
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "settings": _composed(
                {k: json.loads(v) if isinstance(space[k], list) else v for k, v in trial.params.items()}
            ),
            "local": bool(trial.user_attrs.get("local", False)),
            "seconds": trial.user_attrs.get("seconds"),
            "error": trial.user_attrs.get("error", "" if trial.state.name == "COMPLETE" else "interrupted"),
        }
        for trial in study.trials
        if trial.state.is_finished()
    ]
    good = [row for row in rows if row["value"] is not None]
    best = {"best": max(good, key=lambda row: row["value"])} if good else {}
    return {"sampler": sampler, "space": dict(space), **best, "trials": rows}


def render_search(result: Mapping[str, Any]) -> str:
    """The trials as a table, the best first."""
    rows = sorted(result["trials"], key=lambda row: -math.inf if row["value"] is None else row["value"], reverse=True)
    lines = [f"{'trial':>5}  {'value':>7}  settings"]
    for row in rows:
        value = "failed" if row["value"] is None else f"{row['value']:.4f}"
        chosen = ", ".join(f"{k} {_rounded(v)}" for k, v in row["settings"].items())
        lines.append(f"{row['trial']:>5}  {value:>7}  {chosen}{'  (' + row['error'] + ')' if row['error'] else ''}")
    return "\n".join(lines)


def _rounded(value: Any) -> str:
    """With numbers to three digits, within text as well."""
    text = str(value)
    return re.sub(r"\d+\.\d+(e-?\d+)?", lambda match: f"{float(match[0]):.3g}", text)
