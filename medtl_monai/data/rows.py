"""Rows of a table or a datalist: the image, its label, the patient, and what else stands beside them, as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..utils import UserError
from .cases import PARTS
from .tables import Table, listed, read_table

__all__ = ["PATIENT_COLUMNS", "Columns", "datalist_rows", "table_rows"]

PATIENT_COLUMNS = ("patient", "patient_id", "PatientID")
_FAILED = {"#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!"}  # what spreadsheets write for a failed formula
Row = dict[str, str]


@dataclass(frozen=True)
class Columns:
    """Which column says what.

    Attributes:
        image: paths.
        label: one column, or a list of findings.
        patient: ``auto``, ``None`` (each image is its own patient) or a name.
        split: used if it is there, in any case; one that the user named must be there.
        domain: likewise.
        kept: further columns that rows keep where they are there.
    """

    image: str
    label: str | list[str]
    patient: str | None
    split: str
    domain: str
    kept: tuple[str, ...] = ()

    @property
    def usual(self) -> bool:
        """Whether the user named none of the columns."""
        named = (self.image, self.label, self.split, self.domain)
        return named == ("image", "label", "split", "domain") and self.patient in ("auto", None)

    @property
    def labels(self) -> dict[str, str]:
        """The columns of labels by their keys in a row."""
        if isinstance(self.label, str):
            return {"label": self.label}
        return {f"label {name}": name for name in self.label}

    def with_label(self, columns: Sequence[str]) -> Columns:
        """These, with the label as a text that names several columns read as such, unless a column has that name."""
        label = self.label if self.label in columns else listed(self.label)
        return Columns(self.image, label, self.patient, self.split, self.domain, self.kept)

    def with_choices(self, table: Table) -> Columns:
        """These, with the split and the domain as the table writes them.

        Raises:
            UserError: the table lacks one that is not of the usual name: it was asked for.
        """
        named = {"split": self.split, "domain": self.domain}
        table.need({f"{key}_column": name for key, name in named.items() if name != key})
        written = {name.lower(): name for name in reversed(table.columns)}
        found = {key: name if name in table.columns else written.get(name.lower(), name) for key, name in named.items()}
        return replace(self, split=found["split"], domain=found["domain"])

    def needed(self, found: Sequence[str], where: str) -> dict[str, str]:
        """The columns that must be there, by their keys in a row.

        Raises:
            UserError: no column of patients.
        """
        patient = self.of_patient(found, where)
        return {"image": self.image, **self.labels, **({"patient": patient} if patient else {})}

    def others(self, found: Sequence[str]) -> dict[str, str]:
        """Those that rows keep where they are there."""
        columns = {"domain": self.domain, **{name: name for name in self.kept}}
        return {key: name for key, name in columns.items() if name in found}

    def of_patient(self, found: Sequence[str], where: str) -> str | None:
        """The column of patients.

        Raises:
            UserError: there is none of the usual names.
        """
        if self.patient != "auto":
            return self.patient
        column = next((name for name in PATIENT_COLUMNS if name in found), None)
        if column is None:
            known = {name.lower() for name in PATIENT_COLUMNS}
            column = next((name for name in found if "_".join(name.lower().split()) in known), None)
        if column is None:
            raise UserError(
                f"{where} has no patient column (columns: {', '.join(found)}), and images of one patient must not "
                "stand on both sides of a split: name it with patient_column, or give null if each image is of another "
                "patient.",
                lacks="patients",
            )
        return column


def table_rows(path: Path, columns: Columns) -> list[Row]:
    """Rows with ``image``, ``patient``, labels, and ``split``, ``domain`` and what is kept where they are there.

    Raises:
        UserError: a column or a needed cell is missing.
    """
    table = read_table(path)
    columns = columns.with_label(table.columns).with_choices(table)
    needed = columns.needed(table.columns, f"the table {path.name}")
    for key, column in needed.items():
        table.need({f"{key.split()[0]}_column": column})
    needed |= {"split": columns.split} if columns.split in table.columns else {}
    others = columns.others(table.columns)
    rows = []
    for line, cells in zip(table.lines, table.rows, strict=True):
        row = {key: cells[column] for key, column in needed.items()}
        where = f"line {line} of the table {path.name}"
        _refuse_failed(row.values(), where)
        _refuse_empty([needed[key] for key, value in row.items() if not (value or key.startswith("label "))], where)
        row = {"patient": row["image"], **row, **{key: cells[name] for key, name in others.items()}}
        rows.append(row | ({"split": _part(row["split"], where)} if "split" in row else {}))
    return rows


def datalist_rows(path: Path, columns: Columns) -> list[Row]:
    """The same of a MONAI datalist, whose lists are the parts of the split.

    Raises:
        UserError: it is no datalist, or an entry lacks something.
    """
    lists = _lists(path)
    entries = [(part, entry) for part, entries in lists.items() for entry in entries]
    names = list(dict.fromkeys(name for _, entry in entries for name in entry))  # in all: batches are alike
    columns = columns.with_label(names)
    needed = columns.needed(list(entries[0][1]), f"the datalist {path.name}")
    others = columns.others(names)
    rows = []
    for part, entry in entries:
        _refuse_missing([column for column in needed.values() if column not in entry], entry, path.name)
        row = {key: _text(entry[column]) for key, column in needed.items()}
        row = {"patient": row["image"], **row, **{key: _text(entry.get(name)) for key, name in others.items()}}
        rows.append(row | ({"split": PARTS[part]} if len(lists) > 1 else {}))
    return rows


def _lists(path: Path) -> dict[str, list[Mapping[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # JSON's own, or no UTF-8
        raise UserError(f"the datalist {path.name} is no JSON ({error}): expected lists of image and label.") from error
    lists = {key: value for key, value in content.items() if key in PARTS} if isinstance(content, dict) else {}
    entries: dict[str, list[Mapping[str, Any]]] = {
        key: [entry for entry in value if isinstance(entry, dict)]
        for key, value in lists.items()
        if isinstance(value, list)
    }
    if not any(entries.values()):
        raise UserError(f"the datalist {path.name} has no entries under training, validation or testing.")
    return entries


def _refuse_missing(columns: Sequence[str], entry: Mapping[str, Any], name: str) -> None:
    if columns:
        raise UserError(f"an entry of the datalist {name} has no {', '.join(columns)}: it has {list(entry)}.")


def _refuse_empty(columns: Sequence[str], where: str) -> None:
    if columns:
        raise UserError(f"{where} has no {' and no '.join(columns)}: fill it in.")


def _refuse_failed(cells: Iterable[str], where: str) -> None:
    failed = next((cell for cell in cells if cell.lower() in _FAILED), None)
    if failed:
        raise UserError(f"{where} holds {failed}, a formula that failed in the spreadsheet: correct it there.")


def _part(value: str, where: str) -> str:
    if value.lower() not in PARTS:
        raise UserError(f"{where} has the split {value!r}: expected train, val or test.")
    return PARTS[value.lower()]


def _text(value: Any) -> str:
    """A datalist's value as a table would hold it."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
