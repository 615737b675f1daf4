"""
Take the pictures of the docs from the demo: `uv run python docs/screenshots.py`.

Needs Chromium. It runs the storms, logs in, and photographs what the admin shows of them.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from tests.browsing import page_of  # noqa: E402 - it is found by the line above.

PICTURES = DOCS / "_static" / "screenshots"
OVERVIEW = "/admin/idempotency/statistic/?window=1h"
RECORDS = "/admin/idempotency/idempotencyrecord/"
WIDTH, HEIGHT, TALL = 1_200, 900, 1_220


class Demo(NamedTuple):
    """A demo that goes on serving, and how to log in."""

    address: str
    username: str
    password: str


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with demo() as shown:
        for scheme in ("light", "dark"):
            with page_of(shown.address, color_scheme=scheme) as page:
                log_in(page, shown)
                take(page, scheme)


@contextmanager
def demo() -> Iterator[Demo]:
    """Run the demo until the end of the block."""
    command = [sys.executable, "manage.py", "demo", "--port=0"]
    process = subprocess.Popen(  # noqa: S603 - just this command.
        command, cwd=DOCS.parent, stdout=subprocess.PIPE, text=True
    )
    try:
        yield read(process)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def read(process: subprocess.Popen[str]) -> Demo:
    """Give what the demo says at its end."""
    said = ""
    assert process.stdout is not None  # noqa: S101 - as Popen was told.
    for line in process.stdout:
        said += line
        found = re.search(r"Log in as\s+(\S+)\s+with the password\s+(\S+)", line)
        address = re.search(r"Try it\s+(http://\S+?)/?\s", said)
        if found and address:
            return Demo(address[1], found[1], found[2])
    raise SystemExit(f"The demo ended: {said}")


def log_in(page: Page, shown: Demo) -> None:
    page.goto("/admin/")
    page.locator("#id_username").fill(shown.username)
    page.locator("#id_password").fill(shown.password)
    page.locator("[type=submit]").click()
    page.wait_for_url("**/admin/")


def take(page: Page, scheme: str) -> None:
    """Take a picture of each page."""
    page.set_viewport_size({"width": WIDTH, "height": TALL})
    page.goto(OVERVIEW)
    page.screenshot(path=PICTURES / f"overview-{scheme}.png")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.locator("a[href*='idempotencyrecord/'][href$='/change/']").first.click()
    page.wait_for_url("**/change/")
    page.screenshot(path=PICTURES / f"record-{scheme}.png")
    page.goto(RECORDS)
    page.screenshot(path=PICTURES / f"records-{scheme}.png")


if __name__ == "__main__":
    main()
