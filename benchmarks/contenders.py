"""Who competes: views of one effect that promise different things about a repeated key."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import setting_changed
from django.db import connection

from idempotency.keys import uuid7

from . import floor, peers, views

handler = WSGIHandler()


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to answer the same request, at its own path."""

    name: str
    path: str
    view: Callable[..., Any]
    make_key: Callable[[], uuid.UUID] = uuid.uuid4
    application: Callable[..., Any] = handler
    is_ours: bool = False
    is_in_redis: bool = False
    is_counted: bool = True  # Whether all its statements go through Django.
    replays: bool = True
    before_replays: Callable[[], None] = lambda: None
    base: str = "bare view"  # The name of the one that it is compared with.


def forget() -> None:
    """Let this process know as little of earlier calls as another one does."""
    setting_changed.send(None, setting="IDEMPOTENCY_STORES", value=None, enter=True)


BARE = Contender("bare view", "bare", views.bare, replays=False)


def by_hand() -> list[Contender]:
    """Give what this database can do at best, written by hand."""
    found = [
        Contender("by hand: claim, update", "claim", floor.claim_and_update),
        Contender("by hand: look, claim, update", "look", floor.look_claim_and_update),
    ]
    if connection.vendor == "postgresql":
        found.append(Contender("by hand: lock and look, insert", "insert", floor.one_write))
    return found


OURS = [
    Contender("ours, opaque keys", "ours-opaque", views.ours, is_ours=True),
    Contender("ours, UUIDv7 keys", "ours-uuid7", views.ours, uuid7, is_ours=True),
    Contender(
        "ours, replay in another process",
        "ours-elsewhere",
        views.ours,
        is_ours=True,
        before_replays=forget,
    ),
]


def in_redis() -> list[Contender]:
    """Give the stores in Redis, if there is one."""
    if not os.environ.get("REDIS_URL"):
        return []
    ours = {"is_ours": True, "is_in_redis": True}
    return [
        Contender("ours in Redis", "ours-redis", views.ours_in_redis, **ours),
        Contender("ours in Redis, recorded", "ours-recorded", views.ours_in_both, **ours),
    ]


def others() -> tuple[list[Contender], list[str]]:
    """Give the peers that are installed, and a line for each that cannot compete."""
    found: list[Contender] = []
    absent: list[str] = []
    for peer in peers.PEERS:
        try:
            view, application = peer.build(views.bare, handler)
        except (ImportError, peers.Unfit) as reason:
            absent.append(f"{peer.name} does not compete: {reason}")
        else:
            found.append(
                Contender(
                    peer.name,
                    peer.name,
                    view,
                    application=application,
                    is_counted=peer.uses_django,
                )
            )
    return found, absent
