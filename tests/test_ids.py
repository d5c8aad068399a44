"""Identifiers that are one for a person: numbers, case, blanks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtl_monai.data.ids import unified


def of(*names, key="patient"):
    rows, said = unified([{key: name} for name in names], [key])
    return [row[key] for row in rows], said


@pytest.mark.parametrize(
    ("names", "want"),
    [
        (("3", "3.0", "4"), ["3", "3", "4"]),
        (("003", "3", "3.0"), ["3", "3", "3"]),
        (("7.0", "8.0"), ["7.0", "8.0"]),
        (("True", "TRUE", "false"), ["TRUE", "TRUE", "false"]),
    ],
)
def test_what_is_surely_one_becomes_one(names, want):
    found, said = of(*names)
    assert found == want
    assert len(said) == (len(set(want)) < len(set(names)))


@pytest.mark.parametrize(
    "names", [("P1", "p1", "P2"), ("a b", "ab"), ("3", "3.0", "x"), ("y", "y\u200b"), ("b\u00f6se", "bo\u0308se")]
)
def test_what_may_be_two_stays_two_and_is_said(names):
    found, said = of(*names)
    assert found == list(names)
    assert "are taken for different ones" in said[0]


@given(st.lists(st.from_regex(r"p\d{1,3}", fullmatch=True), unique=True))
def test_different_names_are_left_alone(names):
    assert of(*names) == (names, [])


@given(st.lists(st.integers(0, 50), min_size=1), st.randoms())
def test_numbers_are_as_many_patients_as_there_are_numbers(numbers, random):
    found, _ = of(*(random.choice([str(n), f"{n}.0", f"{n:03d}"]) for n in numbers))
    assert len(set(found)) == len(set(numbers))
