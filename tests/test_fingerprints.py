"""What makes two inputs the same."""

import datetime
import json
import subprocess
import sys
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

import pytest
from django.utils.safestring import SafeString
from hypothesis import given
from hypothesis import strategies as st

from idempotency import BodyInvalid
from idempotency.canonical import encode
from idempotency.fingerprints import (
    VERSION,
    check_pointer,
    fingerprint,
    form_pairs,
    json_value,
    multipart,
)
from tests.models import Effect, Ticket


class Colour(Enum):
    RED = 1
    BLUE = 1.5


@dataclass
class Point:
    x: int
    y: int


@dataclass
class Other:
    x: int
    y: int


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def typed(value):
    """Give *value* so that Python's `==` tells 1, 1.0 and True apart."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), repr(value)


@given(plain, plain)
def test_values_have_one_encoding_each(first, second):
    assert (encode(first) == encode(second)) == (typed(first) == typed(second))


DISTINCT = [
    None,
    True,
    False,
    0,
    1,
    1.0,
    "1",
    b"1",
    Decimal("1"),
    Decimal("1.0"),
    [1],
    (1,),
    {1},
    {"1": 1},
    {1: 1},
    [[1]],
    [],
    {},
    "",
    datetime.date(2026, 1, 1),
    datetime.datetime(2026, 1, 1),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    datetime.time(1),
    datetime.timedelta(1),
    uuid.UUID(int=1),
    Colour.RED,
    Colour.BLUE,
    Point(1, 2),
    Other(1, 2),
    Point(2, 1),
    Effect(pk=1),
    Effect(pk=2),
    Ticket(pk=1),
]


def test_values_of_different_types_never_meet():
    assert len({encode(value) for value in DISTINCT}) == len(DISTINCT)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2, 3}, frozenset([3, 2, 1])),
        (bytearray(b"x"), memoryview(b"x")),
        (Effect(pk=1, name="a"), Effect(pk=1, name="b")),
        (SafeString("x"), "x"),
        (OrderedDict(a=1), {"a": 1}),
    ],
)
def test_equal_values_have_equal_encodings(first, second):
    assert encode(first) == encode(second)


@pytest.mark.parametrize(
    "value", [object(), lambda: 1, Effect(), [object()], {"a": object()}, Effect]
)
def test_value_that_nothing_identifies_is_refused(value):
    with pytest.raises(TypeError):
        encode(value)


def test_fingerprint_is_the_same_in_every_process():
    program = (
        "from idempotency.fingerprints import fingerprint;"
        "print(fingerprint({'b', 'a', 'c', ('d', 1)}))"
    )

    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert found == {fingerprint({"a", "b", "c", ("d", 1)}) + "\n"}


def test_fingerprint_carries_its_version():
    version, _, digest = fingerprint("x").partition(":")

    assert version == VERSION
    assert len(bytes.fromhex(digest)) == 32


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "1.0"),
        ("100", "1e2"),
        ("0", "-0.0"),
        ("0.10", "1E-1"),
        ('{"a":1,"b":2}', ' { "b" : 2 , "a" : 1 } '),
        ('"\\u00e9"', '"é"'),
        ("12345678901234567890.5", "1234567890123456789050e-2"),
    ],
)
def test_json_texts_of_one_value_are_the_same(first, second):
    assert encode(json_value(first.encode())) == encode(json_value(second.encode()))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", '"1"'),
        ("1", "true"),
        ("1", '["number", "1e0"]'),
        ("9007199254740993", "9007199254740992"),
        ("0.1", "0.10000000000000000001"),
        ("1e400", "1e401"),
        ("1e99999999999999999999", "1e99999999999999999998"),
        ("[1,2]", "[2,1]"),
        ("{}", "[]"),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('{"a":1,"a":2}', '{"a":2,"a":1}'),
        ("null", "{}"),
    ],
)
def test_json_texts_of_other_values_differ(first, second):
    assert encode(json_value(first.encode())) != encode(json_value(second.encode()))


@given(texts, texts)
def test_json_values_have_one_form_each(first, second):
    forms = [encode(json_value(json.dumps(value).encode())) for value in (first, second)]

    assert (forms[0] == forms[1]) == (typed(first) == typed(second))


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (b"", None),
        (b"{", None),
        (b"NaN", None),
        (b"[Infinity]", None),
        (b"'a'", None),
        (b'"\xff"', None),
        (b"1 2", None),
        (b"[" * 200_000, None),
        (b"1", "no-such-charset"),
        ('"é"'.encode("utf-16"), None),
    ],
)
def test_what_is_no_json_is_refused(body, charset):
    with pytest.raises(BodyInvalid):
        json_value(body, charset)


@pytest.mark.parametrize(
    ("value", "pointer", "left"),
    [
        ({"a": 1, "b": 2}, "/a", {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, "/a/b", {"a": {"c": 2}}),
        ({"a": [{"b": 1}, {"b": 2}]}, "/a/*/b", {"a": [{}, {}]}),
        ({"a": [{"b": 1}, {"b": 2}]}, "/a/1/b", {"a": [{"b": 1}, {}]}),
        ({"a": {"x": {"b": 1}, "y": {"b": 2}}}, "/a/*/b", {"a": {"x": {}, "y": {}}}),
        ({"a": [1, 2]}, "/a/0", {"a": [None, 2]}),
        ({"a": [1, 2]}, "/a/*", {"a": []}),
        ({"a": {"x": 1}}, "/a/*", {"a": {}}),
        ({"a/b": 1, "m~n": 2, "c": 3}, "/a~1b", {"m~n": 2, "c": 3}),
        ({"a/b": 1, "m~n": 2, "c": 3}, "/m~0n", {"a/b": 1, "c": 3}),
        ({"a": 1}, "/no/such/path", {"a": 1}),
        ({"a": [1]}, "/a/7", {"a": [1]}),
        ({"a": [1]}, "/a/x", {"a": [1]}),
        ({"a": [1]}, "/a/7/x", {"a": [1]}),
        (7, "/a", 7),
    ],
)
def test_ignored_path_is_left_out_and_nothing_else(value, pointer, left):
    check_pointer(pointer)

    found = json_value(json.dumps(value).encode(), ignore=[pointer])

    assert encode(found) == encode(json_value(json.dumps(left).encode()))


@pytest.mark.parametrize("pointer", ["", "/", "a", "a/b", "*"])
def test_path_that_points_nowhere_is_refused(pointer):
    with pytest.raises(ValueError, match="JSON pointer"):
        check_pointer(pointer)


def test_order_of_names_in_a_form_does_not_count_but_that_of_repeats_does():
    assert form_pairs("b=2&a=1&b=3") == form_pairs("a=1&b=2&b=3")
    assert form_pairs("b=2&b=3") != form_pairs("b=3&b=2")
    assert form_pairs("a=") != form_pairs("")


def test_order_of_parts_does_not_count_but_that_of_repeats_does():
    first, second, third = ("a", "", b"1"), ("b", "", b"2"), ("b", "", b"3")

    assert multipart([second, first, third]) == multipart([first, second, third])
    assert multipart([second, third]) != multipart([third, second])
