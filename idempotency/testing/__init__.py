"""Tools that prove an effect takes place once: crashes, interleavings and races, for real."""

from .crashes import CrashPoint, crash_points
from .interleaving import Interleaving, interleavings
from .races import Finish, race

__all__ = ["CrashPoint", "Finish", "Interleaving", "crash_points", "interleavings", "race"]
