"""Views that the tests protect in every way that is offered."""

import asyncio

from django.http import HttpRequest, HttpResponse, JsonResponse

from idempotency import idempotent_view

from .models import Effect


@idempotent_view
def place(request: HttpRequest) -> HttpResponse:
    """Make one effect, named after the body."""
    effect = Effect.objects.create(name=request.body.decode("utf-8", "replace")[:200])
    return JsonResponse({"effect": effect.pk}, status=201)


@idempotent_view
async def linger(request: HttpRequest) -> HttpResponse:
    """Make one effect, and answer once there is another one, named "go"."""
    effect = await Effect.objects.acreate(name="begun")
    while not await Effect.objects.filter(name="go").aexists():
        await asyncio.sleep(0.01)
    return JsonResponse({"effect": effect.pk}, status=201)


def bare(request: HttpRequest) -> HttpResponse:
    """Do the same without protection."""
    effect = Effect.objects.create(name=request.body.decode("utf-8", "replace")[:200])
    return JsonResponse({"effect": effect.pk}, status=201)


def strict_policy(get_response):
    """Forbid whatever does not come from the same origin: inline styles and scripts as well."""

    def middleware(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return middleware
