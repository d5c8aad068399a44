"""Tables as people have them: CSV with comma, semicolon or tab, of spreadsheets and of scripts."""

from __future__ import annotations

import ast
import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..utils import UserError
from .find import is_file

__all__ = ["Table", "delimiter", "has_columns", "listed", "read_table", "truth"]

_NOTHING = {"nan", "<na>", "#n/a", "n/a"}  # what pandas and spreadsheets write for an empty cell
_TRUTHS = {"1": 1.0, "true": 1.0, "yes": 1.0, "0": 0.0, "false": 0.0, "no": 0.0, "-1": None, "": None}


@dataclass(frozen=True)
class Table:
    """A table's cells, without blanks around them, an empty text where they say nothing (``nan``).

    Attributes:
        name: of the file, for messages.
        columns: their names.
        rows: by column; lines without any cell are left out.
        lines: the line of the file that each row ends on.
    """

    name: str
    columns: list[str]
    rows: list[dict[str, str]]
    lines: list[int]

    def need(self, columns: dict[str, str]) -> None:
        """Stop unless the columns are there.

        Args:
            columns: names by what the key for them is called, such as ``label_column``.

        Raises:
            UserError: naming the first that is missing, the nearest name and the line to type.
        """
        for key, column in columns.items():
            if column not in self.columns:
                alike = [name for name in self.columns if name.casefold() == column.casefold()]
                near = alike or get_close_matches(column, self.columns, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise UserError(
                    f"the table {self.name} has no column {column!r}{hint}: it has {', '.join(self.columns)}; "
                    f"name the right one with {key}, such as --{key} {_quoted(near[0] if near else self.columns[0])}."
                )


def read_table(path: Path) -> Table:
    """Read a table with a line of column names; Excel's ``sep=;`` before it is understood.

    Raises:
        UserError: it is no text in UTF-8, a column is named twice, a line has more cells than columns, a cell is too
            long, or there are no rows.
    """
    columns, separator, before, text = _parts(path.name, _decoded(path))
    twice = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
    if twice:
        raise UserError(f"the table {path.name} has the column {twice[0]!r} twice: rename or remove one of them.")
    rows, lines = [], []
    reader = csv.reader(text, delimiter=separator)
    try:
        for cells in reader:
            stripped = [_cell(cell) for cell in cells]
            if any(stripped[len(columns) :]):
                raise UserError(
                    f"line {reader.line_num + before} of the table {path.name} has {len(cells)} cells and its first "
                    f"line {len(columns)} columns: put texts that hold {separator!r} in quotes."
                )
            if any(stripped):
                rows.append(dict(zip(columns, [*stripped, *[""] * (len(columns) - len(stripped))], strict=False)))
                lines.append(reader.line_num + before)
    except csv.Error as error:
        where = f"line {reader.line_num + before} of the table {path.name}"
        raise UserError(f"{where} is no row ({error}): correct it.") from error
    if not rows:
        raise UserError(f"the table {path.name} has no rows: expected one for each image.")
    return Table(path.name, columns, rows, lines)


def has_columns(path: Path, columns: Sequence[str]) -> bool:
    """Whether there is such a table with these columns."""
    if not is_file(path):
        return False
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        start = "".join(line for line, _ in zip(file, range(2), strict=False))
    try:
        return set(columns) <= set(_parts(path.name, start)[0])
    except UserError:
        return False


def delimiter(header: str) -> str:
    """What parts the columns of a table's first line: a comma, a semicolon or a tab."""
    return max(",;\t", key=header.count)


def listed(columns: str | Sequence[str]) -> str | list[str]:
    """One column, or several: a list, or a text such as ``a,b`` or ``['a','b']``.

    Example:
        >>> listed("label"), listed("a,b"), listed("['a','b']")
        ('label', ['a', 'b'], ['a', 'b'])
    """
    if not isinstance(columns, str):
        return list(columns)
    if columns[:1] in ("[", "("):
        try:
            return [str(name) for name in ast.literal_eval(columns)]
        except (ValueError, SyntaxError, TypeError):
            return columns
    return [name.strip() for name in columns.split(",")] if "," in columns else columns


def truth(value: str) -> float | None:
    """1 for present, 0 for absent and ``None`` for unknown (-1 or nothing), as findings are written.

    Raises:
        KeyError: it is something else.

    Example:
        >>> [truth(value) for value in ("1.0", "TRUE", "no", "-1", "")]
        [1.0, 1.0, 0.0, None, None]
    """
    return _TRUTHS[value.removesuffix(".0").lower()]


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if content[:2] == b"PK":
        raise UserError(f"the table {path.name} is a workbook of a spreadsheet: save it as CSV UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"the table {path.name} is no UTF-8 text ({error.reason}): save it as CSV UTF-8.") from error
    if "\0" in text:
        raise UserError(f"the table {path.name} holds characters NUL, which no text has: save it as CSV UTF-8.")
    return text


def _parts(name: str, text: str) -> tuple[list[str], str, int, io.StringIO]:
    """The columns, what parts them, the number of lines that said so, and the rest of the text."""
    rest = io.StringIO(text, newline="")
    first = rest.readline()
    said = first[4] if first.lower().startswith("sep=") and len(first.rstrip("\r\n")) == 5 else None  # Excel's
    first = rest.readline() if said else first
    separator = said or delimiter(first)
    try:
        columns = next(csv.reader([first], delimiter=separator), [])
    except csv.Error as error:
        raise UserError(f"the first line of the table {name} names no columns ({error}): correct it.") from error
    return [column.strip() for column in columns], separator, 2 if said else 1, rest


def _cell(text: str) -> str:
    text = text.strip()
    return "" if text.lower() in _NOTHING else text


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name
