"""What the claim protocol looks like over HTTP: requests, responses, problems."""

from .endpoint import Endpoint
from .marks import Idempotency
from .problems import problem_response

__all__ = ["Endpoint", "Idempotency", "problem_response"]
