"""Label selectors: what they select, what is wrong with those that cannot be read, and a naive judge beside ours."""

import contextlib
import gc
import time
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.selectors import DEEPEST, Every, Has, In, Is, Not, SelectorError, Some, parse

A1 = {"rack": "a", "role": "route-reflector", "kubernetes.io/hostname": "a1", "spare": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("  ", True),
        ("all()", True),
        ("global()", True),
        ("has(rack)", True),
        ("has( spare )", True),
        ("has(missing)", False),
        ("!has(rack)", False),
        ("!!has(rack)", True),
        ("rack == 'a'", True),
        ('rack == "a"', True),
        ("rack=='b'", False),
        ("missing == ''", False),
        ("spare == ''", True),
        ("rack != 'b'", True),
        ("missing != 'b'", True),
        ("rack in {'a', 'b'}", True),
        ("rack in{'b'}", False),
        ("rack in {}", False),
        ("missing in {''}", False),
        ("rack not in {'a'}", False),
        ("rack notin {'b'}", True),
        ("missing not in {'a'}", True),
        ("role contains 'flect'", True),
        ("role starts with 'route'", True),
        ("role startswith 'reflector'", False),
        ("role ends   with 'tor'", True),
        ("missing contains ''", False),
        ("kubernetes.io/hostname == 'a1'", True),
        ("in in {'x'}", False),
        ("not not in {'x'}", True),
        ("has(rack) && has(missing) || rack == 'a'", True),
        ("has(rack) && (has(missing) || rack == 'b')", False),
        ("rack == 'b' || has(role) && has(rack)", True),
        ("!(rack == 'a' && has(role))", False),
        ("rack == '&& ) \"'", False),
    ],
)
def test_who_is_selected(text: str, selected: bool) -> None:  # noqa: FBT001 - a column of the table
    assert parse(text).matches(A1) is selected


def test_what_lies_in_a_namespace_is_not_global() -> None:
    assert parse("global()").matches({"projectcalico.org/namespace": "default"}) is False


def test_the_tree_says_what_was_understood() -> None:
    assert parse("a == 'x' && b not in {'y'} || !has(c)").tree == Some(
        (Every((Is("a", "==", "x"), Not(In("b", frozenset({"y"}))))), Not(Has("c")))
    )


def test_a_selector_is_printed_as_it_was_written() -> None:
    assert str(parse(" rack  =='a'")) == " rack  =='a'"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rack = 'a'", "column 6: '=' means nothing here; write =="),
        ("has(a) & has(b)", "column 8: '&' means nothing here; write &&"),
        ("rack == 'a", "column 9: the string that begins here has no end; close it with '"),
        (
            "rack == 'a' ?",
            "column 13: '?' means nothing here; quote values, as 'a1'; label names have letters, digits and _./- only",
        ),
        ("rack == a", "column 9: 'a' stands where a value in quotes, as 'a1', should be"),
        (
            "rack",
            "column 5: the selector ends where ==, !=, in, not in, contains, starts with or ends with should be",
        ),
        (
            "rack 'a'",
            "column 6: 'a' stands where ==, !=, in, not in, contains, starts with or ends with should be",
        ),
        ("rack == 'a' has(b)", "column 13: 'has' stands where &&, || or the end should be"),
        ("rack in 'a'", "column 9: 'a' stands where a set of values, as {'a', 'b'}, should be"),
        ("rack in {'a' 'b'}", "column 14: 'b' stands where , or } should be"),
        ("rack in {'a',}", "column 14: '}' stands where a value in quotes, as 'a1', should be"),
        ("(has(a)", "column 8: the selector ends where &&, || or ) should be"),
        ("has(a) &&", "column 10: the selector ends where a label, has(label), all(), global(), ! or ( should be"),
        ("&& has(a)", "column 1: '&&' stands where a label, has(label), all(), global(), ! or ( should be"),
        ("has()", "column 5: ')' stands where the name of a label, as has(rack), should be"),
        ("all(a)", "column 5: 'a' stands where ) should be"),
        (
            "any(a)",
            (
                "column 4: '(' stands where an operator (==, !=, in, not in, contains, starts with or ends with), "
                "or before it has, all or global, should be"
            ),
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert str(caught.value) == sentence


def test_parentheses_end_at_some_depth() -> None:
    deep = "(" * DEEPEST + "all()" + ")" * DEEPEST
    assert parse(deep).matches({})
    with pytest.raises(SelectorError, match="column 51: more than 50 parentheses in each other; write it flatter"):
        parse(f"({deep})")


@pytest.mark.parametrize(
    "piece", ["!", "has(a) && ", "has(a) || ", " ", "'", "((", "a in {'b'} && ", "a not ", "=", "a" * 9]
)
@pytest.mark.slow
def test_twice_the_text_takes_about_twice_the_time(piece: str) -> None:
    def seconds(times: int) -> float:
        text = piece * times + "all()"
        best = float("inf")
        gc.disable()  # it looks through everything that other tests have left, which is not what is measured
        try:
            for _ in range(3):
                began = time.thread_time()
                with contextlib.suppress(SelectorError):
                    parse(text).matches({"a": "b"})
                best = min(best, time.thread_time() - began)
        finally:
            gc.enable()
        return best

    # A quadratic reader would take 64 times as long for eight times the text.
    assert seconds(8 * 1000) < 24 * seconds(1000) + 0.01


# --- a naive judge: the text and a function of labels, made together

NAMES = st.sampled_from(["a", "b.c/d", "in", "not", "has", "contains"])
VALUES = st.sampled_from(["", "x", "xy", "yx", "z && ("])
Judge = Callable[[Mapping[str, str]], bool]
Case = tuple[str, Judge]


def _compared(name: str, how: str, value: str) -> Case:
    judges: dict[str, Judge] = {
        "==": lambda labels: name in labels and labels[name] == value,
        "!=": lambda labels: name not in labels or labels[name] != value,
        "contains": lambda labels: name in labels and value in labels[name],
        "starts with": lambda labels: name in labels and labels[name][: len(value)] == value,
        "ends with": lambda labels: name in labels and (value == "" or labels[name][-len(value) :] == value),
    }
    return f"{name} {how} '{value}'", judges[how]


def _listed(name: str, values: list[str], *, among: bool) -> Case:
    inside = ", ".join(f'"{value}"' for value in values)

    def judge(labels: Mapping[str, str]) -> bool:
        found = any(labels.get(name) == value for value in values)
        return found if among else not found

    return f"{name} {'in' if among else 'not in'} {{{inside}}}", judge


def _joined(cases: list[Case], symbol: str) -> Case:
    text = f" {symbol} ".join(f"({each})" for each, _ in cases)

    def judge(labels: Mapping[str, str]) -> bool:
        found = [each(labels) for _, each in cases]
        return all(found) if symbol == "&&" else any(found)

    return text, judge


def _denied(case: Case) -> Case:
    return f"!({case[0]})", lambda labels: not case[1](labels)


LEAVES: st.SearchStrategy[Case] = st.one_of(
    st.just(("all()", lambda _: True)),
    NAMES.map(lambda name: (f"has({name})", lambda labels: name in labels)),
    st.builds(_compared, NAMES, st.sampled_from(["==", "!=", "contains", "starts with", "ends with"]), VALUES),
    st.builds(_listed, NAMES, st.lists(VALUES, max_size=3), among=st.booleans()),
)
CASES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(_denied), st.builds(_joined, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["&&", "||"]))
    ),
    max_leaves=12,
)


@given(CASES, st.dictionaries(NAMES, VALUES))
def test_it_judges_as_the_naive_judge_does(case: Case, labels: dict[str, str]) -> None:
    text, judge = case
    assert parse(text).matches(labels) is judge(labels)


@given(st.text("ab=!&|(){},'\" \t.inhas", max_size=30))
def test_any_text_is_read_or_refused_with_a_column(text: str) -> None:
    try:
        parse(text)
    except SelectorError as error:
        complaint = str(error)
    else:
        complaint = "column 0: none"
    assert complaint.startswith("column ")


@given(st.lists(st.builds(_compared, NAMES, st.just("=="), VALUES), min_size=2, max_size=6), st.data())
def test_and_binds_closer_than_or(cases: list[Case], data: st.DataObject) -> None:
    symbols = [data.draw(st.sampled_from(["&&", "||"])) for _ in cases[1:]]
    text = cases[0][0] + "".join(f" {symbol} {each}" for symbol, (each, _) in zip(symbols, cases[1:], strict=True))
    groups = [[cases[0][1]]]
    for symbol, (_, judge) in zip(symbols, cases[1:], strict=True):
        groups[-1].append(judge) if symbol == "&&" else groups.append([judge])
    labels = data.draw(st.dictionaries(NAMES, VALUES))
    assert parse(text).matches(labels) is any(all(judge(labels) for judge in group) for group in groups)
