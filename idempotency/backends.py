"""Objects that settings describe by alias, each made on its first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar, cast

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .conf import settings
from .exceptions import InvalidBackend

Backend = TypeVar("Backend")

SHORTEST = 0.001
"""The shortest duration, in seconds: servers count in milliseconds."""

LONGEST = 3_155_760_000
"""The longest duration, in seconds: a hundred years, which every clock can count."""


class Backends(Generic[Backend]):
    """Gives the object called *alias* in the setting `IDEMPOTENCY_<NAME>`, the same each time."""

    def __init__(self, name: str, defaults: Mapping[str, Any], base: type) -> None:
        self.name = name
        self.base = base
        self.defaults = defaults
        self._made: dict[str, Backend] = {}
        self._renew_lock()
        setting_changed.connect(self._forget_changed)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # A child of a fork has no thread to free that of its parent.

    @property
    def setting(self) -> str:
        return f"IDEMPOTENCY_{self.name}"

    def get(self, alias: str) -> Backend:
        """Raises: `InvalidBackend` if the settings do not describe *alias*."""
        try:
            return self._made[alias]
        except KeyError:
            with self._lock:
                return self._made.setdefault(alias, self.build(alias))

    def described(self) -> Mapping[str, Mapping[str, Any]]:
        """Give what the setting says of each alias; raise `InvalidBackend` if it is no dict."""
        described = _members(getattr(settings, self.name), None, self.setting)
        return cast(Mapping[str, Mapping[str, Any]], described)

    def build(self, alias: str) -> Backend:
        """Give a new object as the settings describe it."""
        described = self.described()
        if alias not in described:
            raise InvalidBackend(f"{self.setting} has no {alias!r}.")
        where = f"{self.setting}[{alias!r}]"
        options = {**self.defaults, **_members(described[alias], self.defaults, where)}
        _members(options["OPTIONS"], None, f"{where}['OPTIONS']")
        return cast(Backend, self._class_of(options["BACKEND"], where)(alias, options))

    def _class_of(self, path: Any, where: str) -> type:
        try:
            found = import_string(path)
        except (ImportError, AttributeError, ValueError) as error:
            raise InvalidBackend(f"{where}['BACKEND'] is no path of a class: {error}") from error
        if isinstance(found, type) and issubclass(found, self.base):
            return found
        raise InvalidBackend(f"{where}['BACKEND'] is no {self.base.__name__}: {path!r}.")

    def forget(self) -> None:
        """Make each anew when it is asked for again."""
        self._made.clear()

    def _forget_changed(self, *, setting: str, **kwargs: object) -> None:
        if setting == self.setting:
            self.forget()


def check_options(options: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise `InvalidBackend` if *options* has another name than the *known* ones."""
    unknown = ", ".join(sorted(repr(name) for name in set(options) - set(known)))
    if unknown:
        names = ", ".join(known) or "nothing"
        raise InvalidBackend(f"{where} has {unknown}; it takes {names}.")


def _members(described: Any, known: Collection[str] | None, where: str) -> Mapping[str, Any]:
    if not isinstance(described, Mapping):
        raise InvalidBackend(f"{where} is a dict, not {described!r}.")
    if known is not None:
        check_options(described, known, where)
    return described


def seconds_of(options: Mapping[str, Any], name: str, where: str) -> float:
    """Give the duration called *name*; raise `InvalidBackend` if it is none."""
    value = options[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not SHORTEST <= value <= LONGEST:
        raise InvalidBackend(
            f"{where}[{name!r}] is a number of seconds, from {SHORTEST} to {LONGEST}, not"
            f" {value!r:.80}."
        )
    return cast(float, value)
