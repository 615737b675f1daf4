"""A storm: clients who each mean something once and say it many times."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from idempotency.keys import uuid7

from .client import Answer, post
from .server import Server

AT_ONCE = 12
"""Clients that are busy at the same time."""
DEPOSIT = 100
"""Cents that each client pays once, little enough to be taken many times by mistake."""
KILLS = 20
"""Parts into which a storm is divided; at the end of each but the last a worker is killed."""
SMALLEST_PART = 5
"""Clients between two kills at least: a server without any worker would prove little."""
LONGEST_WAIT = 0.2
"""Seconds; a server asks for more, but this storm is impatient."""
SETTLE = 0.5
"""Seconds for the requests to end that nobody waited for."""
GIVE_UP = 120
"""Seconds after which the clients that still have no answer go home."""


@dataclass(frozen=True, slots=True)
class Intent:
    """An order with its deposit: meant once, sent *copies* times at once, and then again."""

    key: str
    quantity: int
    copies: int
    hang_up: bool  # Whether the client leaves before the first answers.


@dataclass(slots=True)
class Tally:
    """What the clients sent and what came back."""

    sent: int = 0
    unread: int = 0
    broken: int = 0
    replayed: int = 0
    turned_away: int = 0
    failed: int = 0
    killed: int = 0
    orders: dict[str, set[int]] = field(default_factory=dict)
    payments: dict[str, set[int]] = field(default_factory=dict)

    def add(self, answer: Answer, *, hang_up: bool) -> None:
        """Count one request and its answer."""
        self.sent += 1
        self.unread += hang_up
        self.broken += answer.status == 0 and not hang_up
        self.replayed += answer.replayed
        self.turned_away += answer.turned_away
        self.failed += answer.status >= 500 and not answer.turned_away


def plan(orders: int) -> list[Intent]:
    """Plan a storm; both rounds of the demo go through the same one."""
    chance = random.Random(orders)  # noqa: S311 - The same plan each time.
    return [
        Intent(
            key=str(uuid7()),
            quantity=chance.randint(1, 3),
            copies=chance.randint(2, 4),
            hang_up=chance.random() < 0.3,
        )
        for _ in range(orders)
    ]


@dataclass(frozen=True, slots=True)
class Storm:
    """Clients that order *product* under *prefix* while the server's workers are being killed."""

    server: Server
    prefix: str
    product: int
    tally: Tally = field(default_factory=Tally)

    async def rage(self, intents: Sequence[Intent], advance: Callable[[], None]) -> None:
        """Act out *intents*, a few at a time, and call *advance* after each."""
        free = asyncio.Semaphore(AT_ONCE)
        part = max(SMALLEST_PART, len(intents) // KILLS)

        async def act(number: int, intent: Intent) -> None:
            async with free:
                if number and number % part == 0:
                    await self._kill_worker()
                await self._order_and_pay(intent)
                advance()

        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP), asyncio.TaskGroup() as clients:
                for number, intent in enumerate(intents):
                    clients.create_task(act(number, intent))
        await asyncio.sleep(SETTLE)

    async def _kill_worker(self) -> None:
        # In a thread: while this one is busy killing, the workers would wait for it, idle.
        self.tally.killed += await asyncio.to_thread(self.server.kill_worker)

    async def _order_and_pay(self, intent: Intent) -> None:
        order = {
            "product": self.product,
            "quantity": intent.quantity,
            "client_reference": intent.key,
        }
        ids = self.tally.orders[intent.key] = await self._insist(self.prefix, order, intent)
        for first in sorted(ids)[:1]:
            path = f"{self.prefix}{first}/pay/"
            ids = await self._insist(path, {"amount": DEPOSIT}, intent)
            self.tally.payments[intent.key] = ids

    async def _insist(self, path: str, content: Any, intent: Intent) -> set[int]:
        """Send until there is an answer, and then once more; give the ids in all good answers."""
        send = partial(self._send, path, content, intent.key)
        round_one = (send(hang_up=intent.hang_up) for _ in range(intent.copies))
        answers = list(await asyncio.gather(*round_one))
        while not any(answer.final for answer in answers):
            await asyncio.sleep(min(answers[-1].retry_after, LONGEST_WAIT))
            answers.append(await send())
        answers.append(await send())  # As if the answer had come too late.
        return {answer.content["id"] for answer in answers if answer.succeeded}

    async def _send(self, path: str, content: Any, key: str, *, hang_up: bool = False) -> Answer:
        answer = await post(self.server.port, path, content, key, hang_up=hang_up)
        self.tally.add(answer, hang_up=hang_up)
        return answer
