"""Outlines tell where inputs differ, and nothing else."""

import json

import pytest

from idempotency.fingerprints import json_value
from idempotency.outlines import LONGEST, Outline, differences, outline


def read(text):
    return Outline({"body": json_value(text.encode())})


def outlined(text):
    return str(read(text))


@pytest.mark.parametrize(
    ("first", "second", "paths"),
    [
        ('{"amount": 5}', '{"amount": 6}', ("/body/amount",)),
        ('{"amount": 5}', '{"amount": 5.0}', ()),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', ()),
        ('{"a": 1}', '{"a": 1, "b": 2}', ("/body/b",)),
        (
            '{"lines": [{"n": 1}, {"n": 2}]}',
            '{"lines": [{"n": 1}, {"n": 3}]}',
            ("/body/lines/1/n",),
        ),
        ('{"a/b": {"~": 1}}', '{"a/b": {"~": 2}}', ("/body/a~1b/~0",)),
        ("[]", "{}", ("/body",)),
        ('{"a\\nb": 1}', '{"a\\nb": 2}', ("/body/a\nb",)),
        ('{"\\ud800": 1}', '{"\\ud800": 2}', ("/body/?",)),
        ('{"\\u0000": 1}', '{"\\u0000": 2}', ("/body/\ufffd",)),
        ('{"a": 1, "a": 2}', '{"a": 2, "a": 2}', ("/body",)),
    ],
)
def test_differences_are_told_by_their_paths(first, second, paths):
    assert differences(outlined(first), read(second)) == paths


@pytest.mark.parametrize("depth", [6, 60])
def test_what_lies_deeper_than_five_names_is_summed_up(depth):
    first, second = ('{"a":' * depth + last + "}" * depth for last in "12")

    assert differences(outlined(first), read(second)) == ("/body/a/a/a/a",)


def test_what_is_too_long_is_summed_up_at_a_name_above():
    first, second = (json.dumps({"lines": [*range(500), last], "n": 1}) for last in (1, 2))

    assert len(outlined(first)) <= LONGEST
    assert differences(outlined(first), read(second)) == ("/body/lines",)


def test_outline_without_any_short_path_is_compared_as_a_whole():
    names = {f"name{number}": number for number in range(500)}

    assert differences(outline(names), Outline({**names, "name7": 0})) == ("",)


def test_what_one_of_them_lacks_cannot_be_told():
    assert differences("", read("{}")) is None
    assert differences(outlined("{}"), "") is None


@pytest.mark.parametrize("is_longer_first", [True, False])
def test_only_what_differs_is_told_however_deep_each_outline_goes(is_longer_first):
    short = {"customer": {"name": "Ada", "at": {"town": "A"}}, "lines": [{"n": 1}]}
    long = {**short, "lines": [{"n": number, "of": "tea"} for number in range(500)]}
    first, second = (long, short) if is_longer_first else (short, long)
    told = differences(outline(first), Outline(second))

    assert told is not None
    assert {path.split("/")[1] for path in told} == {"lines"}
    assert differences(outline(first), Outline(first)) == ()


def test_outlines_of_another_secret_tell_nothing(settings):
    own = outlined('{"a": 1}')
    settings.SECRET_KEY = "another"

    assert differences(own, read('{"a": 1}')) is None


def test_values_are_not_in_it_and_cannot_be_guessed_without_the_secret(settings):
    own = outlined('{"pin": 1234, "again": 1234}')
    settings.SECRET_KEY = "another"
    guessed = outlined('{"pin": 1234, "again": 1234}')

    assert "1234" not in own
    assert json.loads(own)["/body/pin"] != json.loads(guessed)["/body/pin"]
    assert json.loads(own)["/body/pin"] != json.loads(own)["/body/again"]
