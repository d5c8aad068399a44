"""A strategy as text: ``l2_sp(alpha=0.5) + freeze_bn``. What the names mean is not this module's matter."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..utils import UserError

__all__ = ["parse", "render"]

_TOKEN = re.compile(
    r"""\s*(?: (?P<text> '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
             | (?P<number> -?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)? (?=[\s()\[\]{},=:+]|$) )
             | (?P<word> [^\s'"()\[\]{},=:+]+ )
             | (?P<sign> [()\[\]{},=:+] )
             | (?P<quote> ['"] ) )""",
    re.VERBOSE | re.DOTALL,
)
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None, "null": None}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_PLAIN = re.compile(r"[^\W\d]\w*")
_END = ("end", "")


def parse(text: str, *, arguments: Mapping[str, Sequence[str]] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of the strategies that stand in ``text``, in their order.

    Values are numbers, ``true``, ``false``, ``none``, quoted or bare text, and lists and dictionaries of these; nothing
    is evaluated.

    Args:
        text: strategies joined by ``+``; a comma does as well, and the text of a Python list.
        arguments: what each strategy takes, for messages alone.

    Raises:
        UserError: the text cannot be read.

    Example:
        >>> parse("l2_sp(alpha=0.5) + freeze_bn")
        [('l2_sp', {'alpha': 0.5}), ('freeze_bn', {})]
        >>> parse("alpha_beta(keep=delta, beta=-1e-3)")
        [('alpha_beta', {'keep': 'delta', 'beta': -0.001})]
        >>> parse("['l2_sp', 'ema']")
        [('l2_sp', {}), ('ema', {})]
        >>> parse("finetune freeze")
        Traceback (most recent call last):
        ...
        medtl_monai.utils.UserError: the strategy 'finetune freeze': join strategies by +, as in 'finetune + freeze'.
    """
    try:
        return _Reader(text, arguments or {}).strategies()
    except RecursionError:
        raise UserError(f"the strategy {_short(text)}: it is nested too deep.") from None


def render(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The text that :func:`parse` reads as ``parts``.

    Example:
        >>> render([("l2_sp", {"alpha": 0.5}), ("surgical", {"part": "last"}), ("ema", {})])
        'l2_sp(alpha=0.5) + surgical(part=last) + ema'
    """
    made = []
    for name, given in parts:
        inside = ", ".join(f"{key}={_rendered(value)}" for key, value in given.items())
        made.append(f"{name}({inside})" if given else name)
    return " + ".join(made)


def _rendered(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_rendered(key)}: {_rendered(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_rendered, value)) + "]"
    bare = isinstance(value, str) and _PLAIN.fullmatch(value) and value not in _CONSTANTS
    return value if bare else repr(value)


def _short(text: str) -> str:
    return repr(text if len(text) < 100 else f"{text[:97]}...")


class _Reader:
    """A text's tokens, and how far they have been read."""

    def __init__(self, text: str, arguments: Mapping[str, Sequence[str]]) -> None:
        self.text, self.arguments, self.at = text, arguments, 0
        self.tokens = [(match.lastgroup or "", match[match.lastgroup or 0]) for match in _TOKEN.finditer(text)]
        if ("quote", "'") in self.tokens or ("quote", '"') in self.tokens:
            raise self.mistake("a quotation mark is not closed")

    def mistake(self, what: str) -> UserError:
        return UserError(f"the strategy {_short(self.text)}: {what}.")

    @property
    def next(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else _END

    def take(self, *signs: str) -> bool:
        """Read one of ``signs`` if it comes next."""
        found = self.next[0] == "sign" and self.next[1] in signs
        self.at += found
        return found

    def strategies(self) -> list[tuple[str, dict[str, Any]]]:
        """All of the text."""
        if not self.tokens or [token for _, token in self.tokens] in (["[", "]"], ["(", ")"]):
            raise self.mistake("it is empty: give a name, such as 'finetune'")
        closing = _CLOSING[self.next[1]] if self.next[1] in "[(" else ""
        self.at += bool(closing)
        parts = self.joined(closing)
        if closing and not self.take(closing):
            raise self.mistake(f"a bracket is not closed: add {closing}")
        if self.next != _END:
            raise self.mistake(f"{self.next[1]!r} stands behind its end: leave it out")
        return parts

    def joined(self, closing: str) -> list[tuple[str, dict[str, Any]]]:
        """Strategies with ``+`` or a comma between them, up to ``closing`` if there is one, or the end."""
        parts = self.strategy()
        while self.next != _END and not (closing and self.next[1] == closing):
            if not self.take("+", ","):
                raise self.mistake(self.unexpected(parts[-1][0]))
            if closing and self.next[1] == closing:  # the comma behind a list's last element
                break
            parts += self.strategy()
        return parts

    def unexpected(self, name: str) -> str:
        kind, token = self.next
        if kind == "sign":
            return f"{token!r} has no meaning behind {name}: leave it out"
        behind = self.string(token) if kind == "text" else token
        return f"join strategies by +, as in '{name} + {behind}'"

    def strategy(self) -> list[tuple[str, dict[str, Any]]]:
        """One, or those of a quoted text."""
        kind, token = self.next
        self.at += 1
        if kind == "text":
            return parse(self.string(token), arguments=self.arguments)
        if kind == "end" or token in "+,":
            raise self.mistake("a name is missing beside + or a comma")
        if kind != "word":
            raise self.mistake(f"{token!r} stands where the name of a strategy was expected")
        return [(token, self.given(token) if self.take("(") else {})]

    def given(self, name: str) -> dict[str, Any]:
        """The arguments of the strategy ``name``, behind its bracket."""
        given: dict[str, Any] = {}
        while not self.take(")"):
            kind, key = self.next
            if kind == "end":
                raise self.mistake(f"the bracket of {name} is not closed: add )")
            self.at += 1
            if kind != "word" or not self.take("="):
                raise self.mistake(self.unnamed(name, key))
            if key in given:
                raise self.mistake(f"{name} is given {key} twice: leave one out")
            given[key] = self.value(key)
            if self.next[1] == "+":
                raise self.mistake(f"the bracket of {name} is not closed: add ) before +")
            if not self.take(",") and self.next not in (_END, ("sign", ")")):
                raise self.mistake(f"a comma is missing between the arguments of {name}, before {self.next[1]!r}")
        return given

    def unnamed(self, name: str, value: str) -> str:
        known = self.arguments.get(name, ())
        if value in known:
            return f"{value} of {name} has no value: write {value}=, and the value behind it"
        takes = f"{name} takes {', '.join(known) or 'none'}" if name in self.arguments else f"write name={value}"
        return f"arguments of {name} are given by name, and {value!r} has none: {takes}"

    def value(self, key: str) -> Any:
        """One value; ``key`` is what it is given for."""
        kind, token = self.next
        if kind == "end" or (kind == "sign" and token not in _CLOSING):
            raise self.mistake(f"{key} has no value")
        self.at += 1
        if kind == "text":
            return self.string(token)
        if kind == "number":
            return self.number(token)
        if kind == "word":
            return _CONSTANTS.get(token, token)
        return self.entries(key) if token == "{" else self.elements(key, _CLOSING[token])

    def elements(self, key: str, closing: str) -> list[Any]:
        found = []
        while not self.take(closing):
            found.append(self.value(key))
            self.separate(key, closing)
        return found

    def entries(self, key: str) -> dict[Any, Any]:
        found = {}
        while not self.take("}"):
            name = self.value(key)
            if isinstance(name, (list, dict)) or not self.take(":"):
                raise self.mistake(f"{key} must be written as {{name: value}}")
            found[name] = self.value(key)
            self.separate(key, "}")
        return found

    def separate(self, key: str, closing: str) -> None:
        if not self.take(",") and self.next != ("sign", closing):
            raise self.mistake(f"a comma or {closing} is missing in the value of {key}")

    def number(self, token: str) -> int | float:
        try:
            value = float(token) if set(token) & set(".eE") else int(token)
        except ValueError:  # more digits than Python reads
            value = math.inf
        if math.isinf(value):
            raise self.mistake(f"the number {_short(token)} is too large")
        return value

    def string(self, token: str) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python only warns of a backslash that means nothing
            try:
                return ast.literal_eval(token)
            except (SyntaxError, ValueError):
                raise self.mistake(f"the text {_short(token)} has a line break or a backslash in it") from None
