"""The numbers as JSON, for the page, the command and what watches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from .figures import HeldLocks, RowLocks, Summary
from .listening import is_on

Encoder = DjangoJSONEncoder


def as_json(summary: Summary, held: Sequence[HeldLocks], blocked: Sequence[RowLocks]) -> Any:
    """Give a dict that `Encoder` writes: durations in seconds, instants as ISO 8601 has them."""
    return {
        "is_counting": is_on(),
        **asdict(summary),
        "held_locks": [asdict(one) for one in held],
        "row_locks": [asdict(one) for one in blocked],
    }
