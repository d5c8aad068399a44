"""Strategies as text: what can be written, what it is read as, and what a mistake is told."""

import inspect
import json
import string

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medtl_monai.strategies import EMA, L2, L2SP, STRATEGIES, Chain, Strategy, build, check, describe
from medtl_monai.strategies.text import parse, render
from medtl_monai.utils import UserError

NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=9)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=8
)
PARTS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=4)


def of_a_kind(value):
    """``value`` with its types, as 1, 1.0 and true are equal."""
    if isinstance(value, dict):
        return [(of_a_kind(key), of_a_kind(one)) for key, one in value.items()]
    return [of_a_kind(one) for one in value] if isinstance(value, (list, tuple)) else (type(value), repr(value))


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw of any text reads a table of characters
@given(parts=PARTS)
def test_what_is_rendered_is_read_as_the_same(parts):
    assert of_a_kind(parse(render(parts))) == of_a_kind(parts)


@given(parts=PARTS)
def test_commas_and_lists_do_as_well_as_plus(parts):
    each = [render([part]) for part in parts]
    for text in ("+".join(each), ",".join(each), f"\n[ {' , '.join(each)} , ] ", repr(each), repr(tuple(each))):
        assert of_a_kind(parse(text)) == of_a_kind(parts)


def test_white_space_is_free():
    assert parse(" a (\tx = -1 ,y=[ 1,2 ] , )\n+b") == [("a", {"x": -1, "y": [1, 2]}), ("b", {})]


@given(text=st.text("l2_sp(alph=0.5)+,'[]{}: -\"\\", max_size=24) | st.text(max_size=12))
def test_any_text_is_read_or_refused_in_one_sentence(text):
    told, parts = "", []
    try:
        parts = parse(text)
    except UserError as error:
        told = str(error)
    if told:
        assert told.startswith("the strategy ")
        assert "\n" not in told
    else:
        assert of_a_kind(parse(render(parts))) == of_a_kind(parts)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-3", -3), ("0.5", 0.5), (".5", 0.5), ("1e-3", 1e-3), ("-1E+3", -1000.0),
        ("true", True), ("False", False), ("None", None), ("null", None),
        ("'a, b'", "a, b"), ('"it\'s"', "it's"), ("site-A.1", "site-A.1"), ("007", "007"), ("3T", "3T"),
        ("[1, -2., x]", [1, -2.0, "x"]), ("(1, 2)", [1, 2]), ("{a: 1, 'b': {2: []}}", {"a": 1, "b": {2: []}}),
    ],
)  # fmt: skip
def test_a_value_is_read_as_it_looks(text, value):
    assert of_a_kind(parse(f"x(y={text})")) == of_a_kind([("x", {"y": value})])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("[]", "empty"),
        ("l2_sp(alpha=0.5", r"bracket of l2_sp is not closed: add \)"),
        ("l2_sp(alpha=0.5 + ema", r"bracket of l2_sp is not closed: add \) before \+"),
        ("['l2_sp', 'ema'", "bracket is not closed: add ]"),
        ("l2_sp(alpha='a)", "quotation mark is not closed"),
        ("l2_sp + + ema", r"a name is missing beside \+"),
        ("l2_sp +", r"a name is missing beside \+"),
        ("finetune freeze", r"join strategies by \+, as in 'finetune \+ freeze'"),
        ("l2_sp(0.5)", "by name, and '0.5' has none: l2_sp takes alpha, beta"),
        ("finetune(0.5)", "finetune takes none"),
        ("l2_sp(alpha)", "alpha of l2_sp has no value"),
        ("l2_sp(alpha=)", "alpha has no value"),
        ("l2_sp(alpha=1 beta=2)", "a comma is missing .* before 'beta'"),
        ("l2_sp(alpha=1, alpha=2)", "given alpha twice"),
        ("l2_sp(alpha=[1, 2)", "a comma or ] is missing in the value of alpha"),
        ("l2_sp(alpha={1})", "must be written as"),
        ("l2_sp(alpha=1e999)", "too large"),
        (f"l2_sp(alpha={'9' * 9999})", "too large"),
        (f"l2_sp(alpha={'[' * 9999}", "nested too deep"),
        (r"l2_sp(alpha='\d')", "backslash"),
        ("l2_sp)", r"'\)' has no meaning behind l2_sp"),
        ("[l2_sp] ema", "'ema' stands behind its end"),
        ("3", "'3' stands where the name of a strategy was expected"),
        ("l2sp", "no strategy 'l2sp': did you mean 'l2_sp'"),
        ("finetune + lpft", "did you mean 'lp_ft'"),
        ("zzz", "choose from alpha_beta"),
        ("l2_sp(alhpa=1)", "l2_sp takes alpha, beta, not 'alhpa': did you mean 'alpha'"),
        ("finetune(alpha=1)", "finetune takes no arguments, not 'alpha'"),
        ("l2_sp(alpha=high)", "alpha must be a number, got 'high'"),
        ("l2_sp(alpha=true)", "alpha must be a number, got True"),
        ("partial_freeze(blocks=1.5)", "blocks must be a whole number or none, got 1.5"),
        ("coral(target_statistics=1)", "target_statistics must be true or false, got 1"),
        ("alpha_beta(keep=3)", "keep must be text, got 3"),
        ("alpha_beta(keep=l3)", "keep must be l2_sp, delta, lwf"),
        ("l2_sp(alpha=-1)", "0 or more"),
        ("l2 + l2(weight=1)", "the strategy l2 is given 2 times"),
        (["l2", "ema + l2"], "the strategy l2 is given 2 times"),
        ([], "empty"),
        (3, "text, an object or a list"),
        (["l2", None], "text, an object or a list"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(text, message):
    for of in (build, check, describe):
        with pytest.raises(UserError, match=message) as told:
            of(text)
        assert str(told.value).count(". ") == 0
        assert told.value.__cause__ is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_default_can_be_written_and_a_wrong_type_is_refused(name):
    for key, parameter in inspect.signature(STRATEGIES[name]).parameters.items():
        made = build(render([(name, {key: parameter.default})]))
        assert made.asked == (name, {key: parameter.default})
        with pytest.raises(UserError, match=f"{name}: {key} must be"):
            build(render([(name, {key: [1]})]))


def test_what_was_asked_for_is_described():
    spec = ["l2_sp( alpha = 5e-1 ),freeze_bn", "alpha_beta(keep='delta')", EMA()]
    assert describe(spec) == describe(build(spec)) == "l2_sp(alpha=0.5) + freeze_bn + alpha_beta(keep=delta) + EMA"
    assert describe(L2(1.0)) == "L2"
    for name in STRATEGIES:
        assert describe(name) == name
    text = describe(spec[:2])
    assert describe(build(text)) == text
    assert [type(part) for part in build(text)] == [type(part) for part in build(spec[:2])]


def test_what_was_asked_for_is_no_state():
    plain, told = L2SP(alpha=0.5), build("l2_sp(alpha=0.5)")
    assert told.asked == ("l2_sp", {"alpha": 0.5})
    assert plain.asked is None
    for strategy in (plain, told):
        strategy.prepare(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)))
    assert list(plain.state_dict()) == list(told.state_dict())


def test_the_shell_and_json_hand_over_what_can_be_built():
    for given_as, types in (
        ("l2_sp(alpha=0.5) + freeze_bn", ["L2SP", "FreezeBN"]),
        (("l2_sp", "ema"), ["L2SP", "EMA"]),
        (json.loads('["l2_sp(alpha=0.5)", "ema"]'), ["L2SP", "EMA"]),
        ([L2(1.0), "ema", build("vat + freeze_bn")], ["L2", "EMA", "VAT", "FreezeBN"]),
    ):
        chain = build(given_as)
        assert isinstance(chain, Chain)
        assert [type(part).__name__ for part in chain] == types
    assert not isinstance(build(["ema"]), Chain)
    own = type("Own", (Strategy,), {})()
    assert build(own) is own
    assert describe([own, "ema"]) == "Own + ema"
