"""What an ASGI server tells beside requests: that the process ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.sync import sync_to_async

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[..., Awaitable[None]]


def flush_at_shutdown(application: Application) -> Application:
    """
    Write the last statistics when the server shuts down; *application* is that of Django.

    Uvicorn and Hypercorn end without Python's exit functions, and tell so by the protocol
    "lifespan", which Django does not answer.
    """

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await application(scope, receive, send)

    return answer


async def _live(receive: Receive, send: Send) -> None:
    from .flushing import flushing  # Its models need the settings.

    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await sync_to_async(flushing.flush_at_exit, thread_sensitive=False)()
    await send({"type": "lifespan.shutdown.complete"})
