"""A real browser for the tests and for the pictures of the docs: Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.services import NotStarted

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
PATIENCE = 10_000
"""Milliseconds for which a page may take to show what a script waits for."""


def find_browser() -> str:
    """
    Give the path of Chromium.

    Raises: `NotStarted` if there is none.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise NotStarted("Chromium is not installed")
    return found


@contextmanager
def page_of(address: str, session: str = "", **options: Any) -> Iterator[Page]:
    """Open a page of the server at *address*, logged in by the key of a *session*."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(ARGUMENTS))
        context = browser.new_context(base_url=address, **options)
        context.set_default_timeout(PATIENCE)
        if session:
            context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
        yield context.new_page()
        browser.close()


def in_thread(script: Callable[[], Any]) -> Any:
    """
    Run *script* in a thread of its own, and give what it gives.

    Playwright has a loop there, in which Django's ORM refuses to work.
    """
    came_to: list[Any] = []

    def run() -> None:
        try:
            came_to.append((script(), None))
        except BaseException as error:
            came_to.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = came_to[0]
    if error is not None:
        raise error
    return result
