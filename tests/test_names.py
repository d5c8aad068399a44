"""Names that explain themselves: one meaning each."""

import ast
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from types import ModuleType

import medtl_monai

PACKAGE = Path(medtl_monai.__file__).parent


def packages():
    names = [one.name for one in walk_packages(medtl_monai.__path__, "medtl_monai.") if one.ispkg]
    return [medtl_monai, *map(import_module, names)]


def test_no_function_or_class_hides_a_module():
    hidden = {
        f"{package.__name__}.{inner.name}"
        for package in packages()
        for inner in iter_modules(package.__path__)
        if not isinstance(vars(package).get(inner.name), (ModuleType, type(None)))
    }
    assert not hidden


def test_a_public_constant_has_one_meaning():
    homes = {}
    alike = {path for folder in ("layouts", "phantoms") for path in (PACKAGE / "data" / folder).glob("[a-z]*.py")}
    for path in set(PACKAGE.rglob("*.py")) - alike:  # which speak of one data set each, in the same words
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = {ast.unparse(target): node for node in tree.body for target in targets(node)}
        listed = ast.unparse(assigned["__all__"]) if "__all__" in assigned else ""
        for name in {name for name in assigned if name.isupper() and repr(name) in listed}:
            homes.setdefault(name, []).append(path.relative_to(PACKAGE).as_posix())
    assert len(homes) > 20
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def targets(node):
    """What an assignment gives a value to."""
    return node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
