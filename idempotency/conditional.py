"""Conditional requests: a change is made only on the version that the client has seen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import ObjectDoesNotExist
from django.db import DEFAULT_DB_ALIAS, models, router, transaction
from django.http import HttpRequest, HttpResponseBase

from .exceptions import PreconditionFailed, PreconditionInvalid, PreconditionRequired, StaleObject
from .http import problem_response
from .http.etags import IfMatch, format_etag, parse_if_match
from .http.placement import place_of_request
from .http.requests import SAFE
from .optimistic import VersionedModel
from .optimistic.versions import expected_version, root_key, stored_version, version_field

View = TypeVar("View", bound=Callable[..., Any])

_REFUSALS = (PreconditionFailed, PreconditionInvalid, PreconditionRequired)


def etag_for(instance: models.Model) -> str:
    """
    Give the strong ETag of the version that *instance* was read with, in its quotes.

    Raises: `TypeError` for an object that is not stored, or was read without its version.
    """
    if not isinstance(instance, VersionedModel):
        raise TypeError(f"A {type(instance).__name__} has no version: only a VersionedModel has.")
    if not _is_stored(instance):
        raise TypeError(f"This {instance._meta.label} is unsaved: only a stored row has an ETag.")
    version = expected_version(instance, version_field(type(instance)))
    return format_etag(type(instance), instance.pk, version)


def if_match(
    load: Callable[..., Any], *, required: bool = True, using: str | None = None
) -> Callable[[View], Callable[..., Any]]:
    """
    Run the view only if its row is of the version that the client names in `If-Match`.

    *load* is called like the view, and gives the row; the view gets it after the request:
    `def edit(request, order, order_id)`. Both run in one transaction, unless they are
    asynchronous. The view has to save the row, or to `touch()` it, to be safe from a change made
    meanwhile; that change is answered by 412 as well. Successful answers get the new `ETag`.

    Args:
        load: function of the request and of what the address gives, without self; also a
            coroutine function, for an asynchronous view.
        required: answer 428 if a request that is not safe has no `If-Match`.
        using: the database of the transaction; the row's, if it is another one, gets one too.

    Raises: `TypeError`, when decorating, for what cannot be protected.
    """
    if not callable(load):
        raise TypeError(f"load is a function that gives the row, not {load!r}.")

    def decorate(view: View) -> Callable[..., Any]:
        _refuse_unprotectable(view, load, using)
        if iscoroutinefunction(view):

            @wraps(view)
            async def aguarded(*args: Any, **kwargs: Any) -> Any:
                return await _Visit(load, view, required, args, kwargs).aserve()

            return aguarded

        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return _Visit(load, view, required, args, kwargs).serve(using or DEFAULT_DB_ALIAS)

        return guarded

    return decorate


def _refuse_unprotectable(view: Any, load: Any, using: str | None) -> None:
    if isinstance(view, type) or not callable(view):
        raise TypeError(f"if_match(load) decorates views, and methods of them, not {view!r}.")
    if hasattr(view, "idempotent_endpoint"):
        raise TypeError(
            "if_match stands below idempotent_view, not above it: there a retry would meet the"
            " version that its first attempt made, and get 412 in place of the first answer."
        )
    if iscoroutinefunction(view) and using is not None:
        raise TypeError("An asynchronous view runs in no transaction: leave out using.")
    if iscoroutinefunction(load) and not iscoroutinefunction(view):
        raise TypeError("A synchronous view needs a synchronous load.")


class _Visit:
    """One request to a view, for one row."""

    def __init__(
        self,
        load: Callable[..., Any],
        view: Callable[..., Any],
        required: bool,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        place = place_of_request(args, "if_match")
        self.load, self.view, self.required = load, view, required
        self.before, self.after, self.kwargs = args[: place + 1], args[place + 1 :], kwargs
        self.request: HttpRequest = args[place]
        self.condition: IfMatch | None = None
        self.instance: Any = None

    def serve(self, using: str) -> Any:
        try:
            self._read_header()
            # Answered outside of it, when nothing of a refused run remains.
            with ExitStack() as transactions:
                transactions.enter_context(transaction.atomic(using=using))
                with self._loading():
                    instance = self.load(self.request, *self.after, **self.kwargs)
                self._admit(instance)
                if _alias_of(instance) != using:
                    transactions.enter_context(transaction.atomic(using=_alias_of(instance)))
                return self._label(self._respond())
        except StaleObject as error:
            return self._answer(error)
        except _REFUSALS as error:
            return problem_response(error)

    async def aserve(self) -> Any:
        try:
            self._read_header()
            with self._loading():
                self._admit(await self._aload())
            return self._label(await self._respond())
        except StaleObject as error:
            return await sync_to_async(self._answer)(error)
        except _REFUSALS as error:
            return problem_response(error)

    async def _aload(self) -> Any:
        load = self.load if iscoroutinefunction(self.load) else sync_to_async(self.load)
        loaded = await load(self.request, *self.after, **self.kwargs)
        # A lambda around `aget()` is no coroutine function, but gives a coroutine.
        return await loaded if inspect.isawaitable(loaded) else loaded

    def _respond(self) -> Any:
        return self.view(*self.before, self.instance, *self.after, **self.kwargs)

    def _read_header(self) -> None:
        self.condition = condition_of(self.request, required=self.required)

    @contextmanager
    def _loading(self) -> Iterator[None]:
        try:
            yield
        except ObjectDoesNotExist as error:
            if self.condition is None:
                raise
            raise PreconditionFailed from error

    def _admit(self, instance: models.Model) -> None:
        etag_for(instance)  # Tells of a row without a version, whatever the condition.
        self.instance = instance
        admit(instance, self.condition)

    def _label(self, response: Any) -> Any:
        """Add the ETag of the row as the view leaves it, if the answer is about that row."""
        if inspect.iscoroutine(response):
            response.close()
            raise TypeError(
                "if_match got a coroutine from a synchronous view: decorate the asynchronous"
                " method itself, or what as_view() returns."
            )
        is_about_it = self.request.method != "DELETE" and _is_stored(self.instance)
        if is_about_it and _is_successful(response) and not response.has_header("ETag"):
            response["ETag"] = etag_for(self.instance)
        return response

    def _answer(self, error: StaleObject) -> HttpResponseBase:
        return answer_to(error, self.instance, self.condition)


def condition_of(request: HttpRequest, *, required: bool) -> IfMatch | None:
    """
    Give what `If-Match` says of *request*, or None if it says nothing.

    Raises: `PreconditionInvalid`; `PreconditionRequired` if it has to say something.
    """
    header = request.headers.get("If-Match")
    if header is not None:
        return parse_if_match(header)
    if required and request.method not in SAFE:
        raise PreconditionRequired
    return None


def admit(instance: models.Model, condition: IfMatch | None) -> None:
    """Raise `PreconditionFailed` if *instance* is not of a version that the condition names."""
    if condition is not None and not condition.matches(etag_for(instance)):
        version = expected_version(instance, version_field(type(instance)))
        raise PreconditionFailed(model=type(instance), pk=instance.pk, actual=version)


def answer_to(
    error: StaleObject, instance: models.Model | None, condition: IfMatch | None
) -> HttpResponseBase:
    """Ask the condition again of the row as it is now: someone was faster."""
    if instance is None or not _is_about(error, instance):
        response = problem_response(error)
        del response["ETag"]  # It is of a row that this address does not show.
        return response
    model: type[models.Model] = type(instance)
    current = stored_version(instance, version_field(model), _alias_of(instance))
    etag = None if current is None else format_etag(model, instance.pk, current)
    if condition is not None and not condition.matches(etag):
        return problem_response(PreconditionFailed(model=model, pk=instance.pk, actual=current))
    return problem_response(
        StaleObject(
            str(error), model=model, pk=instance.pk, expected=error.expected, actual=current
        )
    )


def _is_stored(instance: models.Model) -> bool:
    return instance.pk is not None and not instance._state.adding


def _is_successful(response: Any) -> bool:
    return isinstance(response, HttpResponseBase) and 200 <= response.status_code < 300


def _alias_of(instance: models.Model) -> str:
    return router.db_for_write(type(instance), instance=instance)


def _is_about(error: StaleObject, instance: models.Model) -> bool:
    """Whether the row that was stale is the loaded one, or its parent in another table."""
    field = version_field(type(instance))
    if error.model is type(instance):
        return bool(error.pk == instance.pk)
    is_related = isinstance(error.model, type) and issubclass(error.model, VersionedModel)
    return (
        is_related
        and version_field(error.model).model is field.model
        and bool(error.pk == root_key(instance, field))
    )
