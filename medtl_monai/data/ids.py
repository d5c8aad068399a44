"""Names that a person takes for one and a computer for two: ``3`` and ``3.0``, ``Cancer`` and ``cancer``."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["as_written", "joined", "unified"]

_SHOWN = 3
_MARKS = ",;/+&"
_CHOICES = ({"true", "false"}, {"yes", "no"})


def unified(rows: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows with one way of writing for what is surely one, and what is to be said of that.

    Numbers are surely one where all values under a key are numbers, and so are true and TRUE where all are truth
    values. What else differs only in case, in blanks, in what is not seen (marks without width, how an accent is
    coded) or as numbers is said and left as it is.

    Args:
        rows: of a table.
        keys: those of names, such as ``patient`` and ``label``.

    Example:
        >>> unified([{"patient": "3"}, {"patient": "3.0"}], ["patient"])[0]
        [{'patient': '3'}, {'patient': '3'}]
    """
    result, said = [dict(row) for row in rows], []
    for key in keys:
        names = dict.fromkeys(row[key] for row in rows if row.get(key))
        alike = _groups(names)
        if alike and _sure(names):
            result = _renamed(result, key, alike)
        said += [_sentence(key, alike, _sure(names))] if alike else []
    return result, said


def _renamed(rows: Sequence[dict[str, Any]], key: str, alike: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    one = {name: min(group, key=lambda name: (len(name), name)) for group in alike for name in group}
    return [{**row, key: one.get(row[key], row[key])} if key in row else row for row in rows]


def as_written(name: str, names: Iterable[str]) -> str:
    """That of ``names`` which is the same number as ``name``; ``name`` itself if there is none.

    Example:
        >>> as_written("1.0", ["0", "1"])
        '1'
    """
    number = _number(name)
    return next((other for other in names if number is not None and _number(other) == number), name)


def joined(labels: Iterable[str]) -> list[str]:
    """What is to be said of class names that are several others, joined by another mark than ``|``.

    Example:
        >>> joined(["A", "B", "A;B"])
        ["label: 'A;B' is taken for a class of its own, and not for 'A' with 'B': join findings of one image by |"]
    """
    known = dict.fromkeys(labels)
    for name in known:
        for mark in _MARKS:
            parts = [part.strip() for part in name.split(mark)]
            if len(parts) > 1 and all(part in known for part in parts):
                several = " with ".join(map(repr, parts))
                return [
                    f"label: {name!r} is taken for a class of its own, and not for {several}: join findings of one "
                    "image by |"
                ]
    return []


def _sentence(key: str, alike: Sequence[Sequence[str]], sure: bool) -> str:
    shown = ", ".join(" and ".join(map(repr, group)) for group in alike[:_SHOWN]) + " ..." * (len(alike) > _SHOWN)
    end = "one" if sure else "different ones; correct the table if they are not"
    return f"{key}: {shown} are taken for {end}"


def _groups(names: Iterable[str]) -> list[list[str]]:
    """Names that are written alike, in groups of two and more."""
    groups: dict[Any, list[str]] = defaultdict(list)
    for name in names:
        groups[_plain(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain(name: str) -> Any:
    number = _number(name)
    return "".join(filter(_shows, unicodedata.normalize("NFC", name))).casefold() if number is None else number


def _shows(letter: str) -> bool:
    """Whether a letter is seen: no blank, and none of Unicode's marks without width."""
    return not letter.isspace() and unicodedata.category(letter) != "Cf"


def _sure(names: Iterable[str]) -> bool:
    return all(_number(name) is not None for name in names) or any({n.lower() for n in names} <= c for c in _CHOICES)


def _number(name: str) -> float | None:
    try:
        number = float(name) if name[:1] in "+-.0123456789" and "_" not in name else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
