"""Mixins stand before the classes that they change: behind them they would do nothing, unseen."""

from __future__ import annotations

from typing import Any


class FirstMixin:
    """Has its subclasses name a mixin before the class of the framework that it changes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for place, mixin in enumerate(cls.__mro__):
            is_ours = issubclass(mixin, FirstMixin) and mixin.__module__.startswith(__package__)
            theirs = [kind for kind in cls.__mro__[:place] if _hides(kind, mixin)]
            if is_ours and theirs:
                raise TypeError(
                    f"{cls.__name__} names {theirs[0].__name__} before {mixin.__name__}, which"
                    f" would do nothing there: class {cls.__name__}({mixin.__name__}, …)."
                )


def _hides(kind: type, mixin: type) -> bool:
    """Whether a class of the framework has itself what *mixin* is to change."""
    changed = {name for name, value in vars(mixin).items() if _is_method(name, value)}
    return kind.__module__.startswith("rest_framework.") and not changed.isdisjoint(vars(kind))


def _is_method(name: str, value: Any) -> bool:
    return not name.startswith("__") and (callable(value) or isinstance(value, classmethod))
