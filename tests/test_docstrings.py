"""What a caller must know stands in the docstrings: shapes of arrays, and which errors are raised."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import medtl_monai

PACKAGE = Path(medtl_monai.__file__).parent
ARRAYS = re.compile(r"\b(Tensor|NDArray|ndarray|ArrayLike|Array)\b")
# ``(N, C)``, ``(B, C, *spatial)``, ``(N,)``; or the words where there is none, or where it does not matter
SHAPE = re.compile(r"``[^`]*\((?:[\w*+\-/.\s]+,[^()`]*|\*spatial)\)[^`]*``|\b[Ss]calar\b|any shape")


class Function(NamedTuple):
    """A public function or method: where it is, what it is, and all docstrings in which a reader looks."""

    name: str
    node: ast.FunctionDef
    docs: str


def functions() -> Iterator[Function]:
    """All of the package's; the class's docstring tells of its methods too, and so does the method of a base."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if any(part.startswith("_") for part in parts):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = getattr(node, "name", "_")
            if isinstance(node, ast.FunctionDef) and not name.startswith("_"):
                yield Function(f"{'.'.join(parts)}.{name}", node, ast.get_docstring(node) or "")
            elif isinstance(node, ast.ClassDef) and not name.startswith("_"):
                yield from methods(getattr(import_module(".".join(parts)), name), node)


def methods(cls: type, node: ast.ClassDef) -> Iterator[Function]:
    ours = [base for base in cls.__mro__ if base.__module__.startswith("medtl_monai.")]
    errors = [doc[doc.index("Raises:") :] for doc in map(inspect.getdoc, ours) if doc and "Raises:" in doc]
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and (inner.name[0] != "_" or inner.name in ("__init__", "__call__")):
            same = (getattr(vars(base).get(inner.name), "__doc__", None) for base in ours)
            docs = "\n".join(filter(None, (inspect.getdoc(cls), *errors, *same)))
            yield Function(f"{cls.__module__}.{cls.__qualname__}.{inner.name}", inner, docs)


FUNCTIONS = list(functions())


def takes_arrays(node: ast.FunctionDef) -> bool:
    hints = [one.annotation for one in (*node.args.args, *node.args.kwonlyargs) if one.annotation] + [node.returns]
    return any(ARRAYS.search(ast.unparse(hint)) for hint in hints if hint)


def raises(node: ast.AST) -> bool:
    """Directly, and something that a caller can meet: not in a function within, not what a subclass must write."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Raise) and inner.exc and "NotImplementedError" not in ast.unparse(inner.exc):
            return True
        if not isinstance(inner, (ast.FunctionDef, ast.Lambda)) and raises(inner):
            return True
    return False


def test_the_walk_finds_functions_methods_and_both_duties():
    names = {function.name for function in FUNCTIONS}
    assert {"medtl_monai.fewshot.linear_probe", "medtl_monai.backbones.tap.Tap.pin"} <= names
    assert sum(takes_arrays(function.node) for function in FUNCTIONS) > 150
    assert sum(raises(function.node) for function in FUNCTIONS) > 80


@pytest.mark.parametrize(
    "text", ["``(N, C)``", "``(B, C, *spatial)``", "images ``(N,)``", "``x`` ``(1 + C, 9)``", "A scalar."]
)
def test_shapes_are_known(text):
    assert SHAPE.search(text)
    assert not SHAPE.search("a number (such as this, or that)")


def test_functions_of_arrays_name_a_shape():
    assert [f.name for f in FUNCTIONS if takes_arrays(f.node) and not SHAPE.search(f.docs)] == []


def test_functions_that_raise_name_their_errors():
    assert [f.name for f in FUNCTIONS if raises(f.node) and "Raises:" not in f.docs] == []
