"""Fencing at the row: a write with an older token than the row has seen touches nothing."""

from .guards import Guard, guard
from .rows import FencedModel
from .tokens import Held

__all__ = ["FencedModel", "Guard", "Held", "guard"]
