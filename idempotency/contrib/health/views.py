"""The address that a load balancer or a monitor asks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from .asking import check


@login_not_required
@require_safe
def health(request: HttpRequest, *, details: bool = False, timeout: float = 2.0) -> JsonResponse:
    """
    Answer 200 if all stores and lock backends answer within *timeout* seconds, else 503.

    With *details* it tells which of them did not, and why.
    """
    answers = check(timeout=timeout)
    ok = all(answer.ok for answer in answers)
    told: dict[str, Any] = {"ok": ok}
    if details:
        told["checks"] = [asdict(answer) for answer in answers]
    return JsonResponse(told, status=200 if ok else 503, headers={"Cache-Control": "no-store"})


# With a transaction around it, Django would fail where the view is to tell of the failure.
for _alias in connections:
    transaction.non_atomic_requests(using=_alias)(health)
