"""A transition from its first statement to its last, in one transaction."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import django_fsm
from django.db import connections, transaction
from django_fsm.signals import post_transition, pre_transition

from ..exceptions import StaleObject, TransitionConflict
from ..rollbacks import is_in_transaction, on_rollback
from ..signals import RowEvent, announce, announce_error
from .journal import write_log
from .memory import Snapshot, Values, values_of
from .outcomes import TransitionOutcome, guard_failed
from .states import put_state, remember, state_fields
from .steps import Step
from .taking import current_row, take
from .underway import Watch, watching
from .writing import forget_computed, write_changes, write_state, write_times

Body = Callable[..., Any]


class Run:
    """One call of a transition: all of it takes effect, or none."""

    def __init__(
        self, step: Step, body: Body, args: Any, kwargs: Any, *, by: str, note: str
    ) -> None:
        self.step, self.body, self.args, self.kwargs = step, body, args, kwargs
        self.by, self.note = by, note
        self.before = Snapshot.of(step.instance)
        self.left: Values | None = None
        self.sender = type(step.instance)  # A state may have a proxy class.

    def run(self) -> TransitionOutcome:
        """
        Move the row, run the body and log it.

        Raises: `TransitionConflict`, `StaleObject`; what the body raises.
        """
        inside = True
        try:
            with transaction.atomic(using=self.step.using):
                on_rollback(self._restore, self.step.using)
                outcome = self._take()
                inside = False
        except BaseException as error:
            if inside:  # Else it is the COMMIT that failed, or a hook after it.
                self.before.restore(self.step.instance)
            self._tell_error(error)
            raise
        self._tell(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _tell_error(self, error: BaseException) -> None:
        if isinstance(error, TransitionConflict):
            announce_error(error, RowEvent(name=self.step.label, outcome="conflict"))
        elif isinstance(error, StaleObject):
            announce_error(error, RowEvent(name=self.step.model._meta.label_lower, outcome="stale"))

    def _tell(self, outcome: TransitionOutcome | Exception) -> None:
        """Announce what came of it; a move counts once it is committed."""
        if isinstance(outcome, TransitionOutcome) and outcome.repeated:
            announce(RowEvent(name=self.step.label, outcome="repeated"))
            return
        moved = RowEvent(name=self.step.label, outcome="moved")
        if is_in_transaction(connections[self.step.using]):
            transaction.on_commit(partial(announce, moved), using=self.step.using, robust=True)
        else:
            announce(moved)

    def _restore(self) -> None:
        self.before.restore(self.step.instance, self.left)

    def _take(self) -> TransitionOutcome | Exception:
        """Give the outcome; or, if the state for failures was written, the failure."""
        taken = take(self.step)
        if taken.repeated:
            self.left = values_of(self.step.instance)
            return TransitionOutcome(None, True, taken.source, taken.source)
        self.source = taken.source
        self.declared = self.step.meta.next_state(taken.source)
        self._ask_guards()
        with watching(self.step.instance, self.step) as watch:
            self._send(pre_transition, self.declared)
            failure = None
            start = None if self._on_error is None else Snapshot.of(self.step.instance)
            written = watch.values.copy()
            try:
                with self._undone_on_failure():
                    result, target = self._act(watch)
            except _Failed as failed:
                if transaction.get_rollback(using=self.step.using):
                    raise failed.error from None  # The database has undone more than the body.
                if start is not None:
                    start.restore(self.step.instance)
                watch.values = written
                self._land(watch)
                failure = failed.error
        if failure is not None:
            self._settle(self._on_error, self._on_error, exception=failure)
            return failure
        self._settle(target, None if self.declared is None else target)
        return TransitionOutcome(result, False, self.source, target)

    def _ask_guards(self) -> None:
        """Ask the guards of the row as it is: an object may be older, or changed by its caller."""
        guards = self.step.meta.get_transition(self.source).conditions
        if not guards:
            return
        row = current_row(self.step)
        put_state(row, self.step.field, self.source)
        for guard in guards:
            answer = guard(row)
            _refuse_awaitable(answer, f"the guard {getattr(guard, '__name__', guard)}")
            if not answer:
                raise guard_failed(self.step, self.source, guard)

    def _act(self, watch: Watch) -> tuple[Any, Any]:
        """Run the body and write all of it; give its result, and the state that it leads to."""
        try:
            result = self.body(self.step.instance, *self.args, **self.kwargs)
            _refuse_awaitable(result, f"{self.step.name}()")
            target = self._target(result)
            stored = self.step.target_from(self.source)
            is_stored = target == (self.source if stored is None else stored)
            write_changes(
                self.step, watch, None if is_stored else {self.step.field.attname: target}
            )
            write_times(self.step)
            write_log(self.step, self.source, target, self.by, self.note)
        except Exception as error:
            if self._on_error is None:
                raise
            raise _Failed(error) from error
        return result, target

    def _undone_on_failure(self) -> AbstractContextManager[Any]:
        if self._on_error is None:
            return nullcontext()  # The whole transaction is undone.
        return transaction.atomic(using=self.step.using)

    @property
    def _on_error(self) -> Any:
        return self.step.meta.exception_state(self.source)

    def _target(self, result: Any) -> Any:
        if not hasattr(self.declared, "get_state"):
            return self.source if self.declared is None else self.declared
        return self.declared.get_state(
            self.step.instance,
            django_fsm.transition,
            result,
            args=self.args,
            kwargs=self.kwargs,
        )

    def _land(self, watch: Watch) -> None:
        """Move the row to the state for failures."""
        write_state(self.step, self._on_error)
        write_changes(self.step, watch)
        write_log(self.step, self.source, self._on_error, self.by, self.note)

    def _settle(self, state: Any, told: Any, **more: Any) -> None:
        """Let the object say what its row says, and tell the receivers."""
        instance = self.step.instance
        put_state(instance, self.step.field, state)
        remember(instance, state_fields(type(instance)))
        forget_computed(instance)
        self.left = values_of(instance)
        if post_transition.has_listeners(self.sender):
            with watching(instance) as watch:
                self._send(post_transition, told, **more)
                self.left |= write_changes(self.step, watch)

    def _send(self, signal: Any, target: Any, **more: Any) -> None:
        """Send a signal as django-fsm does."""
        signal.send(
            sender=self.sender,
            instance=self.step.instance,
            name=self.step.name,
            field=self.step.field,
            source=self.source,
            target=target,
            method_args=self.args,
            method_kwargs=self.kwargs,
            **more,
        )


def _refuse_awaitable(answer: Any, giver: str) -> None:
    if not inspect.isawaitable(answer):
        return
    if inspect.iscoroutine(answer):
        answer.close()
    raise TypeError(
        f"{giver} gave something to be awaited, which nobody would: only the method of a"
        " transition may be a coroutine function, if it is what is declared."
    )


class _Failed(Exception):
    """The body failed, and there is a state for that."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
