"""Strategy 3 across requests: a form saves only over the version that the user has seen."""

from .versioned import Change, VersionedForm

__all__ = ["Change", "VersionedForm"]
