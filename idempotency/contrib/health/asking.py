"""Asks every store and every lock backend something cheap, each in a thread of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Literal

from django.db import connections

from ...conf import settings
from ...locks import get_backend
from ...stores import get_store
from ...stores.base import Call
from ...uptime import uptime
from .failures import failure_of

Kind = Literal["store", "lock"]

NEVER = Call(scope="", operation="health", key="")
"""A call that cannot exist, as no key is empty."""


@dataclass(frozen=True, slots=True)
class Health:
    """How one store or lock backend answered; *failure* is "" if it did well."""

    alias: str
    kind: Kind
    ok: bool
    seconds: float
    failure: str = ""


def check(*, timeout: float = 2.0) -> list[Health]:
    """
    Ask every store and lock backend at the same time, and give what each answered.

    One that is silent for *timeout* seconds is not waited for; it is asked again once it has
    answered, so that there is never more than one thread for each.
    """
    aliases: list[tuple[Kind, str]] = [
        *(("store", alias) for alias in settings.STORES),
        *(("lock", alias) for alias in settings.LOCKS),
    ]
    answers = [_ask(kind, alias) for kind, alias in aliases]
    wait(answers, timeout)
    return [
        answer.result() if answer.done() else _silent(kind, alias, timeout)
        for (kind, alias), answer in zip(aliases, answers, strict=True)
    ]


def _silent(kind: Kind, alias: str, timeout: float) -> Health:
    return Health(alias, kind, False, timeout, f"No answer within {timeout:g} seconds.")


_Place = tuple[int, Kind, str]
_asked: dict[_Place, Future[Health]] = {}
"""What is not answered yet; by process, as a child of a fork has no thread that would answer."""


def _ask(kind: Kind, alias: str) -> Future[Health]:
    place = (os.getpid(), kind, alias)
    answer: Future[Health] = Future()
    earlier = _asked.setdefault(place, answer)
    if earlier is not answer:
        return earlier
    thread = threading.Thread(
        target=_answer, args=(place, answer), name=f"idempotency health of {alias}", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as error:  # The process is out of threads.
        del _asked[place]
        answer.set_result(Health(alias, kind, False, 0.0, failure_of(error)))
    return answer


def _answer(place: _Place, answer: Future[Health]) -> None:
    _, kind, alias = place
    started_at, failure = uptime(), ""
    try:
        _reach(_QUESTIONS[kind], alias)
    except Exception as error:
        failure = failure_of(error)
    del _asked[place]
    answer.set_result(Health(alias, kind, not failure, uptime() - started_at, failure))


def _reach(question: Callable[[str], object], alias: str) -> None:
    try:
        question(alias)
    finally:
        connections.close_all()  # They are of this thread alone.


_QUESTIONS: dict[Kind, Callable[[str], object]] = {
    "store": lambda alias: get_store(alias).look(NEVER),
    "lock": lambda alias: get_backend(alias).live(limit=1),
}
