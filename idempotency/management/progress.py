"""A progress bar for a terminal, and nothing for a log."""

from __future__ import annotations

from django.core.management.base import OutputWrapper

WIDTH = 30


class Progress:
    """Shows how much of *total* is done, on one line that is written over."""

    def __init__(self, stream: OutputWrapper, total: int) -> None:
        self.stream = stream
        self.total = max(total, 1)
        self.is_shown = stream.isatty()

    def show(self, done: int) -> None:
        if self.is_shown:
            share = min(done / self.total, 1)
            bar = ("#" * round(share * WIDTH)).ljust(WIDTH, ".")
            self.stream.write(f"\r[{bar}] {share:4.0%} {done:,}", ending="")
            self.stream.flush()

    def end(self) -> None:
        if self.is_shown:
            self.stream.write("")
