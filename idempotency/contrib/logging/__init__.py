"""A line in the log for each thing that calls, locks and rows announce."""

from .formatting import JSONFormatter
from .lines import install, uninstall

__all__ = ["JSONFormatter", "install", "uninstall"]
