"""How a call is to be run once: the options that every entry point shares."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from .backends import LONGEST, SHORTEST
from .exceptions import InvalidBackend
from .stores.base import BaseStore

Mode = Literal["atomic", "lease"]
OnError = Literal["release", "store", "block"]
OnCrash = Literal["retry", "block"]
OnStoreError = Literal["refuse", "run"]

_CHOICES = {
    "mode": (None, "atomic", "lease"),
    "on_error": ("release", "store", "block"),
    "on_crash": ("retry", "block"),
    "on_store_error": ("refuse", "run"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The options of a protected call; durations are seconds.

    Raises: `ValueError` for a value that means nothing, when it is made.
    """

    mode: Mode | None = None
    wait: float = 0
    lease: float | None = None
    retention: float | None = None
    on_error: OnError = "release"
    on_crash: OnCrash = "retry"
    on_store_error: OnStoreError = "refuse"
    store: str = "default"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                listed = ", ".join(map(repr, choices))
                raise ValueError(f"{name} is one of {listed}, not {getattr(self, name)!r}.")
        if not _is_number(self.wait) or self.wait < 0:
            raise ValueError(f"wait is a number of seconds, 0 or more, not {self.wait!r}.")
        for name in ("lease", "retention"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and SHORTEST <= value <= LONGEST):
                raise ValueError(
                    f"{name} is a number of seconds, from {SHORTEST} to {LONGEST}, not"
                    f" {value!r:.80}."
                )

    @classmethod
    def of(cls, options: Mapping[str, Any], *, others: Set[str] = frozenset()) -> Self:
        """
        Give the policy that *options* describe; *others* are those that the caller takes itself.

        Raises: `TypeError` for an option that does not exist, `ValueError` as above.
        """
        unknown = options.keys() - _NAMES - others
        if unknown:
            known = ", ".join(sorted({*_NAMES, *others}))
            raise TypeError(f"There is no option {min(unknown)!r}; there are {known}.")
        return cls(**options)

    def refuse_async(self) -> None:
        """Raise `TypeError` if this cannot protect a coroutine function."""
        if self.mode == "atomic":
            raise TypeError(
                "A coroutine function cannot run in mode='atomic': Django's transactions are"
                " synchronous. Leave the mode out, which gives it a lease, or make it synchronous."
            )

    def mode_for(self, store: BaseStore) -> Mode:
        """
        Give the mode of a synchronous call.

        Raises: `InvalidBackend` if *store* cannot share a transaction and has to.
        """
        if self.mode == "atomic" and not store.supports_atomic:
            raise InvalidBackend(
                f"mode='atomic' needs a store in the database; {store.alias!r} is none."
            )
        return self.mode or ("atomic" if store.supports_atomic else "lease")


_NAMES = frozenset(field.name for field in fields(Policy))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value < float("inf")
