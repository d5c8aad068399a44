"""The command line: ``python -m medtl_monai``. Each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from .utils import UserError, write_json

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status, which is 1 after a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m medtl_monai", description="Transfer learning for medical imaging.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_data(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


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
    check.add_argument(
        "--layout", default="auto", help="table, datalist, folders or a public data set's (default: auto)"
    )
    check.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the layout, such as uncertain=ones"
    )
    check.add_argument("--table", default="index.csv", help="name of the table in the folder (default: index.csv)")
    check.add_argument("--image_column", default="image", metavar="NAME")
    check.add_argument("--label_column", default="label", metavar="NAME[,NAME...]", help="several: a finding each")
    check.add_argument("--patient_column", default="auto", metavar="NAME", help="null: each image is a patient")
    check.add_argument("--split_column", default="split", metavar="NAME")
    check.add_argument("--domain_column", default="domain", metavar="NAME")
    check.add_argument("--classes", metavar="NAME[,NAME...]", help="in the wanted order")
    check.set_defaults(run=_data_check)


def _data_check(options: argparse.Namespace) -> None:
    from pathlib import Path

    from .data import check_cases, load_cases, render_check, write_datalist
    from .data.cases import read_datalist

    target = Path(options.datalist) if options.datalist else None
    if target is not None and target.exists() and read_datalist(target) is None:
        raise UserError(f"{target} exists and is not a datalist of this command: give --datalist another name.")
    wrong = next((entry for entry in options.option if "=" not in entry), None)
    if wrong is not None:
        raise UserError(f"--option {wrong}: expected KEY=VALUE.")
    columns = {f"{name}_column": getattr(options, f"{name}_column") for name in ("image", "split", "domain")}
    cases = load_cases(
        options.folder,
        table=options.table,
        label_column=_listed(options.label_column),
        patient_column=None if options.patient_column == "null" else options.patient_column,
        classes=options.classes.split(",") if options.classes else None,
        layout=options.layout,
        layout_options={key: _listed(value) for key, _, value in (entry.partition("=") for entry in options.option)},
        **columns,
    )
    report = check_cases(cases)
    print(render_check(report))
    if options.json:
        write_json(options.json, report)
    if target is not None:
        write_datalist(target, cases)


def _listed(value: str) -> str | list[str]:
    return value.split(",") if "," in value else value
