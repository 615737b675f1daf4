"""Rounds in which all contenders take short turns, so that the machine's noise meets all alike."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from django.db import connection
from django.test.client import RequestFactory
from django.test.utils import CaptureQueriesContext

from .contenders import Contender

BODY = json.dumps({"product": "a measured thing", "quantity": 2, "note": "leave it at the door"})
BORDERS = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")


class Broken(Exception):
    """A contender did not answer as the contest presumes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client sees of one response."""

    status: str
    body: bytes


@dataclass(slots=True)
class Phase:
    """First requests or replays of one contender: a value for each round."""

    statements: int
    rates: list[float] = field(default_factory=list)  # Requests per second.
    ratios: list[float] = field(default_factory=list)  # That by the base's in the same round.


@dataclass(slots=True)
class Score:
    """What one contender reached."""

    first: Phase
    replay: Phase


@dataclass(frozen=True, slots=True)
class Turn:
    """Requests per second of one contender in one round."""

    first: float
    replay: float


def compete(
    contenders: Sequence[Contender], rounds: int, requests: int, advance: Callable[[], None]
) -> dict[str, Score]:
    """Let each of *contenders* send *requests* new keys, and those again, in each of *rounds*."""
    scores = {each.name: score_of(each) for each in contenders}
    for each in contenders:
        take_turn(each, requests)  # Warms up.
    for _ in range(rounds):
        shuffled = random.sample(contenders, len(contenders))
        turns = {each.name: take_turn(each, requests) for each in shuffled}
        for each in contenders:
            turn, bare = turns[each.name], both(turns[each.base])
            note(scores[each.name].first, turn.first, bare)
            note(scores[each.name].replay, turn.replay, bare)
        advance()
    return scores


def both(turn: Turn) -> float:
    """Give how fast a view is that answers a key again as it answers it first."""
    return (turn.first + turn.replay) / 2


def note(phase: Phase, rate: float, bare: float) -> None:
    phase.rates.append(rate)
    phase.ratios.append(rate / bare)


def take_turn(contender: Contender, requests: int) -> Turn:
    """
    Give how fast *contender* answers *requests* new keys, and how fast the same ones again.

    Raises: `Broken` if an answer is not the one of the view, or a replay is not its first answer.
    """
    keys = [str(contender.make_key()) for _ in range(requests)]
    first, answers = timed(contender, keys)
    contender.before_replays()
    replay, replayed = timed(contender, keys)
    for one, again in zip(answers, replayed, strict=True):
        if not one.status.startswith("201") or (contender.replays and one != again):
            raise Broken(f"{contender.name} answered {one}, then {again}.")
    return Turn(first, replay)


def timed(contender: Contender, keys: Sequence[str]) -> tuple[float, list[Answer]]:
    environs = [environ(contender, key) for key in keys]
    began = time.perf_counter()
    answers = [call(contender, each) for each in environs]
    return len(keys) / (time.perf_counter() - began), answers


def environ(contender: Contender, key: str) -> dict[str, Any]:
    """Give what a server would pass to the application for one request."""
    factory = RequestFactory(headers={"Idempotency-Key": key})
    request = factory.post(f"/{contender.path}", BODY, content_type="application/json")
    return request.environ | {"wsgi.input": BytesIO(BODY.encode())}


def call(contender: Contender, environ: dict[str, Any]) -> Answer:
    """Let the application answer one request, as a server does."""
    status = ""

    def start_response(line: str, headers: Any, exc_info: Any = None) -> None:
        nonlocal status
        status = line

    response = contender.application(environ, start_response)
    body = b"".join(response)
    if hasattr(response, "close"):
        response.close()
    return Answer(status, body)


def score_of(contender: Contender) -> Score:
    """Count what a first request and a replay send besides the effect and what borders them."""
    key = str(contender.make_key())
    first = count(contender, key)
    contender.before_replays()
    replay = count(contender, key)
    if not contender.is_counted:
        return Score(Phase(-1), Phase(-1))
    return Score(Phase(first - 1), Phase(replay - (not contender.replays)))


def count(contender: Contender, key: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        call(contender, environ(contender, key))
    return sum(not query["sql"].startswith(BORDERS) for query in captured)
