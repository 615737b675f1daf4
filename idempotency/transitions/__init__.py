"""The state machine: a transition takes effect once, decided by the row before its body runs."""

from ..models import TransitionLog
from .chart import state_chart
from .declaring import transition
from .journal import log_of
from .outcomes import TransitionOutcome
from .rows import TransitionsMixin

__all__ = [
    "TransitionLog",
    "TransitionOutcome",
    "TransitionsMixin",
    "log_of",
    "state_chart",
    "transition",
]
