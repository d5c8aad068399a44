"""How branched functions are: cyclomatic complexity as ``radon cc`` counts it, comprehensions and ``and`` included."""

from pathlib import Path

from radon.complexity import cc_visit

ROOT = Path(__file__).parents[1]


def complexities() -> dict[str, int]:
    found = {}
    for path in [*ROOT.glob("medtl_monai/**/*.py"), *ROOT.glob("recipes/*.py"), *ROOT.glob("docs/*.py")]:
        for block in cc_visit(path.read_text(encoding="utf-8")):
            if block.letter in "FM":
                found[f"{path.relative_to(ROOT)}:{block.lineno} {block.fullname}"] = block.complexity
    return found


def test_no_function_is_above_20_and_few_are_above_10():
    found = complexities()
    above = {name: value for name, value in found.items() if value > 10}
    assert len(found) > 1000
    assert not {name: value for name, value in above.items() if value > 20}
    assert len(above) <= 25, above
