"""Claim, run, complete or release; or replay."""

import asyncio
import threading
import time

import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.db import DataError, connection, connections, transaction

from idempotency import (
    InvalidBackend,
    KeyInProgress,
    KeyInvalid,
    KeyReused,
    OutcomeUnknown,
    ReplayUnavailable,
    StaleClaim,
    StoreUnavailable,
    arun_once,
    current_claim,
    idempotent,
    run_once,
)
from idempotency.codecs import JsonCodec
from idempotency.models import IdempotencyRecord
from idempotency.policy import Policy
from idempotency.protocol import Run, make_call
from idempotency.stores import get_store
from idempotency.stores.database import DatabaseStore
from tests.conftest import (
    Gate,
    end_leases,
    end_retention,
    run_async,
    standing_at,
    wait_until,
)
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

MODES = pytest.mark.parametrize("mode", ["atomic", "lease"])
WHO = {"scope": "test", "operation": "work"}


def work() -> int:
    return Effect.objects.create(name="effect").pk


def fail() -> None:
    work()
    raise ZeroDivisionError("by nobody")


def once(function=work, key="key", **options):
    return run_once(function, **WHO, key=key, **options)


def state() -> str:
    return IdempotencyRecord.objects.get().state


@MODES
def test_second_call_replays_the_first(mode):
    first = once(mode=mode)
    second = once(mode=mode)

    assert (first.replayed, second.replayed) == (False, True)
    assert second.result == first.result
    assert Effect.objects.count() == 1


@MODES
@pytest.mark.parametrize("result", [None, 0, "", [], {"a": [1, None, "é"]}, False])
def test_every_json_result_is_replayed(mode, result):
    once(lambda: result, mode=mode)

    assert once(lambda: "another", mode=mode).result == result


@MODES
@pytest.mark.parametrize("result", [object(), {1, 2}, float("nan"), b"bytes"])
def test_result_that_is_not_json_undoes_the_work_and_says_what_to_do(mode, result):
    with pytest.raises(TypeError, match="must be JSON"):
        once(lambda: work() and result, mode=mode)

    assert Effect.objects.count() == 0
    assert once(mode=mode).replayed is False


@pytest.mark.parametrize("field", ["scope", "operation", "key"])
def test_scope_operation_and_key_together_tell_calls_apart(field):
    run_once(work, **WHO, key="key")

    outcome = run_once(work, **{**WHO, "key": "key", field: "another"})

    assert outcome.replayed is False
    assert Effect.objects.count() == 2


@MODES
def test_error_undoes_the_work_and_releases_the_key(mode):
    with pytest.raises(ZeroDivisionError):
        once(fail, mode=mode)

    assert Effect.objects.count() == 0
    assert once(mode=mode).replayed is False


@MODES
def test_error_is_replayed_if_it_is_to_be_stored(mode):
    with pytest.raises(ZeroDivisionError):
        once(fail, mode=mode, on_error="store")

    with pytest.raises(ReplayUnavailable, match="ZeroDivisionError: by nobody"):
        once(mode=mode, on_error="store")
    assert Effect.objects.count() == 0


@MODES
def test_error_leaves_the_outcome_unknown_if_it_is_to_block(mode):
    with pytest.raises(ZeroDivisionError):
        once(fail, mode=mode, on_error="block")

    with pytest.raises(OutcomeUnknown):
        once(mode=mode)
    assert Effect.objects.count() == 0
    assert state() == "unknown"


@MODES
def test_error_after_the_work_leaves_the_outcome_unknown_as_well(mode):
    with pytest.raises(TypeError, match="must be JSON"):
        once(object, mode=mode, on_error="block")

    with pytest.raises(OutcomeUnknown):
        once(mode=mode)
    assert state() == "unknown"


@MODES
def test_work_that_is_interrupted_releases_the_key(mode):
    def interrupt():
        work()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(interrupt, mode=mode, on_error="store")

    assert Effect.objects.count() == 0
    assert once(mode=mode).replayed is False


@MODES
def test_other_input_is_refused_on_every_path(mode):
    once(mode=mode, fingerprint="1:a")

    with pytest.raises(KeyReused):
        once(mode=mode, fingerprint="1:b")
    assert once(mode=mode, fingerprint="1:a").replayed
    assert once(mode=mode).replayed
    end_retention()
    assert once(mode=mode, fingerprint="1:b").replayed is False


def test_other_input_does_not_take_an_ended_lease_over():
    abandon(fingerprint="1:a")

    for mode in ("lease", "atomic"):
        with pytest.raises(KeyReused):
            once(mode=mode, fingerprint="1:b")
    assert once(mode="lease", fingerprint="1:a").replayed is False


@MODES
def test_twin_of_a_running_call_is_told_to_come_again(mode):
    if connection.vendor == "sqlite" and mode == "atomic":
        pytest.skip("SQLite lets the twin wait until the first is through")
    gate = Gate()
    with standing_at(gate, lambda: once(gate.pass_through, mode=mode)) as results:
        with pytest.raises(KeyInProgress) as caught:
            once(mode=mode)
        expected = (25, 30) if mode == "lease" else (1, 1)
        assert expected[0] <= caught.value.retry_after <= expected[1]

    assert results[0].replayed is False
    assert Effect.objects.count() == 0


@MODES
def test_twin_that_waits_gets_the_outcome(mode):
    gate = Gate()

    def open_soon():
        time.monotonic()
        gate.opened.set()

    with standing_at(gate, lambda: once(lambda: gate.pass_through() or "x", mode=mode)):
        timer = threading.Timer(0.3, open_soon)
        timer.start()
        outcome = once(mode=mode, wait=20)
        timer.join()

    assert (outcome.result, outcome.replayed) == ("x", True)


def test_twin_waits_no_longer_than_it_was_told():
    gate = Gate()
    with standing_at(gate, lambda: once(gate.pass_through, mode="lease")):
        started_at = time.monotonic()
        with pytest.raises(KeyInProgress):
            once(mode="lease", wait=0.3)
        assert 0.3 <= time.monotonic() - started_at < 2


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="no other writer while one works")
def test_run_that_outlives_its_lease_neither_completes_nor_leaves_effects():
    later = []

    def take_over():
        end_leases()
        later.append(once(lambda: "newer", mode="lease"))

    def outlive():
        work()
        in_another_thread(take_over)
        return "late"

    with pytest.raises(StaleClaim):
        once(outlive, mode="lease")

    assert later[0].replayed is False
    assert once(mode="lease").result == "newer"
    assert Effect.objects.count() == 0


def in_another_thread(function):
    def run():
        function()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def abandon(**options):
    """Leave a claim behind as a process does that dies."""
    gate = Gate()
    with standing_at(gate, lambda: once(gate.pass_through, mode="lease", **options)):
        record = IdempotencyRecord.objects.get()
    IdempotencyRecord.objects.update(state="in_progress", expires_at=None, token=record.token)
    end_leases()


def test_ended_lease_is_taken_over_once():
    abandon()

    assert once(mode="lease").replayed is False
    assert once(mode="lease").replayed is True


INTERRUPTIONS = [SystemExit, KeyboardInterrupt, asyncio.CancelledError]
"""What ends work half-way: the first is what gunicorn raises after its time-out."""


@pytest.mark.parametrize("on_error", ["release", "store", "block"])
@pytest.mark.parametrize("kind", INTERRUPTIONS)
@pytest.mark.parametrize("is_async", [False, True])
def test_interruption_is_a_crash_that_blocks_if_crashes_are_to(kind, on_error, is_async):
    calls = []

    def work():
        calls.append(1)
        raise kind

    async def awork():
        work()

    def run(**options):
        if is_async:
            return run_async(arun_once(awork, **WHO, key="key", **options))
        return once(work, **options)

    for expected in (kind, OutcomeUnknown, OutcomeUnknown):
        with pytest.raises(expected):
            run(mode="lease", on_crash="block", on_error=on_error)

    assert calls == [1]
    assert state() == "unknown"


def test_interruption_before_the_work_blocks_nothing():
    call = make_call(*WHO.values(), "key", None)
    run = Run(call, Policy(mode="lease", on_crash="block"), JsonCodec())

    def work():
        with run.before_effects():
            raise SystemExit

    with pytest.raises(SystemExit):
        run.execute(work)

    assert state() == "released"


def test_interruption_without_a_lease_blocks_nothing():
    def work():
        raise SystemExit

    with pytest.raises(SystemExit):
        once(work, mode="atomic", on_crash="block", on_error="store")

    assert state() == "released"


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_interruption_frees_the_key_if_crashes_are_to_be_retried(kind):
    def work():
        raise kind

    with pytest.raises(kind):
        once(work, mode="lease")

    assert state() == "released"
    assert not once(mode="lease").replayed


@MODES
def test_ended_lease_makes_the_outcome_unknown_if_crashes_are_to_block(mode):
    abandon()

    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            once(mode=mode, on_crash="block")

    assert state() == "unknown"
    assert Effect.objects.count() == 0
    with pytest.raises(OutcomeUnknown):
        once(mode=mode)


@MODES
def test_store_that_is_away_refuses_and_runs_nothing(mode, store_away):
    store_away()

    with pytest.raises(StoreUnavailable):
        once(mode=mode)

    assert Effect.objects.count() == 0


@MODES
@pytest.mark.parametrize("on_store_error", ["refuse", "run"])
def test_store_that_is_not_migrated_tells_so_and_runs_nothing(mode, on_store_error, not_migrated):
    with pytest.raises(InvalidBackend, match="migrate idempotency --database default"):
        once(mode=mode, on_store_error=on_store_error)

    assert Effect.objects.count() == 0


def test_store_that_is_not_migrated_tells_so_to_coroutines(not_migrated):
    async def handle():
        return "ran"

    with pytest.raises(InvalidBackend, match="has no table"):
        async_to_sync(arun_once)(handle, **WHO, key="key")


def test_store_that_is_not_migrated_tells_so_within_a_transaction(not_migrated):
    with pytest.raises(InvalidBackend, match="has no table"), transaction.atomic():
        once(mode="atomic")

    assert Effect.objects.count() == 0


@MODES
def test_table_that_goes_while_the_work_runs_is_an_outage(mode, settings, monkeypatch):
    settings.IDEMPOTENCY_STORES = {"default": {}}

    def during():
        work()
        monkeypatch.setitem(IdempotencyRecord._meta.__dict__, "db_table", "no_such_table")
        get_store()._dialects.clear()

    with pytest.raises(StoreUnavailable):
        once(during, mode=mode)

    assert Effect.objects.count() == 0


@MODES
def test_store_that_is_away_runs_unprotected_if_told(mode, store_away, caplog):
    store_away()

    outcomes = [once(mode=mode, on_store_error="run") for _ in range(2)]

    assert [outcome.replayed for outcome in outcomes] == [False, False]
    assert Effect.objects.count() == 2
    assert caplog.messages == ["work runs unprotected."] * 2


@MODES
@pytest.mark.parametrize("error", [KeyInProgress, StoreUnavailable])
def test_errors_of_ours_that_the_work_raises_are_not_taken_for_the_claims(mode, error):
    calls = []

    def raising():
        calls.append(1)
        raise error(retry_after=1)

    with pytest.raises(error):
        once(raising, mode=mode, wait=0.5, on_store_error="run")

    assert len(calls) == 1


def test_call_within_a_transaction_takes_effect_with_it():
    with transaction.atomic():
        assert once().replayed is False
        assert once().replayed is True
        transaction.set_rollback(True)
    assert Effect.objects.count() == 0

    with transaction.atomic():
        assert once().replayed is False
    assert once().replayed is True


def test_error_within_a_transaction_undoes_only_the_call():
    with transaction.atomic():
        Effect.objects.create(name="before")
        with pytest.raises(ZeroDivisionError):
            once(fail)
        once(lambda: "again")

    assert [effect.name for effect in Effect.objects.all()] == ["before"]
    assert once().result == "again"


def test_call_within_itself_is_told_that_it_runs():
    def nested():
        with pytest.raises(KeyInProgress):
            once()
        return "outer"

    assert once(nested).result == "outer"
    assert Effect.objects.count() == 0


@MODES
def test_work_that_swallows_a_database_error_is_told_what_to_do(mode):
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL ends a transaction at its first error")

    def swallow():
        work()
        with pytest.raises(DataError):
            connection.cursor().execute("SELECT 1/0")

    with pytest.raises(transaction.TransactionManagementError, match="after a database error"):
        once(swallow, mode=mode)

    assert Effect.objects.count() == 0


@MODES
def test_work_that_asks_for_a_rollback_gets_it_and_releases_the_key(mode):
    def undo():
        work()
        transaction.set_rollback(True)
        return "undone"

    assert once(undo, mode=mode).result == "undone"

    assert Effect.objects.count() == 0
    assert once(mode=mode).replayed is False


@MODES
def test_hook_that_fails_after_the_commit_leaves_the_outcome(mode):
    def hooked():
        transaction.on_commit(lambda: 1 / 0)
        return work()

    with pytest.raises(ZeroDivisionError):
        once(hooked, mode=mode)

    assert Effect.objects.count() == 1
    assert once(mode=mode).replayed is True


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"scope": ""}, ValueError),
        ({"scope": "s" * 256}, ValueError),
        ({"operation": "a\x00b"}, ValueError),
        ({"key": ""}, KeyInvalid),
        ({"key": "k" * 256}, KeyInvalid),
        ({"key": "a\nb"}, KeyInvalid),
        ({"key": 7}, TypeError),
        ({"mode": "both"}, ValueError),
        ({"wait": -1}, ValueError),
        ({"lease": 0}, ValueError),
        ({"retention": "1d"}, ValueError),
        ({"on_error": "ignore"}, ValueError),
        ({"no_such": 1}, TypeError),
    ],
)
def test_call_that_makes_no_sense_is_refused_before_anything_runs(options, error):
    with pytest.raises(error):
        run_once(work, **{**WHO, "key": "key", **options})

    assert Effect.objects.count() == 0


def test_claim_is_known_to_the_work_alone():
    seen = []

    def look():
        claim = current_claim()
        seen.append((claim.key, claim.token, claim.attempt, claim.lost, claim.child_key("charge")))
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            once(look, mode="lease")

    assert current_claim() is None
    (key, token, attempt, lost, child), (_, later, second, _, same) = seen
    assert (key, attempt, second, lost) == ("key", 1, 2, False)
    assert later > token
    assert child == same
    assert len(child) == 36


class TestDecorator:
    def test_function_takes_effect_once_for_each_key(self):
        @idempotent(key=lambda number, **_: f"order:{number}")
        def handle(number, *, note=""):
            return [number, Effect.objects.create(name=note).pk]

        first, second = handle(7, note="a"), handle(7, note="b")

        assert first == second
        assert handle(8)[0] == 8
        assert Effect.objects.count() == 2
        assert handle.__name__ == "handle"

    def test_other_input_with_the_same_key_is_refused_if_compared(self):
        @idempotent(
            key=lambda number, amount: f"{number}", fingerprint=lambda number, amount: amount
        )
        def charge(number, amount):
            return amount

        charge(1, 10)

        assert charge(1, 10) == 10
        with pytest.raises(KeyReused):
            charge(1, 11)

    def test_scope_may_come_from_the_arguments(self):
        @idempotent(key=lambda tenant: "key", scope=lambda tenant: tenant)
        def handle(tenant):
            return tenant

        assert (handle("a"), handle("b")) == ("a", "b")

    @pytest.mark.parametrize("wrong", [None, 7])
    def test_key_that_is_no_string_is_an_error_at_the_call(self, wrong):
        @idempotent(key=lambda: wrong)
        def handle():
            return work()

        with pytest.raises(TypeError):
            handle()
        assert Effect.objects.count() == 0

    def test_what_cannot_be_protected_is_refused_when_decorating(self):
        def generate():
            yield 1

        with pytest.raises(TypeError, match="generator"):
            idempotent(key=str)(generate)
        with pytest.raises(TypeError, match="functions"):
            idempotent(key=str)(dict)
        with pytest.raises(TypeError, match="key is a function"):
            idempotent(key="order:{number}")
        with pytest.raises(ValueError, match="mode"):
            idempotent(key=str, mode="both")

        async def coroutine():
            return 1

        with pytest.raises(TypeError, match="synchronous"):
            idempotent(key=str, mode="atomic")(coroutine)


class TestAsync:
    def test_second_call_replays_the_first(self):
        @idempotent(key=lambda: "key")
        async def handle():
            return (await Effect.objects.acreate(name="a")).pk

        async def twice():
            return await handle(), await handle()

        first, second = async_to_sync(twice)()

        assert first == second
        assert Effect.objects.count() == 1

    def test_twins_in_one_loop_exclude_each_other(self):
        calls = []

        async def slow():
            calls.append(1)
            await started.wait()
            return "x"

        async def race():
            nonlocal started
            started = asyncio.Event()
            first = asyncio.create_task(arun_once(slow, **WHO, key="key"))
            while not calls:
                await asyncio.sleep(0)
            with pytest.raises(KeyInProgress):
                await arun_once(slow, **WHO, key="key")
            waiting = asyncio.create_task(arun_once(slow, **WHO, key="key", wait=10))
            await asyncio.sleep(0)
            started.set()
            return await first, await waiting

        started = None
        first, second = async_to_sync(race)()

        assert (first.replayed, second.replayed, len(calls)) == (False, True, 1)

    def test_error_releases_the_key(self):
        async def failing():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            async_to_sync(arun_once)(failing, **WHO, key="key")

        assert state() == "released"

    def test_caller_that_leaves_does_not_stop_the_work_half_way(self):
        async def leave():
            reached, go_on = asyncio.Event(), asyncio.Event()

            async def two_steps():
                await Effect.objects.acreate(name="first")
                reached.set()
                await go_on.wait()
                await Effect.objects.acreate(name="second")
                return "done"

            task = asyncio.create_task(arun_once(two_steps, **WHO, key="key"))
            await reached.wait()
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task

        async_to_sync(leave)()

        assert Effect.objects.count() == 2
        assert once().result == "done"

    @pytest.mark.parametrize(("waits_for", "left"), [("claim", "released"), ("end", "completed")])
    def test_end_of_the_loop_leaves_neither_a_claim_nor_an_untold_end(self, waits_for, left):
        executor = SyncToAsync.single_thread_executor
        is_busy, may_end = threading.Event(), threading.Event()

        def be_busy():
            is_busy.set()
            if waits_for == "claim":  # Which another thread makes: then this one may write its end.
                wait_until(IdempotencyRecord.objects.exists)
            else:
                may_end.wait(60)

        async def keep_the_thread_busy():
            task = asyncio.create_task(sync_to_async(be_busy)())
            while not is_busy.is_set():
                await asyncio.sleep(0)
            return task

        async def wait_in_the_work():
            if waits_for == "end":
                return await keep_the_thread_busy() and "done"
            await asyncio.sleep(60)

        async def leave():
            if waits_for == "claim":
                busy = await keep_the_thread_busy()
            task = asyncio.create_task(arun_once(wait_in_the_work, **WHO, key="key"))
            while not (is_busy.is_set() and executor._work_queue.qsize()):
                await asyncio.sleep(0)
            return task, waits_for == "claim" and busy

        try:
            asyncio.run(leave())
            assert state() == left
        finally:
            may_end.set()
            run_async(asyncio.sleep(0))

    def test_run_that_outlives_its_lease_cannot_complete(self):
        async def outlive():
            await sync_to_async(end_leases)()
            await arun_once(newer, **WHO, key="key")
            return "late"

        async def newer():
            return "newer"

        with pytest.raises(StaleClaim):
            async_to_sync(arun_once)(outlive, **WHO, key="key")

        assert once().result == "newer"

    def test_atomic_mode_is_refused(self):
        async def handle():
            return 1

        with pytest.raises(TypeError, match="synchronous"):
            async_to_sync(arun_once)(handle, **WHO, key="key", mode="atomic")

    def test_result_outlives_a_store_that_dies_meanwhile(self, monkeypatch, caplog):
        async def during():
            monkeypatch.setattr(DatabaseStore, "_write", refuse)
            return (await Effect.objects.acreate(name="a")).pk

        def refuse(*args):
            raise StoreUnavailable

        outcome = async_to_sync(arun_once)(during, **WHO, key="key")

        assert outcome.result == Effect.objects.get().pk
        assert "could not be settled" in caplog.text
        assert state() == "in_progress"

    def test_store_that_is_away_runs_unprotected_if_told(self, store_away):
        async def handle():
            return "ran"

        store_away()

        outcome = async_to_sync(arun_once)(handle, **WHO, key="key", on_store_error="run")

        assert (outcome.result, outcome.replayed) == ("ran", False)

    def test_failure_after_the_caller_has_left_is_logged(self, caplog):
        async def leave():
            reached, go_on = asyncio.Event(), asyncio.Event()

            async def failing():
                reached.set()
                await go_on.wait()
                raise ZeroDivisionError

            task = asyncio.create_task(arun_once(failing, **WHO, key="key"))
            await reached.wait()
            task.cancel()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task

        async_to_sync(leave)()

        assert caplog.messages == ["A call failed after its caller had left."]
        assert state() == "released"

    def test_run_that_lost_its_claim_and_then_failed_raises_its_own_error(self, caplog):
        async def failing():
            await sync_to_async(IdempotencyRecord.objects.update)(token=1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            async_to_sync(arun_once)(failing, **WHO, key="key")

        assert caplog.messages == ["work lost its claim, and then failed."]
