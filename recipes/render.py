"""Render the bundles' configurations: ``python recipes/render.py`` (``make bundles``).

Each bundle is the common recipe (the other files here) and its difference (``<bundle>.json``). Dictionaries are merged;
a key with a minus sign before it is taken out. What lies in ``bundles/`` is complete and needs nothing of this folder.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medtl_monai.bundle import data_format
from medtl_monai.model import Model
from medtl_monai.weights import SOURCES

HERE = Path(__file__).resolve().parent
CONFIGS = ("train", "evaluate", "inference", "ensemble", "snapshots", "multi_gpu_train", "metadata")
BUNDLES = sorted(path.stem for path in HERE.glob("*.json") if path.stem not in (*CONFIGS, "keys"))
_DEFAULTS = ("backbone", "channels", "image_size", "percentiles")  # settings of a training that its model holds


def read(name: str) -> dict[str, Any]:
    """A file of this folder."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def merged(base: Any, change: Any) -> Any:
    """``base`` with what ``change`` says.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"-b": None, "d": 3}})
        {'a': {'c': 2, 'd': 3}}
    """
    if not isinstance(base, dict) or not isinstance(change, Mapping):
        return copy.deepcopy(change)
    result = {key: value for key, value in base.items() if f"-{key}" not in change}
    for key, value in change.items():
        if not key.startswith("-"):
            result[key] = merged(result.get(key), value)
    return result


def configurations(difference: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configurations by name of the bundle that differs so from the recipe."""
    found = {name: merged(read(name), difference.get(name, {})) for name in CONFIGS}
    train = found["train"]
    settings = {name: train[name] for name in _DEFAULTS} | {"images": train["model"]["images"]}
    mean, std = SOURCES[train["weights"]].normalization(train["channels"])
    views = {name: train["inferer"][name] for name in ("scales", "mirrors")}
    own = {"task": "classification", **settings, **views, "mean": list(mean), "std": list(std), **difference["model"]}
    for name in ("train", "evaluate", "inference"):
        found[name]["dataset_dir"] = {"_target_": difference["cohort"]}
    for name in ("evaluate", "inference"):
        found[name]["model"]["default"] = own
    metadata = found["metadata"]
    metadata["network_data_format"] = merged(metadata["network_data_format"], data_format(Model.from_dict(own)))
    return found


def written(value: Any, indent: int = 0) -> str:
    """JSON with what fits into 120 columns on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value or (indent and len(flat) + indent < 112):
        return flat
    inner = " " * (indent + 4)
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {written(one, indent + 4)}" for key, one in value.items()]
    else:
        lines = [f"{inner}{written(one, indent + 4)}" for one in value]
    ends = "{}" if isinstance(value, dict) else "[]"
    return f"{ends[0]}\n" + ",\n".join(lines) + f"\n{' ' * indent}{ends[1]}"


def bundle_files(difference: Mapping[str, Any], folder: Path) -> Iterator[tuple[Path, str]]:
    """What is rendered of the bundle in ``folder``: configurations, the licence of the code, a place for the model."""
    for name, content in configurations(difference).items():
        yield folder / "configs" / f"{name}.json", written(content) + "\n"
    yield folder / "configs" / "logging.conf", (HERE / "logging.conf").read_text(encoding="utf-8")
    yield folder / "LICENSE", (HERE.parent / "LICENSE").read_text(encoding="utf-8")
    yield folder / "models" / ".gitkeep", ""


def files() -> Iterator[tuple[Path, str]]:
    """Every rendered file and its content."""
    for bundle in BUNDLES:
        yield from bundle_files(read(bundle), HERE.parent / "bundles" / bundle)


if __name__ == "__main__":
    for path, content in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(HERE.parent))
