"""Do the tests notice small faults? ``python benchmarks/mutations.py [--count 60] [--seed 0]``.

Faults are drawn by seed from strategies, metrics, weights and data, as many of each: a comparison turned, a sum made a
difference, a number changed, ``and`` made ``or``, ``true`` made ``false``. Each is put alone into a copy of the
package; the quick tests of its area run until one fails. What is drawn, and whether a test noticed it, is written to
``benchmarks/results/mutations.json``. Messages, types, docstrings and figures are left alone.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "mutations.json"
AREAS = {
    "strategies": ("strateg", "transfer_losses", "boxes"),
    "metrics": ("metrics", "multilabel"),
    "weights": ("weights", "load", "match", "kinds"),
    "data": (
        *("boxes", "cached", "check", "contours", "data", "dbt", "dicom", "find", "folders", "fuzz", "geometry", "ids"),
        *("layouts", "leakage", "limits", "masks", "phantom", "pictures", "split", "stacks", "tables"),
    ),
}
"""Of each area of the package, what the names of its test files hold."""

COMPARISONS = {
    **{ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")},
    **{ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in")},
}
SUMS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.Pow: ("**", "*")}
UNSEEN = ("strict", "exist_ok", "parents", "indent", "progress", "repr", "frozen")  # arguments without an effect
SILENT = (ast.Raise, ast.Assert, ast.JoinedStr, ast.ImportFrom, ast.Import)


class Fault(NamedTuple):
    """One replacement in the text of one file."""

    path: str
    function: str
    line: int
    start: int
    end: int
    before: str
    after: str


def faults(path: Path) -> Iterator[Fault]:
    """Every fault that can be put into a file, function by function."""
    text = path.read_text(encoding="utf-8")
    lines = [0]
    for line in text.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    data = text.encode()

    def place(line: int, column: int) -> int:
        return lines[line - 1] + column

    def between(left: ast.expr, right: ast.expr, old: str, new: str) -> tuple[int, int, str] | None:
        low, high = place(left.end_lineno or 0, left.end_col_offset or 0), place(right.lineno, right.col_offset)
        at = data[low:high].decode().find(old)
        return None if at < 0 else (low + at, low + at + len(old), new)

    def changes(node: ast.AST) -> Iterator[tuple[int, int, str] | None]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
            yield between(node.left, node.comparators[0], *COMPARISONS[type(node.ops[0])])
        elif isinstance(node, ast.BinOp) and type(node.op) in SUMS and not isinstance(node.left, ast.JoinedStr):
            yield between(node.left, node.right, *SUMS[type(node.op)])
        elif isinstance(node, ast.BoolOp):
            words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            yield between(node.values[0], node.values[1], *words)
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            span = place(node.lineno, node.col_offset), place(node.end_lineno or 0, node.end_col_offset or 0)
            value = node.value
            yield (*span, str(not value) if isinstance(value, bool) else str(value + 1))

    def walk(node: ast.AST, function: str) -> Iterator[Fault]:
        for name, field in ast.iter_fields(node):
            for child in field if isinstance(field, list) else [field]:
                if not isinstance(child, ast.AST) or isinstance(child, SILENT):
                    continue
                if name in ("annotation", "returns", "decorator_list") or getattr(child, "arg", None) in UNSEEN:
                    continue
                inside = child.name if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else function
                for change in changes(child) if function else ():
                    if change is not None:
                        start, end, new = change
                        line = data[:start].count(b"\n") + 1
                        old = data[start:end].decode()
                        yield Fault(str(path.relative_to(ROOT)), function, line, start, end, old, new)
                yield from walk(child, inside)

    yield from walk(ast.parse(text), "")


def draw(count: int, seed: int) -> list[Fault]:
    """As many faults of each area, at most one in a function."""
    chance, drawn = random.Random(seed), []
    for area in AREAS:
        found = [fault for path in sorted((ROOT / "medtl_monai" / area).rglob("*.py")) for fault in faults(path)]
        chance.shuffle(found)
        unique = {(fault.path, fault.function): fault for fault in reversed(found)}
        drawn += sorted(chance.sample(list(unique.values()), count // len(AREAS)))
    return drawn


def noticed(fault: Fault, folder: Path, environment: dict[str, str]) -> str | None:
    """The test that fails, or ``None``."""
    area = Path(fault.path).parts[1]
    tests = sorted(map(str, (ROOT / "tests").glob("test_*.py")))
    files = [path for path in tests if any(word in Path(path).stem for word in AREAS[area])]
    own = [file for file in files if Path(fault.path).stem.strip("_") in Path(file).stem]
    file = folder / fault.path
    clean = file.read_bytes()
    file.write_bytes(clean[: fault.start] + fault.after.encode() + clean[fault.end :])
    try:
        for some in (own, [name for name in files if name not in own]):
            if not some:
                continue
            where = [str(folder / Path(name).relative_to(ROOT)) for name in some]
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *where]
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False
            )
            if done.returncode:
                failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return failed[0].split(" - ")[0] if failed else "the tests did not start"
        return None
    finally:
        file.write_bytes(clean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="copies of the package that are tested at a time")
    options = parser.parse_args()
    drawn = draw(options.count, options.seed)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MEDTL_DATA": str(ROOT.parent / "shared" / "data")}
    rows: list[dict[str, object]] = []

    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(job) / "repository" for job in range(options.jobs)]
        for folder in folders:
            ignored = shutil.ignore_patterns(".git", ".*cache", ".hypothesis", "runs", ".venv*", "results")
            shutil.copytree(ROOT, folder, ignore=ignored)
            shutil.copytree(ROOT / "benchmarks" / "results", folder / "benchmarks" / "results")

        def one(job: int) -> None:
            for fault in drawn[job :: options.jobs]:
                test = noticed(fault, folders[job], {**environment, "PYTHONPATH": str(folders[job])})
                rows.append({**fault._asdict(), "noticed_by": test})
                print(
                    f"{len(rows)}/{len(drawn)} {fault.path}:{fault.line} {fault.before} -> {fault.after}: {test}",
                    flush=True,
                )

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(one, range(options.jobs)))
    rows.sort(key=lambda row: (str(row["path"]), row["line"]))
    found = sum(row["noticed_by"] is not None for row in rows)
    result = {"seed": options.seed, "faults": len(rows), "noticed": found, "each": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"noticed: {found} of {len(rows)}: {RESULT}")


if __name__ == "__main__":
    main()
