"""Which locks the current context holds, so that it does not wait for itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from weakref import ref

from .held import HeldLock

Place = tuple[str, str]
"""Where a backend keeps its locks, and the name of one of them."""

# A context, which may last as long as its thread, keeps alive no lock that nobody can leave.
_NONE: Mapping[Place, ref[HeldLock]] = MappingProxyType({})
_held: ContextVar[Mapping[Place, ref[HeldLock]]] = ContextVar("idempotency_locks", default=_NONE)
_blocks: ContextVar[tuple[tuple[ref[object], ref[HeldLock]], ...]] = ContextVar(
    "idempotency_lock_blocks", default=()
)


def remembered(place: Place) -> HeldLock | None:
    """Give the lock that this context, or the one it was copied from, took at *place*."""
    held = _held.get().get(place)
    return None if held is None else held()


def remember(place: Place, held: HeldLock) -> None:
    """Let this context hold *held*, as its innermost lock."""
    _held.set({**_without(place), place: ref(held)})


def forget(place: Place) -> None:
    """Let this context hold nothing at *place*."""
    _held.set(_without(place))


def _without(place: Place) -> dict[Place, ref[HeldLock]]:
    return {
        other: kept
        for other, kept in _held.get().items()
        if other != place and (held := kept()) is not None and not held.is_over
    }


def current_lock() -> HeldLock | None:
    """Give the innermost lock that this code holds, or None: the one of a decorated function."""
    for kept in reversed(list(_held.get().values())):
        held = kept()
        if held is not None and held.is_entered:
            return held
    return None


def begin_block(of: object, held: HeldLock) -> None:
    """Note that this context is in a block of *held*, begun by the object *of*."""
    blocks = (block for block in _blocks.get() if block[0]() is not None)
    _blocks.set((*blocks, (ref(of), ref(held))))


def end_block(of: object) -> HeldLock | None:
    """Give what the innermost block of *of* holds, if it was begun in this context."""
    blocks = _blocks.get()
    for place in reversed(range(len(blocks))):
        owner, held = blocks[place]
        if owner() is of:
            _blocks.set(blocks[:place] + blocks[place + 1 :])
            return held()
    return None
