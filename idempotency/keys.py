"""Identity: which record a call belongs to, and how a key is written."""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
import time
import uuid

from .exceptions import KeyInvalid

if sys.version_info >= (3, 14):
    from uuid import uuid7 as _uuid7
else:
    from uuid_utils.compat import uuid7 as _uuid7

MAX_LENGTH = 255
GUESSABLE_BELOW = 16
"""An anonymous key shorter than this many characters could be another caller's."""

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I)
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.I)
_CROCKFORD = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_PRINTABLE = re.compile(r"[ -~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def uuid7() -> uuid.UUID:
    """
    Give a UUIDv7: unique anywhere, and later ones sort later (RFC 9562, section 5.7).

    Use it as the default of a primary key that several databases or services hand out.
    """
    return _uuid7()


def record_id(scope: str, operation: str, key: str) -> uuid.UUID:
    """
    Give the primary key of the record of (*scope*, *operation*, *key*): always the same one.

    A key that carries its time (UUIDv7, ULID) passes its 48-bit millisecond on to the front, so
    that records are inserted in the order of time; the rest is a SHA-256 over all three parts.
    The first bit tells the two forms apart: 1 for an opaque key, 0 for one with a time.
    """
    digest = hashlib.sha256()
    for part in (scope, operation, key):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    head = digest.digest()
    milliseconds = time_of(key)
    if milliseconds is None:
        return uuid.UUID(bytes=bytes([head[0] | 0x80]) + head[1:16])
    return uuid.UUID(bytes=milliseconds.to_bytes(6, "big") + head[:10])


def advisory_key(record: uuid.UUID) -> int:
    """Give the 64 bits of a record's id that no time is in, as PostgreSQL counts its locks."""
    return int.from_bytes(record.bytes[8:], "big", signed=True)


def time_of(key: str) -> int | None:
    """Give the time that *key* carries, in milliseconds since 1970, or None if it carries none."""
    if _UUID7.fullmatch(key):
        milliseconds = int(key[:8] + key[9:13], 16)
    elif _ULID.fullmatch(key):
        milliseconds = 0
        for digit in key[:10].upper():
            milliseconds = milliseconds * 32 + _CROCKFORD[digit]
    else:
        return None
    return milliseconds if milliseconds < 1 << 47 else None


def new_token() -> int:
    """Give a fencing token: positive, below 2**63, growing with the time, seldom given twice."""
    return (time.time_ns() // 1_000_000) << 22 | secrets.randbits(22)


def later_token(seen: int) -> int:
    """Give a fencing token that is greater than *seen*, whatever this machine's clock says."""
    return max(new_token(), seen + 1 + secrets.randbits(22))


def parse_key(header: str) -> str:
    """
    Read the key out of a header's value (IETF idempotency-key draft, section 2.1).

    The value is a structured-field string (RFC 9651, section 3.3.3); the bare form without quotes
    means the same key. A comma outside quotes is how servers join a repeated header.

    Raises: `KeyInvalid`, which says what is wrong.
    """
    value = header.strip(" \t")
    if value.startswith('"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise KeyInvalid("The idempotency key is not one quoted string of printable ASCII.")
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    elif "," in value:
        raise KeyInvalid("The idempotency key was sent twice, or has a comma outside of quotes.")
    if not value.strip():
        raise KeyInvalid("The idempotency key is empty.")
    if not _PRINTABLE.fullmatch(value):
        raise KeyInvalid("The idempotency key has characters other than printable ASCII.")
    return check_key(value)


def check_key(key: str) -> str:
    """
    Give *key* back if every database keeps it as it is.

    Raises: `KeyInvalid` for an empty or too long one, or one with control characters;
    `TypeError` for anything but a string.
    """
    if not isinstance(key, str):
        raise TypeError(f"An idempotency key is a string, not {type(key).__name__}.")
    if not key.strip():
        raise KeyInvalid("The idempotency key is empty.")
    if len(key) > MAX_LENGTH:
        raise KeyInvalid(f"The idempotency key is longer than {MAX_LENGTH} characters.")
    if has_control(key):
        raise KeyInvalid("The idempotency key has control characters.")
    return key


def has_control(text: str) -> bool:
    """Whether *text* has characters that some database would refuse or change."""
    return _CONTROL.search(text) is not None


def check_name(value: str, what: str) -> str:
    """
    Give *value* back if it can be kept as the *what* ("scope", "operation") of a record.

    Raises: `TypeError` or `ValueError`: these come from code, not from a caller.
    """
    if not isinstance(value, str):
        raise TypeError(f"The {what} is a string, not {type(value).__name__}.")
    if not value or len(value) > MAX_LENGTH or has_control(value):
        raise ValueError(
            f"The {what} has 1 to {MAX_LENGTH} characters, no control ones: {value[:80]!r}."
        )
    return value
