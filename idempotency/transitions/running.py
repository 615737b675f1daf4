"""A transition from its first statement to its last, in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from typing import Any

import django_fsm
from django.db import transaction

from ..rollbacks import on_rollback
from .journal import write_log
from .memory import Snapshot, values_of
from .outcomes import TransitionOutcome, guard_failed
from .states import put_state, remember
from .steps import Step, enter, leave
from .taking import current_row, is_versioned, take
from .writing import write_changes, write_state

Body = Callable[..., Any]


def run_transition(
    step: Step, body: Body, args: Any, kwargs: Any, *, by: str, note: str
) -> TransitionOutcome:
    """
    Move the row, run *body* and log it, all in one transaction: all of it takes effect, or none.

    Raises: `TransitionConflict`, `StaleObject`; what *body* raises.
    """
    before = Snapshot.of(step.instance)
    enter(step)
    try:
        with transaction.atomic(using=step.using):
            outcome = _Run(step, body, by, note).run(args, kwargs)
            undo = partial(before.restore, step.instance, left=values_of(step.instance))
            on_rollback(undo, step.using)
    except BaseException:
        before.restore(step.instance)
        raise
    finally:
        leave(step)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class _Run:
    """The inside of the transaction."""

    def __init__(self, step: Step, body: Body, by: str, note: str) -> None:
        self.step, self.body, self.by, self.note = step, body, by, note
        self.entered = False

    def run(self, args: Any, kwargs: Any) -> TransitionOutcome | Exception:
        """Give the outcome; or, if the state for failures was written, the failure."""
        step = self.step
        taken = take(step)
        if taken.repeated:
            return TransitionOutcome(None, True, taken.source, taken.source)
        self.source = self.target = taken.source
        self._ask_guards()
        try:
            result = step.field.change_state(step.instance, self._method(), *args, **kwargs)
        except django_fsm.TransitionNotAllowed:
            if self.entered:
                raise
            raise guard_failed(step, step.instance, self.source) from None
        except Exception as error:
            if not self._has_failure_state():
                raise
            return self._fail(error)
        remember(step.instance, [step.field])
        return TransitionOutcome(result, False, self.source, self.target)

    def _ask_guards(self) -> None:
        """Ask the guards of the row as it is: without a version, an object may be older."""
        if is_versioned(self.step) or not self.step.meta.get_transition(self.source).conditions:
            return
        row = current_row(self.step)
        put_state(row, self.step.field, self.source)
        if not self.step.meta.conditions_met(row, self.source):
            raise guard_failed(self.step, row, self.source)

    def _method(self) -> Body:
        """Give the body as django-fsm calls it, with all that is written before its last signal."""

        @wraps(self.step.method)
        def method(instance: Any, *args: Any, **kwargs: Any) -> Any:
            self.entered, self.start = True, Snapshot.of(instance)
            with self._undone_on_failure():
                result = self.body(instance, *args, **kwargs)
                self.target = self._target(result, args, kwargs)
                write_changes(self.step, self.start.values, self.source, self.target)
                write_log(self.step, self.source, self.target, self.by, self.note)
            leave(self.step)
            return result

        return method

    def _undone_on_failure(self) -> AbstractContextManager[Any]:
        if self._on_error is None:
            return nullcontext()  # The whole transaction is undone.
        return transaction.atomic(using=self.step.using)

    def _target(self, result: Any, args: Any, kwargs: Any) -> Any:
        declared = self.step.meta.next_state(self.source)
        if hasattr(declared, "get_state"):
            return declared.get_state(
                self.step.instance, django_fsm.transition, result, args=args, kwargs=kwargs
            )
        return self.source if declared is None else declared

    @property
    def _on_error(self) -> Any:
        return self.step.meta.exception_state(self.source)

    def _has_failure_state(self) -> bool:
        """Whether django-fsm has set a state for failures, which can still be written."""
        state = self.step.field.get_state(self.step.instance)
        broken = transaction.get_rollback(using=self.step.using)
        return (
            self.entered and self._on_error is not None and state == self._on_error and not broken
        )

    def _fail(self, error: Exception) -> Exception:
        self.start.restore(self.step.instance)
        write_state(self.step, self._on_error)
        write_log(self.step, self.source, self._on_error, self.by, self.note)
        return error
