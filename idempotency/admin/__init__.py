"""The admin: forms that lose no change, buttons for transitions, and the log of them."""

from typing import TYPE_CHECKING, Any

from . import log, overview, records
from .versions import VersionedAdmin

if TYPE_CHECKING:
    from .transitions import TransitionsAdmin

__all__ = ["TransitionsAdmin", "VersionedAdmin", "log", "overview", "records"]


def __getattr__(name: str) -> Any:
    if name != "TransitionsAdmin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # It needs django-fsm, which is not installed everywhere.
    from .transitions import TransitionsAdmin

    return TransitionsAdmin
