"""Keys, and the identity that comes of them."""

import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idempotency import KeyInvalid
from idempotency.keys import (
    check_key,
    check_name,
    later_token,
    new_token,
    parse_key,
    record_id,
    time_of,
    uuid7,
)

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        (" abc\t", "abc"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ('"a,b"', "a,b"),
        ('" a "', " a "),
        ("a b;c=d/e+f=", "a b;c=d/e+f="),
        ("k" * 255, "k" * 255),
    ],
)
def test_header_is_read_as_a_string_with_or_without_quotes(header, key):
    assert parse_key(header) == key


@pytest.mark.parametrize(
    "header",
    [
        *("", "  ", '""', '" "', '"', '"a', '"a"b', '"a\\b"', '"a", "b"', "a,b", "a\x00", "é"),
        *("k" * 256, '"' + "k" * 256 + '"', "k" * 10_000, "a\x7f", '"\t"'),
    ],
)
def test_header_that_is_no_key_is_refused(header):
    with pytest.raises(KeyInvalid) as caught:
        parse_key(header)

    assert len(header) < 20 or header not in str(caught.value)


@given(printable)
def test_every_printable_key_survives_its_quotes(key):
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'

    if key.strip():
        assert parse_key(quoted) == key
    else:
        with pytest.raises(KeyInvalid):
            parse_key(quoted)


@pytest.mark.parametrize("key", ["", " ", "k" * 256, "a\x00b", "a\nb", "\ud800"])
def test_key_that_a_database_would_not_keep_is_refused(key):
    with pytest.raises(KeyInvalid):
        check_key(key)


def test_key_of_code_may_have_any_letters():
    assert check_key("Bestellung Nr. 7 in Köln 😀") == "Bestellung Nr. 7 in Köln 😀"


@pytest.mark.parametrize("value", [None, 7, b"key"])
def test_key_or_name_that_is_no_string_is_a_mistake_in_code(value):
    with pytest.raises(TypeError):
        check_key(value)
    with pytest.raises(TypeError, match="scope"):
        check_name(value, "scope")


parts = st.tuples(st.text(), st.text(), st.text())


@given(parts, parts)
def test_record_id_is_the_same_for_the_same_parts_and_for_no_others(first, second):
    assert (record_id(*first) == record_id(*second)) == (first == second)


def test_parts_cannot_borrow_from_their_neighbours():
    assert (
        len({record_id("ab", "c", "k"), record_id("a", "bc", "k"), record_id("a", "b", "ck")}) == 3
    )


@pytest.mark.parametrize(
    "key", ["opaque", "AbC1", "5f642845-0714-4176-b13a-d256988f491a", "8" * 26]
)
def test_opaque_key_gives_an_id_with_the_first_bit_set(key):
    assert time_of(key) is None
    assert record_id("s", "o", key).bytes[0] >= 0x80


@pytest.mark.parametrize(
    ("key", "milliseconds"),
    [
        ("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", 0x017F22E279B0),  # RFC 9562, appendix A.6.
        ("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", 0x017F22E279B0),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", 1469922850259),  # The ULID specification.
        ("01arz3ndektsv4rrffq69g5fav", 1469922850259),
    ],
)
def test_key_with_a_time_puts_it_in_front(key, milliseconds):
    found = record_id("s", "o", key)

    assert time_of(key) == milliseconds
    assert int.from_bytes(found.bytes[:6], "big") == milliseconds
    assert found.bytes[0] < 0x80


def test_time_beyond_47_bits_is_no_time():
    assert time_of("ffffffff-ffff-7cc3-98c4-dc0c0c07398f") is None


def test_ids_of_keys_with_times_are_in_the_order_of_time():
    keys = [uuid7() for _ in range(100)]
    ids = [record_id("s", "o", str(key)) for key in keys]

    assert [found.bytes[:6] for found in ids] == sorted(found.bytes[:6] for found in ids)


def test_uuid7_is_ordered_and_unique():
    keys = [uuid7() for _ in range(1_000)]

    assert all(type(key) is uuid.UUID and key.version == 7 for key in keys)
    assert keys == sorted(set(keys))


def test_uuid7_differs_after_a_fork():
    uuid7()
    reader, writer = os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os.write(writer, uuid7().bytes)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)

    tails = {os.read(reader, 16)[7:] for _ in children}
    os.close(reader)
    os.close(writer)
    assert len(tails) == 2


def test_tokens_fit_and_grow_and_are_seldom_alike():
    tokens = [new_token() for _ in range(1_000)]

    assert len(set(tokens)) > 900
    assert all(0 < token < 2**63 for token in tokens)
    assert tokens[-1] >> 22 >= tokens[0] >> 22
    assert later_token(5) > 5
    assert later_token(2**62 + 2**61) > 2**62 + 2**61
