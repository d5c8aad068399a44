"""The docs say what the code and the committed results say; the layers import downwards only."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import medtl_monai

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(medtl_monai.__file__).parent
LAYERS = [  # bottom to top; modules of one layer do not import each other
    {"utils", "solvers"},
    {
        "backbones",
        "losses",
        "variants",
        "weights",
        "transforms",
        "metrics",
        "calibration",
        "ensemble",
        "fewshot",
        "predictions",
        "data",
    },
    {"strategies", "features", "inference", "figures", "transferability"},
    {"model"},
    {"bundle", "search"},
    {"cli"},
    {"__main__"},
]
MACHINERY = {  # what the bundles' configurations make of their keys, and MONAI's own entries
    *("bundle_root", "cases", "values", "parts", "model", "strategy_def", "network_def", "target", "source"),
    *("transfer", "network", "optimizer", "lr_scheduler", "loss", "train", "validate", "history", "checkpoints"),
    *(
        "test",
        "calibration",
        "report",
        "preprocessing",
        "dataset",
        "dataloader",
        "prepare_batch",
        "postprocessing",
        "handlers",
        "left_out",
    ),
    *("evaluator", "initialize", "run"),
}
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def load_render():
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rendered_pages_are_not_stale():
    for path, content in load_render().pages().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name} is stale: run `make docs`"


def test_modules_import_from_lower_layers_only():
    imported = load_render().imported
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for parts in imported(path):
            if parts[0] == "medtl_monai" and len(parts) > 1 and parts[1] in RANK and parts[1] != here:
                assert RANK[parts[1]] < RANK[here], f"{path} imports {'.'.join(parts)}"
            assert parts[0] not in ("bundles", "torchvision")


def test_the_map_holds_every_module_once_and_its_arrows_are_the_imports():
    page = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    uses = {name.strip("_"): {other.strip("_") for other in used} for name, used in load_render().uses().items()}
    rank = {name.strip("_"): height for name, height in RANK.items()}
    links = re.findall(r"^\| \[`\w+`\]\(\.\./medtl_monai/(.+)\) \| \S", page, re.MULTILINE)
    top = {path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    inner = {path for folder in top if folder.is_dir() for path in folder.iterdir() if path.name != "__pycache__"}
    modules = {path.relative_to(PACKAGE).as_posix() for path in top | inner if path.name != "__init__.py"}
    assert sorted(links) == sorted(modules)
    arrows = set(re.findall(r"^    m_(\w+) --> m_(\w+)$", page, re.MULTILINE))
    assert arrows
    assert all(lower in uses[upper] and rank[lower] < rank[upper] for upper, lower in arrows)
    for upper, used in uses.items():  # what is left out follows from the others
        reached, left = set(), [upper]
        while left:
            here = left.pop()
            left += [lower for higher, lower in arrows if higher == here and lower not in reached]
            reached |= {lower for higher, lower in arrows if higher == here}
        assert used <= reached


def test_the_package_itself_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, medtl_monai; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


def test_bundles_hold_no_python():
    for bundle in (ROOT / "bundles").iterdir():
        assert not list(bundle.rglob("*.py"))


def test_every_key_of_a_bundle_has_a_row_and_every_row_a_key():
    rows = [row["key"] for row in json.loads((ROOT / "recipes" / "keys.json").read_text())]
    assert len(set(rows)) == len(rows)
    used = set()
    for bundle in (ROOT / "bundles").iterdir():
        configs = [json.loads((bundle / "configs" / f"{n}.json").read_text()) for n in load_render().KEYS_OF]
        settings = {key for config in configs for key in config if key not in MACHINERY}
        assert settings <= set(rows), f"{bundle.name}: recipes/keys.json lacks {settings - set(rows)}"
        table = (bundle / "docs" / "README.md").read_text().split("<!-- keys -->")[1].split("<!-- end keys -->")[0]
        named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
        assert sorted(named) == sorted(settings)
        used |= settings
    assert used == set(rows)


def test_relative_links_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in [*pages, *ROOT.glob("bundles/*/docs/*.md")]:
        # without blocks of code, whose links are another page's
        text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
