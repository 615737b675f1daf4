"""Connections that break at the worst moment: nobody is told wrong, nothing runs twice."""

from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection, transaction

from idempotency import StoreUnavailable, run_once
from idempotency.models import IdempotencyRecord
from tests.models import Effect

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a file has no connection to lose"),
]

MODES = pytest.mark.parametrize("mode", ["atomic", "lease"])


def place(mode, **options):
    return run_once(
        lambda: Effect.objects.create(name="e").pk,
        scope="s",
        operation="o",
        key="key",
        mode=mode,
        **options,
    )


def hang_up():
    """Let the server end the connection: the driver learns of it at the next use."""
    killer = connection.copy()
    with killer.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"KILL CONNECTION {connection.connection.thread_id()}")
        else:
            pid = connection.connection.info.backend_pid
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    killer.close()


@contextmanager
def unconfirmed_commit(*, committed):
    """Let the first COMMIT get through, or not, and its confirmation get lost."""

    def commit():
        del connection.commit
        if committed:
            connection.commit()
        hang_up()
        raise OperationalError("server closed the connection unexpectedly")

    connection.commit = commit
    yield


@contextmanager
def unconfirmed_statement(word, *, executed):
    """Let the first statement with *word* be executed, or not, and its result get lost."""
    hung_up = []

    def wrapper(execute, sql, params, many, context):
        if word not in sql or hung_up:
            return execute(sql, params, many, context)
        hung_up.append(sql)
        if executed:
            execute(sql, params, many, context)
        hang_up()
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(wrapper):
        yield
    assert hung_up


@MODES
def test_commit_that_went_through_unconfirmed_is_recognised(mode):
    with unconfirmed_commit(committed=True):
        outcome = place(mode)

    assert (outcome.replayed, outcome.result) == (False, Effect.objects.get().pk)
    assert place(mode).replayed is True


@MODES
def test_commit_that_did_not_go_through_is_a_clear_error_and_may_be_retried(mode):
    with unconfirmed_commit(committed=False), pytest.raises(StoreUnavailable):
        place(mode)
    assert not Effect.objects.exists()

    assert place(mode).replayed is False
    assert Effect.objects.count() == 1


@MODES
@pytest.mark.parametrize("executed", [True, False])
def test_claim_that_is_lost_on_its_way_is_never_in_the_way_of_itself(mode, executed):
    with unconfirmed_statement("'in_progress'", executed=executed):
        outcome = place(mode)

    assert outcome.replayed is False
    assert Effect.objects.count() == 1
    assert IdempotencyRecord.objects.get().attempts == 1


@MODES
def test_connection_that_went_stale_between_requests_is_renewed(mode):
    connection.ensure_connection()
    hang_up()

    assert place(mode).replayed is False
    assert Effect.objects.count() == 1


@MODES
@pytest.mark.parametrize("executed", [True, False])
def test_completion_that_is_lost_with_its_connection_undoes_everything(mode, executed):
    with (
        unconfirmed_statement("completed_at", executed=executed),
        pytest.raises(StoreUnavailable),
    ):
        place(mode)

    assert not Effect.objects.exists()
    assert place(mode).replayed is False
    assert Effect.objects.count() == 1


def test_claim_in_a_transaction_of_the_caller_is_never_tried_again_in_a_new_one():
    def nested():
        with transaction.atomic():
            Effect.objects.create(name="before")
            place("atomic")

    with unconfirmed_statement("'in_progress'", executed=False), pytest.raises(StoreUnavailable):
        nested()

    assert not Effect.objects.exists()
