"""A clock that never goes back, and goes on while the machine sleeps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

uptime: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if sys.platform == "linux"
    else time.monotonic  # On macOS and Windows it stands still meanwhile, or nearly so.
)
"""Give the seconds since some moment in the past, the same one for all of a process."""
