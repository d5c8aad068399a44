"""The cardiac phantom: anatomy that holds together, pathologies that show in the volumes, the same files again."""

from collections import defaultdict

import numpy as np
import pytest

from medtl_monai.data import make_cardiac_cohort, read_stack


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """Ten patients, two of each group, by name: group, spacing, and labels at ED and ES."""
    folder = make_cardiac_cohort(tmp_path_factory.mktemp("hearts") / "c", patients=10, size=64, progress=False)
    found = {}
    for info in sorted(folder.glob("*/Info.cfg")):
        about = dict(line.split(": ") for line in info.read_text().splitlines())
        name = info.parent / f"{info.parent.name}_frame"
        stacks = [read_stack(f"{name}{int(about[frame]):02d}_gt.nii.gz") for frame in ("ED", "ES")]
        found[info.parent.name] = (about["Group"], *stacks)
    return found


def test_every_structure_is_there_and_the_muscle_encloses_the_cavity(hearts):
    for _, *stacks in hearts.values():
        for stack in stacks:
            assert set(stack.unique().tolist()) == {0, 1, 2, 3}
            cavity, heart = (stack[0] == 3).numpy(), np.isin(stack[0], [2, 3])
            around = np.zeros_like(cavity)
            for axis, way in ((0, 1), (0, -1), (1, 1), (1, -1)):
                around |= np.roll(cavity, way, axis)
            assert heart[around].all()


def test_pathologies_change_volumes_as_they_do(hearts):
    def volumes(stack, value):
        return float((stack == value).sum()) * np.prod(stack.meta["spacing"]) / 1000

    groups = defaultdict(list)
    for group, ed, es in hearts.values():
        left, right, muscle = volumes(ed, 3), volumes(ed, 1), volumes(ed, 2)
        groups[group].append((left, right, muscle, 1 - volumes(es, 3) / left, volumes(es, 2) / muscle))
    mean = {group: np.mean(rows, axis=0) for group, rows in groups.items()}
    assert set(mean) == {"NOR", "DCM", "HCM", "MINF", "RV"}
    assert mean["NOR"][3] > 0.5 > 0.45 > mean["MINF"][3] > mean["DCM"][3]
    assert mean["DCM"][0] > 1.3 * mean["NOR"][0]
    assert mean["HCM"][2] > 1.2 * mean["NOR"][2]
    assert mean["RV"][1] > 1.4 * mean["NOR"][1]
    assert all(0.85 < row[4] < 1.15 for rows in groups.values() for row in rows)  # muscle is not lost


def test_a_seed_fixes_every_byte(tmp_path):
    small = {"patients": 2, "slices": 2, "size": 32, "progress": False}
    one, same, other = (
        files(make_cardiac_cohort(tmp_path / name, seed=seed, **small)) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same
    assert one != other
